"""Limits of WebSockets over sockets: how many, how fast, and how much may wait in either direction."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from headrace.server.message_rate import MessageRate
from live import MIB, LiveServer, Records, eventually, respond
from websocket_client import (
    BINARY,
    CLOSE,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    Recorder,
    WebSocketClient,
    close_frame,
    connect,
    deflated,
    frame,
    handshake,
)

Serve = Callable[..., LiveServer]

HIGH_WATER_BYTES = 65_536
READ_BYTES = 262_144
"""The most that asyncio and uvloop take from a socket at once."""


class Held:
    """An application that accepts, and reads when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.received: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await respond(send, b"http")
            return
        await receive()
        await send({"type": "websocket.accept"})
        await self.go.wait()
        while not self.received or self.received[-1]["type"] != "websocket.disconnect":
            self.received.append(await receive())


def channel_of(server: LiveServer) -> Any:
    # In the loop, because the 101 leaves before the connection has been handed over.
    (channel,) = server.in_loop(lambda: list(server.server.runtime.connections))
    return channel


def push(client: WebSocketClient, data: bytes, is_over: Callable[[], bool]) -> int:
    """Send until ``is_over()``, at most all; returns how much."""
    sent = 0
    view = memoryview(data)
    client.sock.setblocking(False)

    def goes_on() -> bool:
        nonlocal sent
        try:
            while sent < len(view):
                sent += client.sock.send(view[sent : sent + 262_144])
        except BlockingIOError:
            pass
        return is_over()

    eventually(goes_on, "the server stops reading")
    client.sock.setblocking(True)
    return sent


