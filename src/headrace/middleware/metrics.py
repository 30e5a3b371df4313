"""Figures of requests and WebSockets for Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from headrace.middleware.recording import Recorded
from headrace.telemetry.metrics.http import HTTPMetrics
from headrace.telemetry.metrics.presets import choose_preset
from headrace.telemetry.metrics.registry import Registry, process_registry
from headrace.telemetry.metrics.series import Gauge
from headrace.telemetry.metrics.websocket import WebSocketMetrics
from headrace.telemetry.route import route_template
from headrace.types import ASGIApplication, Message, Receive, Scope, Send

NORMAL_CLOSURE, GOING_AWAY, NO_STATUS, ABNORMAL_CLOSURE, INTERNAL_ERROR = 1000, 1001, 1005, 1006, 1011
"""RFC 6455 §7.4.1."""


class Metrics:
    """Counts what goes through it.

    WebSockets: those that are open, messages of each direction, durations, close codes. HTTP: nothing where
    the server hands its finished exchanges to an ``HTTPMetrics`` itself, as headrace does. Under another
    server let it record, and put it outside of everything whose time is to count.

    Args:
        app: the application.
        registry: keeps the figures; None for that of the process, ``process_registry``.
        preset: names of the HTTP metrics: classic, otel or instrumentator.
        buckets: upper bounds of the request duration, in seconds, ascending; empty for the preset's own.
        records: measure HTTP requests here.

    Raises:
        ConfigError: no such preset, or the buckets are not valid.
    """

    def __init__(
        self,
        app: ASGIApplication,
        registry: Registry | None = None,
        *,
        preset: str = "classic",
        buckets: tuple[float, ...] = (),
        records: bool = True,
    ) -> None:
        registry = process_registry() if registry is None else registry
        self._app = app
        self._websockets = WebSocketMetrics(registry, unmatched=choose_preset(preset).unmatched)
        self._others = app
        if records:
            consumer = HTTPMetrics(registry, preset=preset, buckets=buckets)
            self._others = _InFlight(Recorded(app, consumer), consumer.in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count one WebSocket; the rest passes on."""
        if scope["type"] != "websocket":
            await self._others(scope, receive, send)
            return
        session = _Session(scope, self._websockets)
        received, sent = session.received, session.sent

        async def receive_counted() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive":
                received[0] += 1.0
            elif message["type"] == "websocket.disconnect":
                session.end(message.get("code") or NO_STATUS, is_clients=True)
            return message

        def send_counted(message: Message) -> Awaitable[None]:
            nonlocal received, sent
            kind = message["type"]
            if kind == "websocket.send":
                sent[0] += 1.0
            elif kind == "websocket.accept":
                # Only now the application has chosen a route.
                session.begin()
                received, sent = session.received, session.sent
            elif kind == "websocket.close":
                session.end(message.get("code") or NORMAL_CLOSURE)
            return send(message)

        try:
            await self._app(scope, receive_counted, send_counted)
        except BaseException as error:
            session.end(_code_for(error))
            raise
        session.end(NORMAL_CLOSURE)


class _InFlight:
    """Requests that are being worked on, counted where no server says it."""

    __slots__ = ("_app", "_gauge")

    def __init__(self, app: ASGIApplication, gauge: Gauge) -> None:
        self._app = app
        self._gauge = gauge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._gauge.inc()
        try:
            await self._app(scope, receive, send)
        finally:
            self._gauge.inc(-1.0)


class _Session:
    """One WebSocket; counted from its acceptance to whichever end comes first.

    Attributes:
        received, sent: one number each, to be added to; before the acceptance they count nothing.
    """

    __slots__ = ("_endpoint", "_figures", "_scope", "_started_s", "received", "sent")

    def __init__(self, scope: Scope, figures: WebSocketMetrics) -> None:
        self._scope = scope
        self._figures = figures
        self._started_s: float | None = None
        self._endpoint = ""
        self.received = self.sent = _nowhere

    def begin(self) -> None:
        """The application accepts."""
        if self._started_s is not None:
            return
        self._started_s = time.monotonic()
        self._endpoint = self._figures.endpoint(route_template(self._scope))
        self.received, self.sent = self._figures.messages(self._endpoint)
        self._figures.sessions.inc()

    def end(self, code: int, *, is_clients: bool = False) -> None:
        """It is over; of several ends the first counts."""
        started_s, self._started_s = self._started_s, None
        if started_s is not None:
            self._figures.sessions.inc(-1.0)
            self._figures.end(self._endpoint, time.monotonic() - started_s, code, is_clients=is_clients)


_nowhere = memoryview(bytearray(8)).cast("d")


def _code_for(error: BaseException) -> int:
    """What a server sends, or would, when the application ends with an error."""
    if isinstance(error, asyncio.CancelledError):
        return GOING_AWAY
    # A send to a client that is gone raises an OSError (ASGI WebSocket specification 2.4).
    return ABNORMAL_CLOSURE if isinstance(error, OSError) else INTERNAL_ERROR
