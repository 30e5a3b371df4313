"""Bytes of a client, what an engine must make of them, and what it must answer.

``frame`` and ``frames_of`` are written from RFC 6455 §5.2 alone and share nothing with the engine.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from headrace.protocol.websocket import (
    CloseReceived,
    ConnectionFailed,
    DeflateAgreement,
    DeflateOptions,
    Event,
    PongReceived,
    WebSocketEngine,
    negotiate_deflate,
)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x37\xfa\x21\x3d"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_bytes: int | None = None,
) -> bytes:
    """One frame; ``length_bytes`` (0, 2 or 8) forces a size of the extended length."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65_536 else 8
    short = {0: size, 2: 126, 8: 127}[length_bytes]
    head = struct.pack("!BB", fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short)
    if length_bytes:
        head += size.to_bytes(length_bytes, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, close_payload(code, reason))


def server_frame(opcode: int, payload: bytes = b"") -> bytes:
    return frame(opcode, payload, mask=None)


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """What a server has sent: (first byte, payload) of each frame; all whole and none masked."""
    frames = []
    while data:
        first, size = data[0], data[1]
        assert size < 128, "masked"
        start = 2
        if size == 126:
            start, size = 4, int.from_bytes(data[2:4], "big")
            assert size > 125
        elif size == 127:
            start, size = 10, int.from_bytes(data[2:10], "big")
            assert size > 65_535
        assert len(data) >= start + size, "not whole"
        frames.append((first, data[start : start + size]))
        data = data[start + size :]
    return frames


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    """Cut ``data`` at random places; seed 0 leaves it whole, seed 1 cuts it into single bytes."""
    if seed == 0:
        yield data
        return
    chance = random.Random(seed)
    while data:
        size = 1 if seed == 1 else chance.choice((1, 2, 3, 5, 8, 13, 40, 200))
        yield data[:size]
        data = data[size:]


@dataclass
class Failed:
    """A ConnectionFailed, by what matters of it."""

    close_code: int


Expected = str | bytes | PongReceived | CloseReceived | Failed


@dataclass
class Vector:
    name: str
    data: bytes
    events: list[Expected] = field(default_factory=list)
    out: list[tuple[int, bytes]] = field(default_factory=list)
    """(first byte, payload) of each frame but the Close frame of a failure."""
    max_message_bytes: int = 1000
    deflate: bytes | None = None
    """The client's offer."""

    @property
    def ends(self) -> bool:
        """Nothing is read behind it."""
        return bool(self.events) and isinstance(self.events[-1], (CloseReceived, Failed))

    def engine(self) -> WebSocketEngine:
        return WebSocketEngine(self.max_message_bytes, None if self.deflate is None else agree(self.deflate))


def agree(offer: bytes = b"permessage-deflate", **options: bool | int) -> DeflateAgreement:
    agreement = negotiate_deflate(offer, DeflateOptions(**options))
    assert agreement is not None
    return agreement


def told(events: Iterable[Event]) -> list[Expected]:
    """Events with failures reduced to their code."""
    return [
        Failed(event.error.close_code) if isinstance(event, ConnectionFailed) else event for event in events
    ]


@dataclass
class Seen:
    """What an engine made of some bytes."""

    events: list[Event] = field(default_factory=list)
    out: bytes = b""

    @property
    def told(self) -> list[Expected]:
        return told(self.events)

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """What was sent, without the Close frame of a failure, which is checked here."""
        frames = frames_of(self.out)
        if self.events and isinstance(self.events[-1], ConnectionFailed):
            error = self.events[-1].error
            first, payload = frames.pop()
            assert first == 0x88
            assert payload[:2] == close_payload(error.close_code)
            assert payload[2:].decode() == str(error)
        return frames


def run(engine: WebSocketEngine, parts: Iterable[bytes], max_messages: int = 32) -> Seen:
    """Feed an engine as a connection does: no more data while something is unread."""
    seen = Seen()

    def take(events: Sequence[Event]) -> None:
        assert sum(isinstance(event, (str, bytes)) for event in events) <= max_messages
        for event in events:
            assert not any(isinstance(before, (CloseReceived, ConnectionFailed)) for before in seen.events)
            seen.events.append(event)
        size = engine.out_bytes
        out = engine.data_to_send()
        assert len(out) == size
        assert engine.out_bytes == 0
        seen.out += out

    for part in parts:
        take(engine.receive_data(part, max_messages))
        while engine.has_unread:
            take(engine.receive_data(b"", max_messages))
    return seen


