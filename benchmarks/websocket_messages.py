"""What goes over the WebSockets: messages, frames built beforehand, and counters for their echoes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from benchmarks.clients import WrongAnswer

TEXT = 1
BINARY = 2
CLOSE = 8
OPCODE_BITS = 0x0F
FIN = 0x80
RSV1 = 0x40
MASKED = 0x80
WINDOW_BITS = 15
FLUSH_TAIL = b"\x00\x00\xff\xff"


# --- messages --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Messages:
    """What a workload sends.

    Attributes:
        opcode: TEXT or BINARY.
        payloads: sent in turn, again and again.
        offers_deflate: whether permessage-deflate is offered, as browsers offer it.
    """

    opcode: int
    payloads: tuple[bytes, ...]
    offers_deflate: bool = False


def random_bytes(size: int) -> bytes:
    """The same bytes in every run, without a pattern."""
    return Random(size).randbytes(size)


def json_records(size: int, seed: int) -> bytes:
    """ASCII text of exactly that size: JSON objects, one a line, as a shop would send its orders."""
    random = Random(seed)
    words = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty")
    lines: list[str] = []
    length = 0
    while length < size:
        record = {
            "id": random.getrandbits(40),
            "name": f"{random.choice(words)} {random.choice(words)}",
            "state": random.choice(("open", "paid", "shipped", "returned")),
            "price": random.randrange(100, 1_000_000) / 100,
            "at": f"2026-11-{random.randrange(1, 31):02}T{random.randrange(24):02}:00Z",
        }
        lines.append(json.dumps(record))
        length += len(lines[-1]) + 1
    return "\n".join(lines).encode()[:size]


SMALL = Messages(BINARY, (random_bytes(32),))
LARGE = Messages(BINARY, (random_bytes(16 * 1024),))
# Together longer than the largest window of 32 KiB, so that a server which keeps its window from message to
# message does not find the same text in it again, as it would if there were one.
LARGE_DEFLATED = Messages(
    TEXT, tuple(json_records(16 * 1024, seed) for seed in range(8)), offers_deflate=True
)
IDLE_MESSAGES = Messages(TEXT, (json_records(128, 0),), offers_deflate=True)


def encode_frame(opcode: int, payload: bytes, *, is_compressed: bool) -> bytes:
    """A whole message in one masked frame (RFC 6455 §5.2). The mask is as good as random, and repeatable."""
    size = len(payload)
    first = FIN | opcode | (RSV1 if is_compressed else 0)
    if size < 126:
        head = bytes((first, MASKED | size))
    elif size < 65_536:
        head = bytes((first, MASKED | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, MASKED | 127)) + size.to_bytes(8, "big")
    key = Random(size).randbytes(4)
    repeated = (key * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + key + masked.to_bytes(size, "big")


def compress(payload: bytes, window_bits: int) -> bytes:
    """One message by itself (RFC 7692 §7.2.1): it refers to none before it, which every server must take."""
    deflater = zlib.compressobj(wbits=-window_bits)
    compressed = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return compressed.removesuffix(FLUSH_TAIL)


def encode_messages(messages: Messages, window_bits: int | None) -> list[bytes]:
    """The frames of all messages, compressed with a window of so many bits, or not at all."""
    if window_bits is None:
        return [encode_frame(messages.opcode, payload, is_compressed=False) for payload in messages.payloads]
    compressed = [compress(payload, window_bits) for payload in messages.payloads]
    return [encode_frame(messages.opcode, payload, is_compressed=True) for payload in compressed]


def make_bursts(frames: list[bytes], longest: int) -> Iterator[list[memoryview]]:
    """For each message the pieces to write that begin with it: none, it alone, it and the next, and so on."""
    count = len(frames)
    for first in range(count):
        ends = [frames[(first + number) % count] for number in range(longest)]
        yield [memoryview(b"".join(ends[:number])) for number in range(longest + 1)]


# --- counting --------------------------------------------------------------------------------------------


class ByteCounter:
    """Counts echoes by their bytes: exact, as long as nothing but echoes comes."""

    __slots__ = ("_frame_bytes", "_part_bytes")

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._part_bytes = 0

    def feed(self, buffer: bytearray, size: int) -> int:
        """Takes the first `size` bytes of the buffer; returns how many echoes they completed."""
        echoes, self._part_bytes = divmod(self._part_bytes + size, self._frame_bytes)
        return echoes

    def is_between_frames(self) -> bool:
        return self._part_bytes == 0


class FrameCounter:
    """Counts echoes of unknown length by the headers of their frames; passes over pings and pongs."""

    __slots__ = ("_ends_message", "_head", "_left_bytes")

    def __init__(self) -> None:
        self._left_bytes = 0  # of the payload of the frame whose header has come
        self._ends_message = False
        self._head = b""  # of a header that has not come whole

    def feed(self, buffer: bytearray, size: int) -> int:
        """Takes the first `size` bytes of the buffer; returns how many echoes they completed.

        Raises:
            WrongAnswer: a close frame came.
        """
        echoes = 0
        position = 0
        if self._head:
            buffer = bytearray(self._head) + buffer[:size]
            size += len(self._head)
            self._head = b""
        while self._left_bytes <= size - position:
            position += self._left_bytes
            echoes += self._ends_message
            self._left_bytes = 0
            self._ends_message = False
            left = size - position
            length = buffer[position + 1] if left >= 2 else 0
            head_bytes = 2 if length < 126 else 4 if length == 126 else 10
            if left < head_bytes:
                self._head = bytes(buffer[position:size])
                return echoes
            if head_bytes > 2:
                length = int.from_bytes(buffer[position + 2 : position + head_bytes], "big")
            opcode = buffer[position] & OPCODE_BITS
            if opcode == CLOSE:
                raise WrongAnswer("closed the WebSocket under load")
            self._ends_message = opcode < CLOSE and buffer[position] >= FIN
            self._left_bytes = length
            position += head_bytes
        self._left_bytes -= size - position
        return echoes

    def is_between_frames(self) -> bool:
        return not self._left_bytes and not self._head and not self._ends_message
