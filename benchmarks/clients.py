"""Our own load, where wrk cannot say what is asked: whole bodies, idle connections, a reader that stops.

All of it runs in the harness's process, so on the load's core and never in the server's memory.
"""

from __future__ import annotations

import http.client
import select
import socket
import time
from collections.abc import Callable, Iterator

from benchmarks.applications import CHUNK_BYTES, FLOOD_PATH, HELLO, STREAM_BYTES, UPLOAD_BYTES

HOST = "127.0.0.1"
ANSWER_LIMIT_S = 30.0
UPLOAD_PIECE = memoryview(bytes(1024 * 1024))
LAST_CHUNK = b"\r\n0\r\n\r\n"


class WrongAnswer(Exception):
    """The server answered, but not what the application said; the message is for the table."""


def open_connection(port: int) -> http.client.HTTPConnection:
    """A connection whose every wait is limited."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_LIMIT_S)
    connection.connect()
    return connection


def check_answer(port: int, path: str, expected: bytes, body: bytes | None = None) -> None:
    """Makes one request and compares the answer's body; a POST if there is a body to send."""
    connection = open_connection(port)
    try:
        connection.request("POST" if body else "GET", path, body)
        response = connection.getresponse()
        _compare(response.status, response.read(), expected)
    finally:
        connection.close()


def _compare(status: int, body: bytes, expected: bytes) -> None:
    if status != 200:
        raise WrongAnswer(f"answered {status} {body[:60]!r}")
    if body != expected:
        raise WrongAnswer(f"answered {len(body)} bytes {body[:40]!r} for {len(expected)} {expected[:40]!r}")


def upload(connection: http.client.HTTPConnection) -> None:
    """Sends 256 MiB and waits for their count."""

    def pieces() -> Iterator[memoryview]:
        for _ in range(UPLOAD_BYTES // len(UPLOAD_PIECE)):
            yield UPLOAD_PIECE

    headers = {"Content-Length": str(UPLOAD_BYTES), "Content-Type": "application/octet-stream"}
    try:
        connection.request("POST", "/", pieces(), headers)
    except ConnectionError as error:
        # It closed before the body's end; if it said why, that is still to be read.
        raise WrongAnswer(_early_answer(connection) or f"closed in the middle of the body: {error}") from None
    response = connection.getresponse()
    _compare(response.status, response.read(), b"%d" % UPLOAD_BYTES)


def _early_answer(connection: http.client.HTTPConnection) -> str:
    try:
        response = http.client.HTTPResponse(connection.sock)
        response.begin()
    except (OSError, http.client.HTTPException):
        return ""
    return f"answered {response.status} {response.reason} in the middle of the body"


class Download:
    """Takes the 10 MiB stream again and again, over one connection if the server keeps it.

    It looks at the framing only as far as needed to find the end, because a client that parses each chunk
    in Python would be the slower side.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._buffer = bytearray(4 * CHUNK_BYTES)
        self._socket: socket.socket | None = None

    def fetch(self) -> None:
        """One whole response.

        Raises:
            WrongAnswer: another status, or fewer bytes than the application sent.
        """
        if self._socket is None:
            self._socket = socket.create_connection((HOST, self._port), timeout=ANSWER_LIMIT_S)
        self._socket.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head, received_bytes = read_head(self._socket)
        if b" 200 " not in head[:16]:
            raise WrongAnswer(f"answered {head[:40]!r}")
        lower = head.lower()
        tail = LAST_CHUNK if b"\r\ntransfer-encoding: chunked\r\n" in lower else b""
        is_counted = b"\r\ncontent-length:" in lower
        is_whole = self._take(received_bytes, tail, is_counted)
        if not is_whole:
            raise WrongAnswer("closed in the middle of the stream")
        if (not tail and not is_counted) or b"\r\nconnection: close\r\n" in lower:
            self.close()

    def _take(self, received: bytes, tail: bytes, is_counted: bool) -> bool:
        """Reads up to the end of the body; False if the connection ended too early."""
        assert self._socket is not None
        taken_bytes = len(received)
        end = received[-len(LAST_CHUNK) :]
        while True:
            if taken_bytes >= STREAM_BYTES and ((tail and end == tail) or is_counted):
                return True
            size = self._socket.recv_into(self._buffer)
            if size == 0:
                return taken_bytes >= STREAM_BYTES and not tail
            taken_bytes += size
            end = (end + self._buffer[max(0, size - len(LAST_CHUNK)) : size])[-len(LAST_CHUNK) :]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """Reads a response's head.

    Returns:
        The head, ending in its empty line, and what came behind it: at most 4 KiB.
    """
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(4096)
        if not data:
            raise WrongAnswer("closed before a response")
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def stall(port: int) -> socket.socket:
    """Asks for 1 GiB, reads the head, and then nothing more."""
    connection = socket.create_connection((HOST, port), timeout=ANSWER_LIMIT_S)
    connection.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % FLOOD_PATH.encode())
    head, _ = read_head(connection)
    if b" 200 " not in head[:16]:
        raise WrongAnswer(f"answered {head[:40]!r}")
    return connection


class IdleConnections:
    """Keep-alive connections that make one request each and then say nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: list[http.client.HTTPConnection] = []

    def open(self, number: int) -> None:
        """Opens that many more, one after the other, each with one request and its answer.

        Raises:
            WrongAnswer: the server refused one, or did not answer it in time.
        """
        for _ in range(number):
            try:
                connection = open_connection(self._port)
                self._connections.append(connection)
                connection.request("GET", "/")
                response = connection.getresponse()
                _compare(response.status, response.read(), HELLO)
            except (OSError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
                raise WrongAnswer(f"refused connection {len(self._connections)}: {reason}") from None

    def count_closed(self) -> int:
        """How many the server has closed meanwhile."""
        poll = select.poll()
        closed = 0
        for connection in self._connections:
            if connection.sock is None:
                closed += 1
            else:
                poll.register(connection.sock, select.POLLIN)
        return closed + len(poll.poll(0))

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()


def repeat_until(duration_s: float, action: Callable[[], None]) -> int:
    """Repeats an action until the time is over, at least once, and returns how often."""
    deadline = time.monotonic() + duration_s
    times = 0
    while times == 0 or time.monotonic() < deadline:
        action()
        times += 1
    return times
