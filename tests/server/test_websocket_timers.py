"""Timers of WebSockets: pings that judge the peer and not ourselves, silence, a client that takes nothing."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.errors import ClientDisconnected
from live import MIB, SHORT_S, LiveServer, eventually
from websocket_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Recorder,
    WebSocketClient,
    connect,
    frame,
)

Serve = Callable[..., LiveServer]

NEVER_S = 600.0


def channel_of(server: LiveServer) -> Any:
    # In the loop, because the 101 leaves before the connection has been handed over.
    (channel,) = server.in_loop(lambda: list(server.server.runtime.connections))
    return channel


def let_pass(server: LiveServer, time_s: float) -> None:
    """Wait until so much of the time that peers are judged by has gone on."""
    runtime = server.server.runtime
    until = runtime.awake_s + time_s
    eventually(lambda: runtime.awake_s > until)


@contextlib.contextmanager
def busy_loop(server: LiveServer, time_s: float) -> Iterator[None]:
    """Keep the server's loop busy, in a callback for a socket: there the sweep comes before the next read."""
    ours, servers = socket.socketpair()
    begun, over = threading.Event(), threading.Event()

    def work() -> None:
        asyncio.get_running_loop().remove_reader(servers)
        begun.set()
        threading.Event().wait(time_s)
        over.set()

    with ours, servers:
        server.in_loop(lambda: asyncio.get_running_loop().add_reader(servers, work))
        ours.send(b"x")
        begun.wait()
        yield
        over.wait()


def answer_pings_until(client: WebSocketClient, text: str) -> None:
    """Answer pings, and read what else comes, until a certain message."""
    while (received := client.read_frame()) != (TEXT, text.encode()):
        assert received[0] != CLOSE, received
        if received[0] == PING:
            client.send(frame(PONG, received[1]))


def read_slowly(serve: Serve, application: Any, **options: Any) -> None:
    """Read frames of 24 MiB in all, slowly, and then the Close."""
    server = serve(application, **options)
    client = connect(server)
    channel = channel_of(server)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    eventually(lambda: not channel.is_writable)
    # The server gets rid of something each time, and of all only in the end.
    for _ in range(11):
        client.read_exactly(2 * MIB)
        let_pass(server, SHORT_S)
    client.read_exactly(2 * MIB)
    assert client.read_close() == (1000, "")


