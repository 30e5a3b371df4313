"""What is done once for all connections in a turn of the loop, instead of once for each request.

Applications are started when every socket that had something has been read: the code and data of the server
and of the application then each stay in the processor's caches for the whole batch, and the loop is asked
for one callback a turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import Any

from headrace.asgi.http import HTTPExchange, ResponseState

EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""From CPython 3.12 on a task may run to its first wait without going through the loop."""


_HEAD_HELD = int(ResponseState.HEAD_HELD)


class Turn:
    """Starts exchanges, and sends heads whose application waits for something else.

    Args:
        loop: the running loop.
        context: each request's task gets a copy of it, so that no variable set in a request, a connection's
            callback or the lifespan is seen by another request.
    """

    __slots__ = ("_context", "_held", "_is_starting", "_loop", "_ready")

    def __init__(self, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        self._loop = loop
        self._context = context
        self._ready: list[HTTPExchange] = []
        self._held: list[HTTPExchange] = []
        self._is_starting = False

    def start(self, exchange: HTTPExchange) -> None:
        """Run the application for this exchange, at the end of the turn."""
        if not self._ready:
            self._loop.call_soon(self._start_ready, context=self._context)
        self._ready.append(exchange)

    def hold_head(self, exchange: HTTPExchange) -> None:
        """Send the exchange's head at the end of the turn, if no body has taken it along by then."""
        if self._is_starting:
            return
        if not self._held:
            self._loop.call_soon(self._flush_held, context=self._context)
        self._held.append(exchange)

    def _start_ready(self) -> None:
        ready = self._ready
        self._ready = []
        loop = self._loop
        copy = self._context.copy
        self._is_starting = bool(EAGER)
        for exchange in ready:
            exchange.task = asyncio.Task(exchange.run(), loop=loop, context=copy(), **EAGER)
        if not self._is_starting:
            return
        self._is_starting = False
        for exchange in ready:
            if exchange.state == _HEAD_HELD:
                exchange.flush_head()

    def _flush_held(self) -> None:
        held = self._held
        self._held = []
        for exchange in held:
            if exchange.state == _HEAD_HELD:
                exchange.flush_head()
