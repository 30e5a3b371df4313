"""How a worker stops: no request is lost that can end in time, and none holds the stop up for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from headrace.server.runtime import Runtime

STREAMS_TOLD_AT = 0.75
"""Part of the graceful timeout after which responses still streaming are told by ``http.disconnect``. Event
streams, which have no end of their own and whose clients come back, are told at once."""

AFTER_CANCEL_S = 1.0
"""What cancelled applications have for their last words."""

_logger = logging.getLogger("uvicorn.error")


class Drain:
    """One stop of one worker.

    Args:
        runtime: whose connections and exchanges are to end.
        timeout_s: graceful timeout; None waits for ever.
        is_forced: asked between the phases; true ends the waiting.
    """

    def __init__(self, runtime: Runtime, timeout_s: float | None, is_forced: Callable[[], bool]) -> None:
        self._runtime = runtime
        self._timeout_s = timeout_s
        self._is_forced = is_forced
        self._is_hastened = False
        self._news = asyncio.Event()
        runtime.turn.on_idle = self._news.set
        runtime.on_connection_lost = self._news.set
        runtime.on_swept = self._news.set

    def wake(self) -> None:
        """Look again: a second signal has come."""
        self._news.set()

    def hasten(self, timeout_s: float | None, is_replaced: bool) -> None:
        """Go on under other terms, which begin to run now: another kind of stop has come in the meantime."""
        self._timeout_s = timeout_s
        self._runtime.is_replaced = is_replaced
        self._is_hastened = True
        self._drain_connections()
        self._news.set()

    async def run(self) -> None:
        """Let exchanges end, tell streams, cancel what is left, abort connections that do not close."""
        runtime = self._runtime
        runtime.is_ending = True
        self._drain_connections()
        if runtime.connections and not self._is_forced():
            _logger.info("Waiting for connections to close. (CTRL+C to force quit)")
        while True:
            self._is_hastened = False
            await self._run_phases(self._timeout_s)
            if not self._is_hastened:
                break
        for connection in list(runtime.connections):
            connection.abort()

    async def _run_phases(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            await self._wait(None)
        elif not await self._wait(timeout_s * STREAMS_TOLD_AT):
            for exchange in list(self._runtime.running):
                exchange.tell_to_end()
            # Idle connections have had their time as well.
            self._runtime.is_replaced = False
            self._drain_connections()
            if not await self._wait(timeout_s * (1 - STREAMS_TOLD_AT)):
                await self._cancel()

    def _drain_connections(self) -> None:
        for connection in list(self._runtime.connections):
            connection.drain()

    def _is_over(self) -> bool:
        if self._is_hastened or self._is_forced():
            return True
        return not (self._runtime.connections or self._runtime.running)

    async def _wait(self, timeout_s: float | None) -> bool:
        """Wait until nothing is left, at most ``timeout_s``; returns whether it is so."""
        try:
            # Not ``asyncio.timeout``, as the stop may run in a task that has been cancelled (3.11.2).
            await asyncio.wait_for(self._wait_over(), timeout_s)
        except TimeoutError:
            return self._is_over()
        return True

    async def _wait_over(self) -> None:
        while not self._is_over():
            self._tell_event_streams()
            self._news.clear()
            await self._news.wait()

    def _tell_event_streams(self) -> None:
        """Those too that have begun since: browsers keep a connection in reserve, and come back on it."""
        for exchange in list(self._runtime.running):
            if exchange.is_event_stream:
                exchange.tell_to_end()

    async def _cancel(self) -> None:
        running = list(self._runtime.running)
        if running:
            _logger.error("Cancel %d running task(s), timeout graceful shutdown exceeded", len(running))
        for exchange in running:
            exchange.cancel("Task cancelled, timeout graceful shutdown exceeded")
        await self._wait(AFTER_CANCEL_S)
