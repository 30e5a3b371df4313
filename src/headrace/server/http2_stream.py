"""One stream of an HTTP/2 connection: what carries an exchange, or a ``WebSocketTunnel``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic
from typing import Any, Protocol, cast

from headrace.asgi.http import HTTPExchange
from headrace.asgi.scope import ScopeTemplate
from headrace.asgi.websocket import WebSocketSession
from headrace.errors import RemoteProtocolError
from headrace.protocol.events import DataReceived, RequestReceived
from headrace.protocol.http2 import HTTP2Engine
from headrace.protocol.websocket import is_websocket
from headrace.server.runtime import Runtime
from headrace.server.sendfile import copy_file
from headrace.server.turn import Turn
from headrace.server.upgrades import agree, refusal_fields, start_session
from headrace.server.websocket_tunnel import WebSocketTunnel
from headrace.types import Address, Headers

HIGH_WATER_BYTES = 65_536
"""Response body of one stream that may wait for the client's window before ``send`` waits."""

CONNECTION_HIGH_WATER_BYTES = 524_288
"""The same of all streams together, above which each may keep no more than ``SMALL_BYTES``."""

SMALL_BYTES = 16_384

INTERNAL_ERROR, CANCEL = 2, 8


class Connection(Protocol):
    """The connection of a stream, as far as the stream needs it."""

    runtime: Runtime
    turn: Turn
    engine: HTTP2Engine
    template: ScopeTemplate
    client: Address | None
    is_writable: bool
    is_flush_due: bool

    def flush(self) -> None:
        """Write what may be sent now."""

    def flush_later(self) -> None:
        """Write at the end of the turn."""

    def wait_for_window(self, stream: Any) -> None:
        """Call the stream's ``release`` when enough of what it queued is gone."""


class Flow:
    """What a stream keeps once its request has a body, or its response does not leave at once."""

    __slots__ = ("deadline", "openings", "stall_deadline", "taken_bytes", "unconsumed_bytes", "writable")

    def __init__(self) -> None:
        self.deadline = 0.0
        """For the body that the application waits for."""
        self.openings = 0
        """The connection's, when they were looked at."""
        self.stall_deadline = 0.0
        """For the client to take more than ``taken_bytes``."""
        self.taken_bytes = 0
        self.unconsumed_bytes = 0
        self.writable: asyncio.Event | None = None


