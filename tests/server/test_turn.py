from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from typing import Any

import pytest

from headrace.server.turn import BATCH, SLOW_S, Turn
from live import LiveServer, respond


class FakeConnection:
    """Counts its writes."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.writes = 0
        self.is_cut = False
        self._fault = fault

    def flush(self) -> None:
        self.writes += 1
        if self._fault is not None:
            raise self._fault

    def abort(self) -> None:
        self.is_cut = True


Serve = Callable[..., LiveServer]


def in_loop(check: Any) -> None:
    async def main() -> None:
        await check(Turn(asyncio.get_running_loop(), contextvars.copy_context()))

    asyncio.run(main())


def test_answer_of_a_single_request_is_written_at_once() -> None:
    async def check(turn: Turn) -> None:
        connection = FakeConnection()
        turn.write(connection)
        assert connection.writes == 1

    in_loop(check)


def test_answers_wait_for_the_last_that_begins() -> None:
    async def check(turn: Turn) -> None:
        connections = [FakeConnection() for _ in range(3)]
        turn.waiting = 2
        for connection in connections:
            assert not any(connection.writes for connection in connections)
            turn.write(connection)
            turn.waiting -= 1
        assert [connection.writes for connection in connections] == [1, 1, 1]

    in_loop(check)


def test_answers_do_not_wait_for_an_application_that_waits() -> None:
    async def check(turn: Turn) -> None:
        connection = FakeConnection()
        turn.waiting = 1
        turn.write(connection)
        turn.waiting = 0  # it has begun, and does not answer
        await asyncio.sleep(0)
        assert connection.writes == 1

    in_loop(check)


def test_full_batch_is_written() -> None:
    async def check(turn: Turn) -> None:
        connections = [FakeConnection() for _ in range(BATCH)]
        turn.waiting = 1000
        for connection in connections:
            turn.write(connection)
        assert all(connection.writes == 1 for connection in connections)

    in_loop(check)


def test_nobody_waits_for_slow_applications() -> None:
    async def check(turn: Turn) -> None:
        first, second, third = (FakeConnection() for _ in range(3))
        turn.waiting = 1000
        turn.write(first)
        began_s = time.monotonic()
        while time.monotonic() - began_s < SLOW_S:
            pass  # an application that keeps the loop
        turn.write(second)
        assert (first.writes, second.writes) == (1, 1)
        turn.write(third)
        assert third.writes == 1

    in_loop(check)


def test_fault_of_one_connection_is_not_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def check(turn: Turn) -> None:
        bad, good = FakeConnection(RuntimeError("gone")), FakeConnection()
        turn.waiting = 1
        turn.write(bad)
        turn.waiting = 0
        turn.write(good)
        assert good.writes == 1
        assert bad.is_cut

    in_loop(check)
    assert "cannot be written" in caplog.text


def test_every_client_of_a_burst_is_answered(serve: Serve) -> None:
    """Also those that close, or end their half, in the same moment."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"Hello")

    server = serve(application)
    clients = [server.connect() for _ in range(3 * BATCH)]
    for number, client in enumerate(clients):
        closes = b"connection: close\r\n" if number % 3 == 0 else b""
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n%b\r\n" % closes)
        if number % 3 == 1:
            client.half_close()
    for client in clients:
        assert client.read_until(b"Hello").startswith(b"HTTP/1.1 200")
