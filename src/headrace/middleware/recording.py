"""Tells consumers of finished exchanges under servers that do not do so themselves."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from time import monotonic

from headrace.telemetry.exchange import Consumer
from headrace.types import ASGIApplication, Headers, Message, Receive, Scope, Send

FLUSH_INTERVAL_S = 0.1
"""How long a finished exchange waits before its consumers are told to flush."""

CLIENT_LEFT = 499
"""Status of a request whose client left before a response was started; nginx's number."""

_BODILESS = frozenset((204, 304))
"""Statuses whose responses have no body, whatever the application sends (RFC 9110 §6.4.1)."""


class Recorded:
    """Makes a ``FinishedExchange`` of each HTTP request and hands it to each consumer.

    headrace does this itself, for requests it refuses too; ``Recorded`` is for every other ASGI server. Put
    it outside of everything whose time is to count. A request is over with the last message of its response,
    or, where that never comes, when the application returns or raises; what it raises passes on.

    Consumers are told to flush ten times a second while something waits, and when the lifespan ends. They are
    not closed, as the lifespan may begin again (a test client's does); who made them closes them.

    Args:
        app: the application.
        consumers: are told of each exchange, in this order.
    """

    def __init__(self, app: ASGIApplication, *consumers: Consumer) -> None:
        self._app = app
        self._consumers = consumers
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record one request; WebSockets pass on."""
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._record(scope, receive, send)
        else:
            try:
                await self._app(scope, receive, send)
            finally:
                self.flush()

    def flush(self) -> None:
        """Tell the consumers to do with what they have what is to be done."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for consumer in self._consumers:
            consumer.flush()

    async def _record(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(self, scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.fail(error)
            raise
        exchange.end()

    def _tell(self, exchange: _Exchange, error: BaseException | None) -> None:
        finished = (
            exchange.scope,
            exchange.status,
            exchange.sent_bytes,
            exchange.started_s,
            monotonic(),
            exchange.response_headers,
            exchange.received_bytes,
            error,
        )
        for consumer in self._consumers:
            consumer.add(finished)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # The server runs on trio, say: nobody would come later.
            self.flush()
            return
        # The timer of a loop that has ended never comes.
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_later(FLUSH_INTERVAL_S, self.flush)


class _Exchange:
    """One request, seen from between the server and the application."""

    __slots__ = (
        "_counts_body", "_has_left", "_is_over", "_owner", "_receive", "_send", "_wants_trailers",
        "received_bytes", "response_headers", "scope", "sent_bytes", "started_s", "status",
    )  # fmt: skip

    def __init__(self, owner: Recorded, scope: Scope, receive: Receive, send: Send) -> None:
        self._owner = owner
        self._receive = receive
        self._send = send
        self._counts_body = scope["method"] != "HEAD"
        self._wants_trailers = self._has_left = self._is_over = False
        self.scope = scope
        self.status = 0
        self.sent_bytes = self.received_bytes = 0
        self.response_headers: Headers | None = None
        self.started_s = monotonic()

    async def receive(self) -> Message:
        """Count what comes, and note that the client has left."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.received_bytes += len(message.get("body") or b"")
        elif message["type"] == "http.disconnect":
            self._has_left = True
            self._counts_body = False
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Note what goes. The last message is on its way when the exchange is told of, not yet awaited."""
        kind = message["type"]
        if kind == "http.response.body":
            if self._counts_body:
                self.sent_bytes += len(message.get("body") or b"")
            if not (message.get("more_body") or self._wants_trailers):
                self._finish(None)
        elif kind == "http.response.start":
            message = self._start(message)
        elif kind == "http.response.pathsend":
            if self._counts_body:
                self.sent_bytes += _size_of(message["path"])
            self._finish(None)
        elif kind == "http.response.trailers" and not message.get("more_trailers"):
            self._finish(None)
        return self._send(message)

    def end(self) -> None:
        """The application returned; servers answer 500 for one that did not respond."""
        self._status_without_response(500)
        self._finish(None)

    def fail(self, error: BaseException) -> None:
        """The application raised; servers answer 500 if it had not responded."""
        if isinstance(error, asyncio.CancelledError):
            # Servers cancel a request whose client has left.
            self._status_without_response(CLIENT_LEFT)
            self._finish(None)
            return
        self._status_without_response(500)
        # What an application raises because the client has gone is not its fault.
        self._finish(None if self._has_left and isinstance(error, OSError) else error)

    def _start(self, message: Message) -> Message:
        headers = message.get("headers", ())
        if type(headers) is not list:
            # It may be one that can be read only once.
            headers = list(headers)
            message = {**message, "headers": headers}
        if not self._has_left:
            self.status = message["status"]
            self.response_headers = headers
        if message["status"] in _BODILESS:
            self._counts_body = False
        self._wants_trailers = bool(message.get("trailers"))
        return message

    def _status_without_response(self, status: int) -> None:
        if not self.status:
            self.status = CLIENT_LEFT if self._has_left else status

    def _finish(self, error: BaseException | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._status_without_response(CLIENT_LEFT)
        self._owner._tell(self, error)


def _size_of(path: str) -> int:
    """Bytes of a file that the server is going to send; 0 when there is none, for which it answers."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
