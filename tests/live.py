"""Real servers for tests: one in a thread of this process, one in a process of its own, and a raw client.

Nothing here sleeps: what is waited for is a condition, and ``PATIENCE_S`` bounds the wait.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import headrace
from headrace.server.loops import loop_factory
from headrace.types import Receive, Send

T = TypeVar("T")

TIME_SCALE = float(os.environ.get("TEST_TIME_SCALE", "1"))
"""Multiplies every duration of the tests; raise it on a slow machine."""

PATIENCE_S = 15.0 * TIME_SCALE
"""How long a condition that must come true is waited for."""

SHORT_S = 0.1 * TIME_SCALE
"""A timeout of the server's that a test waits to see expire."""

MIB = 1_048_576


def eventually(condition: Callable[[], T], what: str = "the condition") -> T:
    """Wait until ``condition()`` is true and give what it gave."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true in {PATIENCE_S:g} s")
        threading.Event().wait(0.002)
    return value


async def read_body(receive: Receive) -> bytes:
    """The request's body; what came before a disconnect."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    return body


async def respond(send: Send, body: bytes = b"", status: int = 200, headers: Any = ()) -> None:
    """One whole response."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Response:
    """A response as it stood on the wire, the transfer coding undone.

    Attributes:
        headers: names lower-case, wire order.
        is_whole: its end came, and not merely the connection's in its place.
    """

    version: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    is_whole: bool = True

    def get(self, name: str) -> str | None:
        """The value of the only field of that name, None when there is none."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} {len(values)} times"
        return values[0] if values else None


