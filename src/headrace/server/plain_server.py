"""A small server for an application of our own: no lifespan, log lines, limits to set, or signals."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
from functools import partial

from headrace.config.options import Config, HTTPOptions, WebSocketOptions
from headrace.server.bad_requests import BadRequestLog
from headrace.server.connection import HTTPConnection
from headrace.server.connection_limit import ConnectionLimit
from headrace.server.listening import Listeners
from headrace.server.runtime import Runtime
from headrace.server.stack import Stack
from headrace.server.sweep import Sweep
from headrace.server.turn import Turn
from headrace.types import Address, ASGIApplication

MAX_CONNECTIONS = 64
"""Later ones wait. The files that a process may have open are needed for more important things."""

GRACE_S = 1.0
"""What running requests have at a stop; and again, once they are cancelled."""

_CONFIG = Config(
    http=HTTPOptions(
        http2=False,
        timeout_body=10.0,
        timeout_write=10.0,
        limit_request_line=8_192,
        limit_request_head=16_384,
        limit_request_fields=64,
        limit_request_body=65_536,
        server_header=False,
    ),
    websocket=WebSocketOptions(ws="none"),
)


class _Unlogged(BadRequestLog):
    """The log is about the application's port."""

    def add(self, client: Address | None, reason: str, first_bytes: bytes) -> None:
        """Say nothing."""


class PlainServer:
    """Serves HTTP/1.1 in the running loop.

    Args:
        application: answers.
        sockets: listening; they stay the caller's.
    """

    def __init__(self, application: ASGIApplication, sockets: list[socket.socket]) -> None:
        self._stack = Stack(application, application, application)
        self._sockets = sockets

    async def start(self) -> None:
        """Accept."""
        turn = Turn(asyncio.get_running_loop(), contextvars.copy_context())
        runtime = self._runtime = Runtime(_CONFIG, self._stack, {}, turn)
        runtime.bad_requests = _Unlogged()
        listeners = self._listeners = Listeners(_CONFIG.listen, "http", self._sockets)
        limit = self._limit = ConnectionLimit(MAX_CONNECTIONS, listeners.pause, listeners.resume)
        runtime.connection_limit = limit
        self._sweep = Sweep(runtime, listeners, None, 0.0)
        await listeners.accept(partial(HTTPConnection, runtime), None)
        self._sweep.start()

    async def stop(self) -> None:
        """Accept no more, let requests end within ``GRACE_S``, and cut what is left."""
        runtime = self._runtime
        runtime.is_draining = runtime.is_ending = runtime.has_limits = True
        await self._limit.close()
        self._listeners.close()
        await self._listeners.settle()
        for connection in list(runtime.connections):
            connection.drain()
        if not await self._wait_idle() and runtime.running:
            for exchange in list(runtime.running):
                exchange.cancel("The server stops")
            await self._wait_idle()
        for connection in list(runtime.connections):
            connection.abort()
        self._sweep.stop()

    async def _wait_idle(self) -> bool:
        """Wait until nothing is open, ``GRACE_S`` at most; returns whether it is so."""
        runtime = self._runtime
        news = asyncio.Event()
        runtime.turn.on_idle = runtime.on_connection_lost = news.set

        async def wait() -> None:
            while runtime.connections or runtime.running:
                news.clear()
                await news.wait()

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wait(), GRACE_S)
        return not (runtime.connections or runtime.running)
