"""One request and its response: events of an engine to ASGI messages, ASGI messages to an engine.

What HTTP means lives here once, for every HTTP version: the order of messages, the bodies of HEAD, 204 and
304, promised lengths, disconnects. ASGI HTTP specification 2.3 with ``http.response.trailers``,
``http.response.early_hint`` and ``http.response.pathsend``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from threading import get_ident
from time import monotonic
from typing import Any

from headrace.asgi.finished import FINISHED, mark_async
from headrace.asgi.response_state import ResponseState
from headrace.asgi.stream import Stream
from headrace.errors import ASGIError, RemoteProtocolError
from headrace.protocol.events import RequestReceived
from headrace.protocol.fields import error_body
from headrace.types import ASGIApplication, Headers, Message

Finished = tuple[dict[str, Any], int, int, float, float, Headers | None, int, BaseException | None]
"""``headrace.telemetry.exchange.FinishedExchange``."""

OwnFields = Callable[[Any, Iterable[tuple[bytes, bytes]]], Iterable[tuple[bytes, bytes]]]
"""From the exchange and the application's fields to those that the server adds."""

HIGH_WATER_BYTES = 65_536
"""Request body waiting for the application above which reading pauses."""

LARGE_BYTES = 16_384
"""Body with which a response does not wait for others to be written together."""

MAX_PIECES = 256
"""Pieces of it above which they are joined: each costs some 50 bytes, however little there is in it."""

_logger = logging.getLogger("uvicorn.error")


# Plain numbers: an enum's members are looked up by a descriptor, which costs more than the comparison.
_EXPECT_START, _HEAD_HELD, _BODY, _TRAILERS, _COMPLETE = (int(state) for state in ResponseState)

_EXPECTED = {
    _EXPECT_START: "'http.response.start'",
    _HEAD_HELD: "'http.response.body'",
    _BODY: "'http.response.body'",
    _TRAILERS: "'http.response.trailers'",
}


