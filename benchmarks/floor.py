"""The floor: a uvloop protocol that writes a constant, which no Python server can undercut.

Started as ``python -m benchmarks.floor KIND --port N``. It parses nothing that it can avoid, so it is no
server: it expects each request head in one read, no pipelining, and no long WebSocket messages.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import re
from typing import cast

import uvloop
from websockets.speedups import apply_mask  # type: ignore[import-not-found,unused-ignore]

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

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
WEBSOCKET_KEY = re.compile(rb"\r\nsec-websocket-key: *(\S+)", re.IGNORECASE)
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
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


class Http2(Constant):
    """Answers each HEADERS frame with a constant; what the fields say is not looked at."""

    __slots__ = ("is_open", "rest")

    PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    HEADERS, SETTINGS = 1, 4
    # RFC 7541: each value as a literal beside its name's place in the static table (Appendix A).
    FIELDS = (
        b"\x88\x0f\x27\x05floor\x0f\x12\x1dSun, 22 Nov 2026 05:00:00 GMT\x0f\x10\x0atext/plain\x0f\x0d\x0213"
    )
    HEAD = bytes((0, 0, len(FIELDS), HEADERS, 4))
    BODY = bytes((0, 0, len(HELLO), 0, 1))

    def __init__(self, response: bytes) -> None:
        super().__init__(response)
        self.is_open = False
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        answers = []
        if not self.is_open:
            if not data.startswith(self.PREFACE):
                self.transport.write(self.response)
                return
            self.is_open = True
            data = data[len(self.PREFACE) :]
            answers.append(bytes((0, 0, 0, self.SETTINGS, 0, 0, 0, 0, 0)))
        data = self.rest + data
        start = 0
        while (size := len(data) - start) >= 9:
            end = start + 9 + int.from_bytes(data[start : start + 3], "big")
            if end > len(data):
                break
            kind = data[start + 3]
            if kind == self.HEADERS:
                stream = data[start + 5 : start + 9]
                answers += (self.HEAD, stream, self.FIELDS, self.BODY, stream, HELLO)
            elif kind == self.SETTINGS and not data[start + 4]:
                answers.append(bytes((0, 0, 0, self.SETTINGS, 1, 0, 0, 0, 0)))
            start = end
        self.rest = data[start:] if size else b""
        if answers:
            self.transport.write(b"".join(answers))


class Echo(Constant):
    """Unmasks each frame of a WebSocket and writes it back as it is, compressed if it was compressed."""

    __slots__ = ("is_open", "rest")

    def __init__(self, response: bytes) -> None:
        super().__init__(response)
        self.is_open = False
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        if not self.is_open:
            key = WEBSOCKET_KEY.search(data)
            self.is_open = key is not None
            self.transport.write(self.accept(key[1], data) if key else self.response)
            return
        if self.rest:
            data = self.rest + data
        size = len(data)
        start = 0
        echoes = []
        while size - start > 6:
            first, length = data[start], data[start + 1] & 127
            payload = start + 6
            if length == 126:
                length = int.from_bytes(data[start + 2 : start + 4], "big")
                payload = start + 8
            if payload + length > size:
                break
            key_start = payload - 4
            if payload - start == 6:
                echoes.append(bytes((first, length)))
            else:
                echoes.append(bytes((first, 126, data[start + 2], data[start + 3])))
            start = payload + length
            echoes.append(apply_mask(data[payload:start], data[key_start:payload]))
        self.rest = data[start:]
        if echoes:
            self.transport.writelines(echoes)

    def accept(self, key: bytes, head: bytes) -> bytes:
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())
        extension = (
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if b"permessage-deflate" in head else b""
        )
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %s\r\n%s\r\n" % (accept, extension)
        )


def make_protocol(kind: str) -> asyncio.Protocol:
    if kind == "hello":
        return Constant(constant_response(b"text/plain", HELLO))
    if kind == "http2":
        return Http2(constant_response(b"text/plain", HELLO))
    if kind == "websocket":
        return Echo(constant_response(b"text/plain", HELLO))
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
