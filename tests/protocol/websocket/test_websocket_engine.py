"""The engine: vectors at every cut, limits, the closing handshake, unread messages."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Iterable
from typing import Any

import pytest
from websocket_vectors import (
    BAD_FRAMES,
    BINARY,
    CLOSE,
    CONTINUATION,
    HELLO,
    PING,
    PONG,
    TEXT,
    VECTORS,
    Failed,
    Vector,
    agree,
    close,
    close_payload,
    frame,
    frames_of,
    pieces,
    run,
    told,
)

from headrace.protocol.websocket import (
    CloseReceived,
    ConnectionFailed,
    DeflateOptions,
    PongReceived,
    State,
    WebSocketEngine,
    negotiate_deflate,
)
from headrace.protocol.websocket.engine import MAX_TAKEN_BYTES
from headrace.protocol.websocket.message import MAX_EMPTY_FRAGMENTS
from headrace.protocol.websocket.writer import MAX_PONG_BYTES

CUTS = range(8)
FOREIGN = b"\x83GET / HTTP/1.1\r\n\r\n"
BIG = 1 << 24

MAX_BYTES_IN_SINGLE_BYTES = 20_000

by_name = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)


def by_name_and_cut(cuts: Iterable[int]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("vector", "cut"),
        [
            pytest.param(vector, cut, id=f"{vector.name}-{cut}")
            for vector in VECTORS
            for cut in cuts
            if cut != 1 or len(vector.data) <= MAX_BYTES_IN_SINGLE_BYTES
        ],
    )


# Vectors


@by_name_and_cut(CUTS)
def test_vectors_mean_the_same_at_every_cut(vector: Vector, cut: int) -> None:
    engine = vector.engine()
    seen = run(engine, pieces(vector.data, cut))
    assert seen.told == vector.events
    assert seen.frames == vector.out
    assert engine.state is (State.CLOSED if vector.ends else State.OPEN)


@pytest.mark.parametrize("max_messages", [1, 2, 5])
@by_name
def test_vectors_mean_the_same_in_portions(vector: Vector, max_messages: int) -> None:
    seen = run(vector.engine(), [vector.data], max_messages)
    assert seen.told == vector.events
    assert seen.frames == vector.out


@by_name_and_cut([0, 1, 2])
def test_what_comes_behind_the_end_is_dropped_and_else_judged(vector: Vector, cut: int) -> None:
    engine = vector.engine()
    seen = run(engine, pieces(vector.data + FOREIGN, cut))
    assert seen.told == (vector.events if vector.ends else [*vector.events, Failed(1002)])
    assert seen.frames == vector.out
    assert engine.state is State.CLOSED


@by_name
def test_a_closing_engine_checks_all_and_tells_no_message(vector: Vector) -> None:
    engine = vector.engine()
    engine.send_close(1001)
    assert engine.state is State.CLOSING
    seen = run(engine, [vector.data])
    assert seen.told == [event for event in vector.events if not isinstance(event, (str, bytes))]
    assert engine.state is (State.CLOSED if vector.ends else State.CLOSING)
    # Pings are answered still, and there is one Close frame, ours.
    frames = frames_of(seen.out)
    assert frames[0] == (0x88, close_payload(1001))
    assert frames[1:] == [out for out in vector.out if out[0] == 0x8A]


@by_name
def test_without_its_last_byte_it_means_no_more(vector: Vector) -> None:
    engine = vector.engine()
    seen = run(engine, [vector.data[:-1]])
    assert seen.told in (vector.events, vector.events[: len(seen.events)])


@pytest.mark.parametrize("name", [name for name in BAD_FRAMES if "continuation" not in name])
def test_bad_frames_inside_a_message(name: str) -> None:
    engine = WebSocketEngine(1000)
    seen = run(engine, [frame(BINARY, b"a", fin=False), BAD_FRAMES[name]])
    assert seen.told == [Failed(1002)]
    assert seen.frames == []


def test_a_head_is_judged_before_its_payload_comes() -> None:
    for head, code in [
        (b"\x83\x80", 1002),
        (b"\x81\x00", 1002),
        (b"\x89\xfe", 1002),
        (b"\x82\xfe\x00\x7d", 1002),
        (b"\x82\xfe\x03\xe9", 1009),
        (b"\x82\xff" + bytes(5) + b"\x01\x00\x00", 1009),
    ]:
        assert told(WebSocketEngine(1000).receive_data(head)) == [Failed(code)], head


def test_text_fails_in_the_fragment_where_it_goes_wrong() -> None:
    engine = WebSocketEngine(1000)
    assert engine.receive_data(frame(TEXT, b"a\xf4", fin=False)) == []
    assert told(engine.receive_data(frame(CONTINUATION, b"\x90", fin=False))) == [Failed(1007)]


# Limits


def test_empty_fragments_are_counted_by_message() -> None:
    engine = WebSocketEngine(10)
    message = frame(BINARY, b"a", fin=False) + frame(CONTINUATION, fin=False) * MAX_EMPTY_FRAGMENTS
    for _ in range(2):
        assert engine.receive_data(message) == []
        assert engine.receive_data(frame(CONTINUATION, b"b")) == [b"ab"]


def test_an_unfinished_compressed_message_costs_what_its_sender_sent() -> None:
    engine = WebSocketEngine(16_000_000, agree())
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = compressor.compress(bytes(16_000_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    tracemalloc.start()
    assert engine.receive_data(frame(BINARY, data[:100], fin=False, rsv=4)) == []
    assert engine.receive_data(frame(CONTINUATION, data[100:], fin=False)) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) < 20_000
    assert peak < 200_000
    assert engine.under_way_bytes == len(data)
    assert engine.receive_data(frame(CONTINUATION)) == [bytes(16_000_000)]
    assert engine.under_way_bytes == 0


def test_a_compressed_message_whose_fragments_are_longer_than_its_data() -> None:
    engine = WebSocketEngine(300, agree())
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [compressor.compress(b"%d" % (n % 7)) + compressor.flush(zlib.Z_SYNC_FLUSH) for n in range(300)]
    assert sum(map(len, parts)) > 4 * 300
    assert engine.receive_data(frame(TEXT, parts[0], fin=False, rsv=4)) == []
    for part in parts[1:]:
        assert engine.receive_data(frame(CONTINUATION, part, fin=False)) == []
    assert engine.receive_data(frame(CONTINUATION)) == ["".join(str(n % 7) for n in range(300))]


def test_a_message_in_many_fragments_needs_only_its_size() -> None:
    engine = WebSocketEngine(200_000)
    part = frame(CONTINUATION, b"ab", fin=False) * 1000
    engine.receive_data(frame(TEXT, b"ab", fin=False))
    tracemalloc.start()
    for _ in range(50):
        assert engine.receive_data(part) == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * 100_000
    assert engine.receive_data(frame(CONTINUATION, b"c")) == ["ab" * 50_001 + "c"]


def test_a_frame_in_many_reads_is_kept_once() -> None:
    payload = bytes(range(256)) * (BIG // 256)
    engine = WebSocketEngine(BIG)
    data = frame(BINARY, payload, mask=bytes(4))
    tracemalloc.start()
    for start in range(0, BIG, 65_536):
        assert engine.receive_data(data[start : start + 65_536]) == []
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1.2 * BIG
    assert peak < 2.5 * BIG
    (message,) = engine.receive_data(data[BIG:])
    assert message == payload


def test_a_claimed_length_takes_no_memory() -> None:
    engine = WebSocketEngine(1 << 40)
    tracemalloc.start()
    engine.receive_data(b"\x82\xff" + (1 << 39).to_bytes(8, "big") + b"mask" + b"x" * 100)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(held, peak) < 10_000


def test_an_incomplete_frame_does_not_pin_what_came_before_it() -> None:
    engine = WebSocketEngine(100)
    tracemalloc.start()
    data = frame(BINARY, b"x" * 100) * 10_000 + b"\x82"
    events = [*engine.receive_data(data, 20_000)]
    assert len(events) == 10_000
    del data
    events.clear()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000
    assert not engine.has_unread


def test_pings_are_all_answered_up_to_a_limit_then_the_newest() -> None:
    engine = WebSocketEngine(100)
    count = MAX_PONG_BYTES // 7 + 500
    for number in range(count):
        assert engine.receive_data(frame(PING, b"%05d" % number)) == []
    assert engine.out_bytes <= MAX_PONG_BYTES + 14
    size = engine.out_bytes
    pongs = frames_of(engine.data_to_send())
    assert size == len(pongs) * 7
    assert [first for first, _ in pongs] == [0x8A] * len(pongs)
    *early, newest = [int(payload) for _, payload in pongs]
    assert early == list(range(len(early)))
    assert newest == count - 1
    # When they are taken the next is answered as ever.
    engine.receive_data(frame(PING, b"a") + frame(PING, b"b"))
    assert frames_of(engine.data_to_send()) == [(0x8A, b"a"), (0x8A, b"b")]


def test_the_newest_pong_comes_before_a_close() -> None:
    engine = WebSocketEngine(100)
    engine.receive_data(frame(PING, b"x" * 120) * 1000 + frame(PING, b"last"))
    engine.send_close()
    size = engine.out_bytes
    out = engine.data_to_send()
    assert len(out) == size
    assert frames_of(out)[-2:] == [(0x8A, b"last"), (0x88, close_payload(1000))]


# Unread messages


def test_at_most_max_messages_are_read() -> None:
    engine = WebSocketEngine(100)
    data = b"".join(frame(TEXT, b"%d" % number) for number in range(10)) + frame(TEXT, b"cut")[:5]
    assert engine.receive_data(data, 4) == ["0", "1", "2", "3"]
    assert engine.has_unread
    assert engine.receive_data(b"", 4) == ["4", "5", "6", "7"]
    assert engine.has_unread
    assert engine.receive_data(b"", 0) == []
    assert engine.has_unread
    assert engine.receive_data(b"", 4) == ["8", "9"]
    assert not engine.has_unread
    assert engine.receive_data(frame(TEXT, b"cut")[5:], 4) == ["cut"]


def test_no_more_is_unread_when_the_last_message_ends_the_data() -> None:
    engine = WebSocketEngine(100)
    assert engine.receive_data(frame(TEXT, b"a") * 4, 4) == ["a"] * 4
    assert not engine.has_unread


def test_new_data_goes_behind_what_is_unread() -> None:
    engine = WebSocketEngine(1000)
    assert engine.receive_data(frame(TEXT, b"a") + frame(BINARY, b"b" * 500)[:300], 1) == ["a"]
    assert engine.has_unread
    assert engine.receive_data(frame(BINARY, b"b" * 500)[300:] + frame(TEXT, b"c"), 1) == [b"b" * 500]
    assert engine.has_unread
    assert engine.receive_data(b"", 1) == ["c"]


def test_a_frame_under_way_waits_too_when_no_messages_are_wanted() -> None:
    engine = WebSocketEngine(1000)
    data = frame(BINARY, b"b" * 500) + frame(TEXT, b"c")
    assert engine.receive_data(data[:300], 1) == []
    assert not engine.has_unread
    assert engine.receive_data(data[300:400], 0) == []
    assert engine.has_unread
    assert engine.receive_data(data[400:], 0) == []
    assert engine.receive_data(b"", 9) == [b"b" * 500, "c"]
    assert not engine.has_unread


@pytest.mark.parametrize("max_messages", [0, 2])
def test_control_frames_do_not_wait_for_who_takes_messages(max_messages: int) -> None:
    engine = WebSocketEngine(100)
    messages: list[Any] = ["m"] * max_messages
    data = frame(TEXT, b"m") * max_messages + frame(PING, b"a") + frame(PONG, b"b") + frame(PING, b"c")
    # Two of three bytes, then the third, of a ping's payload; no more messages are wanted by then.
    ping = frame(PING, b"xyz")
    assert engine.receive_data(data + ping[:-1], max_messages) == [*messages, PongReceived(b"b")]
    assert not engine.has_unread
    assert engine.receive_data(ping[-1:] + frame(PING, b"d") + frame(TEXT, b"e") + frame(PING), 0) == []
    assert engine.has_unread
    assert [payload for _, payload in frames_of(engine.data_to_send())] == [b"a", b"c", b"xyz", b"d"]
    assert engine.receive_data(close(1001, b"ok"), 0) == []
    assert engine.has_unread
    assert engine.receive_data(b"", 1) == ["e", CloseReceived(1001, "ok")]
    assert not engine.has_unread


def test_a_close_behind_the_last_message_that_is_wanted() -> None:
    engine = WebSocketEngine(100)
    assert engine.receive_data(frame(TEXT, b"a") + close(1001) + FOREIGN, 1) == [
        "a",
        CloseReceived(1001, ""),
    ]
    assert not engine.has_unread


def test_what_follows_in_a_frame_under_way_is_no_control_frame() -> None:
    engine = WebSocketEngine(100)
    data = frame(BINARY, b"\x88" * 50, mask=b"\x00\x00\x00\x00")
    assert engine.receive_data(data[:20], 1) == []
    assert engine.receive_data(data[20:], 0) == []
    assert engine.has_unread
    assert engine.receive_data(b"", 1) == [b"\x88" * 50]


def test_a_failure_waits_for_its_turn() -> None:
    engine = WebSocketEngine(100)
    assert engine.receive_data(frame(TEXT, b"a") + FOREIGN, 1) == ["a"]
    assert engine.state is State.OPEN
    assert told(engine.receive_data(b"", 1)) == [Failed(1002)]
    assert not engine.has_unread
    assert engine.receive_data(b"", 1) == ()


# Closing


def test_our_close_then_theirs() -> None:
    engine = WebSocketEngine(100)
    engine.send_close(1001, "bye")
    assert engine.state is State.CLOSING
    assert frames_of(engine.data_to_send()) == [(0x88, close_payload(1001, b"bye"))]
    data = frame(TEXT, b"dropped") + frame(PING, b"a") + frame(PONG, b"b") + close(1001, b"ok")
    assert engine.receive_data(data) == [PongReceived(b"b"), CloseReceived(1001, "ok")]
    assert engine.state is State.CLOSED
    assert frames_of(engine.data_to_send()) == [(0x8A, b"a")]


def test_their_close_then_ours() -> None:
    engine = WebSocketEngine(100)
    assert engine.receive_data(frame(CLOSE) + frame(TEXT, b"late")) == [CloseReceived(1005, "")]
    assert frames_of(engine.data_to_send()) == [(0x88, b"")]
    engine.send_close(1000)
    assert engine.data_to_send() == b""
    assert engine.state is State.CLOSED
    assert engine.receive_data(frame(TEXT, b"later")) == ()
    assert not engine.has_unread


def test_a_close_may_end_a_frame_that_came_in_parts() -> None:
    engine = WebSocketEngine(100)
    data = close(1000, b"x" * 50)
    assert engine.receive_data(data[:20]) == []
    assert engine.receive_data(data[20:] + frame(TEXT, b"late")) == [CloseReceived(1000, "x" * 50)]
    assert not engine.has_unread


def test_a_message_under_way_when_we_close_is_dropped() -> None:
    engine = WebSocketEngine(100)
    engine.receive_data(frame(TEXT, b"a", fin=False))
    engine.send_close()
    assert engine.receive_data(frame(CONTINUATION, b"b") + frame(TEXT, b"c")) == []
    assert told(engine.receive_data(frame(TEXT, b"\xff"))) == [Failed(1007)]


def test_a_failure_behind_our_close_sends_nothing() -> None:
    engine = WebSocketEngine(100)
    engine.send_close()
    engine.data_to_send()
    assert told(engine.receive_data(FOREIGN)) == [Failed(1002)]
    assert engine.state is State.CLOSED
    assert engine.data_to_send() == b""


def test_the_failure_tells_what_happened() -> None:
    (event,) = WebSocketEngine(100).receive_data(frame(3))
    assert isinstance(event, ConnectionFailed)
    assert str(event.error) == "Reserved opcode 0x3"


# Compression


def test_context_takeover_of_the_client() -> None:
    agreement = negotiate_deflate(b"permessage-deflate", DeflateOptions(client_context_takeover=True))
    engine = WebSocketEngine(100, agreement)
    # RFC 7692 §7.2.3.2: the second refers to the first.
    first = frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=4)
    second = frame(TEXT, bytes.fromhex("f200110000"), rsv=4)
    assert engine.receive_data(first + second) == ["Hello", "Hello"]


def test_without_context_takeover_a_reference_to_an_earlier_message_fails() -> None:
    engine = WebSocketEngine(100, agree())
    assert engine.receive_data(frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=4)) == ["Hello"]
    assert told(engine.receive_data(frame(TEXT, bytes.fromhex("f200110000"), rsv=4))) == [Failed(1007)]


def test_what_is_sent_compressed_comes_back() -> None:
    text = HELLO * 100
    engine = WebSocketEngine(10_000, agree())
    engine.send_text(text)
    ((first, payload),) = frames_of(engine.data_to_send())
    assert first == 0xC1
    assert engine.receive_data(frame(TEXT, payload, rsv=4)) == [text]


# What may be decompressed in one call


def test_a_call_takes_no_more_once_its_messages_are_large() -> None:
    peer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b""
    for _ in range(5):
        compressed = peer.compress(bytes(MAX_TAKEN_BYTES // 2)) + peer.flush(zlib.Z_FULL_FLUSH)
        data += frame(BINARY, compressed[:-4], rsv=4)
    assert len(data) < 1000
    engine = WebSocketEngine(BIG, agree())
    large = bytes(MAX_TAKEN_BYTES // 2)
    for expected, is_unread in (([large] * 2, True), ([large] * 2, True), ([large], False)):
        assert engine.receive_data(data, 32) == expected
        assert engine.has_unread is is_unread
        data = b""


def test_a_large_message_that_came_in_parts_is_alone_in_its_call() -> None:
    engine = WebSocketEngine(BIG)
    data = frame(BINARY, bytes(MAX_TAKEN_BYTES))
    assert engine.receive_data(data[:100]) == []
    assert engine.receive_data(data[100:] + frame(TEXT, b"a")) == [bytes(MAX_TAKEN_BYTES)]
    assert engine.has_unread
    assert engine.receive_data(b"") == ["a"]
    assert not engine.has_unread
