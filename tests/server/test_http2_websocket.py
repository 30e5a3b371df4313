"""WebSocket over a stream of HTTP/2: RFC 8441, with ``wsproto`` for the frames inside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

import http2_client as h
from headrace.protocol import http2
from http2_client import HTTP2Client, connect, data_frame, drain, headers_frame, reset_frame, window_frame
from live import MIB, LiveServer, eventually, respond

pytestmark = pytest.mark.skipif(not http2.is_available, reason="the extra http2 is not installed")

Serve = Callable[..., LiveServer]

CONNECT = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":authority", b"a.test"),
]


class Tunnel:
    """A WebSocket in one stream.

    Args:
        client: whose stream it is.
        path: of the request.
        more: further fields.
    """

    def __init__(self, client: HTTP2Client, path: bytes = b"/", more: h.Fields = ()) -> None:
        self.client = client
        self.stream_id = client.next_stream_id()
        fields = [*CONNECT, (b":path", path), (b"sec-websocket-version", b"13"), *more]
        client.send(headers_frame(self.stream_id, fields, end_stream=False))
        self.received = client.stream(self.stream_id)
        client.wait(
            lambda: bool(self.received.headers) or self.received.reset is not None, "the handshake's answer"
        )
        self._deflate = PerMessageDeflate()
        extensions = []
        if accepted := self.received.get("sec-websocket-extensions") if self.received.headers else None:
            self._deflate.finalize(accepted)
            extensions.append(self._deflate)
        self._peer = Connection(ConnectionType.CLIENT, extensions)
        self._read_bytes = 0
        self._events: list[Event] = []

    def send(self, event: Event) -> None:
        """Send a message, a ping, a close."""
        self.client.send_body(self.stream_id, self._peer.send(event), end_stream=False)

    def read(self) -> Event:
        """The next whole message or control frame."""
        whole: Any = None
        while True:
            self.client.wait(lambda: self._take() or bool(self._events), "a frame")
            event = self._events.pop(0)
            if not isinstance(event, (TextMessage, BytesMessage)):
                return event
            if whole is None:
                whole = event
            else:
                whole = type(event)(data=whole.data + event.data, message_finished=event.message_finished)
            if event.message_finished:
                return whole

    def _take(self) -> bool:
        fresh = bytes(self.received.body[self._read_bytes :])
        if not fresh:
            return False
        self._read_bytes += len(fresh)
        self._peer.receive_data(fresh)
        self._events += self._peer.events()
        return bool(self._events)


class Echo:
    """Answers each message with itself; ``told`` is what it was told besides."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await respond(send, b"hello")
            return
        self.scopes.append(scope)
        assert await receive() == {"type": "websocket.connect"}
        if scope["path"] == "/denied":
            await send({"type": "websocket.close"})
            return
        if scope["path"] == "/response":
            await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x", b"y")]})
            await send({"type": "websocket.http.response.body", "body": b"teapot"})
            return
        subprotocol = scope["subprotocols"][0] if scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": [(b"X-Own", b"1")]})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.told.append(message)
                return
            if message.get("text") == "close":
                await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
                return
            if message.get("text") == "raise":
                raise ValueError("mine")
            message["type"] = "websocket.send"
            await send(message)


def is_alive(client: HTTP2Client) -> None:
    assert client.get().body == b"hello"
    assert not client.goaways


