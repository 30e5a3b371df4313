"""Cases of HTTP/2 over raw frames, each with the section that it is about.

A row of ``CASES`` is what a client sends behind its preface and SETTINGS, and what must come of it: an
answer, the reset of a stream, behind which the connection serves on, or GOAWAY and the connection's end.

RFC 9113 §5.4.2 lets a server treat an error of a stream as one of the connection. libnghttp2 does where the
error could be provoked over and over (CVE-2025-8671): what comes behind the end of a stream, windows that
overflow, increments of 0, bodies above the window. Where it ends nothing against the RFC, ``DEVIATIONS`` has
the row.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import h2.connection
import h2.events
import hpack
import pytest

import http2_client as h
from headrace.protocol import http2
from http2_client import (
    block,
    continuation_frame,
    data_frame,
    goaway_frame,
    headers_frame,
    literal,
    ping_frame,
    priority_update_frame,
    raw_frame,
    request_fields,
    reset_frame,
    settings_frame,
    window_frame,
)
from live import LiveServer, eventually, read_body, respond

pytestmark = pytest.mark.skipif(not http2.is_available, reason="the extra http2 is not installed")

Serve = Callable[..., LiveServer]


class Answer(NamedTuple):
    """Stream 1 has this response."""

    status: int
    body: bytes | None = None


class Reset(NamedTuple):
    """Stream 1 is reset; others are served on."""

    code: int


class Lost(NamedTuple):
    """GOAWAY, and the connection ends."""

    code: int


class Ignored(NamedTuple):
    """Nothing comes of it."""


Outcome = Answer | Reset | Lost | Ignored


class Case(NamedTuple):
    """One row."""

    name: str
    section: str
    sent: bytes
    outcome: Outcome


def get(more: Any = (), path: bytes = b"/", end_stream: bool = True, **rest: Any) -> bytes:
    """A request on stream 1."""
    return headers_frame(1, request_fields(path, more=more, **rest), end_stream)


def post(more: Any = (), path: bytes = b"/echo", stream_id: int = 1) -> bytes:
    """The head of one with a body."""
    return headers_frame(stream_id, request_fields(path, b"POST", more), end_stream=False)


def without(name: bytes) -> bytes:
    """A request that lacks a field."""
    return headers_frame(1, [field for field in request_fields() if field[0] != name])


def split(pieces: int, *between: bytes) -> bytes:
    """A request in HEADERS and CONTINUATION frames, with other frames behind the first."""
    whole = block(request_fields(b"/fields", more=[(b"x", b"y" * 40)]))
    size = len(whole) // pieces + 1
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    frames = [headers_frame(1, end_headers=False, data=parts[0]), *between]
    frames += [continuation_frame(1, part, part is parts[-1]) for part in parts[1:]]
    return b"".join(frames)


HELLO = Answer(200, b"hello")
MALFORMED = Reset(h.PROTOCOL_ERROR)
BROKEN = Lost(h.PROTOCOL_ERROR)
TOO_LONG = Lost(h.FRAME_SIZE_ERROR)
GARBLED = Lost(h.COMPRESSION_ERROR)
HELD = headers_frame(1, request_fields(b"/held"))

CASES = [
    # The beginning
    Case("empty_settings", "RFC 9113 §6.5", settings_frame(), Ignored()),
    # Frames
    Case("reserved_bit", "RFC 9113 §4.1", raw_frame(0x1, 0x5, 0x80000001, block(request_fields())), HELLO),
    Case("unknown_frame", "RFC 9113 §4.1", raw_frame(0xFA, 0xFF, 0, b"abc") + get(), HELLO),
    Case("unknown_frame_on_a_stream", "RFC 9113 §5.5", raw_frame(0xFA, 0xFF, 7, b"abc") + get(), HELLO),
    Case("unknown_flags", "RFC 9113 §4.1", raw_frame(0x1, 0xC5 & ~0x8, 1, block(request_fields())), HELLO),
    Case("data_above_max_frame_size", "RFC 9113 §4.2", post() + data_frame(1, bytes(16_385)), TOO_LONG),
    Case("headers_above_max_frame_size", "RFC 9113 §4.2", get([(b"x", b"y" * 16_384)]), TOO_LONG),
    Case("settings_of_5_bytes", "RFC 9113 §6.5", raw_frame(0x4, 0, 0, bytes(5)), TOO_LONG),
    Case("settings_ack_with_payload", "RFC 9113 §6.5", raw_frame(0x4, 1, 0, bytes(6)), TOO_LONG),
    Case("ping_of_7_bytes", "RFC 9113 §6.7", raw_frame(0x6, 0, 0, bytes(7)), TOO_LONG),
    Case("reset_of_3_bytes", "RFC 9113 §6.4", HELD + raw_frame(0x3, 0, 1, bytes(3)), TOO_LONG),
    Case("window_update_of_3_bytes", "RFC 9113 §6.9", raw_frame(0x8, 0, 0, bytes(3)), TOO_LONG),
    Case("goaway_of_7_bytes", "RFC 9113 §6.8", raw_frame(0x7, 0, 0, bytes(7)), TOO_LONG),
    Case("priority_of_4_bytes", "RFC 9113 §6.3", HELD + raw_frame(0x2, 0, 1, bytes(4)), TOO_LONG),
    # Streams
    Case("data_on_stream_0", "RFC 9113 §6.1", data_frame(0, b"x"), BROKEN),
    Case("headers_on_stream_0", "RFC 9113 §6.2", headers_frame(0), BROKEN),
    Case("priority_on_stream_0", "RFC 9113 §6.3", raw_frame(0x2, 0, 0, bytes(5)), Ignored()),
    Case("reset_on_stream_0", "RFC 9113 §6.4", reset_frame(0), BROKEN),
    Case("settings_on_a_stream", "RFC 9113 §6.5", raw_frame(0x4, 0, 1), BROKEN),
    Case("ping_on_a_stream", "RFC 9113 §6.7", raw_frame(0x6, 0, 1, bytes(8)), BROKEN),
    Case("goaway_on_a_stream", "RFC 9113 §6.8", raw_frame(0x7, 0, 1, bytes(8)), BROKEN),
    Case("continuation_on_stream_0", "RFC 9113 §6.10", continuation_frame(0, b""), BROKEN),
    Case("push_promise", "RFC 9113 §8.4", raw_frame(0x5, 0x4, 1, bytes(4)), BROKEN),
    Case("even_stream", "RFC 9113 §5.1.1", headers_frame(2), BROKEN),
    Case("data_on_an_idle_stream", "RFC 9113 §5.1", data_frame(1, b"x"), BROKEN),
    Case("reset_of_an_idle_stream", "RFC 9113 §6.4", reset_frame(1), BROKEN),
    Case("window_update_of_an_idle_stream", "RFC 9113 §5.1", window_frame(1, 1), BROKEN),
    Case(
        "priority_of_an_idle_stream",
        "RFC 9113 §5.1",
        raw_frame(0x2, 0, 1, bytes([0, 0, 0, 0, 1])) + get(),
        HELLO,
    ),
    Case("data_on_a_half_closed_stream", "RFC 9113 §5.1", HELD + data_frame(1, b"x"), Lost(h.STREAM_CLOSED)),
    Case("headers_on_a_half_closed_stream", "RFC 9113 §5.1", HELD + headers_frame(1), Lost(h.STREAM_CLOSED)),
    Case("lower_stream", "RFC 9113 §5.1.1", headers_frame(5) + headers_frame(3), Ignored()),
    Case(
        "headers_on_a_stream_that_was_reset",
        "RFC 9113 §5.1",
        HELD + reset_frame(1) + ping_frame() + headers_frame(1),
        Ignored(),
    ),
    Case(
        "window_update_of_a_closed_stream",
        "RFC 9113 §5.1",
        HELD + reset_frame(1) + window_frame(1, 9),
        Ignored(),
    ),
    Case("second_reset", "RFC 9113 §5.1", HELD + reset_frame(1) + reset_frame(1), Ignored()),
    # Header blocks
    Case("three_continuations", "RFC 9113 §6.10", split(4), Answer(200)),
    Case("empty_continuations", "RFC 9113 §6.10", split(2, continuation_frame(1, b"", False)), Answer(200)),
    Case("continuation_without_headers", "RFC 9113 §6.10", continuation_frame(1, b""), BROKEN),
    Case("continuation_behind_the_end", "RFC 9113 §6.10", HELD + continuation_frame(1, b""), BROKEN),
    Case("data_inside_a_block", "RFC 9113 §4.3", split(2, data_frame(1, b"x")), BROKEN),
    Case("headers_inside_a_block", "RFC 9113 §4.3", split(2, headers_frame(3)), BROKEN),
    Case("ping_inside_a_block", "RFC 9113 §4.3", split(2, ping_frame()), BROKEN),
    Case("unknown_frame_inside_a_block", "RFC 9113 §5.5", split(2, raw_frame(0xFA, 0, 1)), BROKEN),
    Case("continuation_of_another_stream", "RFC 9113 §6.10", split(2, continuation_frame(3, b"")), BROKEN),
    # Padding
    Case(
        "padded_data",
        "RFC 9113 §6.1",
        post() + raw_frame(0x0, 0x9, 1, b"\x03body\0\0\0"),
        Answer(200, b"body"),
    ),
    Case(
        "padding_as_long_as_data",
        "RFC 9113 §6.1",
        post() + raw_frame(0x0, 0x9, 1, b"\x04abcd"),
        Answer(200, b"hello"),
    ),
    Case("padding_longer_than_data", "RFC 9113 §6.1", post() + raw_frame(0x0, 0x9, 1, b"\x05abcd"), BROKEN),
    Case(
        "padded_headers",
        "RFC 9113 §6.2",
        raw_frame(0x1, 0xD, 1, b"\x02" + block(request_fields()) + b"\0\0"),
        HELLO,
    ),
    Case(
        "padding_longer_than_headers",
        "RFC 9113 §6.2",
        raw_frame(0x1, 0xD, 1, b"\xff" + block(request_fields())),
        BROKEN,
    ),
    Case(
        "headers_with_priority",
        "RFC 9113 §6.2",
        raw_frame(0x1, 0x25, 1, b"\0\0\0\0\x10" + block(request_fields())),
        HELLO,
    ),
    # Flow control
    Case("increment_0_of_a_stream", "RFC 9113 §6.9", HELD + window_frame(1, 0), BROKEN),
    Case("increment_0_of_the_connection", "RFC 9113 §6.9", window_frame(0, 0), BROKEN),
    Case(
        "window_of_a_stream_overflows",
        "RFC 9113 §6.9.1",
        HELD + window_frame(1, 2**31 - 1),
        Lost(h.FLOW_CONTROL_ERROR),
    ),
    Case(
        "window_of_the_connection_overflows",
        "RFC 9113 §6.9.1",
        window_frame(0, 2**31 - 1),
        Lost(h.FLOW_CONTROL_ERROR),
    ),
    Case(
        "initial_window_lets_a_stream_overflow",
        "RFC 9113 §6.9.2",
        HELD + window_frame(1, 2**31 - 1 - 65_535) + settings_frame({h.INITIAL_WINDOW_SIZE: 65_536}),
        Lost(h.FLOW_CONTROL_ERROR),
    ),
    Case(
        "body_above_the_stream_window",
        "RFC 9113 §6.9.1",
        post(path=b"/held") + data_frame(1, bytes(16_384)) * 8 + data_frame(1, b"x"),
        Lost(h.FLOW_CONTROL_ERROR),
    ),
    # SETTINGS
    Case(
        "initial_window_too_large",
        "RFC 9113 §6.5.2",
        settings_frame({h.INITIAL_WINDOW_SIZE: 2**31}),
        Lost(h.FLOW_CONTROL_ERROR),
    ),
    Case("enable_push_2", "RFC 9113 §6.5.2", settings_frame({h.ENABLE_PUSH: 2}), BROKEN),
    Case("max_frame_size_too_small", "RFC 9113 §6.5.2", settings_frame({h.MAX_FRAME_SIZE: 16_383}), BROKEN),
    Case("max_frame_size_too_large", "RFC 9113 §6.5.2", settings_frame({h.MAX_FRAME_SIZE: 2**24}), BROKEN),
    Case("unknown_setting", "RFC 9113 §6.5.2", settings_frame({0xFFFA: 1}), Ignored()),
    Case("connect_protocol_2", "RFC 8441 §3", settings_frame({h.ENABLE_CONNECT_PROTOCOL: 2}), BROKEN),
    Case("no_priorities_2", "RFC 9218 §2.1", settings_frame({h.NO_RFC7540_PRIORITIES: 2}), BROKEN),
    # Fields
    Case("upper_case_name", "RFC 9113 §8.2", get([(b"X-A", b"b")]), MALFORMED),
    Case("space_in_a_name", "RFC 9113 §8.2.1", get([(b"x a", b"b")]), MALFORMED),
    Case("empty_name", "RFC 9113 §8.2.1", get([(b"", b"b")]), MALFORMED),
    Case("colon_in_a_name", "RFC 9113 §8.2.1", get([(b"x:a", b"b")]), MALFORMED),
    Case("nul_in_a_value", "RFC 9113 §8.2.1", get([(b"x", b"a\0b")]), MALFORMED),
    Case("line_end_in_a_value", "RFC 9113 §8.2.1", get([(b"x", b"a\r\nhost: b")]), MALFORMED),
    Case("space_before_a_value", "RFC 9113 §8.2.1", get([(b"x", b" a")]), MALFORMED),
    Case("connection", "RFC 9113 §8.2.2", get([(b"connection", b"close")]), MALFORMED),
    Case("keep_alive", "RFC 9113 §8.2.2", get([(b"keep-alive", b"timeout=5")]), MALFORMED),
    Case("proxy_connection", "RFC 9113 §8.2.2", get([(b"proxy-connection", b"close")]), MALFORMED),
    Case("upgrade", "RFC 9113 §8.2.2", get([(b"upgrade", b"websocket")]), MALFORMED),
    Case("transfer_encoding", "RFC 9113 §8.2.2", post([(b"transfer-encoding", b"chunked")]), MALFORMED),
    Case("te_trailers", "RFC 9113 §8.2.2", get([(b"te", b"trailers")]), HELLO),
    Case("te_other", "RFC 9113 §8.2.2", get([(b"te", b"gzip")]), MALFORMED),
    Case("no_method", "RFC 9113 §8.3.1", without(b":method"), MALFORMED),
    Case("no_scheme", "RFC 9113 §8.3.1", without(b":scheme"), MALFORMED),
    Case("no_path", "RFC 9113 §8.3.1", without(b":path"), MALFORMED),
    Case("empty_path", "RFC 9113 §8.3.1", get(path=b""), MALFORMED),
    Case("path_without_slash", "RFC 9113 §8.3.1", get(path=b"a"), MALFORMED),
    Case("second_path", "RFC 9113 §8.3", headers_frame(1, [*request_fields(), (b":path", b"/b")]), MALFORMED),
    Case(
        "second_method",
        "RFC 9113 §8.3",
        headers_frame(1, [(b":method", b"GET"), *request_fields()]),
        MALFORMED,
    ),
    Case(
        "unknown_pseudo_field",
        "RFC 9113 §8.3",
        headers_frame(1, [(b":a", b"b"), *request_fields()]),
        MALFORMED,
    ),
    Case(
        "status_in_a_request",
        "RFC 9113 §8.3",
        headers_frame(1, [(b":status", b"200"), *request_fields()]),
        MALFORMED,
    ),
    Case(
        "pseudo_field_behind_others",
        "RFC 9113 §8.3",
        headers_frame(1, [(b"x", b"y"), *request_fields()]),
        MALFORMED,
    ),
    Case("options_asterisk", "RFC 9113 §8.3.1", headers_frame(1, request_fields(b"*", b"OPTIONS")), HELLO),
    Case("get_asterisk", "RFC 9113 §8.3.1", get(path=b"*"), MALFORMED),
    Case("fragment_in_the_path", "RFC 9113 §8.3.1", get(path=b"/a#b"), Answer(400)),
    Case("host_alone", "RFC 9113 §8.3.1", get([(b"host", b"a.test")], authority=None), HELLO),
    Case("no_authority_and_no_host", "RFC 9113 §8.3.1", get(authority=None), MALFORMED),
    Case("host_like_the_authority", "RFC 9113 §8.3.1", get([(b"host", b"A.test")]), HELLO),
    Case("host_unlike_the_authority", "RFC 9113 §8.3.1", get([(b"host", b"b.test")]), Answer(400)),
    Case("user_in_the_authority", "RFC 9113 §8.3.1", get(authority=b"a@b.test"), MALFORMED),
    Case("unknown_expectation", "RFC 9110 §10.1.1", get([(b"expect", b"miracles")]), Answer(417)),
    # Messages
    Case(
        "body_shorter_than_its_length",
        "RFC 9113 §8.1.1",
        post([(b"content-length", b"5")]) + data_frame(1, b"abc", True),
        MALFORMED,
    ),
    Case(
        "body_longer_than_its_length",
        "RFC 9113 §8.1.1",
        post([(b"content-length", b"2")]) + data_frame(1, b"abc", True),
        MALFORMED,
    ),
    Case("length_without_a_body", "RFC 9113 §8.1.1", get([(b"content-length", b"5")]), MALFORMED),
    Case(
        "two_lengths",
        "RFC 9110 §8.6",
        post([(b"content-length", b"2"), (b"content-length", b"3")]),
        MALFORMED,
    ),
    Case("length_that_is_no_number", "RFC 9110 §8.6", post([(b"content-length", b"+2")]), MALFORMED),
    Case(
        "trailers",
        "RFC 9113 §8.1",
        post() + data_frame(1, b"abc") + headers_frame(1, [(b"x", b"y")]),
        Answer(200, b"abc"),
    ),
    Case(
        "trailers_that_do_not_end",
        "RFC 9113 §8.1",
        post() + headers_frame(1, [(b"x", b"y")], False),
        MALFORMED,
    ),
    Case(
        "pseudo_field_in_trailers", "RFC 9113 §8.1", post() + headers_frame(1, [(b":path", b"/")]), MALFORMED
    ),
    Case("upper_case_in_trailers", "RFC 9113 §8.2", post() + headers_frame(1, [(b"X", b"y")]), MALFORMED),
    # CONNECT
    Case(
        "connect",
        "RFC 9113 §8.5",
        headers_frame(1, [(b":method", b"CONNECT"), (b":authority", b"a:1")], False),
        Answer(501),
    ),
    Case(
        "connect_with_a_path",
        "RFC 9113 §8.5",
        headers_frame(1, request_fields(method=b"CONNECT"), False),
        MALFORMED,
    ),
    Case(
        "extended_connect_to_something_unknown",
        "RFC 8441 §4",
        headers_frame(1, [(b":protocol", b"odd"), *request_fields(method=b"CONNECT")], False),
        Answer(501),
    ),
    Case(
        "protocol_without_connect",
        "RFC 8441 §4",
        headers_frame(1, [(b":protocol", b"websocket"), *request_fields()]),
        MALFORMED,
    ),
    # Priorities
    Case("priority_update", "RFC 9218 §7.1", priority_update_frame(1, b"u=1, i") + get(), HELLO),
    Case("priority_update_garbled", "RFC 9218 §7.1", priority_update_frame(1, b"\xff=") + get(), HELLO),
    Case("priority_update_of_stream_0", "RFC 9218 §7.1", priority_update_frame(0, b"u=1"), Ignored()),
    Case("priority_update_on_a_stream", "RFC 9218 §7.1", raw_frame(0x10, 0, 1, b"\0\0\0\1u=1"), BROKEN),
    Case("priority_update_of_3_bytes", "RFC 9218 §7.1", raw_frame(0x10, 0, 0, bytes(3)), TOO_LONG),
    Case("priority_field", "RFC 9218 §5", get([(b"priority", b"u=7, i")]), HELLO),
    # HPACK
    Case("index_0", "RFC 7541 §6.1", headers_frame(1, data=b"\x80"), GARBLED),
    Case("index_behind_the_table", "RFC 7541 §2.3.3", headers_frame(1, data=b"\xff\x80\x01"), GARBLED),
    Case("integer_without_end", "RFC 7541 §5.1", headers_frame(1, data=b"\xff" + b"\xff" * 10), GARBLED),
    Case("string_cut_short", "RFC 7541 §5.2", headers_frame(1, data=b"\x00\x0aabc"), GARBLED),
    Case(
        "huffman_padding_of_8_bits",
        "RFC 7541 §5.2",
        headers_frame(1, data=b"\x00\x01x\x82\x1c\xff\xff"),
        GARBLED,
    ),
    Case("huffman_padding_of_zeros", "RFC 7541 §5.2", headers_frame(1, data=b"\x00\x01x\x81\x18"), GARBLED),
    Case(
        "table_larger_than_allowed",
        "RFC 7541 §6.3",
        headers_frame(1, data=b"\x3f\xe2\x1f" + block(request_fields())),
        GARBLED,
    ),
    Case(
        "table_size_behind_a_field",
        "RFC 7541 §4.2",
        headers_frame(1, data=block(request_fields()) + b"\x20"),
        GARBLED,
    ),
    Case("table_emptied", "RFC 7541 §4.2", headers_frame(1, data=b"\x20" + block(request_fields())), HELLO),
    # The end
    Case("goaway_from_the_client", "RFC 9113 §6.8", get() + goaway_frame(), HELLO),
    Case("pong_nobody_asked_for", "RFC 9113 §6.7", ping_frame(ack=True), Ignored()),
]


DEVIATIONS = {
    "priority_on_stream_0": "PRIORITY is ignored whole, since RFC 9113 §5.3.2 gives it no meaning",
    "lower_stream": "may be the trailers of a stream that the server has closed and forgotten",
    "headers_on_a_stream_that_was_reset": "the same",
    "priority_update_of_stream_0": "libnghttp2 hands it on, and nothing comes of it",
}
"""Rows in which the RFC asks for a connection error and gets none, with the reason."""


@pytest.fixture
def loop_name() -> str:
    """What frames mean does not depend on the loop."""
    return "asyncio"


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/held":
        while (await receive())["type"] != "http.disconnect":
            if scope["method"] == "POST":
                await asyncio.Event().wait()
        return
    body = await read_body(receive)
    if scope["path"] == "/fields":
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        body = json.dumps(pairs).encode()
    await respond(send, body or b"hello")


def start(serve: Serve, **options: Any) -> LiveServer:
    return serve(application, on_disconnect="cancel", **options)


def is_alive(client: h.HTTP2Client) -> None:
    """The connection serves on."""
    client.unused_stream_id = 1001
    received = client.get(b"/after")
    assert (received.status, bytes(received.body)) == (200, b"hello")
    assert not client.goaways


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(serve: Serve, case: Case) -> None:
    client = h.connect(start(serve))
    client.send(case.sent)
    outcome = case.outcome
    if isinstance(outcome, Lost):
        client.read_to_end()
        assert [code for _, code in client.goaways] == [outcome.code]
        return
    if isinstance(outcome, Answer):
        received = client.response(1)
        assert received.status == outcome.status
        assert outcome.body is None or received.body == outcome.body
        assert received.is_ended
    elif isinstance(outcome, Reset):
        assert client.response(1).reset == outcome.code
    if case.name != "goaway_from_the_client":
        is_alive(client)


def test_table() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 40
    ignored = {case.name for case in CASES if isinstance(case.outcome, Ignored)}
    assert DEVIATIONS.keys() <= ignored


class TestBeginning:
    def test_settings_of_the_server_come_first(self, serve: Serve) -> None:
        # RFC 9113 §3.4; what it allows is RFC 9113 §6.5.2, RFC 8441 §3, RFC 9218 §2.1.
        client = h.connect(start(serve, http2_max_streams=7, limit_request_head=1000))
        client.wait(lambda: bool(client.server_settings))
        assert client.server_settings == {
            h.MAX_CONCURRENT_STREAMS: 7,
            h.INITIAL_WINDOW_SIZE: 131_072,
            h.MAX_HEADER_LIST_SIZE: 1000,
            h.ENABLE_CONNECT_PROTOCOL: 1,
            h.NO_RFC7540_PRIORITIES: 1,
        }
        client.wait(lambda: client.settings_acks == 1)

    @pytest.mark.parametrize("frame", [ping_frame(), headers_frame(1), window_frame(0, 1)])
    def test_settings_of_the_client_must_be_first(self, serve: Serve, frame: bytes) -> None:
        # RFC 9113 §3.4
        client = h.connect(start(serve), greets=False)
        client.send(h.PREFACE + frame)
        client.read_to_end()
        assert [code for _, code in client.goaways] == [h.PROTOCOL_ERROR]

    def test_each_settings_is_acknowledged(self, serve: Serve) -> None:
        # RFC 9113 §6.5.3
        client = h.connect(start(serve))
        client.send(settings_frame({h.INITIAL_WINDOW_SIZE: 1}), settings_frame(), settings_frame())
        client.wait(lambda: client.settings_acks == 4)


class TestPing:
    def test_answered_with_the_same(self, serve: Serve) -> None:
        # RFC 9113 §6.7
        client = h.connect(start(serve))
        for mark in (b"\0" * 8, b"abcdefgh", b"\xff" * 8):
            client.round_trip(mark)
        assert client.pongs == [b"\0" * 8, b"abcdefgh", b"\xff" * 8]


class TestFlowControl:
    def test_initial_window_holds_the_body(self, serve: Serve) -> None:
        # RFC 9113 §6.9.2
        client = h.connect(start(serve), {h.INITIAL_WINDOW_SIZE: 10}, takes=False)
        stream_id = client.start(b"/echo", b"POST", end_stream=False)
        client.send_body(stream_id, b"0123456789abcdefghij")
        received = client.stream(stream_id)
        client.wait(lambda: len(received.body) == 10)
        client.round_trip()
        assert received.body == b"0123456789"
        client.send(window_frame(stream_id, 3))
        client.wait(lambda: len(received.body) == 13)
        client.round_trip()
        assert received.body == b"0123456789abc"
        client.send(window_frame(stream_id, 100))
        assert client.response(stream_id).body == b"0123456789abcdefghij"

    def test_window_of_the_connection_holds_all_bodies(self, serve: Serve) -> None:
        # RFC 9113 §6.9.1: 65,535 to begin with, whatever the streams allow.
        client = h.connect(start(serve), {h.INITIAL_WINDOW_SIZE: 2**20}, takes=False)
        ids = [client.start(b"/echo", b"POST", end_stream=False) for _ in range(2)]
        for stream_id in ids:
            client.send_body(stream_id, bytes(50_000))
        total = lambda: sum(len(client.stream(stream_id).body) for stream_id in ids)  # noqa: E731
        client.wait(lambda: total() == 65_535)
        client.round_trip()
        assert total() == 65_535
        client.send(window_frame(0, 100_000))
        assert [len(client.response(stream_id).body) for stream_id in ids] == [50_000, 50_000]

    def test_window_may_become_negative(self, serve: Serve) -> None:
        # RFC 9113 §6.9.2
        client = h.connect(start(serve), {h.INITIAL_WINDOW_SIZE: 1000}, takes=False)
        stream_id = client.start(b"/echo", b"POST", end_stream=False)
        client.send_body(stream_id, bytes(2000))
        received = client.stream(stream_id)
        client.wait(lambda: len(received.body) == 1000)
        client.send(settings_frame({h.INITIAL_WINDOW_SIZE: 100}), window_frame(stream_id, 900))
        client.round_trip()
        assert len(received.body) == 1000
        client.send(window_frame(stream_id, 1))
        client.wait(lambda: len(received.body) == 1001)
        client.send(settings_frame({h.INITIAL_WINDOW_SIZE: 5000}))
        assert len(client.response(stream_id).body) == 2000

    def test_frames_are_as_long_as_the_client_allows(self, serve: Serve) -> None:
        # RFC 9113 §4.2: never above SETTINGS_MAX_FRAME_SIZE, which hyperframe checks in no way itself.
        client = h.connect(start(serve))
        sizes: list[int] = []
        on_data = client._on_data

        def count(frame: Any) -> None:
            sizes.append(frame.flow_controlled_length)
            on_data(frame)

        client._on_data = count  # type: ignore[method-assign]
        assert len(client.post(b"/echo", bytes(200_000)).body) == 200_000
        assert max(sizes) <= 16_384

    def test_body_above_the_window_of_the_connection(self, serve: Serve) -> None:
        # RFC 9113 §6.9.1
        client = h.connect(start(serve, http2_max_streams=1))
        client.send(post(path=b"/held"), data_frame(1, bytes(16_384)) * 8, data_frame(1, b"x"))
        client.read_to_end()
        assert [code for _, code in client.goaways] == [h.FLOW_CONTROL_ERROR]

    def test_empty_data_needs_no_window(self, serve: Serve) -> None:
        # RFC 9113 §6.9.1
        client = h.connect(start(serve), {h.INITIAL_WINDOW_SIZE: 0})
        received = client.response(client.start(b"/", b"HEAD"))
        assert (received.status, received.is_ended) == (200, True)


class TestStreams:
    def test_above_the_limit_is_refused(self, serve: Serve) -> None:
        # RFC 9113 §5.1.2
        server = start(serve, http2_max_streams=2)
        client = h.connect(server)
        ids = [client.start(b"/held") for _ in range(4)]
        assert [client.response(stream_id).reset for stream_id in ids[2:]] == [h.REFUSED_STREAM] * 2
        eventually(lambda: len(server.server.runtime.running) == 2)
        client.send(reset_frame(ids[0]))
        assert client.get().status == 200

    def test_reset_frees_its_place(self, serve: Serve) -> None:
        # RFC 9113 §5.1.2
        client = h.connect(start(serve, http2_max_streams=1))
        for _ in range(20):
            client.send(reset_frame(client.start(b"/held")))
        assert client.get().status == 200

    def test_goaway_lets_streams_end(self, serve: Serve) -> None:
        # RFC 9113 §6.8
        client = h.connect(start(serve))
        stream_id = client.start(b"/echo", b"POST", end_stream=False)
        client.send(goaway_frame())
        client.send_body(stream_id, b"abc")
        assert client.response(stream_id).body == b"abc"
        client.read_to_end()
        assert [code for _, code in client.goaways] in ([], [h.NO_ERROR])

    def test_body_of_reset_streams_gives_its_window_back(self, serve: Serve) -> None:
        # RFC 9113 §6.9: what is dropped counts for the connection's window too.
        client = h.connect(start(serve, http2_max_streams=2))
        for _ in range(8):
            stream_id = client.start(b"/held", b"POST", end_stream=False)
            client.send_body(stream_id, bytes(100_000), end_stream=False)
            client.send(reset_frame(stream_id), data_frame(stream_id, bytes(1000)))
            client.windows[0] -= 1000
        assert client.post(b"/echo", bytes(200_000)).status == 200


class TestFields:
    def fields(self, client: h.HTTP2Client, more: Any) -> list[list[str]]:
        found: list[list[str]] = json.loads(bytes(client.get(b"/fields", more).body))
        return found

    def test_cookies_are_joined(self, serve: Serve) -> None:
        # RFC 9113 §8.2.3
        crumbs = [(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"cookie", b"c=3")]
        assert self.fields(h.connect(start(serve)), crumbs) == [
            ["host", "a.test"],
            ["cookie", "a=1; b=2; c=3"],
            ["x", "y"],
        ]

    def test_authority_is_the_host_and_the_first_field(self, serve: Serve) -> None:
        # RFC 9113 §8.3.1
        client = h.connect(start(serve))
        assert self.fields(client, [(b"x", b"y"), (b"host", b"A.TEST")]) == [["host", "a.test"], ["x", "y"]]

    def test_repeated_fields_keep_their_order(self, serve: Serve) -> None:
        # RFC 9110 §5.3
        found = self.fields(h.connect(start(serve)), [(b"x", b"1"), (b"y", b"2"), (b"x", b"3")])
        assert found[1:] == [["x", "1"], ["y", "2"], ["x", "3"]]

    def test_dynamic_table(self, serve: Serve) -> None:
        # RFC 7541 §2.3.2: put in by one block, named by the next; also behind a block that was refused.
        client = h.connect(start(serve))
        whole = block(request_fields(b"/fields"))
        client.send(headers_frame(1, data=whole + literal(b"x-a", b"1", 0x40)))
        client.send(headers_frame(3, data=whole + literal(b"X-B", b"2", 0x40)))
        client.send(headers_frame(5, data=whole + b"\xbf" + b"\xbf"))
        assert json.loads(bytes(client.response(1).body))[1:] == [["x-a", "1"]]
        assert client.response(3).reset == h.PROTOCOL_ERROR
        assert json.loads(bytes(client.response(5).body))[1:] == [["x-a", "1"], ["x-a", "1"]]

    @pytest.mark.parametrize("is_huffman", [False, True])
    def test_encoder_of_another(self, serve: Serve, is_huffman: bool) -> None:
        # RFC 7541 §5.2
        client = h.connect(start(serve))
        encoder = hpack.Encoder()
        for stream_id in (1, 3, 5):
            fields = request_fields(
                b"/fields", more=[(b"x-long", b"value" * 30), (b"x-id", b"%d" % stream_id)]
            )
            client.send(headers_frame(stream_id, data=encoder.encode(fields, huffman=is_huffman)))
            found = json.loads(bytes(client.response(stream_id).body))
            assert found[1:] == [["x-long", "value" * 30], ["x-id", str(stream_id)]]


class TestAnotherLibrary:
    """``h2`` holds what it is sent against the RFC, and raises where the two differ."""

    def test_many_exchanges(self, serve: Serve) -> None:
        server = start(serve)
        sock = server.connect().sock
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        bodies: dict[int, bytes] = {}
        ended: set[int] = set()
        fields = [(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "a.test")]
        for number in range(50):
            stream_id = connection.get_next_available_stream_id()
            connection.send_headers(stream_id, fields, end_stream=False)
            connection.send_data(stream_id, b"%d" % number * 200, end_stream=number % 2 == 0)
            if number % 2:
                connection.send_headers(stream_id, [("x-trailer", "1")], end_stream=True)
            bodies[stream_id] = b""
        connection.ping(b"12345678")
        sock.sendall(connection.data_to_send())
        has_pong = False
        while len(ended) < 50 or not has_pong:
            data = sock.recv(65_536)
            assert data
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ended.add(event.stream_id)
                elif isinstance(event, h2.events.PingAckReceived):
                    has_pong = True
            sock.sendall(connection.data_to_send())
        assert list(bodies.values()) == [b"%d" % number * 200 for number in range(50)]
        connection.close_connection()
        sock.sendall(connection.data_to_send())
        while sock.recv(65_536):
            pass
        sock.close()
        eventually(lambda: not server.server.runtime.connections)
