"""Flow control, timeouts and limits of HTTP/2: a stream that stands still stands alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

import http2_client as h
from headrace.protocol import http2
from headrace.server.http2_stream import CONNECTION_HIGH_WATER_BYTES, HIGH_WATER_BYTES, SMALL_BYTES
from http2_client import HTTP2Client, connect, data_frame, reset_frame, window_frame
from live import MIB, SHORT_S, LiveServer, ServerProcess, eventually, read_body, respond

pytestmark = pytest.mark.skipif(not http2.is_available, reason="the extra http2 is not installed")

Serve = Callable[..., LiveServer]
Spawn = Callable[..., ServerProcess]

NEVER = {"timeout_header": 0, "timeout_body": 0, "timeout_write": 0, "timeout_keep_alive": 600}
"""All that is not under test."""

WINDOW_BYTES = 131_072
PIECE_BYTES = 10_000


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, await read_body(receive) or b"hello")


def deadlines(server: LiveServer) -> list[bool]:
    """For each connection whether it has a deadline."""
    return server.in_loop(lambda: [c._deadline > 0 for c in server.server.runtime.connections])


class Endless:
    """Sends pieces for ever and counts them; ``/`` is answered at once."""

    def __init__(self) -> None:
        self.sent_bytes: dict[str, int] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/":
            await respond(send, b"hello")
            return
        self.sent_bytes[path] = 0
        await send({"type": "http.response.start", "status": 200})
        with contextlib.suppress(RuntimeError):
            while True:
                await send({"type": "http.response.body", "body": bytes(PIECE_BYTES), "more_body": True})
                self.sent_bytes[path] += PIECE_BYTES

    @property
    def total_bytes(self) -> int:
        return sum(self.sent_bytes.values())

    def wait_stopped(self, client: HTTP2Client) -> int:
        """Wait until nothing more is taken from the application, and give how much it was."""
        total = -1
        while total != self.total_bytes:
            total = self.total_bytes
            for _ in range(3):
                client.round_trip()
        return total


class TestStalledDownloads:
    def test_send_waits_and_goes_on(self, serve: Serve) -> None:
        application = Endless()
        server = serve(application, on_disconnect="cancel")
        client = connect(server, takes=False)
        stream_id = client.start(b"/a")
        received = client.stream(stream_id)
        client.wait(lambda: len(received.body) == 65_535)
        total = application.wait_stopped(client)
        assert 65_535 < total <= 65_535 + HIGH_WATER_BYTES + 2 * PIECE_BYTES
        client.send(window_frame(0, 50_000), window_frame(stream_id, 50_000))
        client.wait(lambda: len(received.body) == 65_535 + 50_000)
        eventually(lambda: application.total_bytes >= total + 40_000)
        client.send(reset_frame(stream_id))
        eventually(lambda: not server.server.runtime.running)

    def test_others_go_on(self, serve: Serve) -> None:
        application = Endless()
        server = serve(application, on_disconnect="cancel")
        # The streams' windows are shut, the connection's is not.
        client = connect(server, {h.INITIAL_WINDOW_SIZE: 1000}, takes=False)
        ids = [client.start(b"/%d" % number) for number in range(20)]
        for stream_id in ids:
            client.wait(lambda stream_id=stream_id: len(client.stream(stream_id).body) == 1000)
        for _ in range(5):
            assert client.get().body == b"hello"
        for stream_id in ids:
            client.send(reset_frame(stream_id))
        eventually(lambda: not server.server.runtime.running)

    def test_memory_of_many_is_bounded(self, serve: Serve) -> None:
        application = Endless()
        server = serve(application, on_disconnect="cancel")
        client = connect(server, {h.INITIAL_WINDOW_SIZE: 0}, takes=False)
        for number in range(99):
            client.start(b"/%d" % number)
        eventually(lambda: len(application.sent_bytes) == 99)
        total = application.wait_stopped(client)
        assert total <= CONNECTION_HIGH_WATER_BYTES + 99 * (SMALL_BYTES + 2 * PIECE_BYTES)
        assert client.response(client.start(method=b"HEAD")).status == 200
        client.close()
        eventually(lambda: not server.server.runtime.running)

    def test_client_that_reads_nothing_at_all(self, serve: Serve) -> None:
        # Its windows are open, its socket is not read: the transport's brake counts.
        application = Endless()
        server = serve(application, on_disconnect="cancel")
        client = connect(server, {h.INITIAL_WINDOW_SIZE: 2**31 - 1}, takes=False)
        client.send(window_frame(0, 2**31 - 1 - 65_535))
        client.start(b"/a")
        eventually(lambda: any(not c.is_writable for c in server.server.runtime.connections))
        other = connect(server)
        total = -1
        while total != application.total_bytes:
            total = application.total_bytes
            other.round_trip()
            assert other.get().body == b"hello"
        assert total < 64 * MIB
        client.close()
        eventually(lambda: not server.server.runtime.running)

    def test_small_windows_are_used_up(self, serve: Serve) -> None:
        body = bytes(range(256)) * 200
        client = connect(serve(echo), {h.INITIAL_WINDOW_SIZE: 100})
        assert client.post(b"/", body).body == body


class TestStalledUploads:
    def test_window_is_given_back_only_for_what_is_read(self, serve: Serve) -> None:
        go = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/held":
                await go.wait()
            await echo(scope, receive, send)

        server = serve(application)
        client = connect(server)
        held = client.start(b"/held", b"POST", end_stream=False)
        client.send_body(held, bytes(WINDOW_BYTES), end_stream=False)
        client.round_trip()
        assert client.windows[held] == 0
        # Others are neither braked nor starved, though the first is not read; by far more than all windows.
        for _ in range(10):
            assert client.post(b"/", bytes(3 * MIB)).body == bytes(3 * MIB)
        assert client.windows[held] == 0
        server.in_loop(go.set)
        client.send_body(held, b"end")
        assert len(client.response(held).body) == WINDOW_BYTES + 3

    def test_all_streams_may_be_held_and_the_connection_lives(self, serve: Serve) -> None:
        go = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/held":
                await go.wait()
            await echo(scope, receive, send)

        server = serve(application, http2_max_streams=10)
        client = connect(server)
        ids = [client.start(b"/held", b"POST", end_stream=False) for _ in range(9)]
        for stream_id in ids:
            client.send_body(stream_id, bytes(WINDOW_BYTES), end_stream=False)
        assert client.post(b"/", bytes(MIB)).body == bytes(MIB)
        server.in_loop(go.set)
        for stream_id in ids:
            client.send_body(stream_id, b"")
        assert {len(client.response(stream_id).body) for stream_id in ids} == {WINDOW_BYTES}

    def test_unread_body_is_dropped_behind_the_answer(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"no")

        client = connect(serve(application, http2_max_streams=2))
        for _ in range(10):
            stream_id = client.start(method=b"POST", end_stream=False)
            client.send(data_frame(stream_id, bytes(16_000)) * 4)
            client.windows[0] -= 64_000
            assert client.response(stream_id).body == b"no"
        client.round_trip()
        assert client.windows[0] >= WINDOW_BYTES

    def test_body_of_refused_requests_gives_its_window_back(self, serve: Serve) -> None:
        client = connect(serve(echo, http2_max_streams=2, limit_request_body=100_000))
        for _ in range(20):
            fields = h.request_fields(method=b"POST", more=[(b"content-length", b"100001")])
            stream_id = client.next_stream_id()
            client.send(
                h.headers_frame(stream_id, fields, end_stream=False)
                + data_frame(stream_id, bytes(16_000)) * 4
            )
            client.windows[0] -= 64_000
            assert client.response(stream_id).status == 413
        client.round_trip()
        assert client.windows[0] > 0
        assert client.post(b"/", bytes(100_000)).body == bytes(100_000)


class TestTimeouts:
    def test_silent_connection(self, serve: Serve, error_log: Any) -> None:
        client = connect(serve(echo, **NEVER | {"timeout_header": SHORT_S}))
        client.read_to_end()
        assert [code for _, code in client.goaways] == [h.NO_ERROR]

    def test_half_a_preface(self, serve: Serve) -> None:
        client = connect(serve(echo, **NEVER | {"timeout_header": SHORT_S}), greets=False)
        client.send(h.PREFACE[:10])
        assert client.sock.recv(100).startswith(b"HTTP/1.1 408")

    def test_half_a_header_block(self, serve: Serve) -> None:
        client = connect(serve(echo, **NEVER | {"timeout_header": SHORT_S}))
        client.send(h.headers_frame(1, end_headers=False))
        client.read_to_end()
        assert client.is_ended

    def test_idle_connection_is_told(self, serve: Serve) -> None:
        client = connect(serve(echo, **NEVER | {"timeout_keep_alive": SHORT_S}))
        assert client.get().status == 200
        client.read_to_end()
        assert client.goaways == [(1, h.NO_ERROR)]

    def test_not_idle_while_a_stream_is_open(self, serve: Serve) -> None:
        go = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/held":
                await go.wait()
            await respond(send)

        server = serve(application, **NEVER | {"timeout_keep_alive": SHORT_S, "timeout_header": SHORT_S})
        client = connect(server)
        held = client.start(b"/held")
        assert client.get().status == 200
        assert deadlines(server) == [False]
        server.in_loop(go.set)
        assert client.response(held).status == 200

    def test_no_keep_alive_ends_behind_the_first(self, serve: Serve) -> None:
        client = connect(serve(echo, timeout_keep_alive=0))
        assert client.get().status == 200
        client.read_to_end()
        assert client.goaways[-1][1] == h.NO_ERROR

    @pytest.mark.parametrize("part", [b"", b"abc"])
    def test_silence_in_a_body(self, serve: Serve, error_log: Any, part: bytes) -> None:
        client = connect(serve(echo, **NEVER | {"timeout_body": SHORT_S}))
        stream_id = client.start(method=b"POST", end_stream=False)
        if part:
            client.send(data_frame(stream_id, part))
        received = client.response(stream_id)
        assert (received.status, received.is_ended) == (408, True)
        assert client.get().status == 200
        assert [line for line in error_log.lines() if "(408)" in line]

    def test_silence_in_a_body_that_nobody_waits_for(self, serve: Serve) -> None:
        go = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await respond(send, b"late")

        server = serve(application, **NEVER | {"timeout_body": SHORT_S})
        client = connect(server)
        stream_id = client.start(method=b"POST", end_stream=False)
        eventually(lambda: server.server.runtime.running)
        seen = server.server.runtime.now
        eventually(lambda: server.server.runtime.now > seen + 3 * SHORT_S)
        server.in_loop(go.set)
        assert client.response(stream_id).body == b"late"

    def test_client_that_takes_nothing_of_one_stream(self, serve: Serve) -> None:
        application = Endless()
        server = serve(application, **NEVER | {"timeout_write": SHORT_S}, on_disconnect="cancel")
        client = connect(server, {h.INITIAL_WINDOW_SIZE: 1000}, takes=False)
        received = client.response(client.start(b"/a"))
        assert (received.status, received.reset) == (200, h.CANCEL)
        eventually(lambda: not server.server.runtime.running)
        assert client.get().body == b"hello"
        assert not client.goaways

    def test_slow_client_that_takes_something(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, bytes(1000))

        server = serve(application, **NEVER | {"timeout_write": SHORT_S})
        client = connect(server, {h.INITIAL_WINDOW_SIZE: 1}, takes=False)
        stream_id = client.start()
        received = client.stream(stream_id)
        start = server.server.runtime.now
        # A byte for each look of the server's, for longer than the timeout.
        while server.server.runtime.now < start + 5 * SHORT_S:
            seen = server.server.runtime.now
            size = len(received.body)
            client.send(window_frame(stream_id, 1))
            client.wait(lambda size=size: len(received.body) > size or received.reset is not None)
            assert received.reset is None
            eventually(lambda seen=seen: server.server.runtime.now > seen)
        client.send(window_frame(stream_id, 1000))
        assert len(client.response(stream_id).body) == 1000

    def test_client_that_reads_nothing_is_cut(self, serve: Serve) -> None:
        server = serve(Endless(), **NEVER | {"timeout_write": SHORT_S}, on_disconnect="cancel")
        client = connect(server, {h.INITIAL_WINDOW_SIZE: 2**31 - 1}, takes=False)
        client.send(window_frame(0, 2**31 - 1 - 65_535))
        client.start(b"/a")
        eventually(lambda: server.server.runtime.running)
        eventually(lambda: not server.server.runtime.connections and not server.server.runtime.running)


def wide(server: LiveServer, window_bytes: int = 2**31 - 1, takes: bool = False) -> HTTP2Client:
    """A client whose windows let in more than its kernel."""
    client = connect(server, {h.INITIAL_WINDOW_SIZE: window_bytes}, takes=takes)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.send(window_frame(0, 2**30))
    return client


def is_braked(server: LiveServer) -> bool:
    return any(not connection.is_writable for connection in server.server.runtime.connections)


class TestWideWindows:
    """What the client's windows let in is more than its socket takes."""

    def test_slow_client_that_reads_steadily(self, serve: Serve) -> None:
        size = 24 * MIB

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, bytes(size))

        server = serve(application, **NEVER | {"timeout_write": 2 * SHORT_S})
        client = wide(server, size // 2, takes=True)
        received = client.stream(client.start())
        eventually(lambda: is_braked(server))
        looks = 0
        while not received.is_ended:
            # It reads a good piece between any two looks at it, and goes on so for longer than the timeout.
            had, before = len(received.body), server.server.runtime.now
            client.wait(lambda had=had: len(received.body) >= had + MIB or received.is_ended)  # type: ignore[misc]
            assert received.reset is None
            if looks < 15:
                eventually(lambda before=before: server.server.runtime.now > before)  # type: ignore[misc]
                looks += 1
        assert len(received.body) == size

    def test_urgent_answer_does_not_wait_for_the_window(self, serve: Serve) -> None:
        size = 32 * MIB

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, bytes(size if scope["path"] == "/large" else 10))

        server = serve(application, **NEVER)
        client = wide(server)
        large = client.start(b"/large", more=[(b"priority", b"u=7")])
        eventually(lambda: is_braked(server))
        urgent = client.response(client.start(b"/small", more=[(b"priority", b"u=0")]))
        assert urgent.is_ended
        # What is on its way goes first: a slice or two, and of the kernel's little where it can be told.
        most = 2 * MIB if hasattr(socket, "TCP_NOTSENT_LOWAT") else size / 2
        assert len(client.stream(large).body) < most
        assert len(client.response(large).body) == size