class TestHandshake:
    def test_accepted(self, serve: Serve) -> None:
        application = Echo()
        client = connect(serve(application))
        offered = [(b"sec-websocket-protocol", b"chat, other"), (b"x-a", b"b")]
        tunnel = Tunnel(client, b"/a?b", offered)
        assert tunnel.received.status == 200
        assert tunnel.received.get("sec-websocket-protocol") == "chat"
        assert tunnel.received.get("x-own") == "1"
        for name in ("upgrade", "connection", "sec-websocket-accept"):
            assert tunnel.received.get(name) is None
        scope = application.scopes[0]
        assert scope["type"] == "websocket"
        assert scope["http_version"] == "2"
        assert (scope["scheme"], scope["path"], scope["query_string"]) == ("ws", "/a", b"b")
        assert scope["subprotocols"] == ["chat", "other"]
        assert (b"host", b"a.test") in scope["headers"]
        assert scope["extensions"] == {"websocket.http.response": {}}
        assert "method" not in scope

    @pytest.mark.parametrize(
        ("path", "status", "body"), [(b"/denied", 403, b""), (b"/response", 418, b"teapot")]
    )
    def test_denied(self, serve: Serve, path: bytes, status: int, body: bytes) -> None:
        client = connect(serve(Echo()))
        tunnel = Tunnel(client, path)
        received = client.response(tunnel.stream_id)
        assert (received.status, bytes(received.body), received.is_ended) == (status, body, True)
        is_alive(client)

    def test_wrong_version(self, serve: Serve) -> None:
        client = connect(serve(Echo()))
        fields = [*CONNECT, (b":path", b"/"), (b"sec-websocket-version", b"8")]
        client.unused_stream_id = 3
        client.send(headers_frame(1, fields, end_stream=False))
        refused = client.response(1)
        assert (refused.status, refused.get("sec-websocket-version")) == (426, "13")
        is_alive(client)

    def test_protocol_is_no_list(self, serve: Serve) -> None:
        client = connect(serve(Echo()))
        fields = [
            (name, b"foo, websocket" if name == b":protocol" else value)
            for name, value in [*CONNECT, (b":path", b"/"), (b"sec-websocket-version", b"13")]
        ]
        client.unused_stream_id = 3
        client.send(headers_frame(1, fields, end_stream=False))
        assert client.response(1).status == 501
        is_alive(client)

    def test_switched_off(self, serve: Serve) -> None:
        client = connect(serve(Echo(), ws="none"))
        # It is not announced, so the pseudo-header field is malformed. RFC 8441 §3.
        assert Tunnel(client).received.reset == h.PROTOCOL_ERROR
        is_alive(client)

    def test_frames_before_the_answer(self, serve: Serve) -> None:
        client = connect(serve(Echo()))
        fields = [*CONNECT, (b":path", b"/"), (b"sec-websocket-version", b"13")]
        peer = Connection(ConnectionType.CLIENT)
        client.send(
            headers_frame(1, fields, end_stream=False) + data_frame(1, peer.send(TextMessage("early")))
        )
        client.wait(lambda: b"early" in client.stream(1).body)

    def test_reset_before_the_answer(self, serve: Serve) -> None:
        told: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            told.append(await receive())
            told.append(await receive())

        client = connect(serve(application))
        fields = [*CONNECT, (b":path", b"/"), (b"sec-websocket-version", b"13")]
        client.send(headers_frame(1, fields, end_stream=False))
        eventually(lambda: told)
        client.send(reset_frame(1))
        eventually(lambda: len(told) == 2)
        assert told[1]["type"] == "websocket.disconnect"
        assert told[1]["code"] == 1006