class TestPings:
    def test_are_sent_while_they_are_answered(self, serve: Serve) -> None:
        client = connect(serve(Recorder(), ws_ping_interval=SHORT_S, ws_ping_timeout=NEVER_S))
        for _ in range(3):
            opcode, payload = client.read_frame()
            assert opcode == PING
            client.send(frame(PONG, payload))

    def test_1011_without_an_answer(self, serve: Serve) -> None:
        recorder = Recorder()
        client = connect(serve(recorder, ws_ping_interval=SHORT_S, ws_ping_timeout=SHORT_S))
        assert client.read_frame()[0] == PING
        assert client.read_close() == (1011, "keepalive ping timeout")
        assert eventually(lambda: recorder.received[1:]) == [
            {"type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"}
        ]
        # It is not waited for: a peer that does not answer pings does not answer this either.
        assert client.is_ended()

    def test_whatever_comes_is_a_sign_of_life(self, serve: Serve) -> None:
        server = serve(Recorder(), ws_ping_interval=SHORT_S, ws_ping_timeout=2 * SHORT_S)
        client = connect(server)
        for number in range(5):
            # No pong, but a text.
            assert client.read_frame()[0] == PING
            client.send_text(str(number))
            while (received := client.read_frame())[0] == PING:
                client.send_text(str(number))
            assert received == (TEXT, b"%d" % number)

    def test_without_a_timeout_nobody_is_judged(self, serve: Serve) -> None:
        client = connect(serve(Recorder(), ws_ping_interval=SHORT_S, ws_ping_timeout=0))
        for _ in range(4):
            assert client.read_frame()[0] == PING
        client.send_text("late, but here")
        while (received := client.read_frame())[0] == PING:
            pass
        assert received == (TEXT, b"late, but here")

    def test_our_own_busy_loop_is_not_the_peers_fault(self, serve: Serve) -> None:
        server = serve(Recorder(), ws_ping_interval=SHORT_S, ws_ping_timeout=SHORT_S)
        client = connect(server)
        for _ in range(3):
            opcode, payload = client.read_frame()
            assert opcode == PING
            with busy_loop(server, 5 * SHORT_S):
                # In time, but the server will be late to read it.
                client.send(frame(PONG, payload))
        client.send_text("healthy")
        answer_pings_until(client, "healthy")

    def test_a_peer_whose_pongs_are_not_read_is_not_judged(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await go.wait()
            while (message := await receive())["type"] == "websocket.receive":
                received.append(message)
                if message.get("text") == "last":
                    await send({"type": "websocket.send", "text": "got it"})

        go = asyncio.Event()
        received: list[Any] = []
        server = serve(application, ws_ping_interval=SHORT_S, ws_ping_timeout=SHORT_S)
        client = connect(server)
        channel = channel_of(server)
        client.send(frame(BINARY, bytes(70_000)) * 2 + frame(TEXT, b"last"))
        eventually(lambda: channel.engine.has_unread)
        assert client.read_frame()[0] == PING
        client.send(frame(PONG, b"headrace"))
        let_pass(server, 5 * SHORT_S)
        server.in_loop(go.set)
        answer_pings_until(client, "got it")
        assert len(received) == 3


class TestIdle:
    def test_1001(self, serve: Serve) -> None:
        recorder = Recorder()
        client = connect(serve(recorder, ws_idle_timeout=SHORT_S))
        assert client.read_close() == (1001, "No message for too long")
        client.send_close(1001)
        assert client.is_ended()
        assert recorder.last["code"] == 1001

    def test_pings_and_pongs_are_no_messages(self, serve: Serve) -> None:
        client = connect(serve(Recorder(), ws_idle_timeout=4 * SHORT_S, ws_ping_interval=SHORT_S))
        opcodes = []
        while (received := client.read_frame())[0] != CLOSE:
            opcodes.append(received[0])
            client.send(frame(PONG, received[1]) if received[0] == PING else frame(PING, b"x"))
        assert received[1][:2] == b"\x03\xe9"
        assert PING in opcodes

    def test_messages_of_either_side_put_it_off(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            for _ in range(20):
                await asyncio.wait([asyncio.ensure_future(receive())], timeout=SHORT_S / 2)
                await send({"type": "websocket.send", "text": "tick"})

        client = connect(serve(application, ws_idle_timeout=5 * SHORT_S))
        assert [client.read_message() for _ in range(20)] == ["tick"] * 20
        assert client.read_close() == (1000, "")

    @pytest.mark.parametrize("fragments", [1, 500])
    def test_a_message_under_way_puts_it_off(self, serve: Serve, fragments: int) -> None:
        server = serve(Recorder(), ws_idle_timeout=4 * SHORT_S, ws_ping_interval=0)
        client = connect(server)
        size = 100_000 // fragments
        parts = [frame(CONTINUATION, bytes(size), fin=False)] * fragments
        parts[0] = frame(BINARY, bytes(size), fin=False)
        data = b"".join(parts) + frame(CONTINUATION)
        for start in range(0, len(data), len(data) // 20):
            client.send(data[start : start + len(data) // 20])
            let_pass(server, SHORT_S)
        assert client.read_message() == bytes(100_000)

    def test_pings_inside_a_message_do_not(self, serve: Serve) -> None:
        server = serve(Recorder(), ws_idle_timeout=2 * SHORT_S, ws_ping_interval=SHORT_S / 2)
        client = connect(server)
        client.send(frame(BINARY, b"half", fin=False))
        pong = frame(PONG, bytes(120))
        start = 0
        while (received := client.read_frame())[0] == PING:
            # A bit of a pong, and now and then a whole one.
            client.send(pong[start : start + 63])
            start = 63 - start
        assert received == (CLOSE, b"\x03\xe9No message for too long")

    def test_what_the_client_takes_of_a_message_puts_it_off(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": bytes(24 * MIB - 10)})

        read_slowly(serve, application, ws_idle_timeout=4 * SHORT_S, ws_ping_interval=0)


class TestSendTimeout:
    def test_1013_for_a_client_that_takes_nothing(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            try:
                while True:
                    await send({"type": "websocket.send", "bytes": bytes(262_144)})
            except OSError as error:
                seen.append(error)
                seen.append(await receive())

        seen: list[Any] = []
        client = connect(serve(application, ws_send_timeout=SHORT_S))
        eventually(lambda: len(seen) == 2)
        assert isinstance(seen[0], ClientDisconnected)
        assert seen[1]["code"] == 1013
        # It reads in the end, and finds the reason behind what it was sent.
        while (received := client.read_frame())[0] == BINARY:
            pass
        assert received == (CLOSE, b"\x03\xf5The client takes nothing of what is sent")
        client.send_close(1013)
        assert client.is_ended()

    def test_who_never_reads_is_cut(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            while True:
                await send({"type": "websocket.send", "bytes": bytes(262_144)})

        server = serve(application, ws_send_timeout=SHORT_S)
        client = connect(server)
        eventually(lambda: not server.server.runtime.connections)
        assert client.read_to_end()

    def test_little_that_a_client_takes_is_seen(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": bytes(24 * MIB)})

        server = serve(application)
        client = connect(server)
        channel = channel_of(server)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        eventually(lambda: not channel.is_writable)
        before = server.in_loop(channel._taken)
        # The kernel holds megabytes, and asks for more when a third of them is gone.
        client.read_exactly(400_000)
        eventually(lambda: server.in_loop(channel._taken) > before)

    def test_who_takes_nothing_and_sends_its_end(self, serve: Serve, monkeypatch: Any) -> None:
        def is_full() -> bool:
            if channel.transport.get_write_buffer_size():
                return True
            channel.engine.send_bytes(bytes(60_000))
            channel.flush()
            return False

        monkeypatch.setattr("headrace.server.websocket_connection.LAST_WORDS_TIMEOUT_S", SHORT_S)
        recorder = Recorder()
        server = serve(recorder, ws_send_timeout=SHORT_S)
        client = connect(server)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        channel = channel_of(server)
        eventually(lambda: server.in_loop(is_full))
        # Too little for the brake, and so for its timer.
        assert channel.is_writable
        client.half_close()
        eventually(lambda: not server.server.runtime.connections)
        assert recorder.last["code"] == 1005

    def test_who_reads_slowly_is_not(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": bytes(24 * MIB - 10)})

        read_slowly(serve, application, ws_send_timeout=4 * SHORT_S)

    def test_nor_is_who_reads_slowly_what_several_tasks_send(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            message = {"type": "websocket.send", "bytes": bytes(2 * MIB - 10)}
            await asyncio.gather(*(send(message) for _ in range(12)))

        read_slowly(serve, application, ws_send_timeout=4 * SHORT_S)