HELLO = "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!"
CODEPOINTS = "\u03ba\u1f79\u03c3\U0001f600"
DEFLATED_HELLO = bytes.fromhex("f248cdc9c90700")
"""RFC 7692 §7.2.3.1."""
OFFER = b"permessage-deflate"
TAKEOVER_OFFER = b"permessage-deflate; server_no_context_takeover"

VALID = [
    Vector("nothing", b""),
    Vector("rfc 5.7 hello", bytes.fromhex("818537fa213d7f9f4d5158"), ["Hello"]),
    Vector("empty text", frame(TEXT), [""]),
    Vector("empty binary", frame(BINARY), [b""]),
    Vector("text and binary", frame(TEXT, HELLO.encode()) + frame(BINARY, b"\xff\x00"), [HELLO, b"\xff\x00"]),
    Vector("mask of zeros", frame(TEXT, b"abc", mask=b"\0\0\0\0"), ["abc"]),
    *(
        Vector(f"binary of {size}", frame(BINARY, bytes(size)), [bytes(size)], max_message_bytes=size)
        for size in (1, 124, 125, 126, 127, 255, 256, 65_535, 65_536, 70_001)
    ),
    Vector("text of 126", frame(TEXT, b"a" * 126), ["a" * 126]),
    Vector("many messages", frame(TEXT, b"a") * 100, ["a"] * 100),
    Vector(
        "fragments",
        frame(TEXT, b"Hel", fin=False) + frame(CONTINUATION, b"l", fin=False) + frame(CONTINUATION, b"o"),
        ["Hello"],
    ),
    Vector(
        "binary fragments", frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION, b"\xfe"), [b"\xff\xfe"]
    ),
    Vector(
        "empty fragments",
        frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 20 + frame(CONTINUATION),
        [""],
    ),
    Vector(
        "characters cut by fragments",
        frame(TEXT, fin=False)
        + b"".join(frame(CONTINUATION, bytes((byte,)), fin=False) for byte in CODEPOINTS.encode())
        + frame(CONTINUATION),
        [CODEPOINTS],
    ),
    Vector(
        "control frames between fragments",
        frame(TEXT, b"a", fin=False)
        + frame(PING, b"1")
        + frame(CONTINUATION, b"b", fin=False)
        + frame(PONG, b"2")
        + frame(PING, b"3")
        + frame(CONTINUATION, b"c")
        + frame(TEXT, b"d"),
        [PongReceived(b"2"), "abc", "d"],
        [(0x8A, b"1"), (0x8A, b"3")],
    ),
    Vector("fragments up to the limit", frame(TEXT, b"ab", fin=False) + frame(0, b"cd"), ["abcd"], [], 4),
    Vector("ping", frame(PING) + frame(PING, b"x" * 125), [], [(0x8A, b""), (0x8A, b"x" * 125)]),
    Vector("control frames know no message limit", frame(PING, b"x" * 9), [], [(0x8A, b"x" * 9)], 0),
    Vector("pong", frame(PONG) + frame(PONG, b"x" * 125), [PongReceived(b""), PongReceived(b"x" * 125)]),
    Vector("close", frame(CLOSE), [CloseReceived(1005, "")], [(0x88, b"")]),
    *(
        Vector(f"close {code}", close(code), [CloseReceived(code, "")], [(0x88, close_payload(code))])
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
    ),
    Vector(
        "close with a reason",
        frame(TEXT, b"a") + close(1000, CODEPOINTS.encode()),
        ["a", CloseReceived(1000, CODEPOINTS)],
        [(0x88, close_payload(1000))],
    ),
    Vector(
        "close with the longest reason",
        close(4000, b"x" * 123),
        [CloseReceived(4000, "x" * 123)],
        [(0x88, close_payload(4000))],
    ),
    Vector(
        "close inside a message",
        frame(TEXT, b"a", fin=False) + close(1001),
        [CloseReceived(1001, "")],
        [(0x88, close_payload(1001))],
    ),
    Vector("deflate: plain message", frame(TEXT, b"abc"), ["abc"], deflate=OFFER),
    Vector("deflate: hello", frame(TEXT, DEFLATED_HELLO, rsv=4), ["Hello"], deflate=OFFER),
    Vector("deflate: at the limit", frame(BINARY, DEFLATED_HELLO, rsv=4), [b"Hello"], [], 5, deflate=OFFER),
    Vector(
        "deflate: hello in fragments",
        frame(TEXT, DEFLATED_HELLO[:3], fin=False, rsv=4)
        + frame(PING, b"p")
        + frame(CONTINUATION, DEFLATED_HELLO[3:]),
        ["Hello"],
        [(0x8A, b"p")],
        deflate=OFFER,
    ),
    Vector("deflate: empty", frame(TEXT, b"\x00", rsv=4), [""], deflate=OFFER),
    Vector(
        "deflate: empty last fragment",
        frame(BINARY, DEFLATED_HELLO, fin=False, rsv=4) + frame(CONTINUATION),
        [b"Hello"],
        deflate=OFFER,
    ),
    Vector(
        "deflate: a stored block, rfc 7692 7.2.3.3",
        frame(TEXT, bytes.fromhex("000500faff48656c6c6f00"), rsv=4),
        ["Hello"],
        deflate=OFFER,
    ),
    Vector(
        "deflate: a final block, rfc 7692 7.2.3.4",
        frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=4) * 3,
        ["Hello"] * 3,
        deflate=OFFER,
    ),
    Vector(
        "deflate: two blocks, rfc 7692 7.2.3.5",
        frame(TEXT, bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", "")), rsv=4),
        ["Hello"],
        deflate=OFFER,
    ),
]

