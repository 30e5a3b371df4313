"""The floor: a uvloop protocol that writes a constant, which no Python server can undercut.

Started as ``python -m benchmarks.floor KIND --port N``. It parses nothing that it can avoid, so it is no
server: it expects each request head in one read, and no pipelining.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from typing import cast

import uvloop

from benchmarks.applications import (
    CHUNK,
    CHUNK_BYTES,
    ECHO_BODY,
    FLOOD_CHUNKS,
    FLOOD_PATH,
    HELLO,
    STREAM_CHUNKS,
    UPLOAD_BYTES,
)
from benchmarks.websocket_client import LARGE, SMALL, Load, client_frame, frame_head

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
COMMON_HEAD = b"HTTP/1.1 200 OK\r\nserver: floor\r\ndate: Sun, 22 Nov 2026 05:00:00 GMT\r\n"


def constant_response(content_type: bytes, body: bytes) -> bytes:
    return COMMON_HEAD + b"content-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (content_type, len(body), body)


class Constant(asyncio.Protocol):
    """One write for each read: as many as there are requests, as long as a request fits in a read."""

    __slots__ = ("response", "transport")

    def __init__(self, response: bytes) -> None:
        self.response = response

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.response)


class AfterBody(Constant):
    """Writes the constant when the body that Content-Length announces has come."""

    __slots__ = ("missing_bytes",)

    def __init__(self, response: bytes) -> None:
        super().__init__(response)
        self.missing_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self.missing_bytes:
            self.missing_bytes -= len(data)
        else:
            head_bytes = data.index(b"\r\n\r\n") + 4
            announced = CONTENT_LENGTH.search(data, 0, head_bytes)
            self.missing_bytes = (int(announced[1]) if announced else 0) + head_bytes - len(data)
        if self.missing_bytes == 0:
            self.transport.write(self.response)


class Chunks(asyncio.Protocol):
    """Writes 64 KiB chunks while the transport takes them, on the path of the flood or on any."""

    __slots__ = ("chunks", "left", "path", "transport", "writable")

    FRAMED_CHUNK = b"%x\r\n%s\r\n" % (CHUNK_BYTES, CHUNK)

    def __init__(self, chunks: int, path: bytes) -> None:
        self.chunks = chunks
        self.path = path
        self.left = 0
        self.writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.path not in data:
            self.transport.write(constant_response(b"text/plain", HELLO))
            return
        head = b"content-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self.transport.write(COMMON_HEAD + head)
        self.left = self.chunks
        self.write_on()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.write_on()

    def write_on(self) -> None:
        while self.writable and self.left:
            self.left -= 1
            self.transport.write(self.FRAMED_CHUNK)
            if not self.left:
                self.transport.write(b"0\r\n\r\n")


class Frames(asyncio.Protocol):
    """Answers each whole frame of a known size with a constant one; any handshake with a constant 101."""

    __slots__ = ("answer", "frame_bytes", "is_open", "left", "transport")

    UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n"

    def __init__(self, load: Load) -> None:
        size = len(load.payload)
        self.frame_bytes = len(client_frame(load))
        self.answer = frame_head(0x82, size, False) + load.payload
        self.is_open = False
        self.left = self.frame_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self.is_open:
            self.is_open = b"\r\nUpgrade:" in data
            is_probe = not self.is_open
            self.transport.write(constant_response(b"text/plain", HELLO) if is_probe else self.UPGRADED)
            return
        self.left -= len(data)
        count = 0
        while self.left <= 0:
            count += 1
            self.left += self.frame_bytes
        if count:
            self.transport.write(self.answer * count)


WEBSOCKET_LOADS = {"ws-small": SMALL, "ws-large": LARGE}


def make_protocol(kind: str) -> asyncio.Protocol:
    if kind == "hello":
        return Constant(constant_response(b"text/plain", HELLO))
    if kind == "json":
        return Constant(constant_response(b"application/json", b'{"message":"Hello, world!"}'))
    if kind == "echo":
        return AfterBody(constant_response(b"application/octet-stream", ECHO_BODY))
    if kind == "count":
        return AfterBody(constant_response(b"application/octet-stream", b"%d" % UPLOAD_BYTES))
    if kind == "stream":
        return Chunks(STREAM_CHUNKS, path=b"GET /")
    if kind == "flood":
        return Chunks(FLOOD_CHUNKS, path=b"GET %s " % FLOOD_PATH.encode())
    if kind in WEBSOCKET_LOADS:
        return Frames(WEBSOCKET_LOADS[kind])
    raise ValueError(f"the floor knows no kind {kind!r}")


async def serve(kind: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: make_protocol(kind), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.kind, arguments.port))
