"""A raw WebSocket client: it sends the frames that the test says and reads strictly, from RFC 6455 alone."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from typing import Any

from live import Client, LiveServer, Response

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""RFC 6455 §1.3."""

HANDSHAKE = (
    "host: a.test",
    "upgrade: websocket",
    "connection: Upgrade",
    f"sec-websocket-key: {KEY}",
    "sec-websocket-version: 13",
)

DEFLATE = "sec-websocket-extensions: permessage-deflate"


def handshake(target: str = "/", *headers: str) -> bytes:
    """A good handshake with some fields more."""
    return "\r\n".join([f"GET {target} HTTP/1.1", *HANDSHAKE, *headers, "", ""]).encode("latin-1")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
) -> bytes:
    """One frame of a client, RFC 6455 §5.2."""
    size = len(payload)
    flag = 0 if mask is None else 0x80
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([flag | size])
    elif size < 65_536:
        head += struct.pack("!BH", flag | 126, size)
    else:
        head += struct.pack("!BQ", flag | 127, size)
    if mask is None:
        return head + payload
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def deflated(payload: bytes) -> bytes:
    """A message as permessage-deflate sends it, RFC 7692 §7.2.1."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def close_frame(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """A Close frame, RFC 6455 §5.5.1; None sends none."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


class WebSocketClient(Client):
    """One WebSocket over a connection of its own.

    Attributes:
        response: to the handshake.
    """

    def __init__(self, client: Client, target: str = "/", *headers: str, behind: bytes = b"") -> None:
        super().__init__(client.sock)
        self.send(handshake(target, *headers) + behind)
        self.response: Response = self.read_response()
        assert self.response.status == 101, self.response
        accept = base64.b64encode(
            hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        )
        assert self.response.get("sec-websocket-accept") == accept.decode()
        self._is_deflated = self.response.get("sec-websocket-extensions") is not None

    def send_text(self, text: str) -> None:
        """One text message in one frame."""
        self.send(frame(TEXT, text.encode()))

    def send_bytes(self, data: bytes) -> None:
        """One binary message in one frame."""
        self.send(frame(BINARY, data))

    def send_close(self, code: int | None = 1000, reason: bytes = b"") -> None:
        """A Close frame."""
        self.send(close_frame(code, reason))

    def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the server's next frame, which is whole and not masked."""
        first, second = self.read_exactly(2)
        assert first & 0x80, "a server's message came in fragments"
        assert not second & 0x80, "a server's frame is masked"
        size = second
        if second > 125:
            size = int.from_bytes(self.read_exactly(2 if second == 126 else 8), "big")
            assert size > (125 if second == 126 else 65_535), "a length in more bytes than it needs"
            assert first & 0x0F < CLOSE, "a long control frame"
        payload = self.read_exactly(size)
        if first & 0x70:
            assert self._is_deflated, "reserved bits without an extension"
            assert first in (0xC0 | TEXT, 0xC0 | BINARY), f"{first:#x}"
            payload = zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")
        return first & 0x0F, payload

    def read_message(self) -> str | bytes:
        """The next message; the next frame must hold it."""
        opcode, payload = self.read_frame()
        assert opcode in (TEXT, BINARY), (opcode, payload)
        return payload.decode() if opcode == TEXT else payload

    def read_close(self) -> tuple[int | None, str]:
        """Code and reason of the Close frame, which must be next."""
        opcode, payload = self.read_frame()
        assert opcode == CLOSE, (opcode, payload)
        return (struct.unpack("!H", payload[:2])[0] if payload else None), payload[2:].decode()

    def read_exactly(self, count: int) -> bytes:
        """So many bytes, whatever they mean."""
        while len(self._buffer) < count:
            assert self.read_more(), f"the server ended inside a frame: {self._buffer!r:.200}"
        return self._take(count)


def connect(server: LiveServer, target: str = "/", *headers: str, behind: bytes = b"") -> WebSocketClient:
    """A new connection with a WebSocket on it; ``behind`` goes in the same segment as the handshake."""
    return WebSocketClient(server.connect(), target, *headers, behind=behind)


class Recorder:
    """An application that accepts, notes what it receives, and sends every message back.

    Attributes:
        received: every message, with the connect and the disconnect.
        scopes: of every call.
    """

    def __init__(self, **accept: Any) -> None:
        self._accept = {"type": "websocket.accept", **accept}
        self.received: list[dict[str, Any]] = []
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One WebSocket."""
        self.scopes.append(scope)
        self.received.append(await receive())
        await send(self._accept)
        while True:
            message = await receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                return
            await send({**message, "type": "websocket.send"})

    @property
    def last(self) -> dict[str, Any]:
        """The newest message."""
        return self.received[-1]
