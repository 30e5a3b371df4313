"""A supervisor with workers in processes of their own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from live import eventually
from supervised import APP, Supervised, is_alive


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Give a function that writes ``app.py`` and runs ``headrace run app:app`` with workers."""
    processes: list[Supervised] = []

    def start(*arguments: str, source: str = APP, workers: int = 2, **more: Any) -> Supervised:
        if source:
            (tmp_path / "app.py").write_text(source)
        if not any(argument in ("--port", "--bind", "--uds", "--fd") for argument in arguments):
            arguments = ("--port", "0", *arguments)
        more.setdefault("env", {})["XDG_RUNTIME_DIR"] = str(tmp_path)
        process = Supervised(tmp_path, "app:app", "--workers", str(workers), *arguments, **more)
        processes.append(process)
        return process

    yield start
    for process in processes:
        workers = process.workers()
        if process.process.poll() is None:
            process.signal(signal.SIGQUIT)
            process.signal(signal.SIGQUIT)
        process.close()
        for pid in workers:
            eventually(lambda pid=pid: not is_alive(pid), f"the end of worker {pid}")
