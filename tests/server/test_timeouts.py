"""Clients that do not go on: what is cut, and how. The server's own end is what is waited for."""

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Callable
from typing import Any

import pytest

from live import MIB, SHORT_S, LiveServer, eventually, read_body, respond

Serve = Callable[..., LiveServer]

NEVER = {"timeout_header": 0, "timeout_body": 0, "timeout_write": 0, "timeout_keep_alive": 600}
"""All that is not under test."""

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, await read_body(receive) or b"hello")


def waits(server: LiveServer) -> list[tuple[str, bool]]:
    """For each connection what it waits for, and whether it has a deadline."""
    return server.in_loop(
        lambda: [(c.waiting.name, c.deadline > 0) for c in server.server.runtime.connections]
    )


class TestHead:
    TIMES = NEVER | {"timeout_header": SHORT_S}

    def test_silent_connection_is_closed(self, serve: Serve, error_log: Any) -> None:
        client = serve(hello, **self.TIMES).connect()
        assert client.is_ended()
        assert not error_log.lines(logging.WARNING)

    @pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\nhost: a\r\nx: "])
    def test_half_a_head(self, serve: Serve, start: bytes) -> None:
        client = serve(hello, **self.TIMES).connect()
        client.send(start)
        assert client.read_response().status == 408
        assert client.is_ended()

    def test_slowloris(self, serve: Serve, error_log: Any) -> None:
        client = serve(hello, **self.TIMES).connect()
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
        # Each byte shows life; the limit is for the whole head.
        client.sock.setblocking(False)

        def is_answered() -> bool:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.sock.send(b"x")
            try:
                return not client.read_more() or b"\r\n\r\n" in client._buffer
            except BlockingIOError:
                return False
            except ConnectionError:
                return True

        eventually(is_answered, "the end of the slowloris")
        assert client._buffer.startswith(b"HTTP/1.1 408 ")
        assert len([line for line in error_log.lines() if "408" in line]) == 1

    def test_second_request_half_sent(self, serve: Serve) -> None:
        client = serve(hello, **self.TIMES).connect()
        client.send(GET + b"GET ")
        assert client.read_response().status == 200
        assert client.read_response().status == 408

    def test_empty_lines_do_not_prolong(self, serve: Serve) -> None:
        client = serve(hello, **self.TIMES).connect()
        client.send(b"\r\n\r\n")
        assert client.is_ended()


class TestIdle:
    def test_closed_behind_a_response(self, serve: Serve) -> None:
        client = serve(hello, **NEVER | {"timeout_keep_alive": SHORT_S}).connect()
        assert client.request().status == 200
        assert client.is_ended()

    def test_not_while_the_application_works(self, serve: Serve) -> None:
        server = serve(hello, **NEVER | {"timeout_keep_alive": SHORT_S})
        held = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await held.wait()
            await respond(send, b"late")

        server = serve(slow, **NEVER | {"timeout_keep_alive": SHORT_S, "timeout_header": SHORT_S})
        client = server.connect()
        client.send(GET)
        eventually(lambda: server.server.runtime.running)
        assert waits(server) == [("NOTHING", False)]
        server.in_loop(held.set)
        assert client.read_response().body == b"late"

    def test_zero_keeps_no_connection(self, serve: Serve) -> None:
        client = serve(hello, timeout_keep_alive=0).connect()
        assert client.request().get("connection") == "close"
        assert client.is_ended()