class TestLimits:
    def test_concurrency(self, serve: Serve, access_records: Any) -> None:
        go = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/held":
                await go.wait()
            await respond(send, b"x")

        server = serve(application, limit_concurrency=2)
        client = connect(server)
        ids = [client.start(b"/held") for _ in range(2)]
        refused = client.get()
        assert (refused.status, refused.get("retry-after"), refused.get("connection")) == (503, "1", None)
        assert client.response(client.start(method=b"HEAD")).body == b""
        server.in_loop(go.set)
        assert [client.response(stream_id).status for stream_id in ids] == [200, 200]
        assert client.get().status == 200
        eventually(lambda: [line for line in access_records.lines() if line.endswith('"GET / HTTP/2" 503')])

    def test_body_declared_too_long(self, serve: Serve) -> None:
        client = connect(serve(echo, limit_request_body=10))
        stream_id = client.start(method=b"POST", more=[(b"content-length", b"11")], end_stream=False)
        client.send(data_frame(stream_id, b"0123456789a", True))
        assert client.response(stream_id).status == 413
        assert client.post(b"/", b"0123456789").body == b"0123456789"

    def test_body_counted_too_long(self, serve: Serve, error_log: Any) -> None:
        got: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            while not got or got[-1]["type"] == "http.request":
                got.append(await receive())
            await respond(send)

        client = connect(serve(application, limit_request_body=10))
        stream_id = client.start(method=b"POST", end_stream=False)
        client.send_body(stream_id, bytes(WINDOW_BYTES), end_stream=False)
        received = client.response(stream_id)
        assert (received.status, received.is_ended) == (413, True)
        eventually(lambda: got and got[-1]["type"] == "http.disconnect")
        assert not [line for line in error_log.lines() if "Exception" in line]
        assert client.post(b"/", b"0123456789").status == 200

    def test_body_too_long_behind_the_head(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            while (await receive())["type"] == "http.request":
                pass

        client = connect(serve(application, limit_request_body=10))
        stream_id = client.start(method=b"POST", end_stream=False)
        client.wait(lambda: client.stream(stream_id).body == b"x")
        client.send(data_frame(stream_id, bytes(11)))
        assert client.response(stream_id).reset == h.INTERNAL_ERROR

    def test_connections(self, serve: Serve) -> None:
        server = serve(echo, limit_connections=1)
        first = connect(server)
        assert first.get().status == 200
        second = connect(server)
        second.start()
        assert len(server.server.runtime.connections) <= 2
        first.round_trip()
        assert not second.streams
        first.close()
        assert second.response(1).status == 200

    def test_max_requests(self, spawn: Spawn) -> None:
        process = spawn(
            """
            async def app(scope, receive, send):
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"hello"})
            """,
            "--limit-max-requests",
            "5",
        )
        client = HTTP2Client(process.connect().sock)
        assert [client.get().status for _ in range(5)] == [200] * 5
        client.read_to_end()
        assert client.goaways[-1] == (9, h.NO_ERROR)
        assert process.wait_exit() == 0
