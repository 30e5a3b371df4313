"""The load of the WebSocket workloads: many connections, frames made beforehand, echoes counted.

One thread, one poll for all connections. Without compression an echo has a known size, so bytes are counted
and nothing is parsed; with it the heads of frames are read. The first echo of each connection is compared.
"""

from __future__ import annotations

import base64
import json
import os
import re
import select
import socket
import time
import zlib
from dataclasses import dataclass

from benchmarks.clients import ANSWER_LIMIT_S, HOST, WrongAnswer, read_head

WINDOW_BITS = 12
"""Of our compressor: servers may ask for as few, and a larger window gains nothing here."""

TAIL = b"\x00\x00\xff\xff"
"""What each compressed message ends with, and what is left out on the wire. RFC 7692 §7.2.1."""

EXTENSION = re.compile(rb"\r\nsec-websocket-extensions:([^\r]*)", re.IGNORECASE)
WINDOW = re.compile(rb"client_max_window_bits=(\d+)")


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent.

    Attributes:
        payload: of each message.
        is_text: text or binary.
        in_flight: messages of one connection that are under way at a time.
        is_compressed: permessage-deflate must be agreed on, and is used both ways.
    """

    payload: bytes
    is_text: bool
    in_flight: int
    is_compressed: bool = False


def json_of(size_bytes: int) -> bytes:
    """Compressible text: records as an API would send them, cut to the size."""
    records = [
        {"id": n, "name": f"item {n * 7919}", "price": n * 31 % 997, "tags": ["a", "b"]} for n in range(999)
    ]
    return json.dumps(records).encode("ascii")[:size_bytes]


SMALL = Load(b"headrace " * 3 + b"hello", is_text=False, in_flight=1)
BURST = Load(SMALL.payload, is_text=False, in_flight=8)
LARGE = Load(bytes(range(256)) * 64, is_text=False, in_flight=1)
COMPRESSED = Load(json_of(16_384), is_text=True, in_flight=1, is_compressed=True)


def frame_head(first: int, size: int, mask: bool) -> bytes:
    """A frame's head up to the mask, RFC 6455 §5.2."""
    bit = 0x80 if mask else 0
    if size < 126:
        return bytes((first, bit | size))
    if size < 65_536:
        return bytes((first, bit | 126)) + size.to_bytes(2, "big")
    return bytes((first, bit | 127)) + size.to_bytes(8, "big")


def masked_frame(first: int, payload: bytes) -> bytes:
    """A client's frame, with a mask that really changes the payload."""
    mask = b"\x37\xfa\x21\x3d"
    covered = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return frame_head(first, len(payload), True) + mask + covered