class TestBody:
    TIMES = NEVER | {"timeout_body": SHORT_S}

    @pytest.mark.parametrize("part", [b"", b"abc"])
    def test_silence_in_the_body(self, serve: Serve, error_log: Any, part: bytes) -> None:
        client = serve(hello, **self.TIMES).connect()
        client.send(POST + part)
        response = client.read_response()
        assert (response.status, response.is_whole) == (408, True)
        assert client.is_ended()
        assert not [line for line in error_log.lines() if "Exception" in line]

    def test_application_is_told(self, serve: Serve) -> None:
        got: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await read_body(receive)
            got.append(await receive())

        serve(application, **self.TIMES).exchange(POST)
        eventually(lambda: got)
        assert got == [{"type": "http.disconnect"}]

    def test_while_the_application_also_sends(self, serve: Serve) -> None:
        # The write brake, on for a moment, must not be the end of the body's clock.
        got: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            receiving = asyncio.create_task(receive())
            await asyncio.sleep(0)
            await send({"type": "http.response.start", "status": 200})
            for _ in range(10):
                await send({"type": "http.response.body", "body": b"x" * MIB, "more_body": True})
            got.append(await receiving)

        client = serve(application, **self.TIMES).connect()
        client.send(POST)
        client.read_to_end()
        eventually(lambda: got)
        assert got == [{"type": "http.disconnect"}]

    def test_behind_the_head_of_the_response(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await read_body(receive)

        client = serve(application, **self.TIMES).connect()
        client.send(POST)
        assert not client.read_response().is_whole

    def test_only_while_the_application_waits(self, serve: Serve) -> None:
        held = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await held.wait()
            await respond(send, await read_body(receive))

        server = serve(application, **self.TIMES)
        client = server.connect()
        client.send(POST)
        eventually(lambda: server.server.runtime.running)
        assert waits(server) == [("NOTHING", False)]
        client.send(b"123456789")
        server.in_loop(held.set)
        assert client.read_response().body == b"123456789"

    def test_client_that_never_sends_what_is_dropped(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"early")

        client = serve(application, **self.TIMES).connect()
        client.send(POST)
        assert client.read_response().body == b"early"
        assert client.is_ended()


class TestWrite:
    @staticmethod
    async def flood(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * MIB, "more_body": True})
        await send({"type": "http.response.body"})

    @pytest.mark.parametrize("ending", ["keep-alive", "close"])
    @pytest.mark.parametrize("whole", [False, True])
    def test_stalled_reader_is_cut(self, serve: Serve, whole: bool, ending: str) -> None:
        async def at_once(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"x" * (30 * MIB))

        server = serve(at_once if whole else self.flood, **NEVER | {"timeout_write": SHORT_S})
        client = server.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: %b\r\n\r\n" % ending.encode())
        eventually(lambda: server.server.runtime.connections)
        eventually(lambda: not server.server.runtime.connections, "the end of the stalled reader")

    @pytest.mark.parametrize("ending", ["keep-alive", "close"])
    def test_slow_reader_is_not_cut(self, serve: Serve, ending: str) -> None:
        size = 30 * MIB

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"x" * size)

        server = serve(application, **NEVER | {"timeout_write": 600})
        client = server.connect()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: %b\r\n\r\n" % ending.encode())
        client.read_until(b"\r\n\r\n")
        (connection,) = server.server.runtime.connections

        def unwritten() -> int:
            return server.in_loop(connection.transport.get_write_buffer_size)

        # The clock of the timeout is turned by hand: its time has come again and again, and each time the
        # client has taken something since.
        looked = unwritten()
        received = 0
        while looked and received < size // 2:
            received += len(client.sock.recv(MIB))
            if unwritten() < looked:
                looked = server.in_loop(lambda: (connection.on_sweep(math.inf), unwritten_now(connection)))[1]
        while received < size - len(client._buffer):
            piece = client.sock.recv(MIB)
            assert piece, f"cut behind {received} bytes"
            received += len(piece)

    def test_reader_that_stalls_behind_its_end_is_cut(self, serve: Serve) -> None:
        # Less is unwritten than puts the brake on, the response is complete, and the client has sent its end.
        complete = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            (connection,) = server.server.runtime.connections
            await send({"type": "http.response.start", "status": 200})
            while not connection.transport.get_write_buffer_size():
                await send({"type": "http.response.body", "body": b"x" * 20_000, "more_body": True})
                for _ in range(2):
                    await asyncio.sleep(0)
            await send({"type": "http.response.body"})
            complete.set()

        server = serve(application, **NEVER | {"timeout_write": SHORT_S})
        client = server.connect()
        client.send(GET)
        eventually(complete.is_set)
        client.half_close()
        eventually(lambda: not server.server.runtime.connections, "the end of the stalled reader")


def unwritten_now(connection: Any) -> int:
    return int(connection.transport.get_write_buffer_size())


@pytest.fixture
def without_any(serve: Serve) -> LiveServer:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await read_body(receive)
        await respond(send, b"x" * 30 * MIB)

    return serve(application, **NEVER)


@pytest.mark.parametrize("sent", [b"", b"GET /", POST + b"abc", GET])
def test_none_when_zero(without_any: LiveServer, sent: bytes) -> None:
    client = without_any.connect()
    client.send(sent)
    runtime = without_any.server.runtime
    (connection,) = eventually(lambda: list(runtime.connections))
    if sent == GET:
        eventually(lambda: not connection.is_writable)
    elif sent.startswith(b"POST"):
        eventually(lambda: runtime.running and next(iter(runtime.running)).waits_for_body)
    assert [has_deadline for _, has_deadline in waits(without_any)] == [False]