INVALID_UTF8 = {
    "lone continuation": b"\x80",
    "overlong": b"\xc0\xaf",
    "overlong of three": b"\xe0\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "above the last plane": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "cut": "\u20ac".encode()[:2],
    "byte ff": b"\xff",
}

BAD_FRAMES = {
    "not masked": frame(TEXT, b"abc", mask=None),
    "empty and not masked": frame(TEXT, mask=None),
    "ping not masked": frame(PING, mask=None),
    **{f"reserved bits {rsv:03b}": frame(TEXT, b"abc", rsv=rsv) for rsv in range(1, 8)},
    **{f"reserved bits {rsv:03b} on a ping": frame(PING, rsv=rsv) for rsv in (1, 2, 4, 7)},
    "reserved bits on a close": frame(CLOSE, close_payload(1000), rsv=4),
    **{f"reserved opcode {opcode:#x}": frame(opcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"control {opcode:#x} in fragments": frame(opcode, fin=False) for opcode in (8, 9, 10)},
    **{f"control {opcode:#x} of 126 bytes": frame(opcode, bytes(126)) for opcode in (8, 9, 10)},
    "control with a long length": frame(PING, length_bytes=8),
    "continuation without a start": frame(CONTINUATION, b"a"),
    "continuation without a start, not last": frame(CONTINUATION, b"a", fin=False),
    "length 125 in 2 bytes": frame(BINARY, bytes(125), length_bytes=2),
    "length 0 in 2 bytes": frame(BINARY, length_bytes=2),
    "length 125 in 8 bytes": frame(BINARY, bytes(125), length_bytes=8),
    "length 65535 in 8 bytes": b"\x82\xff" + (65_535).to_bytes(8, "big") + MASK,
    "length of 64 bits": b"\x82\xff" + (1 << 63).to_bytes(8, "big") + MASK,
    "close of one byte": frame(CLOSE, b"\x03"),
    **{
        f"close {code}": close(code)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
}
"""Frames that a server without extensions refuses with 1002 wherever they come between messages."""

TOO_BIG = {
    "short": frame(BINARY, b"12345"),
    "text": frame(TEXT, b"12345"),
    "medium": frame(BINARY, bytes(200)),
    "head alone": b"\x82\xfe\xff\xff",
    "head of the largest": b"\x82\xff" + ((1 << 63) - 1).to_bytes(8, "big"),
    "second fragment": frame(BINARY, b"123", fin=False) + frame(CONTINUATION, b"45"),
    "third fragment": frame(TEXT, b"12", fin=False)
    + frame(CONTINUATION, b"34", fin=False)
    + frame(CONTINUATION, b"5", fin=False),
}

INVALID = [
    *(Vector(name, data, [Failed(1002)]) for name, data in BAD_FRAMES.items()),
    *(
        Vector(
            f"behind a message: {name}",
            frame(TEXT, b"a") + frame(PING) + data,
            ["a", Failed(1002)],
            [(0x8A, b"")],
        )
        for name, data in BAD_FRAMES.items()
    ),
    *(
        Vector(f"text: {name}", frame(TEXT, b"a" + data), [Failed(1007)])
        for name, data in INVALID_UTF8.items()
    ),
    *(
        Vector(f"long text: {name}", frame(TEXT, b"a" * 200 + data), [Failed(1007)])
        for name, data in INVALID_UTF8.items()
    ),
    *(
        Vector(f"last fragment: {name}", frame(TEXT, b"a", fin=False) + frame(0, data), [Failed(1007)])
        for name, data in INVALID_UTF8.items()
    ),
    *(
        Vector(f"first fragment: {name}", frame(TEXT, data, fin=False), [Failed(1007)])
        for name, data in INVALID_UTF8.items()
        if name != "cut"
    ),
    *(Vector(f"reason: {name}", close(1000, data), [Failed(1007)]) for name, data in INVALID_UTF8.items()),
    Vector(
        "a cut character goes on wrong",
        frame(TEXT, b"\xce", fin=False) + frame(0, b"a", fin=False),
        [Failed(1007)],
    ),
    Vector("a start inside a message", frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), [Failed(1002)]),
    Vector("a binary start inside a text", frame(TEXT, fin=False) + frame(BINARY, fin=False), [Failed(1002)]),
    *(Vector(f"too big: {name}", data, [Failed(1009)], [], 4) for name, data in TOO_BIG.items()),
    Vector(
        "empty fragments without end", frame(BINARY, fin=False) + frame(0, fin=False) * 1024, [Failed(1008)]
    ),
    Vector("deflate: control", frame(PING, b"a", rsv=4), [Failed(1002)], deflate=OFFER),
    *(
        Vector(
            f"deflate: reserved bits {rsv:03b}",
            frame(TEXT, DEFLATED_HELLO, rsv=rsv),
            [Failed(1002)],
            deflate=OFFER,
        )
        for rsv in (1, 2, 3, 5, 6, 7)
    ),
    Vector(
        "deflate: RSV1 on the second fragment",
        frame(TEXT, DEFLATED_HELLO[:3], fin=False, rsv=4) + frame(0, DEFLATED_HELLO[3:], rsv=4),
        [Failed(1002)],
        deflate=OFFER,
    ),
    Vector("deflate: corrupt", frame(TEXT, b"\xff" * 20, rsv=4), [Failed(1007)], deflate=OFFER),
    Vector("deflate: not UTF-8", frame(TEXT, bytes.fromhex("fa0700"), rsv=4), [Failed(1007)], deflate=OFFER),
    Vector("deflate: too big", frame(TEXT, DEFLATED_HELLO, rsv=4), [Failed(1009)], [], 4, deflate=OFFER),
    Vector("deflate: far too big", b"\xc2\xff" + (1 << 40).to_bytes(8, "big"), [Failed(1009)], deflate=OFFER),
    Vector(
        "deflate: too big over fragments",
        frame(TEXT, b"123", fin=False) + frame(0, b"45"),
        [Failed(1009)],
        [],
        4,
        deflate=OFFER,
    ),
    Vector(
        "deflate: data behind a final block",
        frame(TEXT, bytes.fromhex("f348cdc9c90700") + b"xy", rsv=4),
        [Failed(1007)],
        deflate=OFFER,
    ),
    Vector(
        "deflate: a fragment behind a final block",
        frame(TEXT, bytes.fromhex("f348cdc9c9070000"), fin=False, rsv=4) + frame(0, b"\x00"),
        [Failed(1007)],
        deflate=OFFER,
    ),
]

VECTORS = VALID + INVALID