class HTTP2Stream:
    """The ``Stream`` of one exchange.

    Attributes:
        exchange: None before its request's turn has come, and behind the end of the response; a session
            stays.
        is_done: nothing has to be done when it closes.
        request: waits for its turn to become an exchange.
        started_s: see ``HTTPExchange``.
    """

    __slots__ = (
        "_connection", "_flow", "_tunnel", "engine", "exchange", "is_done", "request", "started_s",
        "stream_id", "turn",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        stream_id: int,
        request: RequestReceived | None = None,
        started_s: float = 0.0,
    ) -> None:
        self._connection = connection
        self.engine = connection.engine
        self.turn = connection.turn
        self.stream_id = stream_id
        self.exchange: HTTPExchange | None = None
        self.is_done = False
        self._tunnel: WebSocketTunnel | None = None
        self._flow: Flow | None = None
        self.request = request
        self.started_s = started_s

    # The connection's side

    def start(self, event: RequestReceived) -> None:
        """Run the application for this request."""
        runtime = self._connection.runtime
        if event.upgrade or not event.end_stream or runtime.has_limits:
            self._start_at_once(event)
        else:
            # What a request needs is made when it runs: hundreds of streams may come in one turn.
            runtime.total_requests += 1
            self.request = event
            self.started_s = monotonic() if runtime.takes_time else 0.0
            self.turn.start(self)

    def begin(self, task: asyncio.Task[None]) -> HTTPExchange | None:
        """Make the exchange of a request that has waited for its turn; None if it was reset meanwhile."""
        request = self.request
        if request is None:
            return None
        self.request = None
        exchange = self.exchange = self._make(request)
        self.turn.running.add(exchange)
        if exchange.own_fields is not None:
            return exchange.begin(task)
        # In short the same: nobody can have withdrawn it yet.
        exchange.task = task
        return exchange

    def feed(self, event: DataReceived) -> None:
        """Take a piece of the request's body, or of the tunnel."""
        size = len(event.data)
        flow = self._flow_of()
        flow.deadline = 0.0
        if self._tunnel is not None:
            flow.unconsumed_bytes += size
            self._tunnel.feed(event.data, event.end_stream)
            return
        exchange = self.exchange
        if exchange is None or exchange.is_disconnected:
            self.engine.consumed(self.stream_id, size)
            return
        flow.unconsumed_bytes += size
        exchange.feed(event.data, event.end_stream)

    def feed_trailers(self, headers: Headers) -> None:
        """Take the request's trailers, which end it."""
        self._flow_of().deadline = 0.0
        if self._tunnel is not None:
            self._tunnel.feed(b"", True)
        elif self.exchange is not None:
            self.exchange.feed_trailers(headers)

    def fail(self, error: RemoteProtocolError) -> None:
        """The rest of the request is broken or too long: answer if nothing has left, else reset."""
        exchange = self.exchange
        if exchange is None or self._tunnel is not None:
            self.abort()
            return
        if not exchange.fail(error):
            self.engine.reset(self.stream_id, INTERNAL_ERROR)
        self.on_response_complete(exchange)
        self._connection.flush_later()

    def on_closed(self) -> None:
        """The stream is over, or the connection."""
        if self.request is not None:
            # Its turn has not come, and will not: the books are all that is left.
            self.exchange = self._make(self.request)
            self.request = None
        if self._tunnel is not None:
            self.on_consumed()
            self.release()
            self._tunnel.lose()
            return
        exchange = self.exchange
        if exchange is None:
            self.release()
        else:
            exchange.disconnect()
            # Behind the loss: an application that is told of it by ``receive`` learns it first.
            self.release()
            self.on_response_complete(exchange)
            # Requests that are reset in the read that brought them cost no call of the application.
            exchange.withdraw()
            if self._connection.runtime.cancels_on_disconnect:
                exchange.cancel("The client disconnected")

    def on_sweep(self, now: float) -> None:
        """Act if the client is silent in a body that is waited for, or takes nothing of a response."""
        if self._tunnel is not None:
            self._tunnel.on_sweep(now)
            return
        flow = self._flow
        if flow is not None and 0.0 < flow.deadline <= now:
            flow.deadline = 0.0
            self._give_up_body()
        self._check_progress(now)

    def is_held_back(self) -> bool:
        """What is queued waits for its turn, and not for the client; asked from time to time.

        libnghttp2 gives the connection's window to the more urgent stream, and to one after the other: the
        client has to open it, for whichever.
        """
        connection = self._connection
        if not connection.is_writable:
            return True  # the connection watches the transport's own progress
        engine = self.engine
        if not engine.has_window(self.stream_id):
            return False
        flow = self._flow_of()
        openings, flow.openings = flow.openings, engine.openings
        return engine.has_connection_window or engine.openings != openings

    def drain(self) -> None:
        """The server stops."""
        if self._tunnel is not None:
            self._tunnel.drain()
        elif self.exchange is not None and self.exchange.is_event_stream:
            self.exchange.tell_to_end()

    def has_room(self) -> bool:
        """Whether what is queued is little enough for more."""
        engine = self.engine
        if engine.is_failed:
            return True
        queued = engine.queued_bytes(self.stream_id)
        if queued > HIGH_WATER_BYTES:
            return False
        return queued <= SMALL_BYTES or engine.all_queued_bytes <= CONNECTION_HIGH_WATER_BYTES

    def release(self) -> None:
        """The write brake is off."""
        flow = self._flow
        if flow is not None and flow.writable is not None:
            flow.writable.set()
            flow.writable = None
        if self._tunnel is not None and not self._tunnel.is_writable:
            self._tunnel.release()

    # The exchange's side: Stream

    @property
    def is_draining(self) -> bool:
        """The server stops."""
        return self._connection.runtime.is_draining

    @property
    def is_writable(self) -> bool:
        """Little enough waits for the client's window; looked at behind each piece of a longer body."""
        if self.has_room():
            return True
        self._connection.flush()
        return self.has_room()

    def flush(self) -> None:
        """Write at the end of the turn, or now if that is far."""
        connection = self._connection
        if connection.is_flush_due:
            self.turn.write_if_late()
        else:
            connection.flush_later()

    def finish(self, exchange: HTTPExchange, is_small: bool) -> None:
        """The same behind a whole response."""
        connection = self._connection
        if not connection.is_flush_due:
            connection.flush_later()
        elif not self.stream_id & 14:
            # One of eight: the clock costs a hundredth of a request.
            self.turn.write_if_late()
        if self._flow is None and not connection.runtime.consumers:
            # In short what ``on_response_complete`` does.
            self.exchange = None
            self.is_done = True
        else:
            self.on_response_complete(exchange)

    def wait_writable(self) -> Awaitable[None]:
        """Wait until enough of what is queued is gone, or the stream."""
        self.wait_for_room()
        flow = self._flow_of()
        if flow.writable is None:
            flow.writable = asyncio.Event()
        return cast("Awaitable[None]", flow.writable.wait())

    def wait_for_room(self) -> None:
        """Have ``release`` called when enough of what is queued is gone."""
        self._connection.wait_for_window(self)

    def on_consumed(self) -> None:
        """The application took what was waiting of the body: the client may send as much more."""
        flow = self._flow
        if flow is not None and flow.unconsumed_bytes:
            size = flow.unconsumed_bytes
            flow.unconsumed_bytes = 0
            self.engine.consumed(self.stream_id, size)
            self._connection.flush_later()

    def on_body_wanted(self) -> None:
        """The application waits for the body."""
        runtime = self._connection.runtime
        flow = self._flow_of()
        if not flow.deadline:
            flow.deadline = runtime.deadline_in(runtime.timeouts.body_s)

    def on_response_complete(self, exchange: HTTPExchange) -> None:
        """The response is given whole, and the engine ends the stream; or nobody takes it."""
        if self.exchange is exchange:
            self.exchange = None
            flow = self._flow
            if flow is None:
                self.is_done = True
            else:
                flow.deadline = 0.0
                self.on_consumed()
            if self._connection.runtime.consumers:
                self._record(exchange)

    async def send_file(self, file: int, offset: int, count: int) -> int:
        """Write ``count`` bytes of an open file, piece by piece."""
        return await copy_file(self, file, offset, count, SMALL_BYTES)

    def abort(self) -> None:
        """Reset the stream: the client must not take what it has for the whole."""
        self.engine.reset(self.stream_id, INTERNAL_ERROR)
        self._connection.flush_later()

    def accept_websocket(self, session: WebSocketSession, subprotocol: str | None, headers: Headers) -> None:
        """Answer with 200, and let the stream carry frames from now on.

        Raises:
            ValueError: a field that cannot be sent; nothing has happened then.
        """
        runtime = self._connection.runtime
        assert runtime.websocket is not None
        engine, fields = agree(runtime.websocket, session, subprotocol, headers)
        self.engine.send_headers(self.stream_id, 200, fields, True)
        # A ping or a Close must not wait until a download beside it is whole.
        self.engine.prefer(self.stream_id)
        self.engine.send_data(self.stream_id, b"", False)
        self._connection.flush_later()
        early = session.take_early_data()
        tunnel = self._tunnel = WebSocketTunnel(runtime, session, engine, self)
        session.open(tunnel)
        if runtime.is_ending:
            tunnel.drain()
        if early or session.has_body_ended:
            tunnel.feed(early, session.has_body_ended)

    # Within

    def _flow_of(self) -> Flow:
        if self._flow is None:
            self._flow = Flow()
        return self._flow

    def _start_at_once(self, event: RequestReceived) -> None:
        """Begin a request that may be refused, or whose body is on its way."""
        runtime = self._connection.runtime
        exchange: HTTPExchange
        self.started_s = monotonic() if runtime.takes_time else 0.0
        if event.upgrade:
            if runtime.websocket is None or not is_websocket(event) or event.end_stream:
                self._refuse(RemoteProtocolError(f"Protocol not supported: {event.upgrade!r:.80}", 501))
                return
            try:
                exchange = start_session(runtime, self, self._connection.template, event)
            except RemoteProtocolError as error:
                self._refuse(error)
                return
            exchange.started_s = self.started_s
        else:
            exchange = self._make(event)
        runtime.total_requests += 1
        if runtime.has_limits and not self._is_admitted(exchange, event):
            return
        self.exchange = exchange
        runtime.running.add(exchange)
        runtime.start(exchange)

    def _make(self, request: RequestReceived) -> HTTPExchange:
        connection = self._connection
        stack = connection.runtime.stack
        application = stack.whole if request.is_forwarded else stack.unforwarded
        exchange = HTTPExchange(application, self, connection.template.build(request), request)
        exchange.started_s = self.started_s
        exchange.own_fields = connection.runtime.own_fields
        return exchange

    def _is_admitted(self, exchange: HTTPExchange, event: RequestReceived) -> bool:
        """False when it was refused, or is a probe and runs already, beside those that are counted."""
        runtime = self._connection.runtime
        probe = runtime.probe(self, exchange.scope, event)
        if probe is None and not runtime.admits():
            exchange.refuse(503)
            runtime.total_shed += 1
            self._record(exchange)
            self._connection.flush_later()
            return False
        runtime.is_last()
        if probe is not None:
            self.exchange = probe
            runtime.start(probe)
        return probe is None

    def _refuse(self, error: RemoteProtocolError) -> None:
        self._connection.runtime.bad_requests.add(self._connection.client, str(error), b"")
        self.engine.send_error(self.stream_id, error.status, fields=refusal_fields(error))
        self._connection.flush_later()

    def _record(self, exchange: HTTPExchange) -> None:
        if not exchange.is_recorded:
            return
        consumers = self._connection.runtime.consumers
        if consumers:
            finished = exchange.finished()
            for consumer in consumers:
                consumer.add(finished)

    def _give_up_body(self) -> None:
        exchange = self.exchange
        if exchange is not None and exchange.waits_for_body:
            self._connection.runtime.bad_requests.add(
                self._connection.client, "its body did not come in time (408)", b""
            )
            self.fail(RemoteProtocolError("The body did not come in time", 408))

    def _check_progress(self, now: float) -> None:
        """Reset the stream when its client has taken nothing for too long; others go on."""
        engine = self.engine
        if not engine.queued_bytes(self.stream_id):
            if self._flow is not None:
                self._flow.stall_deadline = 0.0
            return
        flow = self._flow_of()
        if self.is_held_back():
            flow.stall_deadline = 0.0
            return
        taken = engine.taken_bytes(self.stream_id)
        if not flow.stall_deadline or taken > flow.taken_bytes:
            timeouts = self._connection.runtime.timeouts
            flow.stall_deadline = self._connection.runtime.deadline_in(timeouts.write_s)
        elif flow.stall_deadline <= now:
            self.engine.reset(self.stream_id, CANCEL)
            self._connection.flush_later()
        flow.taken_bytes = taken
