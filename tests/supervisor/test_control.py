"""The codec of the control pipes: every message there and back, any cut of any frames, and garbage."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.supervisor.control import (
    HEADER_BYTES,
    MAX_CHANNEL_BYTES,
    MAX_DATA_BYTES,
    MAX_PAYLOAD_BYTES,
    ControlError,
    Drain,
    Failed,
    FrameDecoder,
    Lead,
    Lost,
    Message,
    PagePiece,
    Ping,
    Pong,
    Publish,
    Subscribe,
    channel_of,
    decode,
    encode,
    encode_frame,
)

CLASSES: tuple[Any, ...] = get_args(Message)

VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    str: st.text(max_size=200),
    bytes: st.binary(max_size=300),
    list[int]: st.lists(st.integers(), max_size=5),
}


def messages_of(message: Any) -> st.SearchStrategy[Message]:
    hints = get_type_hints(message)
    values = {field.name: VALUES[hints[field.name]] for field in fields(message)}
    if message is PagePiece:
        values["number"] = st.integers(0, 2**32 - 1)
    return st.builds(message, **values)


MESSAGES = st.one_of([messages_of(message) for message in CLASSES])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def cut(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """``data`` in pieces; some may be empty."""
    start = 0
    for end in sorted(cuts):
        yield data[start:end]
        start = max(start, end)
    yield data[start:]


def feed_all(pieces: Iterable[bytes]) -> list[tuple[int, bytes]]:
    decoder = FrameDecoder()
    return [frame for piece in pieces for frame in decoder.feed(piece)]


def publish_payload(name_bytes: int, name: bytes, data: bytes) -> bytes:
    return name_bytes.to_bytes(2, "big") + name + data


class TestMessages:
    @pytest.mark.parametrize(
        ("message", "frame"),
        [
            (Ping(7), b"\x00\x00\x00\x03\x04[7]"),
            (Lead(), b"\x00\x00\x00\x02\x08[]"),
            (Failed('"', "é"), b'\x00\x00\x00\x10\x03["\\"", "\\u00e9"]'),
            (Publish("é", b"\x00\xff"), b"\x00\x00\x00\x06\x0f\x00\x02\xc3\xa9\x00\xff"),
            (Publish("", b""), b"\x00\x00\x00\x02\x0f\x00\x00"),
        ],
    )
    def test_bytes(self, message: Message, frame: bytes) -> None:
        assert encode(message) == frame
        assert decode(frame[4], frame[HEADER_BYTES:]) == message

    @given(MESSAGES)
    def test_there_and_back(self, message: Message) -> None:
        [(kind, payload)] = feed_all([encode(message)])
        assert decode(kind, payload) == message

    def test_kinds_differ(self) -> None:
        assert len({message.kind for message in CLASSES}) == len(CLASSES)

    def test_a_whole_number_of_seconds(self) -> None:
        assert decode(Drain.kind, b"[-1, true]") == Drain(-1, True)

    def test_largest_publish(self) -> None:
        message = Publish("c" * MAX_CHANNEL_BYTES, b"d" * MAX_DATA_BYTES)
        [(kind, payload)] = feed_all([encode(message)])
        assert decode(kind, payload) == message

    @pytest.mark.parametrize(
        "message",
        [
            Publish("c" * (MAX_CHANNEL_BYTES + 1), b""),
            Publish("é" * (MAX_CHANNEL_BYTES // 2 + 1), b""),
            Publish("c", b"d" * (MAX_DATA_BYTES + 1)),
            Publish("\ud800", b""),
            Failed("s" * MAX_PAYLOAD_BYTES, ""),
        ],
        ids=["channel", "channel-utf-8", "data", "surrogate", "payload"],
    )
    def test_too_large_or_impossible(self, message: Message) -> None:
        with pytest.raises(ValueError):
            encode(message)


class TestFrames:
    @given(st.lists(MESSAGES, max_size=8), st.data())
    def test_any_cut_gives_the_same(self, messages: list[Message], draw: st.DataObject) -> None:
        data = b"".join(map(encode, messages))
        cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=20))
        assert [decode(*frame) for frame in feed_all(cut(data, cuts))] == messages

    @given(st.lists(MESSAGES, max_size=4))
    def test_byte_by_byte(self, messages: list[Message]) -> None:
        data = b"".join(map(encode, messages))
        assert [decode(*frame) for frame in feed_all(cut(data, range(len(data))))] == messages

    def test_each_frame_as_soon_as_it_is_whole(self) -> None:
        decoder = FrameDecoder()
        first, second = encode(Ping(1)), encode(Ping(2))
        assert decoder.feed(first[:-1]) == []
        assert decoder.feed(first[-1:] + second[:3]) == [(Ping.kind, b"[1]")]
        assert decoder.feed(second[3:]) == [(Ping.kind, b"[2]")]

    def test_largest_frame_is_copied_once(self) -> None:
        frame = encode_frame(2, bytes(MAX_PAYLOAD_BYTES))
        pieces = list(cut(frame, range(0, len(frame), 65_536)))
        decoder = FrameDecoder()
        tracemalloc.start()
        try:
            for piece in pieces[:-1]:
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                assert decoder.feed(piece) == []
                assert tracemalloc.get_traced_memory()[1] - before < 65_536
        finally:
            tracemalloc.stop()
        [(kind, payload)] = decoder.feed(pieces[-1])
        assert (kind, payload) == (2, frame[HEADER_BYTES:])

    def test_a_length_beyond_the_largest(self) -> None:
        head = (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "big")
        decoder = FrameDecoder()
        assert decoder.feed(encode(Ping(1)) + head) == [(Ping.kind, b"[1]")]
        with pytest.raises(ControlError):
            decoder.feed(b"\x04")


class TestGarbage:
    @given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
    def test_bytes(self, data: bytes, cuts: list[int]) -> None:
        try:
            for kind, payload in feed_all(cut(data, cuts)):
                decode(kind, payload)
        except ControlError:
            pass

    @given(st.sampled_from(CLASSES) | st.integers(0, 255), st.binary(max_size=100))
    def test_payload(self, message: Any, payload: bytes) -> None:
        kind = message if isinstance(message, int) else message.kind
        try:
            assert isinstance(decode(kind, payload), CLASSES)
        except ControlError:
            pass

    @given(st.sampled_from([message for message in CLASSES if message is not Publish]), JSON)
    def test_json(self, message: Any, value: Any) -> None:
        try:
            found = decode(message.kind, json.dumps(value).encode())
        except ControlError:
            return
        hints = get_type_hints(message)
        for field in fields(message):
            hint = hints[field.name]
            allowed = {float: (int, float), list[int]: (list,)}.get(hint, (hint,))
            assert type(getattr(found, field.name)) in allowed

    @pytest.mark.parametrize(
        ("kind", "payload"),
        [
            (0, b"[]"),
            (255, b"[]"),
            (Lead.kind, b""),
            (Lead.kind, b"{}"),
            (Lead.kind, b"[1]"),
            (Ping.kind, b"[]"),
            (Ping.kind, b"[1, 2]"),
            (Ping.kind, b'["1"]'),
            (Ping.kind, b"[true]"),
            (Ping.kind, b"[1.0]"),
            (Ping.kind, b"[1"),
            (Failed.kind, b'"ab"'),
            (Failed.kind, b'{"a": 1, "b": 2}'),
            (Pong.kind, b"[1, 2, 3, 4, 5, null]"),
            (Subscribe.kind, b'["\xff"]'),
            (Subscribe.kind, b"[" * 100_000),
            (Lost.kind, b"[" + b"9" * 10_000 + b"]"),
            (PagePiece.kind, b""),
            (PagePiece.kind, b"\x00\x00\x00\x01"),
            (Publish.kind, b""),
            (Publish.kind, b"\x00"),
            (Publish.kind, publish_payload(3, b"ab", b"")),
            (Publish.kind, publish_payload(1, b"\xff", b"")),
            (Publish.kind, publish_payload(MAX_CHANNEL_BYTES + 1, b"c" * (MAX_CHANNEL_BYTES + 1), b"")),
            (Publish.kind, publish_payload(1, b"c", b"d" * (MAX_DATA_BYTES + 1))),
        ],
    )
    def test_no_message(self, kind: int, payload: bytes) -> None:
        with pytest.raises(ControlError):
            decode(kind, payload)

    def test_channel_is_found_without_its_data(self) -> None:
        assert channel_of(publish_payload(2, "é".encode(), b"data")) == "é".encode()