class TestConcurrency:
    def test_websockets_count(self, serve: Serve) -> None:
        server = serve(Recorder(), limit_concurrency=2)
        clients = [connect(server) for _ in range(2)]
        for data in (handshake(), b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"):
            shed = server.connect()
            shed.send(data)
            response = shed.read_response()
            assert (response.status, response.get("retry-after")) == (503, "1")
            assert shed.is_ended()
        clients[0].send_close()
        assert clients[0].read_close() == (1000, "")
        eventually(lambda: len(server.server.runtime.running) == 1)
        replaced = connect(server)
        for client in (clients[1], replaced):
            client.send_text("still here")
            assert client.read_message() == "still here"

    def test_a_shed_one_reaches_no_application(
        self, serve: Serve, error_log: Records, access_records: Records
    ) -> None:
        recorder = Recorder()
        server = serve(recorder, limit_concurrency=1)
        connect(server)
        assert server.exchange(handshake("/shed")).status == 503
        assert len(recorder.scopes) == 1
        assert error_log.lines(30) == []

    def test_limit_of_connections(self, serve: Serve) -> None:
        server = serve(Recorder(), limit_connections=1)
        first = connect(server)
        waiting = server.connect()
        waiting.send(handshake() + frame(TEXT, b"in turn"))
        first.send_text("I am served")
        assert first.read_message() == "I am served"
        assert server.in_loop(lambda: server.server.runtime.total_requests) == 1
        first.send_close()
        assert first.read_close() == (1000, "")
        assert waiting.read_response().status == 101
        assert waiting.read_until(b"in turn")


class TestPerAddress:
    def test_429_above_it(self, serve: Serve) -> None:
        server = serve(Recorder(), ws_max_connections_per_ip=2)
        clients = [connect(server) for _ in range(2)]
        refused = server.connect()
        refused.send(handshake())
        response = refused.read_response()
        assert (response.status, response.get("retry-after")) == (429, "10")
        assert response.body == b"Too many WebSockets of this client"
        assert refused.is_ended()
        clients[0].close()
        eventually(lambda: len(server.server.runtime.running) == 1)
        connect(server)

    def test_addresses_are_those_that_trusted_proxies_name(self, serve: Serve) -> None:
        server = serve(Recorder(), ws_max_connections_per_ip=1)
        ann, ben = "x-forwarded-for: 203.0.113.1", "x-forwarded-for: 203.0.113.2"
        connect(server, "/", ann)
        connect(server, "/", ben)
        connect(server)
        for headers in ((ann,), (ben,), ()):
            assert server.exchange(handshake("/", *headers)).status == 429

    def test_requests_do_not_count(self, serve: Serve) -> None:
        held = Held()
        server = serve(held, ws_max_connections_per_ip=1)
        keeper = [server.connect() for _ in range(3)]
        assert [client.request().status for client in keeper] == [200] * 3
        connect(server)
        assert [client.request().status for client in keeper] == [200] * 3
        server.in_loop(held.go.set)


class TestRate:
    def test_delay(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                times.append(asyncio.get_running_loop().time())
                await send({"type": "websocket.send", "text": message["text"]})

        times: list[float] = []
        client = connect(serve(application, ws_max_rate=20.0))
        client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(28)))
        assert [client.read_message() for _ in range(28)] == [str(number) for number in range(28)]
        # A second's worth at once, then one each 1/20 s; uvloop's clock counts whole milliseconds.
        assert times[27] - times[0] > 7 / 20
        client.send_close()
        assert client.read_close() == (1000, "")

    def test_a_token_that_comes_while_nothing_is_taken(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # uvloop's timers may be early by a part of a millisecond, and its clock go on in between.
        real = MessageRate.allowance
        early = iter([0])
        monkeypatch.setattr(MessageRate, "allowance", lambda rate, now: next(early, real(rate, now)))
        client = connect(serve(Recorder(), ws_max_rate=5.0))
        client.send_text("a")
        assert client.read_message() == "a"
        assert next(early, "used") == "used"

    def test_a_client_that_leaves_while_it_is_delayed(self, serve: Serve) -> None:
        recorder = Recorder()
        server = serve(recorder, ws_max_rate=1.0)
        client = connect(server)
        client.send(frame(TEXT, b"a") * 10)
        assert client.read_message() == "a"
        client.reset()
        # Its end is seen when the next answer cannot be written, as nothing is read; no timer outlives it.
        eventually(lambda: not server.server.runtime.connections)
        assert recorder.last["type"] in ("websocket.receive", "websocket.disconnect")

    def test_close(self, serve: Serve) -> None:
        recorder = Recorder()
        client = connect(serve(recorder, ws_max_rate=3.0, ws_rate_action="close"))
        client.send(frame(TEXT, b"a") * 10)
        messages = []
        while (received := client.read_frame())[0] == TEXT:
            messages.append(received)
        assert received[0] == CLOSE
        assert received[1] == b"\x03\xf0Too many messages"
        assert len(messages) <= 3
        client.send_close(1008)
        assert client.is_ended()
        texts = [message for message in recorder.received if message["type"] == "websocket.receive"]
        assert len(texts) <= 3

    @pytest.mark.parametrize("cut", [0, 4])
    def test_who_keeps_it_and_closes_is_not_closed_for_it(self, serve: Serve, cut: int) -> None:
        held = Held()
        held.go.set()
        client = connect(serve(held, ws_max_rate=5.0, ws_rate_action="close"))
        data = frame(TEXT, b"a") * 5 + frame(PING, b"p") + close_frame(1000, b"bye")
        # The Close whole, or in a segment of its own from some byte on.
        client.send(data[: len(data) - cut])
        assert client.read_frame() == (PONG, b"p")
        client.send(data[len(data) - cut :])
        assert client.read_close() == (1000, "")
        assert client.is_ended()
        eventually(lambda: len(held.received) == 6)
        assert [message.get("text") for message in held.received] == ["a"] * 5 + [None]
        assert held.received[-1]["reason"] == "bye"

    def test_control_frames_do_not_wait_for_it(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MessageRate, "wait_s", 1000.0)
        recorder = Recorder()
        client = connect(serve(recorder, ws_max_rate=1.0))
        client.send(frame(TEXT, b"a") + frame(PING, b"p"))
        assert sorted(client.read_frame() for _ in range(2)) == [(TEXT, b"a"), (PONG, b"p")]
        client.send(frame(PING, b"q") + close_frame(1001))
        assert client.read_frame() == (PONG, b"q")
        assert client.read_close() == (1001, "")
        assert eventually(lambda: recorder.received[2:])[0]["code"] == 1001

    def test_below_it_nothing_happens(self, serve: Serve) -> None:
        client = connect(serve(Recorder(), ws_max_rate=1000.0, ws_rate_action="close"))
        for number in range(100):
            client.send_text(str(number))
            assert client.read_message() == str(number)


class TestWhatWaitsForTheApplication:
    @pytest.mark.parametrize(
        ("message", "size", "count", "headers", "options"),
        [
            (frame(TEXT, b"x" * 100), 100, 200_000, (), {}),
            (frame(TEXT, b"x" * 100), 100, 200_000, (), {"ws_max_queue": 1}),
            (frame(TEXT, b"x" * 100), 100, 200_000, (), {"ws_max_queue": 100_000}),
            (frame(BINARY, bytes(100_000)), 100_000, 300, (), {}),
            (frame(BINARY, bytes(10 * MIB)), 10 * MIB, 3, (), {}),
            # A thousand of these take the space of one, and come in a few reads.
            (frame(BINARY, deflated(bytes(MIB)), rsv=4), MIB, 30_000, (DEFLATE,), {}),
        ],
        ids=["small", "small-queue-of-1", "small-long-queue", "large", "huge", "compressed"],
    )
    def test_is_bounded(
        self, serve: Serve, message: bytes, size: int, count: int, headers: Any, options: Any
    ) -> None:
        held = Held()
        server = serve(held, **options)
        client = connect(server, "/", *headers)
        channel = channel_of(server)
        push(client, message * count, lambda: bool(channel.engine.has_unread))
        session = channel.session
        # Above the mark by a message, or by a read of short ones.
        assert server.in_loop(lambda: session.waiting_bytes) <= HIGH_WATER_BYTES + max(size, READ_BYTES)
        assert server.in_loop(lambda: len(session.messages)) <= options.get("ws_max_queue", 32)
        server.in_loop(held.go.set)
        client.reset()

    def test_goes_on_when_it_is_taken(self, serve: Serve) -> None:
        held = Held()
        server = serve(held)
        client = connect(server, "/", DEFLATE)
        channel = channel_of(server)
        numbers = range(500)
        messages = [frame(TEXT, deflated(b"%d " % number * 20_000), rsv=4) for number in numbers]
        client.send(b"".join(messages) + close_frame(1001))
        eventually(lambda: channel.engine.has_unread)
        server.in_loop(held.go.set)
        assert client.read_close() == (1001, "")
        eventually(lambda: held.received and held.received[-1]["type"] == "websocket.disconnect")
        assert [message["text"].split(" ", 1)[0] for message in held.received[:-1]] == list(map(str, numbers))

    def test_more_than_fits_goes_through_whole(self, serve: Serve) -> None:
        held = Held()
        server = serve(held)
        client = connect(server)
        channel = channel_of(server)
        data = frame(BINARY, bytes(99_999)) * 400 + close_frame(1000)
        sent = push(client, data, lambda: bool(channel.engine.has_unread))
        assert sent < len(data)
        server.in_loop(held.go.set)
        client.send(data[sent:])
        assert client.read_close() == (1000, "")
        eventually(lambda: held.received and held.received[-1]["type"] == "websocket.disconnect")
        assert [len(message["bytes"]) for message in held.received[:-1]] == [99_999] * 400


class TestWhatWaitsForTheClient:
    def test_send_waits_for_a_client_that_does_not_read(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            for number in range(200):
                await send({"type": "websocket.send", "bytes": number.to_bytes(2, "big") * 131_072})
                sent.append(number)

        sent: list[int] = []
        server = serve(application)
        client = connect(server)
        channel = channel_of(server)
        eventually(lambda: not channel.is_writable)
        # A message above the transport's mark, and what is sent in the same turn; the rest the kernel holds.
        assert server.in_loop(lambda: channel.transport.get_write_buffer_size()) <= 65_536 + 2 * 262_154
        assert len(sent) < 200
        assert [client.read_message()[:2] for _ in range(200)] == [
            number.to_bytes(2, "big") for number in range(200)
        ]
        assert client.read_close() == (1000, "")

    def test_an_echo_of_a_client_that_does_not_read_stops_reading(self, serve: Serve) -> None:
        recorder = Recorder()
        server = serve(recorder)
        client = connect(server)
        channel = channel_of(server)
        data = frame(BINARY, bytes(50_000)) * 1000
        sent = push(client, data, lambda: not channel.is_writable and not channel.transport.is_reading())
        assert sent < len(data)
        client.reset()
        eventually(lambda: not server.server.runtime.running)

    def test_pings_of_a_client_that_does_not_read(self, serve: Serve) -> None:
        recorder = Recorder()
        server = serve(recorder)
        client = connect(server)
        # Else the kernel may hold all the pongs there are.
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        channel = channel_of(server)
        data = frame(PING, b"x" * 125) * 300_000 + frame(TEXT, b"end")
        # uvloop reads 8 MiB before it lets the pongs out, so there may be too few of them to stop it.
        push(client, data, lambda: not channel.is_writable or recorder.last["type"] == "websocket.receive")
        assert server.in_loop(lambda: channel.transport.get_write_buffer_size()) < 4 * 65_536
        client.reset()
