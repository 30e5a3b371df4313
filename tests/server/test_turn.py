from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from headrace.server import turn as turn_module
from headrace.server.turn import BATCH, SLOW_RESPONSES, SLOW_S, Turn
from live import LiveServer, respond


class FakeConnection:
    """Counts its writes."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.writes = self.early_writes = 0
        self.is_cut = False
        self._fault = fault

    def write_early(self) -> None:
        self.early_writes += 1
        if self._fault is not None:
            raise self._fault

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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The turn's clock: its only item."""
    now_s = [5.0]
    monkeypatch.setattr(turn_module, "monotonic", lambda: now_s[0])
    return now_s


def test_second_answer_behind_a_slow_application_takes_the_first_along(clock: list[float]) -> None:
    async def check(turn: Turn) -> None:
        connections = [FakeConnection() for _ in range(3)]
        others(turn, 5)
        turn.write(connections[0])
        clock[0] += SLOW_S
        turn.write(connections[1])
        assert [connection.writes for connection in connections] == [1, 1, 0]
        turn.write(connections[2])
        assert connections[2].writes == 1

    in_loop(check)


def test_what_waits_for_the_end_of_a_turn_is_written_early_when_that_is_far(clock: list[float]) -> None:
    async def check(turn: Turn) -> None:
        connections = [FakeConnection(ValueError("odd")), FakeConnection(), FakeConnection()]
        turn.flush_later(connections[0])
        clock[0] += 0.9 * SLOW_S
        turn.flush_later(connections[1])
        turn.write_if_late()
        assert [connection.early_writes for connection in connections] == [0, 0, 0]
        clock[0] += 0.2 * SLOW_S
        turn.flush_later(connections[2])
        assert [connection.early_writes for connection in connections] == [1, 1, 1]
        assert [connection.is_cut for connection in connections] == [True, False, False]
        turn.write_if_late()
        assert connections[1].early_writes == 1
        clock[0] += SLOW_S
        turn.write_if_late()
        assert connections[1].early_writes == 2
        # What comes of it has its time at the end of the turn.
        assert connections[1].writes == 0
        await asyncio.sleep(0)
        assert connections[1].writes == 1

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
