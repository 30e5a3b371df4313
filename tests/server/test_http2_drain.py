"""How a connection of HTTP/2 ends when the server stops: RFC 9113 §6.8."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

import http2_client as h
from headrace.protocol import http2
from headrace.server import http2_connection
from http2_client import HTTP2Client, connect, drain
from live import MIB, SHORT_S, LiveServer, ServerProcess, eventually, read_body, respond

pytestmark = pytest.mark.skipif(not http2.is_available, reason="the extra http2 is not installed")

Serve = Callable[..., LiveServer]
Spawn = Callable[..., ServerProcess]

NOTICE = (2**31 - 1, h.NO_ERROR)


class Held:
    """``/held`` is answered when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        if scope["path"] == "/held":
            await self.go.wait()
        await respond(send, body or b"hello")


class Deaf(HTTP2Client):
    """Answers no ping."""

    def send(self, *frames: bytes) -> None:
        super().send(*(frame for frame in frames if frame[3:5] != b"\x06\x01"))


def wait_for_looks(server: LiveServer) -> None:
    """Let the server look at its connections until their last moment must be over."""
    for _ in range(4):
        seen = server.server.runtime.now
        eventually(lambda seen=seen: server.server.runtime.now > seen + SHORT_S)  # type: ignore[misc]


def test_idle_connection(serve: Serve) -> None:
    server = serve(Held())
    client = connect(server)
    assert client.get().status == 200
    drain(server)
    client.read_to_end()
    assert client.goaways == [NOTICE, (1, h.NO_ERROR)]


def test_unused_connection(serve: Serve) -> None:
    server = serve(Held())
    client = connect(server)
    client.round_trip()
    drain(server)
    client.read_to_end()
    assert client.goaways == [NOTICE, (0, h.NO_ERROR)]


def test_streams_finish(serve: Serve) -> None:
    held = Held()
    server = serve(held)
    client = connect(server)
    ids = [client.start(b"/held") for _ in range(5)]
    eventually(lambda: len(server.server.runtime.running) == 5)
    drain(server)
    client.wait(lambda: len(client.goaways) == 2)
    assert client.goaways == [NOTICE, (9, h.NO_ERROR)]
    server.in_loop(held.go.set)
    assert [client.response(stream_id).body for stream_id in ids] == [b"hello"] * 5
    client.read_to_end()
    assert len(client.goaways) == 2


def test_upload_under_way_is_taken(serve: Serve) -> None:
    server = serve(Held())
    client = connect(server)
    stream_id = client.start(method=b"POST", end_stream=False)
    client.send_body(stream_id, b"abc", end_stream=False)
    eventually(lambda: server.server.runtime.running)
    drain(server)
    client.wait(lambda: len(client.goaways) == 2)
    client.send_body(stream_id, bytes(300_000))
    assert client.response(stream_id).body == b"abc" + bytes(300_000)
    client.read_to_end()


def test_request_on_the_way_is_served(serve: Serve) -> None:
    # It left before the client could know: only the second GOAWAY, a round trip later, names the last stream.
    server = serve(Held())
    client = Deaf(server.connect().sock)
    assert client.get().status == 200
    drain(server)
    client.wait(lambda: client.goaways == [NOTICE])
    assert client.get().status == 200
    client.read_to_end()
    assert client.goaways == [NOTICE, (3, h.NO_ERROR)]


def test_request_behind_the_last_stream_is_not(serve: Serve) -> None:
    held = Held()
    server = serve(held)
    client = connect(server)
    stream_id = client.start(b"/held")
    eventually(lambda: server.server.runtime.running)
    drain(server)
    client.wait(lambda: len(client.goaways) == 2)
    late = client.start(b"/late")
    client.round_trip()
    assert len(server.server.runtime.running) == 1
    server.in_loop(held.go.set)
    assert client.response(stream_id).status == 200
    client.read_to_end()
    assert not client.stream(late).headers


