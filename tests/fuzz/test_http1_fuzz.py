"""A short run of the fuzz harness, in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("http1.py")


def run(directory: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(HARNESS), *options],
        cwd=directory,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_random_mutation(tmp_path: Path) -> None:
    assert run(tmp_path, "--random", "--runs", "4000", "--seconds", "60") == "4000 random runs\n"


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris, which guides the fuzzing, is not installed"
)
def test_guided_by_atheris(tmp_path: Path) -> None:
    run(tmp_path, "--runs", "20000", "--seconds", "10")
    assert not list(tmp_path.glob("crash-*"))