class HTTPExchange:
    """One request and its response.

    The connection feeds it (``feed``, ``disconnect``, ``fail``), a task of the turn runs its application
    behind ``begin``; the application sees ``receive`` and ``send``.

    Attributes:
        application: what answers.
        scope: the ASGI scope.
        state: how far the response is, a ``ResponseState`` as a plain number.
        status: of the response, once started; 499 when the client left before.
        sent_bytes: of the response's body.
        response_headers: as the application gave them, once started.
        started_s: the monotonic time at which the head had been read; 0.0 when nobody asks. Not the
            loop's: uvloop counts whole milliseconds.
        own_fields: gives the fields that the server adds to the response's head, checked and in lower case;
            None when there are none.
        begun_s: the monotonic time at which the application was called; 0.0 without ``own_fields``.
        is_disconnected: the client is gone, or has been given up.
        is_head: the method is HEAD, whatever the application makes of its scope.
        buffered_bytes: of the body, waiting for the application.
        received_bytes: of the body, so far.
        task: that runs the application, while it does.
        error: what the application raised and nobody else took, until it is told.
    """

    is_recorded = True
    """Whether its end is told to the consumers of ``telemetry.exchange``."""

    __slots__ = (
        "_body", "_body_ended", "_body_taken", "_engine", "_half_closed", "_has_body", "_is_withdrawn",
        "_left", "_news", "_stream", "_stream_id", "_told_to_end", "_trailers", "_turn", "_waiting",
        "_wants_trailers", "application", "begun_s", "buffered_bytes", "error", "is_disconnected", "is_head",
        "own_fields", "received_bytes", "response_headers", "scope", "sent_bytes", "started_s", "state",
        "status", "task",
    )  # fmt: skip

    def __init__(
        self, application: ASGIApplication, stream: Stream, scope: dict[str, Any], event: RequestReceived
    ) -> None:
        self.application = application
        self._stream = stream
        self._engine = stream.engine
        self._turn = stream.turn
        self._stream_id = stream.stream_id
        self.scope = scope
        self._body: list[bytes] | None = None
        self.buffered_bytes = self.received_bytes = 0
        self._body_ended = event.end_stream
        self._body_taken = False
        self._trailers: Headers | None = None
        self._half_closed = False
        self._told_to_end = False
        self._news: asyncio.Event | None = None
        self._waiting = 0
        self.state = _EXPECT_START
        self._has_body = True
        self._is_withdrawn = False
        self._left: int | None = None
        self._wants_trailers = False
        self.is_disconnected = False
        self.is_head = event.method == "HEAD"
        self.status = 0
        self.sent_bytes = 0
        self.started_s = self.begun_s = 0.0
        self.own_fields: OwnFields | None = None
        self.response_headers: Headers | None = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[Any] | None = None

    # The connection's side

    @property
    def is_event_stream(self) -> bool:
        """The response is a stream of server-sent events, which ends only when one side says so."""
        return self.state == _BODY and any(
            name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
            for name, value in self.response_headers or ()
        )

    @property
    def waits_for_body(self) -> bool:
        """The application waits in ``receive`` for body that has not arrived."""
        return self._waiting > 0 and not self._body_ended

    def feed(self, data: bytes, end_stream: bool) -> None:
        """Take a piece of the request's body."""
        if data:
            if self._body is None:
                self._body = []
            self._body.append(data)
            size = len(data)
            self.buffered_bytes += size
            self.received_bytes += size
            if len(self._body) > MAX_PIECES:
                self._body = [b"".join(self._body)]
        if end_stream:
            self._body_ended = True
        self._wake()

    def feed_trailers(self, headers: Headers) -> None:
        """Take the request's trailers; they end its body."""
        self._trailers = headers
        self.feed(b"", True)

    def half_close(self) -> None:
        """The client has sent its end but may still read: the application is told, and answered for."""
        self._half_closed = True
        self._wake()

    def tell_to_end(self) -> None:
        """The server stops: ``receive`` says ``http.disconnect``, what the application still sends goes out.

        A stream whose application ends without its last message is then ended in its stead.
        """
        self._told_to_end = True
        self.half_close()

    def disconnect(self) -> None:
        """The client is gone: ``receive`` says so, ``send`` does nothing more."""
        if self.is_disconnected:
            return
        self.is_disconnected = True
        if self.state == _HEAD_HELD:
            self._engine.drop_headers(self._stream_id)
        self._wake()

    def fail(self, error: RemoteProtocolError) -> bool:
        """The rest of the request is broken: answer if nothing has been sent, and end.

        Returns:
            Whether it was answered; else the response has begun and must be cut.
        """
        is_answered = self._answer_instead(error.status)
        self.disconnect()
        return is_answered

    def finished(self) -> Finished:
        """What is known of it at its end; to be asked once."""
        # An error holds the frames it went through, and these hold this: with the request's body it would
        # stay until the collector of garbage comes by.
        error, self.error = self.error, None
        return (
            self.scope,
            self.status or 499,
            self.sent_bytes,
            self.started_s,
            monotonic(),
            self.response_headers,
            self.received_bytes,
            error,
        )

    def refuse(self, status: int) -> None:
        """Give the server's own answer in place of the application's."""
        fields = () if self.own_fields is None else self.own_fields(self, ())
        self._engine.send_error(self._stream_id, status, not self.is_head, fields)
        self.status = status
        self.sent_bytes = 0 if self.is_head else len(error_body(status))
        self.state = _COMPLETE

    def flush_head(self) -> None:
        """Let the head go without waiting longer for the body."""
        if self.state != _HEAD_HELD or self.is_disconnected:
            return
        self.state = _BODY
        self._engine.send_data(self._stream_id, b"", False)
        self._stream.flush()

    def cancel(self, reason: str) -> None:
        """Cancel the application; one that has not begun is not called at all."""
        if self.task is None:
            # A task that is cancelled before its first step would never come to ``run``'s end.
            self._is_withdrawn = True
        else:
            self.task.cancel(reason)

    def withdraw(self) -> None:
        """Nobody wants the answer any more: an application that has not begun is not called."""
        self._is_withdrawn = True

    # The turn's side

    def begin(self, task: asyncio.Task[None]) -> HTTPExchange | None:
        """The application is to be called, in this task; None when nobody wants its answer any more."""
        if self._is_withdrawn:
            return None
        self.task = task
        if self.own_fields is not None:
            self.begun_s = monotonic()
        return self

    def on_return(self, result: object) -> None:
        """The application has returned: answer for it if it has not."""
        if self.state == _BODY and self._left is None and (self._told_to_end or self._stream.is_draining):
            # It went because the server stops, of which it may know before us (sse-starlette does).
            self._send_body(b"", False)
        if self.state != _COMPLETE and not self.is_disconnected:
            self._on_unfinished()
        elif result is not None:
            _logger.error("ASGI callable should return None, but returned '%s'.", result)

    def on_raise(self, error: BaseException) -> None:
        """The application has raised this, or was cancelled: answer for it if it has not."""
        if not isinstance(error, asyncio.CancelledError):
            self._on_error(error)
            return
        # It ends here: nobody waits for the task. Cancelled by the server, or raised by the application.
        if self.task is None or not self.task.cancelling():
            self._on_error(error)
        self._give_up(503)

    # The application's side

    async def receive(self) -> Message:
        """The next ASGI message of the request; waits until there is one."""
        while True:
            if self.is_disconnected or self.state == _COMPLETE:
                return {"type": "http.disconnect"}
            if not self._body_taken and (self._body or self._body_ended):
                return self._take_body()
            if self._half_closed:
                return {"type": "http.disconnect"}
            if not self._body_ended:
                self._engine.send_continue(self._stream_id)
                self._stream.flush()
                self._stream.on_body_wanted()
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            self._waiting += 1
            try:
                await self._news.wait()
            finally:
                self._waiting -= 1

    def send(self, message: Message) -> Awaitable[None]:
        """Take one ASGI message of the response.

        A plain method: in the common case nothing is waited for and no coroutine is made.

        Raises:
            ASGIError: out of order, or not valid.
        """
        if get_ident() != self._turn.thread_id:
            return self._send_in_loop(message)
        kind = message["type"]
        state = self.state
        if kind == "http.response.body" and (state == _HEAD_HELD or state == _BODY):
            return self._send_body(message.get("body", b""), message.get("more_body", False))
        if kind == "http.response.start" and state == _EXPECT_START:
            return self._start(message)
        if kind == "http.response.early_hint" and state == _EXPECT_START:
            return self._send_early_hint(message)
        if kind == "http.response.trailers" and state == _TRAILERS:
            return self._send_trailers(message)
        if kind == "http.response.pathsend" and _HEAD_HELD <= state <= _BODY and not self.sent_bytes:
            return self._send_path(message["path"])
        if self.is_disconnected and state == _COMPLETE:
            # The exchange was ended for the client's sake; the application need not know. It may send for
            # ever, and others must have their turn: who tells it that the client has gone, for one.
            return asyncio.sleep(0)
        raise self._out_of_order(kind)

    mark_async(send)

    # Within

    async def _send_in_loop(self, message: Message) -> None:
        """Take a message when this is awaited.

        Who calls ``send`` in a thread, and has what it gives awaited in the loop, takes it for the coroutine
        function that it is for other servers: asgiref does so.
        """
        await self.send(message)

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()

    def _take_body(self) -> Message:
        pieces = self._body or ()
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        message: Message = {"type": "http.request", "body": body, "more_body": not self._body_ended}
        if self._body_ended:
            self._body_taken = True
            if self._trailers is not None:
                message["headrace.trailers"] = self._trailers
        if body:
            self._body = None
            self.buffered_bytes = 0
            self._stream.on_consumed()
        return message

    def _start(self, message: Message) -> Awaitable[None]:
        if self.is_disconnected:
            self.state = _HEAD_HELD
            return FINISHED
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise ASGIError(f"Invalid status of a response: {status!r:.80}")
        headers = message.get("headers", ())
        if type(headers) is not list:
            headers = list(headers)
        has_body = not self.is_head and status != 204 and status != 304
        try:
            self._left = self._engine.send_headers(self._stream_id, status, headers, has_body)
        except ValueError as error:
            raise ASGIError(str(error)) from None
        if self.own_fields is not None:
            self._engine.add_fields(self._stream_id, self.own_fields(self, headers))
        self._has_body = has_body
        if "trailers" in message:
            self._wants_trailers = message["trailers"]
        self.status = status
        self.response_headers = headers
        self.state = _HEAD_HELD
        turn = self._turn
        if turn.current is not self:
            turn.hold_head(self)
        return FINISHED

    def _send_body(self, data: bytes, more: bool) -> Awaitable[None]:
        if self.is_disconnected:
            self.state = _BODY if more else _COMPLETE
            return asyncio.sleep(0) if more else FINISHED
        if type(data) is not bytes:
            # By way of a view, because bytes(5) would be five NULs.
            data = bytes(memoryview(data))
        stream = self._stream
        size = len(data)
        if self._has_body:
            if self._left is not None and (more or size != self._left):
                self._count(size, more)
            self.sent_bytes += size
            self._engine.send_data(self._stream_id, data, not more and not self._wants_trailers)
        else:
            self._engine.send_data(self._stream_id, b"", not more)
        if more:
            stream.flush()
            self.state = _BODY
            return FINISHED if stream.is_writable else stream.wait_writable()
        if self._wants_trailers:
            stream.flush()
            self.state = _TRAILERS
            return FINISHED
        self.state = _COMPLETE
        if self._news is not None:
            self._news.set()
        stream.finish(self, size < LARGE_BYTES)
        return FINISHED

    def _count(self, size: int, more: bool) -> None:
        """Hold the body against the promised Content-Length, before any of it is encoded."""
        assert self._left is not None
        left = self._left - size
        if left < 0:
            self._break_promise("Response content longer than Content-Length")
        if left and not more:
            self._break_promise("Response content shorter than Content-Length")
        self._left = left

    def _break_promise(self, what: str) -> None:
        self._give_up(500)
        raise ASGIError(what)

    def _send_early_hint(self, message: Message) -> Awaitable[None]:
        if not self.is_disconnected:
            links = [(b"link", link) for link in message.get("links", ())]
            try:
                self._engine.send_informational(self._stream_id, 103, links)
            except ValueError as error:
                raise ASGIError(str(error)) from None
            self._stream.flush()
        return FINISHED

    def _send_trailers(self, message: Message) -> Awaitable[None]:
        more = message.get("more_trailers", False)
        if more:
            raise ASGIError("Trailers in several messages are not supported; send them in one")
        if not self.is_disconnected:
            try:
                self._engine.send_trailers(self._stream_id, message.get("headers", ()))
            except ValueError as error:
                raise ASGIError(str(error)) from None
            self._stream.flush()
        self._complete()
        return FINISHED

    async def _send_path(self, path: str) -> None:
        if not os.path.isabs(path):
            raise ASGIError(f"The path of 'http.response.pathsend' must be absolute: {path!r:.80}")
        if self.is_disconnected:
            self.state = _COMPLETE
            return
        if self._has_body:
            # Opened before anything leaves: what cannot be opened is answered with 500.
            with open(path, "rb", buffering=0) as file:  # noqa: ASYNC230 - a local file does not wait
                await self._send_file(file.fileno())
        else:
            self._engine.send_data(self._stream_id, b"", True)
            self._stream.flush()
        if not self.is_disconnected:
            self._complete()

    async def _send_file(self, file: int) -> None:
        size = os.fstat(file).st_size
        if self._left is not None and self._left != size:
            self._break_promise(f"Content-Length is {self._left}, the file has {size} bytes")
        self.state = _BODY
        try:
            self.sent_bytes = await self._stream.send_file(file, 0, size)
        except BaseException:
            # How much of it went out nobody knows: whatever follows breaks the promise.
            self._left, self.sent_bytes = -1, 1
            raise
        if self.sent_bytes < size:
            self.disconnect()

    def _complete(self) -> None:
        self.state = _COMPLETE
        if self._news is not None:
            self._news.set()
        if not self.is_disconnected:
            self._stream.on_response_complete(self)

    def _answer_instead(self, status: int) -> bool:
        """Answer by ourselves if nothing of the application's response has left."""
        if self.is_disconnected or self.state > _HEAD_HELD:
            return False
        self._engine.drop_headers(self._stream_id)
        self.refuse(status)
        self._stream.flush()
        return True

    def _give_up(self, status: int) -> None:
        """The application will not end its response: answer for it, or cut what it left open."""
        if self.state == _COMPLETE or self.is_disconnected:
            return
        if self._answer_instead(status):
            self._stream.on_response_complete(self)
        else:
            self._cut()

    def _cut(self) -> None:
        """End the connection, so that the client does not take what it has for the whole."""
        if self.state <= _HEAD_HELD:
            self.status = 0
        self.disconnect()
        self.state = _COMPLETE
        self._stream.abort()

    def _on_unfinished(self) -> None:
        """The application returned without ending its response."""
        if self._told_to_end:
            self._give_up(503)
        elif self._half_closed:
            # It was told that the client left, and stopped.
            self._cut()
        else:
            _logger.error("ASGI callable returned without %s.", self._missing())
            self._give_up(500)

    def _on_error(self, error: BaseException) -> None:
        has_left = self.is_disconnected or (self._half_closed and not self._told_to_end)
        if has_left and isinstance(error, OSError):
            # What an application raises because the client has gone is not its fault.
            _logger.debug("The client left: %r", error)
            if not self.is_disconnected and self.state != _COMPLETE:
                self._cut()
            return
        _logger.error("Exception in ASGI application\n", exc_info=error)
        if self.started_s and self.state != _COMPLETE and not self.is_disconnected:
            # Somebody will be told of it.
            self.error = error
        self._give_up(500)

    def _missing(self) -> str:
        return "starting response" if self.state == _EXPECT_START else "completing response"

    def _out_of_order(self, kind: str) -> ASGIError:
        if self.state == _COMPLETE:
            return ASGIError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
        return ASGIError(f"Expected ASGI message {_EXPECTED[self.state]}, but got '{kind}'.")