class Client:
    """A client that sends what the test says and reads strictly."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE_S)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def request(
        self, target: str = "/", method: str = "GET", body: bytes | None = None, headers: Any = ()
    ) -> Response:
        """Send one request and read its response."""
        lines = [f"{method} {target} HTTP/1.1", "host: a.test", *headers]
        if body is not None:
            lines.append(f"content-length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
        return self.read_response(method)

    def half_close(self) -> None:
        """Say that nothing more will come."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave."""
        self.sock.close()

    def reset(self) -> None:
        """Leave with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def read_more(self) -> bool:
        """Take what there is; False at the server's end."""
        data = self.sock.recv(65_536)
        self._buffer += data
        return bool(data)

    def read_until(self, marker: bytes) -> bytes:
        """Everything up to and with ``marker``."""
        while (end := self._buffer.find(marker)) < 0:
            assert self.read_more(), f"the server ended before {marker!r}: {self._buffer[:200]!r}"
        return self._take(end + len(marker))

    def read_to_end(self) -> bytes:
        """Everything until the server's end; a reset counts as one."""
        try:
            while self.read_more():
                pass
        except ConnectionResetError:
            pass
        return self._take(len(self._buffer))

    def is_ended(self) -> bool:
        """Wait for the server's end; False when bytes come instead."""
        try:
            return not self._buffer and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def read_response(self, method: str = "GET") -> Response:
        """The next response; 1xx ones are responses too."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head[:-4].split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        headers = _fields(lines)
        response = Response(version, int(status), headers)
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return response
        if response.get("transfer-encoding") == "chunked":
            self._read_chunked(response)
        elif (length := response.get("content-length")) is not None:
            while len(self._buffer) < int(length) and self._read_more_or_end():
                pass
            response.is_whole = len(self._buffer) >= int(length)
            response.body = self._take(min(int(length), len(self._buffer)))
        else:
            response.body = self.read_to_end()
        return response

    def _read_chunked(self, response: Response) -> None:
        while True:
            while b"\r\n" not in self._buffer:
                if not self._read_more_or_end():
                    response.is_whole = False
                    return
            size = int(self.read_until(b"\r\n"), 16)
            if size == 0:
                break
            while len(self._buffer) < size + 2:
                if not self._read_more_or_end():
                    response.is_whole = False
                    return
            response.body += self._take(size + 2)[:-2]
        lines = []
        while (line := self.read_until(b"\r\n")) != b"\r\n":
            lines.append(line.decode("latin-1").removesuffix("\r\n"))
        response.trailers = _fields(lines)

    def _read_more_or_end(self) -> bool:
        try:
            return self.read_more()
        except ConnectionResetError:
            return False

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


def _fields(lines: list[str]) -> list[tuple[str, str]]:
    return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]


class LiveServer:
    """``headrace.serve`` in a thread with a loop of its own, so that tests may block.

    A task that outlives the stop, or an error that reaches the loop, fails the test.
    """

    def __init__(self, application: Any, loop: str, **options: Any) -> None:
        options.setdefault("lifespan", "off")
        options.setdefault("host", "127.0.0.1")
        options.setdefault("port", 0)
        options.setdefault("timeout_graceful_shutdown", 5.0)
        self._application = application
        self._options = options
        self._loop_name = loop
        self._clients: list[Client] = []
        self._started: queue.Queue[BaseException | None] = queue.Queue()
        self._stopping = asyncio.Event()
        self.loop_errors: list[dict[str, Any]] = []
        self.leaked: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Serve, or raise what the start raised."""
        self._thread.start()
        error = self._started.get(timeout=PATIENCE_S)
        if error is not None:
            raise error

    def stop(self) -> None:
        """Close the clients, drain, and look at what is left."""
        for client in self._clients:
            client.close()
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server does not stop"
        assert not self.leaked, f"tasks outlive the server: {self.leaked}"
        assert not self.loop_errors, f"errors reached the loop: {self.loop_errors}"

    def connect(self, context: ssl.SSLContext | None = None, host: str = "a.test") -> Client:
        """A new connection to the first listener."""
        sock = socket.create_connection(("127.0.0.1", self.server.port), PATIENCE_S)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname=host)
        client = Client(sock)
        self._clients.append(client)
        return client

    def exchange(self, data: bytes, method: str = "GET") -> Response:
        """One response on a connection of its own."""
        client = self.connect()
        client.send(data)
        return client.read_response(method)

    def get(self, target: str = "/") -> Response:
        """One GET on a connection of its own."""
        return self.connect().request(target)

    def in_loop(self, function: Callable[[], T]) -> T:
        """Call a function in the server's loop."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory(self._loop_name)) as runner:
            self._loop = runner.get_loop()
            self._loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
            try:
                runner.run(self._live())
            except BaseException as error:
                self._started.put(error)

    async def _live(self) -> None:
        async with headrace.serve(self._application, **self._options) as server:
            self.server = server
            self._started.put(None)
            await self._stopping.wait()
        self.leaked = [repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()}]


class ServerProcess:
    """``headrace run`` in a process of its own."""

    def __init__(
        self, folder: Path, *arguments: str, env: dict[str, str] | None = None, **popen: Any
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace", "run", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )
        self._clients: list[Client] = []
        self._news = threading.Condition()
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Of the server."""
        return self.process.pid

    @property
    def port(self) -> int:
        """Of the first listener; waits for the start-up line."""
        return int(self.wait_line(r"Uvicorn running on https?://.*:(\d+)")[1])

    def wait_line(self, pattern: str) -> re.Match[str]:
        """Wait for a line of stdout or stderr."""
        found: list[re.Match[str]] = []

        def is_there() -> bool:
            found[:] = [m for line in (*self.err, *self.out) if (m := re.search(pattern, line))]
            return bool(found) or not any(reader.is_alive() for reader in self._readers)

        with self._news:
            self._news.wait_for(is_there, PATIENCE_S)
        assert found, f"no line {pattern!r} in: {self.text}"
        return found[0]

    @property
    def text(self) -> str:
        """Everything written so far."""
        return "".join((*self.err, *self.out))

    def connect(self) -> Client:
        """A new connection."""
        self._clients.append(Client(socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)))
        return self._clients[-1]

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait_exit(self) -> int:
        """The exit code, when it has ended and all it wrote has been read."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server does not end: {self.text}") from None
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return code

    def memory_bytes(self) -> int:
        """Resident set."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    def close(self) -> None:
        """Kill it if it still lives, and let go of the pipes and clients."""
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._news:
                lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()


def numbered(prefix: str, count: int) -> Iterator[bytes]:
    """``count`` pipelined GET requests whose targets end in their number."""
    for number in range(count):
        yield f"GET {prefix}{number} HTTP/1.1\r\nhost: a.test\r\n\r\n".encode()


class Records(logging.Handler):
    """Keeps the records of one logger."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)

    def lines(self, level: int = logging.DEBUG) -> list[str]:
        """Messages of at least that level."""
        return [record.getMessage() for record in self.records if record.levelno >= level]
