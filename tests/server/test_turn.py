from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from headrace.server.turn import BATCH, SLOW_RESPONSES, SLOW_S, Turn
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


def others(turn: Turn, count: int) -> None:
    """So many exchanges are under way beside the one that answers."""
    turn.running.update(cast("Any", range(count + 1)))


def test_only_answer_is_written_at_once() -> None:
    async def check(turn: Turn) -> None:
        connection = FakeConnection()
        others(turn, 0)
        turn.write(connection)
        assert connection.writes == 1

    in_loop(check)


def test_answers_of_a_turn_are_written_at_its_end() -> None:
    async def check(turn: Turn) -> None:
        connections = [FakeConnection() for _ in range(3)]
        others(turn, 5)
        for connection in connections:
            turn.write(connection)
        assert [connection.writes for connection in connections] == [0, 0, 0]
        await asyncio.sleep(0)
        assert [connection.writes for connection in connections] == [1, 1, 1]

    in_loop(check)


def test_full_batch_is_written() -> None:
    async def check(turn: Turn) -> None:
        connections = [FakeConnection() for _ in range(BATCH)]
        others(turn, 1000)
        for connection in connections:
            turn.write(connection)
        assert all(connection.writes == 1 for connection in connections)

    in_loop(check)


def test_nobody_waits_for_slow_applications() -> None:
    async def check(turn: Turn) -> None:
        first, second, third = (FakeConnection() for _ in range(3))
        others(turn, 1000)
        turn.write(first)
        began_s = time.monotonic()
        while time.monotonic() - began_s < SLOW_S:
            pass  # an application that keeps the loop
        turn.write(second)
        assert (first.writes, second.writes) == (1, 1)
        turn.write(third)
        assert third.writes == 1

    in_loop(check)


def test_answers_wait_again_when_applications_are_quick_again() -> None:
    async def check(turn: Turn) -> None:
        others(turn, 1000)
        turn.write(FakeConnection())
        began_s = time.monotonic()
        while time.monotonic() - began_s < SLOW_S:
            pass
        for _ in range(SLOW_RESPONSES + 1):
            turn.write(FakeConnection())
        connection = FakeConnection()
        turn.write(connection)
        assert connection.writes == 0

    in_loop(check)


def test_fault_of_one_connection_is_not_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def check(turn: Turn) -> None:
        bad, good = FakeConnection(RuntimeError("gone")), FakeConnection()
        others(turn, 1)
        turn.write(bad)
        turn.write(good)
        await asyncio.sleep(0)
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
