"""Clients of HTTP/2 that cost more than they should: each is sent away, and others are served meanwhile.

RFC 9113 §10.5; CVE-2019-9512 to 9518 (floods), CVE-2023-44487 (rapid reset), CVE-2024-27316 (CONTINUATION),
CVE-2025-8671 (resets by the server), CVE-2016-6581 (HPACK bomb).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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

POST = request_fields(b"/held", b"POST")
HELD = headers_frame(1, request_fields(b"/held"))
HELD_BODY = headers_frame(1, POST, end_stream=False)


def streams(count: int) -> Iterator[int]:
    """So many streams, from the first on."""
    return iter(range(1, 2 * count, 2))


def each(count: int, frames: Callable[[int], bytes]) -> bytes:
    """The frames of so many streams."""
    return b"".join(map(frames, streams(count)))


class Flood(NamedTuple):
    """What is sent, the error that ends it, and how often the application may be called for it."""

    name: str
    sent: bytes
    code: int = h.ENHANCE_YOUR_CALM
    max_calls: int = 1


TOO_MANY = 20_000

FLOODS = [
    Flood("ping", ping_frame() * TOO_MANY),
    Flood("pong", ping_frame(ack=True) * TOO_MANY),
    Flood("settings", settings_frame() * TOO_MANY),
    Flood("settings_with_entries", settings_frame({0xFF00 + n: 1 for n in range(32)}) * TOO_MANY),
    Flood("settings_with_too_many_entries", settings_frame({0xFF00 + n: 1 for n in range(33)})),
    Flood("goaway", HELD + goaway_frame() * TOO_MANY),
    Flood("empty_data", HELD_BODY + data_frame(1, b"") * TOO_MANY),
    Flood("empty_padded_data", HELD_BODY + raw_frame(0x0, 0x8, 1, b"\0") * TOO_MANY),
    Flood("window_update", HELD + window_frame(0, 1) * TOO_MANY),
    Flood("window_update_of_a_stream", HELD + window_frame(1, 1) * TOO_MANY),
    Flood("priority_update", priority_update_frame(1, b"u=1") * TOO_MANY),
    Flood("priority", raw_frame(0x2, 0, 1, bytes([0, 0, 0, 3, 1])) * TOO_MANY),
    Flood("unknown", raw_frame(0xFA, 0, 0) * TOO_MANY),
    Flood(
        "headers_of_a_closed_stream",
        HELD + reset_frame(1) + ping_frame() + headers_frame(1, [(b"a", b"b")]) * TOO_MANY,
    ),
    Flood(
        "continuation",
        headers_frame(1, end_headers=False, data=b"") + continuation_frame(1, b"", False) * TOO_MANY,
        max_calls=0,
    ),
    Flood(
        "long_continuation",
        headers_frame(1, end_headers=False, data=b"")
        + continuation_frame(1, literal(b"a", b"b" * 1000), False) * TOO_MANY,
        max_calls=0,
    ),
    Flood(
        "rapid_reset",
        each(TOO_MANY, lambda n: headers_frame(n, request_fields(b"/held")) + reset_frame(n)),
        max_calls=1200,
    ),
    Flood(
        "refused_streams", each(TOO_MANY, lambda n: headers_frame(n, request_fields(b"/held"))), max_calls=100
    ),
    Flood("malformed", each(TOO_MANY, lambda n: headers_frame(n, [*POST, (b"X", b"y")])), max_calls=0),
    # The server is to reset the streams, after the application has been called.
    Flood(
        "made_to_reset_by_a_length",
        each(
            TOO_MANY,
            lambda n: headers_frame(n, [*POST, (b"content-length", b"1")], False) + data_frame(n, b"", True),
        ),
        max_calls=1200,
    ),
    Flood(
        "made_to_reset_by_trailers",
        each(TOO_MANY, lambda n: headers_frame(n, POST, False) + headers_frame(n, [(b"X", b"y")])),
        max_calls=1200,
    ),
    Flood(
        "made_to_reset_by_a_window",
        each(TOO_MANY, lambda n: headers_frame(n, POST) + window_frame(n, 2**31 - 1)),
        h.FLOW_CONTROL_ERROR,
    ),
    Flood(
        "made_to_reset_by_increment_0",
        each(TOO_MANY, lambda n: headers_frame(n, POST) + window_frame(n, 0)),
        h.PROTOCOL_ERROR,
    ),
    Flood(
        "made_to_reset_by_data_behind_the_end",
        each(TOO_MANY, lambda n: headers_frame(n, POST) + data_frame(n, b"x")),
        h.STREAM_CLOSED,
    ),
    Flood(
        "made_to_reset_by_headers_behind_the_end",
        each(TOO_MANY, lambda n: headers_frame(n, POST) * 2),
        h.STREAM_CLOSED,
    ),
]


class Counted:
    """An application that counts its calls, and keeps ``/held`` until the client has gone."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/held":
            self.calls += 1
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await respond(send, await read_body(receive) or b"hello")


