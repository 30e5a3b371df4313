"""Environments with other versions of the frameworks than the newest, made once and kept.

They are in ``.cache/matrix/`` of the repository, one per set of versions and of the interpreter, and hold
the frameworks and what headrace itself needs; headrace comes from the source. The newest versions are those
of the environment that runs the tests.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache" / "matrix"
INSTALL_LIMIT_S = 300.0

NEWEST = "newest"
MATRIX = {
    # The last with routes that include_router copies, on the first Starlette whose scope has no route.
    "fastapi-0.136": ("fastapi==0.136.*", "starlette==1.0.*"),
    # Without native telemetry, on the first Starlette whose scope has the route.
    "fastapi-0.141": ("fastapi==0.141.*", "starlette==1.8.*"),
    "django-5.2": ("django==5.2.*",),
}
"""Name -> what pip installs."""


class InstallFailed(Exception):
    """The environment could not be made; the text says why."""


@cache
def start_installs() -> dict[str, Future[str]]:
    """Make every environment that is not there yet, side by side; returns name -> path of its interpreter."""
    pool = ThreadPoolExecutor(len(MATRIX))
    futures = {
        name: pool.submit(_make, name, packages)
        for name, packages in MATRIX.items()
        if not is_newest_here(name)
    }
    pool.shutdown(wait=False)
    return futures


def python_of(name: str) -> str:
    """Give the interpreter of an environment, when it is there.

    Raises:
        InstallFailed: pip failed, for want of a network perhaps.
    """
    return sys.executable if name == NEWEST else start_installs()[name].result(INSTALL_LIMIT_S)


def is_newest_here(name: str) -> bool:
    """Whether these versions are what the environment that runs the tests has."""
    pairs = [requirement.split("==") for requirement in MATRIX.get(name, ("pip==none",))]
    return all(
        importlib.metadata.version(package).startswith(version.rstrip("*")) for package, version in pairs
    )


def _make(name: str, packages: tuple[str, ...]) -> str:
    wanted = [*packages, *_own_dependencies()]
    version = ".".join(map(str, sys.version_info[:2]))
    folder = FOLDER / f"{name}-{version}-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:8]}"
    scripts, suffix = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
    python = folder / scripts / f"python{suffix}"
    complete = folder / "complete"
    if not complete.exists():
        # What an installation that was cut off has left.
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        _run(sys.executable, "-m", "pip", "--python", str(python), "install", *wanted)
        complete.touch()
    return str(python)


def _own_dependencies() -> list[str]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        dependencies: list[str] = tomllib.load(file)["project"]["dependencies"]
    return dependencies


def _run(*command: str) -> None:
    variables = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_RETRIES": "1", "PIP_NO_INPUT": "1"}
    try:
        subprocess.run(
            command, env=variables, check=True, capture_output=True, text=True, timeout=INSTALL_LIMIT_S
        )
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout or "no word").strip().splitlines()
        raise InstallFailed(lines[-1]) from None
    except subprocess.TimeoutExpired:
        raise InstallFailed(f"{command[0]} takes longer than {INSTALL_LIMIT_S} s") from None
