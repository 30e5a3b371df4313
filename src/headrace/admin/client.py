"""The control surface from the other side: a client that waits, for the command line."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.admin.runtime_folder import is_answered, live_sockets
from headrace.errors import ControlRefused

ANSWER_TIMEOUT_S = 10.0
"""For what is answered at once, however busy the workers are."""

_WHY_NOT = "; servers of other users, or with --admin off, have none here."

LOOK_AGAIN_S = 0.05
"""Time between two looks at a server that is to end."""

LAST_STEPS_S = 10.0
"""What a process may take to end once its control socket is closed, which is the last that it does."""


class AdminClient:
    """Asks one running server; a connection for each request.

    Args:
        pid: of the server.
        path: of its control socket.

    Every method raises ``ControlRefused`` with one sentence: the server's own when it refuses, else why it
    cannot be asked.
    """

    def __init__(self, pid: int, path: Path) -> None:
        self.pid = pid
        self._path = path

    def get(self, target: str) -> dict[str, Any]:
        """Ask for something."""
        return self._ask("GET", target, ANSWER_TIMEOUT_S)

    def post(self, target: str) -> dict[str, Any]:
        """Have something done; waits until it is."""
        return self._ask("POST", target, None)

    def stop(self, *, waits: bool) -> None:
        """Tell it to stop, and wait until its process has ended if ``waits``."""
        with _watch_process(self.pid) as process:
            self.post("/api/stop")
            if waits:
                self._wait_gone(process)

    def _wait_gone(self, process: int | None) -> None:
        while is_answered(self._path):
            time.sleep(LOOK_AGAIN_S)
        if process is not None:
            watch = select.poll()
            watch.register(process, select.POLLIN)
            watch.poll(LAST_STEPS_S * 1000)

    def _ask(self, method: str, target: str, timeout_s: float | None) -> dict[str, Any]:
        connection = _UnixConnection(self._path, timeout_s)
        try:
            connection.request(method, target)
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status >= 400:
                raise ControlRefused(str(answer["error"]))
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            raise ControlRefused(
                f"Process {self.pid} does not answer as a server does ({reason})."
            ) from error
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise ControlRefused(f"Process {self.pid} does not answer as a server does (no object).")
        return answer


def find_server(pid: int | None) -> AdminClient:
    """The running server of this process id, or the only one that runs.

    Raises:
        ControlRefused: there is none, or more than one; one sentence.
    """
    found = live_sockets()
    if pid is not None:
        if pid not in found:
            raise ControlRefused(f"Process {pid} has no control socket{_WHY_NOT}")
        return AdminClient(pid, found[pid])
    if not found:
        raise ControlRefused(f"No control socket of a running server was found{_WHY_NOT}")
    if len(found) > 1:
        raise ControlRefused(
            f"More than one server is running; say which: {', '.join(map(str, sorted(found)))}."
        )
    return AdminClient(*next(iter(found.items())))


@contextlib.contextmanager
def _watch_process(pid: int) -> Iterator[int | None]:
    """Hold a descriptor that is readable when the process has ended; None where there is no such thing."""
    try:
        process = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield process
    finally:
        os.close(process)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
