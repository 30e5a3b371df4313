"""The rows of the tables: how each server is started, and a server that runs.

Every peer gets one worker, no access log, its fast event loop, and limits wide enough for the workloads: an
idle connection may stay ten minutes, a body may have 256 MiB, a connection any number of requests, and a
WebSocket is not pinged while it is measured.
"""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import Memory, Moment, read_moment, read_session_memory, read_session_pids

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT_S = 30.0
STOP_LIMIT_S = 2.0
START_ATTEMPTS = 3
KILL_ATTEMPTS = 10

Command = Callable[[str, int], list[str]]
"""(application as module:attribute, port) to the arguments after the interpreter's folder of programs."""


@dataclass(frozen=True, slots=True)
class Server:
    """One row.

    Attributes:
        name: as on the command line and in the tables.
        distribution: the name under which its version is asked for; empty for the floor.
        command: its program, looked up in the environment, and arguments.
        http2: the further arguments with which it takes cleartext HTTP/2, beside HTTP/1.1 on the same port.
    """

    name: str
    distribution: str
    command: Command
    http2: tuple[str, ...] = ()

    def over_http2(self) -> Server:
        """The same row, started so that it takes HTTP/2, too."""
        return replace(
            self, command=lambda application, port: [*self.command(application, port), *self.http2]
        )


class ServerFailed(Exception):
    """The server did not start or ended too early; the message is its own last line, for the table."""


def _headrace(application: str, port: int) -> list[str]:
    return [
        *("python", "-m", "headrace", "run", application, "--port", str(port)),
        *("--no-access-log", "--timeout-keep-alive", "600"),
    ]


def _uvicorn(application: str, port: int) -> list[str]:
    return [
        *("python", "-m", "uvicorn", application, "--host", "127.0.0.1", "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--timeout-keep-alive", "600"),
        *("--ws", "websockets-sansio", "--ws-ping-interval", "600"),
    ]


def _hypercorn(application: str, port: int) -> list[str]:
    return [
        *("python", "-m", "hypercorn", application, "--bind", f"127.0.0.1:{port}"),
        *("--worker-class", "uvloop", "--workers", "1", "--keep-alive", "600"),
        *("--config", "python:benchmarks.hypercorn_options"),
    ]


def _daphne(application: str, port: int) -> list[str]:
    return [
        *("python", "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "-v", "0"),
        *("--ping-interval", "600", application),
    ]


def _gunicorn(application: str, port: int) -> list[str]:
    return [
        *("python", "-m", "gunicorn", application, "--bind", f"127.0.0.1:{port}", "--worker-class", "asgi"),
        *("--asgi-loop", "uvloop", "--workers", "1", "--worker-connections", "10000"),
        *("--keep-alive", "600", "--no-control-socket"),
    ]


def _granian(application: str, port: int) -> list[str]:
    # Its --backpressure counts connections, and 60 s is the longest its idle connections may stay.
    return [
        *("python", "-m", "granian", application, "--host", "127.0.0.1", "--port", str(port)),
        *("--interface", "asgi", "--loop", "uvloop", "--workers", "1", "--no-access-log"),
        *("--backpressure", "10000", "--http1-header-read-timeout", "60000"),
    ]


def _h2corn(application: str, port: int) -> list[str]:
    return [
        *("h2corn", application, "--bind", f"127.0.0.1:{port}", "--workers", "1", "--loop", "uvloop"),
        *("--no-access-log", "--timeout-keep-alive", "600", "--timeout-request-header", "600"),
        *("--websocket-ping-interval", "0"),
    ]


def _m0serve(application: str, port: int) -> list[str]:
    return [
        *("m0serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--protocol", "asgi"),
        *("--max-body", "1g", "--max-keepalive-requests", "0", "--idle-timeout", "600", application),
    ]


def _floor(kind: str, port: int) -> list[str]:
    return ["python", "-m", "benchmarks.floor", kind, "--port", str(port)]


FLOOR = Server("floor", "", _floor)
SERVERS = {
    server.name: server
    for server in (
        FLOOR,
        Server("headrace", "headrace", _headrace),
        # The last --http counts: httptools speaks no HTTP/2.
        Server("uvicorn", "uvicorn", _uvicorn, http2=("--http", "zttp", "--http2")),
        Server("hypercorn", "hypercorn", _hypercorn),
        Server("daphne", "daphne", _daphne),
        Server(
            *("gunicorn", "gunicorn", _gunicorn),
            http2=("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge"),
        ),
        Server("granian", "granian", _granian),
        Server("h2corn", "h2corn", _h2corn),
        Server("m0serve", "m0serve", _m0serve),
    )
}


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers, in a session of its own; made by `running`."""

    name: str
    port: int
    core: int
    process: subprocess.Popen[bytes]
    log: Path

    def moment(self) -> Moment:
        """Its clocks now; two moments make a usage."""
        return read_moment(self.process.pid, self.core)

    def memory(self) -> Memory:
        """Its memory now."""
        return read_session_memory(self.process.pid)

    def check_alive(self) -> None:
        """Raises ServerFailed if its main process has ended."""
        if self.process.poll() is not None:
            raise ServerFailed(f"ended with status {self.process.returncode}: {self.last_line()}")

    def last_line(self) -> str:
        """The last line it wrote, which is the reason if it ended; cut to 120 characters."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:120] if lines else "it wrote nothing"


@contextmanager
def running(server: Server, application: str, *, programs: Path, core: int) -> Iterator[RunningServer]:
    """Starts a server on a free port and one core, and stops it and all its children at the end.

    Args:
        application: module:attribute, or the floor's kind.
        programs: the folder of programs of the environment it is installed in.

    Raises:
        ServerFailed: it did not answer in time.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        for attempt in range(START_ATTEMPTS):
            started = _start(server, application, programs, core, Path(folder))
            try:
                _wait_ready(started)
            except ServerFailed:
                # Somebody else may have taken the port between our look and the server's bind.
                is_port_lost = "in use" in started.log.read_text(errors="replace").lower()
                _stop(started)
                if is_port_lost and attempt + 1 < START_ATTEMPTS:
                    continue
                raise
            except BaseException:
                _stop(started)
                raise
            break
        try:
            yield started
        finally:
            _stop(started)


def _start(server: Server, application: str, programs: Path, core: int, folder: Path) -> RunningServer:
    port = _free_port()
    program, *arguments = server.command(application, port)
    log = folder / "log"

    def enter_child() -> None:
        os.sched_setaffinity(0, {core})
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [programs / program, *arguments],
                cwd=folder,  # not the project's: its configuration files are none of the servers' business
                env=_environment(programs),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=enter_child,
            )
    except FileNotFoundError:
        raise ServerFailed(f"{program} is not installed in this environment") from None
    return RunningServer(server.name, port, core, process, log)


def _environment(programs: Path) -> dict[str, str]:
    """Only what is needed, so that no UVICORN_* or GUNICORN_CMD_ARGS of the user changes a row."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": str(programs.parent),
        "PYTHONPATH": str(ROOT),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_ready(server: RunningServer) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        server.check_alive()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status < 500:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise ServerFailed(f"did not answer within {START_LIMIT_S:.0f} s: {server.last_line()}")


def _stop(server: RunningServer) -> None:
    """SIGTERM, a short wait, then SIGKILL to whatever is left of the session.

    The look is repeated because a supervisor may start a worker between the look and its own end.
    """
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
    for _ in range(KILL_ATTEMPTS):
        left = read_session_pids(server.process.pid)
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        server.process.wait()
        time.sleep(0.02)
