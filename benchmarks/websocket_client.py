"""The load over WebSocket: raw sockets under one epoll, so tight that the server stays the slower side.

Frames are masked, and compressed, before the measurement, and under load the echoes are only counted. What is
in them is checked apart from the load, on a session of its own, before and after.
"""

from __future__ import annotations

import base64
import hashlib
import re
import select
import socket
import time
import zlib
from dataclasses import dataclass

from benchmarks.clients import ANSWER_LIMIT_S, HOST, WrongAnswer, read_head
from benchmarks.websocket_messages import (
    CLOSE,
    FIN,
    FLUSH_TAIL,
    MASKED,
    OPCODE_BITS,
    RSV1,
    WINDOW_BITS,
    ByteCounter,
    FrameCounter,
    Messages,
    encode_messages,
    make_bursts,
)

READ_BYTES = 256 * 1024
PLAIN_BYTES = 1024
"""The longest message that may come back uncompressed where compression was agreed: it need not pay."""
KEY = base64.b64encode(b"benchmarks' key.")
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Origin: http://127.0.0.1\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n%s\r\n"
)


# --- a session -------------------------------------------------------------------------------------------


def open_session(port: int, *, offers_deflate: bool) -> tuple[socket.socket, int | None]:
    """Opens a WebSocket.

    Returns:
        Its socket, and the largest window that we may compress with, in bits; None if nothing is compressed.

    Raises:
        WrongAnswer: the server did not agree to a WebSocket.
    """
    connection = socket.create_connection((HOST, port), timeout=ANSWER_LIMIT_S)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(HANDSHAKE % (OFFER if offers_deflate else b""))
        head, rest = read_head(connection)
        if rest:
            raise WrongAnswer(f"sent {rest[:20]!r} before any message")
        return connection, parse_handshake(head)
    except BaseException:
        connection.close()
        raise


def parse_handshake(head: bytes) -> int | None:
    """Checks the answer to a handshake; returns the bits of the client's window, None if not compressed."""
    status, *lines = head.split(b"\r\n")
    if not status.startswith(b"HTTP/1.1 101"):
        raise WrongAnswer(f"answered the handshake with {status[:60].decode('latin-1')!r}")
    pairs = (line.partition(b":") for line in lines)
    fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if fields.get(b"sec-websocket-accept") != ACCEPT:
        raise WrongAnswer("answered the handshake with a wrong Sec-WebSocket-Accept")
    extension = fields.get(b"sec-websocket-extensions", b"")
    if not extension.startswith(b"permessage-deflate"):
        return None
    bits = re.search(rb"client_max_window_bits *= *\"?(\d+)", extension)
    return int(bits[1]) if bits else WINDOW_BITS


def check_echoes(port: int, messages: Messages) -> None:
    """Sends each message once, on a session of its own, and compares what comes back.

    Raises:
        WrongAnswer: something else came back, or in several frames, or the server does not compress.
    """
    connection, window_bits = open_session(port, offers_deflate=messages.offers_deflate)
    with connection:
        if messages.offers_deflate and window_bits is None:
            raise WrongAnswer("does not negotiate permessage-deflate")
        exchange_messages(connection, messages, window_bits)


def exchange_messages(connection: socket.socket, messages: Messages, window_bits: int | None) -> None:
    """Each message and its echo, one after the other; raises WrongAnswer if one is not as it should be."""
    inflater = zlib.decompressobj(wbits=-WINDOW_BITS)
    frames = encode_messages(messages, window_bits)
    for payload, frame in zip(messages.payloads, frames, strict=True):
        connection.sendall(frame)
        first, answer = read_frame(connection)
        if first & RSV1:
            answer = inflater.decompress(answer + FLUSH_TAIL)
        elif window_bits is not None and len(payload) > PLAIN_BYTES:
            raise WrongAnswer("negotiates permessage-deflate, but does not compress")
        if first & ~RSV1 != FIN | messages.opcode:
            raise WrongAnswer(f"echoed in a frame that begins with {first:#x}")
        if answer != payload:
            raise WrongAnswer(
                f"echoed {len(answer)} bytes {answer[:20]!r} for {len(payload)} {payload[:20]!r}"
            )


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    """Reads one unmasked frame: its first byte, and its payload."""
    first, length = read_exactly(connection, 2)
    if length == 126:
        length = int.from_bytes(read_exactly(connection, 2), "big")
    elif length == 127:
        length = int.from_bytes(read_exactly(connection, 8), "big")
    elif length & MASKED:
        raise WrongAnswer("masks its frames")
    return first, read_exactly(connection, length)


def read_exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        data = connection.recv(size - len(received))
        if not data:
            raise WrongAnswer("closed instead of an echo")
        received += data
    return received


# --- the load --------------------------------------------------------------------------------------------


class Session:
    """One WebSocket under load.

    Attributes:
        in_flight: messages sent whose echo has not come.
        unsent: what the socket did not take yet.
    """

    __slots__ = ("_bursts", "_next", "counter", "in_flight", "is_watched", "socket", "unsent")

    def __init__(
        self, connection: socket.socket, bursts: list[list[memoryview]], counter: ByteCounter | FrameCounter
    ) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.counter = counter
        self.in_flight = 0
        self.unsent = memoryview(b"")
        self.is_watched = False
        self._bursts = bursts
        self._next = 0

    def send(self, number: int) -> None:
        """Sends that many messages more."""
        burst = self._bursts[self._next][number]
        self._next = (self._next + number) % len(self._bursts)
        self.in_flight += number
        self.unsent = memoryview(bytes(self.unsent) + burst) if self.unsent else burst
        self.flush()

    def flush(self) -> None:
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            pass

    def receive(self, buffer: bytearray) -> tuple[int, int]:
        """Reads once; returns how many echoes that completed, and how many bytes it read."""
        size = self.socket.recv_into(buffer)
        if not size:
            raise WrongAnswer("closed a WebSocket under load")
        echoes = self.counter.feed(buffer, size)
        self.in_flight -= echoes
        return echoes, size