def client_frame(load: Load) -> bytes:
    """The frame of one message."""
    first = 0x81 if load.is_text else 0x82
    if not load.is_compressed:
        return masked_frame(first, load.payload)
    compressor = zlib.compressobj(wbits=-WINDOW_BITS)
    compressed = compressor.compress(load.payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return masked_frame(first | 0x40, compressed.removesuffix(TAIL))


def connect(port: int, extensions: bytes = b"") -> tuple[socket.socket, bytes]:
    """Open one WebSocket; returns it and the extensions agreed on.

    Raises:
        WrongAnswer: it was refused.
    """
    connection = socket.create_connection((HOST, port), timeout=ANSWER_LIMIT_S)
    lines = [
        b"GET / HTTP/1.1",
        b"Host: 127.0.0.1:%d" % port,
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)),
    ]
    if extensions:
        lines.append(b"Sec-WebSocket-Extensions: " + extensions)
    connection.sendall(b"\r\n".join([*lines, b"", b""]))
    head, rest = read_head(connection)
    if b" 101 " not in head[:16]:
        connection.close()
        raise WrongAnswer(f"answered {head[:40]!r} to a WebSocket handshake")
    if rest:
        raise WrongAnswer(f"sent {len(rest)} bytes behind its handshake")
    agreed = EXTENSION.search(head)
    return connection, agreed[1].strip() if agreed else b""


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    """Read one unmasked frame: its first byte and its payload."""

    def read(count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = connection.recv(count - len(data))
            if not more:
                raise WrongAnswer("closed a WebSocket")
            data += more
        return data

    first, second = read(2)
    size = second
    if size > 125:
        size = int.from_bytes(read(2 if size == 126 else 8), "big")
    return first, read(size)


class FrameCounter:
    """Counts the frames in a stream of bytes by their heads."""

    __slots__ = ("_head", "_left", "frames")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.frames = 0

    def feed(self, data: memoryview) -> None:
        """Take what came."""
        position, end = 0, len(data)
        while position < end:
            if self._left:
                step = min(self._left, end - position)
                self._left -= step
                position += step
                if not self._left:
                    self.frames += 1
                continue
            head = self._head + bytes(data[position : position + 10 - len(self._head)])
            needed = 2 if len(head) < 2 else {126: 4, 127: 10}.get(head[1], 2)
            if len(head) < needed:
                self._head = head
                return
            position += needed - len(self._head)
            self._head = b""
            self._left = head[1] if needed == 2 else int.from_bytes(head[2:needed], "big")
            if not self._left:
                self.frames += 1


class EchoLoad:
    """Connections that send as soon as their echoes are back."""

    def __init__(self, port: int, load: Load, connections: int) -> None:
        self._load = load
        frame = client_frame(load)
        self._burst = frame * load.in_flight
        self._connections = [self._open(port, frame) for _ in range(connections)]

    def run(self, duration_s: float) -> int:
        """Send and count for so long; returns the messages that came back."""
        load = self._load
        size = len(load.payload)
        burst_bytes = (size + len(frame_head(0, size, False))) * load.in_flight
        sockets = {connection.fileno(): connection for connection in self._connections}
        left = dict.fromkeys(sockets, burst_bytes)
        counters = {number: FrameCounter() for number in sockets}
        poll = select.epoll()
        for number, connection in sockets.items():
            poll.register(number, select.EPOLLIN)
            connection.sendall(self._burst)
        buffer = memoryview(bytearray(1 << 20))
        bursts = 0
        deadline = time.monotonic() + duration_s
        while time.monotonic() < deadline:
            events = poll.poll(ANSWER_LIMIT_S)
            if not events:
                raise WrongAnswer("echoes nothing any more")
            for number, _ in events:
                connection = sockets[number]
                count = connection.recv_into(buffer)
                if not count:
                    raise WrongAnswer("closed a WebSocket under load")
                if load.is_compressed:
                    counter = counters[number]
                    counter.feed(buffer[:count])
                    if counter.frames < load.in_flight:
                        continue
                    counter.frames -= load.in_flight
                else:
                    left[number] -= count
                    if left[number] > 0:
                        continue
                    left[number] += burst_bytes
                bursts += 1
                connection.sendall(self._burst)
        poll.close()
        return bursts * load.in_flight

    def close(self) -> None:
        """Leave, without a closing handshake."""
        for connection in self._connections:
            connection.close()

    def _open(self, port: int, frame: bytes) -> socket.socket:
        load = self._load
        connection, agreed = connect(
            port, b"permessage-deflate; client_max_window_bits" if load.is_compressed else b""
        )
        if load.is_compressed:
            window = WINDOW.search(agreed)
            if b"permessage-deflate" not in agreed:
                raise WrongAnswer("does not agree on permessage-deflate")
            if window is not None and int(window[1]) < WINDOW_BITS:
                raise WrongAnswer(f"asks for a window of {window[1].decode()} bits")
        connection.sendall(frame)
        first, payload = read_frame(connection)
        if load.is_compressed:
            if not first & 0x40:
                raise WrongAnswer("agrees on compression, and does not compress")
            payload = zlib.decompressobj(wbits=-15).decompress(payload + TAIL)
        if payload != load.payload:
            raise WrongAnswer(f"echoed {len(payload)} bytes {payload[:40]!r} for {len(load.payload)}")
        return connection


class IdleWebSockets:
    """WebSockets that offer compression as browsers do, have one echo, and then say nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: list[socket.socket] = []

    def open(self, number: int) -> None:
        """Open that many more.

        Raises:
            WrongAnswer: the server refused one, or did not answer it.
        """
        frame = masked_frame(0x81, b"hello")
        for _ in range(number):
            try:
                connection, _ = connect(self._port, b"permessage-deflate; client_max_window_bits")
                self._connections.append(connection)
                connection.sendall(frame)
                read_frame(connection)
            except OSError as error:
                raise WrongAnswer(f"refused WebSocket {len(self._connections)}: {error}") from None

    def count_closed(self) -> int:
        """How many the server has closed meanwhile; a ping is no close."""
        poll = select.poll()
        for connection in self._connections:
            poll.register(connection, select.POLLIN)
        ready = [number for number, _ in poll.poll(0)]
        by_number = {connection.fileno(): connection for connection in self._connections}
        return sum(not by_number[number].recv(1, socket.MSG_PEEK) for number in ready)

    def close(self) -> None:
        """Leave."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