@pytest.mark.parametrize("flood", FLOODS, ids=[flood.name for flood in FLOODS])
def test_flood(serve: Serve, flood: Flood) -> None:
    application = Counted()
    server = serve(application, on_disconnect="cancel")
    other = h.connect(server)
    assert other.get().status == 200
    client = h.connect(server)
    client.send(flood.sent)
    assert other.get().status == 200
    client.read_to_end()
    assert client.goaways[-1][1] == flood.code
    assert other.get().status == 200
    assert application.calls <= flood.max_calls
    eventually(lambda: not server.server.runtime.running, "the end of what was called")


class TestRapidReset:
    def test_over_time(self, serve: Serve) -> None:
        application = Counted()
        server = serve(application, on_disconnect="cancel")
        client = h.connect(server)
        started = 0
        while not client.goaways and not client.is_ended:
            for _ in range(50):
                client.send(reset_frame(client.start(b"/held")))
            started += 50
            assert started < 10_000
            client.send(ping_frame())
            client.read_more()
        client.read_to_end()
        assert client.goaways[-1][1] == h.ENHANCE_YOUR_CALM
        assert application.calls <= started
        eventually(lambda: not server.server.runtime.running)
        assert h.connect(server).get().status == 200

    def test_application_is_not_called_for_what_the_same_read_resets(self, serve: Serve) -> None:
        application = Counted()
        server = serve(application)
        client = h.connect(server)
        client.send(each(100, lambda n: headers_frame(n, request_fields(b"/held")) + reset_frame(n)))
        client.round_trip()
        assert application.calls == 0
        client.unused_stream_id = 1001
        assert client.get(b"/after").status == 200

    def test_resets_by_the_application_cost_the_client_nothing(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            raise ValueError("cut")

        client = h.connect(serve(application))
        for _ in range(15):
            ids = [client.start() for _ in range(100)]
            assert {client.response(stream_id).reset for stream_id in ids} == {h.INTERNAL_ERROR}
        assert not client.goaways


class TestHeaderSections:
    """431 on the stream up to twice the limit, beyond it the end of the connection."""

    def sized(self, size: int, count: int = 40) -> list[tuple[bytes, bytes]]:
        return request_fields(
            more=[(b"x-%02d" % n, bytes(size // count).replace(b"\0", b"y")) for n in range(count)]
        )

    def split(self, stream_id: int, data: bytes) -> bytes:
        parts = [data[at : at + 16_000] for at in range(0, len(data), 16_000)]
        frames = [headers_frame(stream_id, end_headers=False, data=parts[0])]
        frames += [continuation_frame(stream_id, part, part is parts[-1]) for part in parts[1:]]
        return b"".join(frames)

    def test_up_to_the_limit(self, serve: Serve) -> None:
        client = h.connect(serve(Counted()))
        client.send(self.split(1, block(self.sized(60_000))))
        assert client.response(1).status == 200

    @pytest.mark.parametrize("count", [1, 2, 40])
    def test_above_it(self, serve: Serve, count: int) -> None:
        client = h.connect(serve(Counted()))
        client.send(self.split(1, block(self.sized(66_000 if count > 1 else 65_530, count))))
        received = client.response(1)
        assert (received.status, received.is_ended) == (431, True)
        client.unused_stream_id = 3
        assert client.get().status == 200

    def test_far_above_it(self, serve: Serve) -> None:
        server = serve(Counted())
        client = h.connect(server)
        client.send(self.split(1, block(self.sized(150_000))))
        client.read_to_end()
        assert client.goaways[-1][1] == h.ENHANCE_YOUR_CALM
        assert h.connect(server).get().status == 200

    @pytest.mark.parametrize("piece", [1000, 10_000, 1_000_000])
    def test_in_pieces(self, serve: Serve, piece: int) -> None:
        # Two fields, in reads that are each small.
        client = h.connect(serve(Counted()))
        data = self.split(1, block(self.sized(100_000, 2)))
        for at in range(0, len(data), piece):
            client.send(data[at : at + piece])
        assert client.response(1).status == 431

    def test_small_limits_hold_for_few_fields(self, serve: Serve) -> None:
        client = h.connect(serve(Counted(), limit_request_head=256, limit_request_fields=2))
        assert client.get(more=[(b"x", b"y" * 300)]).status == 431
        assert client.get(more=[(b"x", b"y")] * 4).status == 431
        assert client.get(more=[(b"x", b"y" * 100)]).status == 200

    def test_bomb(self, serve: Serve) -> None:
        # 4,000 bytes in the table, then a byte for each repetition. CVE-2016-6581.
        server = serve(Counted())
        client = h.connect(server)
        whole = block(request_fields())
        client.send(headers_frame(1, data=whole + literal(b"x", b"y" * 4000, 0x40)))
        assert client.response(1).status == 200
        client.send(headers_frame(3, data=whole + b"\xbe" * 20))
        assert client.response(3).status == 431
        client.send(headers_frame(5, data=whole + b"\xbe" * 16_000))
        client.read_to_end()
        assert client.goaways[-1][1] == h.ENHANCE_YOUR_CALM
        assert h.connect(server).get().status == 200

    def test_many_small_bombs(self, serve: Serve) -> None:
        client = h.connect(serve(Counted()))
        whole = block(request_fields())
        client.send(headers_frame(1, data=whole + literal(b"x", b"y" * 4000, 0x40)))
        client.response(1)
        for first in range(3, 1003, 100):
            ids = range(first, first + 100, 2)
            client.send(b"".join(headers_frame(stream_id, data=whole + b"\xbe" * 20) for stream_id in ids))
            assert {client.response(stream_id).status for stream_id in ids} == {431}
        assert not client.goaways

    def test_too_many_fields(self, serve: Serve) -> None:
        client = h.connect(serve(Counted()))
        assert client.get(more=[(b"x", b"y")] * 200).status == 431
        client.send(headers_frame(101, request_fields(more=[(b"x", b"y")] * 300)))
        client.read_to_end()
        assert client.goaways[-1][1] == h.ENHANCE_YOUR_CALM

    def test_long_target(self, serve: Serve) -> None:
        client = h.connect(serve(Counted(), limit_request_line=100))
        assert client.get(b"/" + b"a" * 100).status == 414
        assert client.get(b"/" + b"a" * 99).status == 200


class TestMemory:
    def test_body_in_tiny_pieces_is_kept_together(self, serve: Serve) -> None:
        # Each piece costs some fifty bytes of memory, whatever is in it.
        go = asyncio.Event()
        got: list[bytes] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            got.append(await read_body(receive))
            await respond(send)

        server = serve(application)
        client = h.connect(server)
        client.round_trip()
        stream_id = client.start(method=b"POST", end_stream=False)
        body = bytes(range(256)) * 400
        client.send(b"".join(data_frame(stream_id, body[at : at + 2]) for at in range(0, len(body), 2)))

        def pieces() -> list[int]:
            return [
                len(exchange._body)
                for exchange in server.server.runtime.running
                if exchange.buffered_bytes == len(body)
            ]

        eventually(lambda: server.in_loop(pieces))
        assert server.in_loop(pieces)[0] < 1000
        server.in_loop(go.set)
        client.send(data_frame(stream_id, b"", True))
        assert client.response(stream_id).status == 200
        assert got == [body]
