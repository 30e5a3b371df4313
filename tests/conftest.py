"""Fixtures for tests that need a server: ``serve`` in a thread, ``spawn`` in a process of its own."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from live import LiveServer, Records, ServerProcess


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_name(request: pytest.FixtureRequest) -> str:
    """Every test that serves in this process runs once under each loop."""
    return str(request.param)


@pytest.fixture
def serve(loop_name: str) -> Iterator[Callable[..., LiveServer]]:
    """Give a function that serves an application; stops them all, and fails on a leaked task."""
    servers: list[LiveServer] = []

    def start(application: Any, **options: Any) -> LiveServer:
        server = LiveServer(application, loop_name, **options)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Give a function that writes ``app.py`` and runs ``headrace run app:app`` on a free port."""
    processes: list[ServerProcess] = []

    def start(source: str, *arguments: str, **more: Any) -> ServerProcess:
        (tmp_path / "app.py").write_text(textwrap.dedent(source))
        if not any(argument in ("--port", "--bind", "--uds", "--fd") for argument in arguments):
            arguments = ("--port", "0", *arguments)
        process = ServerProcess(tmp_path, "app:app", *arguments, **more)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.close()


@pytest.fixture
def error_log() -> Iterator[Records]:
    """What ``uvicorn.error`` is told."""
    yield from _listen("uvicorn.error")


@pytest.fixture
def access_records() -> Iterator[Records]:
    """What ``uvicorn.access`` is told; without this fixture nobody asks for access lines."""
    yield from _listen("uvicorn.access")


def _listen(name: str) -> Iterator[Records]:
    logger = logging.getLogger(name)
    level = logger.level
    handler = Records()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)
