"""Makes a SERVER span of each request and of each WebSocket (extra ``tracing``)."""

from __future__ import annotations

import asyncio
import atexit
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from headrace.errors import ConfigError
from headrace.middleware.recording import Recorded
from headrace.telemetry.tracing import MISSING
from headrace.telemetry.tracing.session import WatchedSession
from headrace.types import ASGIApplication, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from headrace.telemetry.tracing.tracer import RequestTracer

_ANSWERS = frozenset(
    {"http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start"}
)
"""Messages with which an answer begins."""

_logger = logging.getLogger("uvicorn.error")


class Tracing:
    """Begins a span for each request, under which the application's own are.

    The span is ``trace.get_current_span()`` for the application, and ``scope["headrace.span"]``, an object
    with ``trace_id``, ``span_id`` (integers) and ``is_sampled``. Where the application makes SERVER spans
    itself none is made here, but their ids are carried in the same place.

    Args:
        app: the application.
        tracer: what ``start_tracing`` gave; its consumer is then told of finished requests by the server.
            None starts it with the first request, and tells it here: so does any server but headrace.
        options: of ``start_tracing``, where there is no tracer.
    """

    __slots__ = ("_app", "_entry", "_fault", "_is_alone", "_options", "_tracer")

    def __init__(self, app: ASGIApplication, tracer: RequestTracer | None = None, **options: Any) -> None:
        self._app = app
        self._options = options
        self._fault: str | None = None
        self._is_alone = tracer is None
        self._tracer: RequestTracer = tracer  # type: ignore[assignment]  # ``_start`` makes the missing one
        self._entry: ASGIApplication | None = None if tracer is None else self._enter_and_leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Trace a request, and leave its span behind.

        Raises:
            ConfigError: with each request, see ``start_tracing``.
        """
        if scope["type"] in ("http", "websocket"):
            await (self._entry or self._start())(scope, receive, send)
        elif scope["type"] == "lifespan" and self._is_alone:
            await self._pass_lifespan(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Do what a call does, without a coroutine where nothing is recorded, and leave the span current.

        For a server that gives each request a context of its own, as headrace does: what it logs of an error
        of the application's then has the trace's id too.
        """
        kind = scope["type"]
        if kind != "http" and kind != "websocket":
            return self._app(scope, receive, send)
        tracer = self._tracer
        if tracer.maker is not None:
            return self._carry_ids(scope, receive, send)
        try:
            span = tracer.begin(scope)
        except Exception:
            span = tracer.on_fault(scope)
        if not span.is_recorded:
            return self._app(scope, receive, send)
        if kind == "websocket":
            return self._trace_session(span, scope, receive, send)
        return self._trace(span, scope, receive, send)

    async def _pass_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_when_drained(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown.") and self._entry is not None:
                # The process may end by a signal next, without a word to anybody.
                await asyncio.to_thread(self._tracer.drain)
            await send(message)

        await self._app(scope, receive, send_when_drained)

    def _start(self) -> ASGIApplication:
        if self._fault is not None:
            # Nothing is tried twice: the environment is as it was.
            raise ConfigError(self._fault)
        try:
            self._tracer = start_tracing(self._app, **self._options)
        except ConfigError as error:
            self._fault = str(error)
            raise
        self._entry = Recorded(self._enter_and_leave, self._tracer.consumer)
        # For applications without a lifespan.
        atexit.register(self._tracer.consumer.close)
        return self._entry

    async def _enter_and_leave(self, scope: Scope, receive: Receive, send: Send) -> None:
        tracer = self._tracer
        before = tracer.current_context()
        if tracer.maker is not None or tracer.current_server_span() is not None:
            # Also where a layer further out has made one.
            await self._carry_ids(scope, receive, send)
            return
        try:
            span = tracer.begin(scope, before)
        except Exception:
            span = tracer.on_fault(scope)
        try:
            if not span.is_recorded:
                await self._app(scope, receive, send)
            elif scope["type"] == "websocket":
                await self._trace_session(span, scope, receive, send)
            else:
                await self._trace(span, scope, receive, send)
        finally:
            if scope["type"] == "websocket" and self._is_alone:
                # ``Recorded`` sets its timer for requests only.
                tracer.consumer.end_returned()
            tracer.restore_context(before)

    async def _trace(self, span: Any, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            span.error = error
            raise
        finally:
            span.has_returned = True

    async def _trace_session(self, span: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """One span for a WebSocket's whole life, whatever the number of its messages."""
        session = WatchedSession(scope, receive, send)
        raised: Exception | None = None
        try:
            await self._app(scope, session.receive, session.send)
        except Exception as error:
            raised = error
            raise
        finally:
            span.has_returned = True
            span.close_code = session.close_code
            # Servers tell of requests only.
            self._tracer.consumer.add(session.finished(raised))
            raised = None

    async def _carry_ids(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the ids of the span that is made further in, when the answer begins."""

        def note_span(message: Message) -> Awaitable[None]:
            if message["type"] in _ANSWERS:
                span = self._tracer.current_server_span()
                if span is not None:
                    scope["headrace.span"] = span
            return send(message)

        await self._app(scope, receive, note_span)


def start_tracing(application: ASGIApplication, **options: Any) -> RequestTracer:
    """Find or make the tracer provider, in the process that serves and when the application has started.

    A provider that the application has set by then is used. Else one is made, as the OTEL_* variables say.

    Args:
        application: to see whether it makes SERVER spans itself; without layers of ours.
        options: of ``headrace.telemetry.tracing.tracer.open_tracer``.

    Returns:
        What ``Tracing`` needs; its ``consumer`` must be told of every finished request.

    Raises:
        ConfigError: OpenTelemetry is not installed, or a variable asks for what cannot be had.
    """
    try:
        from headrace.telemetry.tracing.tracer import open_tracer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise ConfigError(MISSING) from error
    except ValueError as error:
        # OTEL_PROPAGATORS is read with the import.
        raise ConfigError(f"OpenTelemetry cannot be set up: {error}") from error
    tracer = open_tracer(application, **options)
    if tracer.maker is not None:
        _logger.info("The spans of requests are made by %s, none are added", tracer.maker)
    return tracer
