"""Several workers on one port, under each strategy of sharing connections.

``shared`` and ``balanced`` are ``headrace run --workers N --accept ...``. ``reuseport`` is what headrace does
not offer: as many processes with a listener each on the same port (SO_REUSEPORT), among which the kernel
hashes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import read_process_stats, session_cpu_s
from benchmarks.servers import ROOT, START_LIMIT_S, ServerFailed

STRATEGIES = ("shared", "reuseport", "balanced")
BACKLOG = 2048
STOP_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """Workers that answer; made by ``running_group``."""

    port: int
    count: int
    processes: list[subprocess.Popen[bytes]]

    def cpu_s(self) -> float:
        """CPU seconds used so far by all of them, and by their supervisor."""
        stats = list(read_process_stats())
        return sum(session_cpu_s(stats, process.pid) for process in self.processes)


@contextmanager
def running_group(strategy: str, loop: str, count: int) -> Iterator[WorkerGroup]:
    """Starts ``count`` workers and stops them at the end.

    Raises:
        ServerFailed: they did not start.
    """
    number = count if strategy == "reuseport" else 1
    listeners = _listen(number, is_shared=strategy != "reuseport")
    arguments = () if strategy == "reuseport" else ("--workers", str(count), "--accept", strategy)
    processes = []
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        logs = [Path(folder) / f"log-{index}" for index in range(number)]
        try:
            for listener, log in zip(listeners, logs, strict=True):
                processes.append(_start(listener, log, "--loop", loop, *arguments))
            ready = "Uvicorn running on" if strategy == "reuseport" else "is ready."
            _wait_lines(logs, ready, count)
            yield WorkerGroup(listeners[0].getsockname()[1], count, processes)
        finally:
            for listener in listeners:
                listener.close()
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _listen(number: int, *, is_shared: bool) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    for _ in range(number):
        listener = socket.socket()
        if not is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", listeners[0].getsockname()[1] if listeners else 0))
        listener.listen(BACKLOG)
        listeners.append(listener)
    return listeners


def _start(listener: socket.socket, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    fd = listener.fileno()
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR", "PATH") if name in os.environ}
    paths = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    with log.open("wb") as output:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "headrace", "run", "benchmarks.spread_application:which"),
                *("--fd", str(fd), "--lifespan", "off", "--no-access-log", "--timeout-keep-alive", "600"),
                *("--no-use-colors", *arguments),
            ],
            cwd=log.parent,
            env=kept | {"PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[fd],
            start_new_session=True,
        )


def _wait_lines(logs: list[Path], text: str, count: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        written = "".join(log.read_text(errors="replace") for log in logs)
        if written.count(text) >= count:
            return
        if "Error: " in written:
            break
        time.sleep(0.05)
    raise ServerFailed(f"did not start: {written.strip()[-120:]}")