@dataclass(frozen=True, slots=True)
class Echoes:
    """What a run of the load counted.

    Attributes:
        received_bytes: of all echoes, with the headers of their frames.
        load_share: part of the wall time in which the load itself computed, 0 to 1.
    """

    messages: int
    received_bytes: int
    load_share: float


class EchoLoad:
    """Sessions that keep a number of messages each under way: an echo that came sends the next message."""

    def __init__(self, port: int, messages: Messages, *, sessions: int, in_flight: int) -> None:
        """Opens the sessions.

        Raises:
            WrongAnswer: the server refused one, or did not agree to what was offered.
        """
        self._in_flight = in_flight
        self._buffer = bytearray(READ_BYTES)
        self._epoll = select.epoll()
        self._sessions: dict[int, Session] = {}
        try:
            for _ in range(sessions):
                connection, window_bits = open_session(port, offers_deflate=messages.offers_deflate)
                if not self._sessions:
                    frames = encode_messages(messages, window_bits)
                    bursts = list(make_bursts(frames, in_flight))
                # A server does not mask, so its frame is shorter than ours by the four bytes of the key.
                counter = ByteCounter(len(frames[0]) - 4) if window_bits is None else FrameCounter()
                self._sessions[connection.fileno()] = Session(connection, bursts, counter)
                self._epoll.register(connection, select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def run(self, duration_s: float) -> Echoes:
        """Keeps the messages under way for the duration, and then waits for the echoes that are still out.

        Raises:
            WrongAnswer: the server closed, fell silent, or sent something else than echoes.
        """
        cpu_s, start = time.process_time(), time.monotonic()
        for session in self._sessions.values():
            self._send(session, self._in_flight)
        messages, received_bytes = self._exchange(start + duration_s)
        load_share = (time.process_time() - cpu_s) / (time.monotonic() - start)
        for session in self._sessions.values():
            if session.in_flight or not session.counter.is_between_frames():
                raise WrongAnswer("sent something else than echoes under load")
        return Echoes(messages, received_bytes, load_share)

    def _exchange(self, deadline: float) -> tuple[int, int]:
        """Until all echoes are in: their number, and their bytes."""
        messages = received_bytes = 0
        left = self._in_flight * len(self._sessions)
        while left > 0:
            ready = self._epoll.poll(ANSWER_LIMIT_S)
            if not ready:
                raise WrongAnswer(f"sent nothing for {ANSWER_LIMIT_S:.0f} s with {left} echoes to come")
            is_going_on = time.monotonic() < deadline
            for descriptor, event in ready:
                session = self._sessions[descriptor]
                if event & select.EPOLLOUT:
                    self._flush(session)
                    if event == select.EPOLLOUT:
                        continue
                echoes, size = session.receive(self._buffer)
                messages += echoes
                received_bytes += size
                if not is_going_on:
                    left -= echoes
                elif echoes:
                    self._send(session, echoes)
        return messages, received_bytes

    def _send(self, session: Session, number: int) -> None:
        session.send(number)
        if session.unsent and not session.is_watched:
            session.is_watched = True
            self._epoll.modify(session.socket, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, session: Session) -> None:
        session.flush()
        if not session.unsent:
            session.is_watched = False
            self._epoll.modify(session.socket, select.EPOLLIN)

    def close(self) -> None:
        self._epoll.close()
        for session in self._sessions.values():
            session.socket.close()
        self._sessions.clear()


# --- idle sessions ---------------------------------------------------------------------------------------


class IdleSessions:
    """WebSockets that had one message echoed each and then say nothing."""

    def __init__(self, port: int, messages: Messages) -> None:
        self._port = port
        self._messages = messages
        self._connections: list[socket.socket] = []

    def open(self, number: int) -> None:
        """Opens that many more, one after the other, compressed where the server agrees to it.

        Raises:
            WrongAnswer: the server refused one, or did not echo.
        """
        for _ in range(number):
            try:
                connection, window_bits = open_session(
                    self._port, offers_deflate=self._messages.offers_deflate
                )
                self._connections.append(connection)
                exchange_messages(connection, self._messages, window_bits)
            except (OSError, WrongAnswer) as error:
                reason = str(error) or type(error).__name__
                raise WrongAnswer(f"refused WebSocket {len(self._connections)}: {reason}") from None

    def count_closed(self) -> int:
        """How many the server has closed meanwhile, or wants to; a ping is not counted."""
        poll = select.poll()
        by_descriptor = {connection.fileno(): connection for connection in self._connections}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        return sum(is_closed(by_descriptor[descriptor]) for descriptor, _ in poll.poll(0))

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()


def is_closed(connection: socket.socket) -> bool:
    """Whether what comes next on a readable socket is its end, or a close frame."""
    try:
        first = connection.recv(1, socket.MSG_PEEK)
    except ConnectionError:
        return True
    return not first or first[0] & OPCODE_BITS == CLOSE