def test_client_that_answers_no_ping(serve: Serve) -> None:
    held = Held()
    server = serve(held)
    client = Deaf(server.connect().sock)
    stream_id = client.start(b"/held")
    eventually(lambda: server.server.runtime.running)
    drain(server)
    client.wait(lambda: client.goaways == [NOTICE])
    server.in_loop(held.go.set)
    assert client.response(stream_id).status == 200
    client.read_to_end()
    assert client.goaways == [NOTICE, (1, h.NO_ERROR)]


def test_event_streams_are_told(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await read_body(receive)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        assert await receive() == {"type": "http.disconnect"}
        await send({"type": "http.response.body", "body": b"data: bye\n\n", "more_body": True})

    server = serve(application)
    client = connect(server)
    stream_id = client.start()
    client.wait(lambda: client.stream(stream_id).body == b": hello\n\n")
    drain(server)
    received = client.response(stream_id)
    assert (received.body, received.is_ended) == (b": hello\n\ndata: bye\n\n", True)
    client.read_to_end()


def test_stream_that_outlasts_the_timeout(serve: Serve) -> None:
    server = serve(Held(), timeout_graceful_shutdown=0.2)
    client = connect(server)
    stream_id = client.start(b"/held")
    eventually(lambda: server.server.runtime.running)
    drain(server)
    assert client.response(stream_id).status == 503
    client.read_to_end()


def test_client_that_is_stalled_does_not_hold_it_up(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, bytes(200_000))

    server = serve(application, timeout_graceful_shutdown=0.2)
    client = connect(server, {h.INITIAL_WINDOW_SIZE: 10}, takes=False)
    stream_id = client.start()
    client.wait(lambda: len(client.stream(stream_id).body) == 10)
    drain(server)
    client.read_to_end()
    assert not client.stream(stream_id).is_ended


def test_client_that_is_slow_to_read(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    # It hears of the end behind what lies before it in the kernel, and what it asks for until then is served.
    monkeypatch.setattr(http2_connection, "LINGER_S", SHORT_S)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, bytes(16 * MIB if scope["path"] == "/large" else 5))

    server = serve(application, timeout_body=SHORT_S)
    client = connect(server, {h.INITIAL_WINDOW_SIZE: 2**31 - 1}, takes=False)
    client.send(h.window_frame(0, 2**30))
    large = client.start(b"/large")
    eventually(lambda: any(not c.is_writable for c in server.server.runtime.connections))
    drain(server)
    wait_for_looks(server)
    late = client.start()
    assert client.response(late).status == 200
    assert len(client.response(large).body) == 16 * MIB
    client.read_to_end()
    assert client.goaways == [NOTICE, (3, h.NO_ERROR)]


def test_braked_connection_without_streams(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_connection, "LINGER_S", SHORT_S)
    server = serve(Held(), timeout_write=0, timeout_body=SHORT_S)
    client = Deaf(server.connect().sock)
    assert client.get().status == 200
    (connection,) = server.server.runtime.connections
    server.in_loop(connection.pause_writing)
    drain(server)
    client.wait(lambda: client.goaways == [NOTICE])
    wait_for_looks(server)
    # It cannot have heard of the end before what was unwritten.
    late = client.start()
    eventually(lambda: server.server.runtime.total_requests == 2)
    server.in_loop(connection.resume_writing)
    assert client.response(late).status == 200
    client.read_to_end()
    assert client.goaways == [NOTICE, (3, h.NO_ERROR)]


def test_process(spawn: Spawn) -> None:
    process = spawn(
        """
        import asyncio

        async def app(scope, receive, send):
            await asyncio.sleep(0)
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            await send({"type": "http.response.body", "body": b"y"})
        """,
        "--timeout-graceful-shutdown",
        "1",
    )
    client = HTTP2Client(process.connect().sock)
    stream_id = client.start()
    client.wait(lambda: client.stream(stream_id).body == b"x")
    process.signal(signal.SIGTERM)
    received = client.response(stream_id)
    assert (received.body, received.is_ended) == (b"xy", True)
    client.read_to_end()
    assert client.goaways == [NOTICE, (1, h.NO_ERROR)]
    assert process.wait_exit() == -signal.SIGTERM