class TestMessages:
    @pytest.mark.parametrize("more", [(), [(b"sec-websocket-extensions", b"permessage-deflate")]])
    def test_both_ways(self, serve: Serve, more: Any) -> None:
        client = connect(serve(Echo()))
        tunnel = Tunnel(client, more=more)
        assert (tunnel.received.get("sec-websocket-extensions") is not None) is bool(more)
        for size in (0, 1, 125, 126, 70_000):
            tunnel.send(TextMessage("ä" * size))
            assert tunnel.read() == TextMessage("ä" * size)
            tunnel.send(BytesMessage(bytes(size)))
            assert tunnel.read() == BytesMessage(bytes(size))
        tunnel.send(Ping(b"abc"))
        assert tunnel.read() == Pong(b"abc")
        is_alive(client)

    def test_several_on_one_connection(self, serve: Serve) -> None:
        client = connect(serve(Echo()))
        tunnels = [Tunnel(client) for _ in range(20)]
        for number, tunnel in enumerate(tunnels):
            tunnel.send(TextMessage(f"{number}"))
        for number, tunnel in enumerate(tunnels):
            assert tunnel.read() == TextMessage(f"{number}")
        is_alive(client)

    def test_large_ones_through_small_windows(self, serve: Serve) -> None:
        client = connect(serve(Echo()), {h.INITIAL_WINDOW_SIZE: 5000})
        tunnel = Tunnel(client)
        body = bytes(range(256)) * 4096
        tunnel.send(BytesMessage(body))
        assert tunnel.read() == BytesMessage(body)

    def test_client_that_takes_nothing_brakes_the_application(self, serve: Serve) -> None:
        sent: list[int] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await respond(send, b"hello")
                return
            await send({"type": "websocket.accept"})
            for number in range(500):
                await send({"type": "websocket.send", "bytes": bytes(10_000)})
                sent.append(number)
            await send({"type": "websocket.close"})

        client = connect(serve(application), {h.INITIAL_WINDOW_SIZE: 1000}, takes=False)
        tunnel = Tunnel(client)
        client.wait(lambda: len(tunnel.received.body) == 1000)
        count = -1
        while count != len(sent):
            count = len(sent)
            is_alive(client)
        assert 0 < count < 30
        client._takes = True
        client.send(window_frame(tunnel.stream_id, MIB), window_frame(0, MIB))
        for _ in range(500):
            assert tunnel.read() == BytesMessage(bytes(10_000))
        assert isinstance(tunnel.read(), CloseConnection)

    def test_application_that_reads_nothing_brakes_the_client(self, serve: Serve) -> None:
        go = asyncio.Event()
        echo = Echo()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await respond(send, b"hello")
                return
            await send({"type": "websocket.accept"})
            await receive()
            await go.wait()
            while (await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": "got"})
            echo.told.append(True)

        server = serve(application)
        client = connect(server)
        tunnel = Tunnel(client)
        peer = Connection(ConnectionType.CLIENT)
        frames = b"".join(peer.send(BytesMessage(bytes(50_000))) for _ in range(20))
        allowed = 0
        while allowed < len(frames) and (room := client.window(tunnel.stream_id)):
            client.send_body(tunnel.stream_id, frames[allowed : allowed + room], end_stream=False)
            allowed += room
            client.round_trip()
        assert allowed < 400_000
        is_alive(client)
        server.in_loop(go.set)
        client.send_body(tunnel.stream_id, frames[allowed:], end_stream=False)
        for _ in range(20):
            assert tunnel.read() == TextMessage("got")


class TestEnd:
    def test_client_closes(self, serve: Serve) -> None:
        application = Echo()
        client = connect(serve(application))
        tunnel = Tunnel(client)
        tunnel.send(CloseConnection(4000, "bye"))
        answer = tunnel.read()
        assert isinstance(answer, CloseConnection)
        assert answer.code == 4000
        assert client.response(tunnel.stream_id).is_ended
        eventually(lambda: application.told)
        assert application.told == [{"type": "websocket.disconnect", "code": 4000, "reason": "bye"}]
        is_alive(client)

    def test_application_closes(self, serve: Serve) -> None:
        client = connect(serve(Echo()))
        tunnel = Tunnel(client)
        tunnel.send(TextMessage("close"))
        closing = tunnel.read()
        assert isinstance(closing, CloseConnection)
        assert (closing.code, closing.reason) == (4001, "enough")
        tunnel.send(closing.response())
        assert client.response(tunnel.stream_id).is_ended
        is_alive(client)

    def test_application_raises(self, serve: Serve, error_log: Any) -> None:
        client = connect(serve(Echo()))
        tunnel = Tunnel(client)
        tunnel.send(TextMessage("raise"))
        closing = tunnel.read()
        assert isinstance(closing, CloseConnection)
        assert closing.code == 1011
        assert [line for line in error_log.lines() if "Exception in ASGI" in line]
        is_alive(client)

    def test_broken_frame(self, serve: Serve) -> None:
        application = Echo()
        client = connect(serve(application))
        tunnel = Tunnel(client)
        client.send(data_frame(tunnel.stream_id, b"\xff\xff\xff\xff"))
        closing = tunnel.read()
        assert isinstance(closing, CloseConnection)
        assert closing.code == 1002
        eventually(lambda: application.told)
        assert application.told[0]["code"] == 1002
        assert client.response(tunnel.stream_id).is_ended
        is_alive(client)

    @pytest.mark.parametrize("how", ["reset", "end_stream", "connection"])
    def test_lost(self, serve: Serve, how: str) -> None:
        application = Echo()
        server = serve(application)
        client = connect(server)
        tunnel = Tunnel(client)
        if how == "reset":
            client.send(reset_frame(tunnel.stream_id))
        elif how == "end_stream":
            client.send(data_frame(tunnel.stream_id, b"", True))
        else:
            client.close()
        eventually(lambda: application.told)
        assert application.told == [{"type": "websocket.disconnect", "code": 1005, "reason": ""}]
        eventually(lambda: not server.server.runtime.running)
        if how != "connection":
            is_alive(client)

    @pytest.mark.parametrize("ends", ["close", "nothing", "broken"])
    @pytest.mark.parametrize("how", ["reset", "connection"])
    def test_lost_behind_more_than_the_queue_holds(self, serve: Serve, how: str, ends: str) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await go.wait()
            try:
                await send({"type": "websocket.send", "text": "late"})
            except OSError:
                received.append("refused")
            while True:
                received.append(await receive())
                if received[-1]["type"] == "websocket.disconnect":
                    break
            received.append(await receive())

        go = asyncio.Event()
        received: list[Any] = []
        server = serve(application)
        client = connect(server)
        tunnel = Tunnel(client)
        peer = Connection(ConnectionType.CLIENT)
        data = b"".join(peer.send(TextMessage(f"{number}")) for number in range(100))
        data += {"close": peer.send(CloseConnection(4001, "bye")), "nothing": b"", "broken": b"\xff\xff"}[
            ends
        ]
        client.send_body(tunnel.stream_id, data, end_stream=False)
        if how == "reset":
            client.send(reset_frame(tunnel.stream_id))
            client.round_trip()
        else:
            client.close()
            eventually(lambda: not server.server.runtime.connections)
        server.in_loop(go.set)
        eventually(lambda: not server.server.runtime.running)
        assert received[0] == "refused"
        assert [message.get("text") for message in received[1:101]] == [*map(str, range(100))]
        code = {"close": 4001, "nothing": 1005, "broken": 1002}[ends]
        assert [message["code"] for message in received[101:]] == [code, code]

    def test_lost_while_the_rate_holds_messages_back(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while not received or received[-1]["type"] != "websocket.disconnect":
                received.append(await receive())

        received: list[Any] = []
        client = connect(serve(application, ws_max_rate=1.0))
        tunnel = Tunnel(client)
        peer = Connection(ConnectionType.CLIENT)
        data = b"".join(peer.send(TextMessage(f"{number}")) for number in range(50))
        client.send_body(tunnel.stream_id, data + peer.send(CloseConnection(4001)), end_stream=False)
        eventually(lambda: received)
        client.send(reset_frame(tunnel.stream_id))
        eventually(lambda: len(received) == 51)
        assert [message.get("text") for message in received] == [*map(str, range(50)), None]
        assert received[-1]["code"] == 4001

    def test_server_stops(self, serve: Serve) -> None:
        application = Echo()
        server = serve(application)
        client = connect(server)
        tunnel = Tunnel(client)
        drain(server)
        closing = tunnel.read()
        assert isinstance(closing, CloseConnection)
        assert closing.code == 1012
        tunnel.send(closing.response())
        client.read_to_end()
        assert client.goaways[-1] == (tunnel.stream_id, h.NO_ERROR)
        assert application.told[0]["code"] == 1012

    def test_message_above_the_limit(self, serve: Serve) -> None:
        client = connect(serve(Echo(), ws_max_size=1000))
        tunnel = Tunnel(client)
        tunnel.send(BytesMessage(bytes(1001)))
        closing = tunnel.read()
        assert isinstance(closing, CloseConnection)
        assert closing.code == 1009
        is_alive(client)
