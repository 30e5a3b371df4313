"""One TCP, TLS or Unix connection that speaks HTTP/1.1.

    transport ──data_received──▶ engine ──events──▶ exchange ◀──messages──▶ application
        ▲                          │
        └────────── flush ─────────┘        the only place that writes

What it waits for, until when, and how it ends is in ``timers``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from time import monotonic
from typing import cast

from headrace.asgi.http import HIGH_WATER_BYTES, HTTPExchange
from headrace.asgi.scope import ScopeTemplate
from headrace.asgi.websocket import WebSocketSession
from headrace.errors import RemoteProtocolError
from headrace.net.sockets import local_address, peer_address
from headrace.net.tls import is_tls_client_hello
from headrace.protocol.events import (
    HTTP2_PREFACE,
    ConnectionFailed,
    DataReceived,
    Event,
    PrefaceReceived,
    RequestReceived,
    TrailersReceived,
)
from headrace.protocol.http1.engine import State
from headrace.protocol.http2 import MISSING
from headrace.protocol.http2 import is_available as http2_is_available
from headrace.protocol.websocket import is_websocket
from headrace.server.http2_connection import HTTP2Connection
from headrace.server.runtime import Runtime
from headrace.server.sendfile import send_file
from headrace.server.timers import LINGER_S, TimedConnection, Waiting
from headrace.server.upgrades import agree, refusal_fields, scope_template, start_session
from headrace.server.websocket_connection import WebSocketConnection
from headrace.types import Address, Headers

_logger = logging.getLogger("uvicorn.error")


# An enum's members are looked up by a descriptor, which costs more than the branch it decides.
_NOTHING, _HEAD, _NEXT_REQUEST, _BODY, _WRITE, _LINGER = Waiting
_ANSWERING = State.ANSWERING
_CLOSED = State.CLOSED
_IDLE = State.IDLE


class HTTPConnection(TimedConnection):
    """An asyncio protocol, and the ``Stream`` of its exchanges.

    Args:
        runtime: what all connections share.
        client, server: in place of the socket's own addresses, when a PROXY header has told them.
    """

    stream_id = 1
    """HTTP/1.1 looks like HTTP/2 with one stream at a time."""

    __slots__ = (
        "_has_ended", "_is_cycle_due", "_server", "_template", "_writable", "is_writable", "turn",
    )  # fmt: skip

    def __init__(
        self, runtime: Runtime, client: Address | None = None, server: Address | None = None
    ) -> None:
        super().__init__(runtime, client)
        self.turn = runtime.turn
        self.is_writable = True
        self._template = cast("ScopeTemplate", None)
        self._server = server
        self._has_ended = False
        self._is_cycle_due = False
        self._writable: asyncio.Event | None = None

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open, and past the TLS handshake if there is one."""
        runtime = self.runtime
        self.transport = cast("asyncio.Transport", transport)
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None and ssl_object.selected_alpn_protocol() == "h2":
            self._become_http2(b"")
            return
        if self.client is None:
            self.client = peer_address(self.transport)
            self._server = local_address(self.transport)
        self._template = scope_template(runtime, self.transport, self.client, self._server)
        runtime.connections.add(self)
        limit = runtime.connection_limit
        if limit is not None and not limit.admit(self):
            self.is_reading = False
            self.transport.pause_reading()
            return
        self.wait_for(_HEAD, runtime.timeouts.header_s)

    def on_admitted(self) -> None:
        """It had to wait for ``--limit-connections``, and now is served."""
        self.is_reading = True
        self.transport.resume_reading()
        self.wait_for(_HEAD, self.runtime.timeouts.header_s)

    def data_received(self, data: bytes) -> None:
        """The client sent something."""
        if self.is_closing:
            return
        events = self.engine.receive_data(data)
        if events:
            self._take(events, data)
        else:
            self._on_eventless_data()

    def eof_received(self) -> bool:
        """The client sent its end. It may still read: a request that is whole is answered.

        Returns:
            Whether the transport stays open for writing; TLS has no half-closed state.
        """
        exchange = self.exchange
        self.flush()
        self.engine.receive_eof()
        self._has_ended = True
        if self.is_closing:
            return False
        if exchange is None:
            goes_on = self._is_cycle_due
        elif self.engine.state is _CLOSED or self.runtime.cancels_on_disconnect:
            self._lose(exchange)
            goes_on = False
        else:
            exchange.half_close()
            goes_on = True
        if goes_on and self.transport.get_extra_info("ssl_object") is None:
            return True
        # The transport now closes, but not before the client has taken what is still unwritten.
        self.is_closing = True
        self.wait_for(_LINGER, self.runtime.timeouts.write_s)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self.runtime.connections.discard(self)
        self.engine.data_to_send()  # nobody takes it
        self.is_closing = True
        self.waiting = _NOTHING
        self.deadline = 0.0
        if self.exchange is not None:
            self._lose(self.exchange)
        self.is_writable = True
        if self._writable is not None:
            # Behind the loss: an application that is told of it by ``receive`` learns it first.
            self._writable.set()
        if self.runtime.connection_limit is not None:
            self.runtime.connection_limit.release(self)
        self.runtime.on_connection_lost()

    def pause_writing(self) -> None:
        """The transport is over its high mark: the application waits in ``send``."""
        self.is_writable = False
        self.unwritten_bytes = self.transport.get_write_buffer_size()
        self.wait_for(_WRITE, self.runtime.timeouts.write_s)

    def resume_writing(self) -> None:
        """The transport is under its low mark again."""
        self.is_writable = True
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        if self.waiting is _WRITE:
            self.wait_for_nothing()
            if self.is_closing:
                self.wait_for(_LINGER, LINGER_S)
            self._wait_if_idle()
            if self.exchange is not None and self.exchange.waits_for_body:
                self.on_body_wanted()
        if self._is_cycle_due:
            # Not from within this call of the transport's: asyncio's must not be closed in it.
            self.runtime.loop.call_soon(self._start_due_cycle)

    # The engine's side

    def _start_due_cycle(self) -> None:
        if self._is_cycle_due and self.is_writable and not self.is_closing:
            self._is_cycle_due = False
            self._go_on(self.engine.start_next_cycle())

    def _take(self, events: Sequence[Event], data: bytes) -> None:
        for event in events:
            if isinstance(event, RequestReceived):
                self._start(event)
            elif isinstance(event, DataReceived):
                self._feed(event)
            elif isinstance(event, ConnectionFailed):
                self._on_failed(event.error, data)
                return
            elif isinstance(event, PrefaceReceived):
                self._become_http2(event.data)
                return
            elif isinstance(event, TrailersReceived) and self.exchange is not None:
                self.exchange.feed_trailers(event.headers)
        exchange = self.exchange
        if (exchange is not None and exchange.buffered_bytes) or self.engine.pending:
            self._update_reading()

    def _on_eventless_data(self) -> None:
        """What came is a part of a head, of a later request, or of a body that is dropped."""
        state = self.engine.state
        if state is _ANSWERING:
            self._update_reading()
        elif state is _CLOSED:
            # More of an unread body than is read to be dropped.
            self.linger()
        elif self.engine.is_reading_head:
            if self.waiting is not _HEAD:
                self.wait_for(_HEAD, self.runtime.timeouts.header_s)
        elif self.waiting is _BODY and not self.engine.discarding:
            self._wait_if_idle()

    def _start(self, event: RequestReceived) -> None:
        runtime = self.runtime
        self.deadline = 0.0
        self.waiting = _NOTHING
        exchange: HTTPExchange
        if event.upgrade and runtime.websocket is not None and is_websocket(event):
            try:
                exchange = start_session(runtime, self, self._template, event)
            except RemoteProtocolError as error:
                self._refuse_handshake(error)
                return
            # Whatever is answered, no request of HTTP follows.
            self.engine.keep_alive = False
        else:
            application = runtime.stack.whole if event.is_forwarded else runtime.stack.unforwarded
            exchange = HTTPExchange(application, self, self._template.build(event), event)
            exchange.own_fields = runtime.own_fields
        runtime.total_requests += 1
        if runtime.takes_time:
            exchange.started_s = monotonic()
        if runtime.has_limits and not self._is_admitted(exchange, event):
            return
        self.exchange = exchange
        runtime.running.add(exchange)
        runtime.start(exchange)

    def _is_admitted(self, exchange: HTTPExchange, event: RequestReceived) -> bool:
        """False when it was refused, or is a probe and runs already, beside those that are counted."""
        runtime = self.runtime
        probe = runtime.probe(self, exchange.scope, event)
        if probe is None and not runtime.admits():
            self._shed(exchange)
            return False
        if runtime.is_last():
            self.engine.keep_alive = False
        if probe is not None:
            self.exchange = probe
            runtime.start(probe)
        return probe is None

    def _feed(self, event: DataReceived) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if self.waiting is _BODY:
            self.wait_for_nothing()
        exchange.feed(event.data, event.end_stream)

    def _refuse_handshake(self, error: RemoteProtocolError) -> None:
        self.runtime.bad_requests.add(self.client, str(error), b"")
        self.engine.send_error(1, error.status, fields=refusal_fields(error))
        self.linger()

    def _shed(self, exchange: HTTPExchange) -> None:
        exchange.refuse(503)
        self.runtime.total_shed += 1
        self.record(exchange)
        self.linger()

    def _on_failed(self, error: RemoteProtocolError, data: bytes) -> None:
        reason = str(error)
        if is_tls_client_hello(data) and self.transport.get_extra_info("ssl_object") is None:
            reason = "it speaks TLS to a port without TLS (give --ssl-certfile, or use http://)"
        elif data.startswith(HTTP2_PREFACE):
            reason = (
                "it speaks HTTP/2, which is off" if http2_is_available else f"it speaks HTTP/2. {MISSING}"
            )
        self.runtime.bad_requests.add(self.client, reason, data)
        if self.exchange is None:
            self.linger()
        else:
            self.give_up(self.exchange, error)

    def forget(self) -> None:
        """Give back what an idle connection can do without."""
        super().forget()
        self._template.forget()

    # The exchange's side: Stream

    def finish(self, exchange: HTTPExchange, is_small: bool) -> None:
        """Write a response's end, if it is small together with those of other connections."""
        if is_small:
            self.turn.write(self)
        else:
            self.flush()
        self.on_response_complete(exchange)

    @property
    def is_draining(self) -> bool:
        """The server stops."""
        return self.runtime.is_draining

    def wait_writable(self) -> Awaitable[None]:
        """Wait until the transport is under its low mark, or gone."""
        if self._writable is None:
            self._writable = asyncio.Event()
        return cast("Awaitable[None]", self._writable.wait())

    def on_consumed(self) -> None:
        """The application took what was waiting of the body."""
        if not self.is_reading:
            self._update_reading()

    def on_body_wanted(self) -> None:
        """The application waits for the body."""
        if self.waiting is _NOTHING:
            self.wait_for(_BODY, self.runtime.timeouts.body_s)

    def on_response_complete(self, exchange: HTTPExchange) -> None:
        """Tell what is known of it, and go on to the next request or close."""
        self.exchange = None
        if self.runtime.consumers:
            self.record(exchange)
        if self.is_closing:
            return
        if not self.is_writable:
            # A client that sends requests and reads no responses would fill our memory with them.
            self._is_cycle_due = True
            return
        events = self.engine.start_next_cycle()
        if events is None or events or not self.is_reading:
            self._go_on(events)
        elif self.engine.state is _IDLE:
            self.waiting = _NEXT_REQUEST
            self.deadline = self.runtime.keep_alive_deadline
        else:
            self._wait_if_idle()

    def _go_on(self, events: Sequence[Event] | None) -> None:
        """Close, take the next request if it has arrived already, or wait for it."""
        if events is None:
            if self.engine.is_abandoning_body:
                self.linger()
            else:
                self.close()
            return
        if not self.is_reading:
            self._update_reading()
        if not events:
            self._wait_if_idle()
            return
        self._take(events, b"")
        if self._has_ended and self.exchange is not None:
            self.exchange.half_close()

    def accept_websocket(self, session: WebSocketSession, subprotocol: str | None, headers: Headers) -> None:
        """Answer with 101, and hand the transport over to the session's own connection.

        Raises:
            ValueError: a field that cannot be sent; nothing has happened then.
        """
        runtime = self.runtime
        assert runtime.websocket is not None
        engine, fields = agree(runtime.websocket, session, subprotocol, headers)
        self.engine.send_upgrade(fields)
        self.flush()
        connection = WebSocketConnection(runtime, runtime.websocket, session, engine, self.transport)
        self._hand_over(connection)
        session.open(connection)
        if not self.is_writable:
            connection.brake()
        elif not self.is_reading:
            self.transport.resume_reading()
        if runtime.is_ending:
            connection.drain()
        if self.engine.pending:
            connection.take(self.engine.pending)

    def _become_http2(self, data: bytes) -> None:
        connection = HTTP2Connection(self.runtime, self.client, self._server)
        self._hand_over(connection)
        connection.connection_made(self.transport)
        if data:
            connection.data_received(data)

    def _hand_over(self, connection: WebSocketConnection | HTTP2Connection) -> None:
        """Leave the transport to another protocol; nothing of this one is needed any more."""
        runtime = self.runtime
        self.is_closing = True
        self.exchange = None
        self.wait_for_nothing()
        runtime.connections.discard(self)
        runtime.connections.add(connection)
        if runtime.connection_limit is not None:
            runtime.connection_limit.replace(self, connection)
        self.transport.set_protocol(connection)

    async def send_file(self, file: int, offset: int, count: int) -> int:
        """Write ``count`` bytes of an open file, by the kernel alone where that can be."""
        return await send_file(self, file, offset, count)

    # The server's side

    def drain(self) -> None:
        """Let the exchange under way be the last, and close at once when there is none.

        A connection that has not been used yet, or has a request waiting to be read, gets a moment for it.
        Where another process serves on, all of them keep their time: a request that is on its way in this
        moment is served, as the last one.
        """
        exchange = self.exchange
        if exchange is not None:
            self.engine.keep_alive = False
            if exchange.is_event_stream:
                exchange.tell_to_end()
        elif self.runtime.is_replaced and self.waiting in (_HEAD, _NEXT_REQUEST):
            return
        elif self.waiting is _HEAD or (self.waiting is _NEXT_REQUEST and self.has_unread_bytes()):
            self.wait_for(_HEAD, LINGER_S)
        elif self.engine.discarding and not self.is_closing:
            # The client is still sending: closing at once could take the answer away from it.
            self.linger()
        elif self.waiting is not _LINGER:
            self.close()

    # Within

    def _wait_if_idle(self) -> None:
        """Start the keep-alive timer if the client is to send the next request."""
        if self.exchange is not None or self.is_closing or not self.is_writable:
            return
        if self.engine.discarding:
            self.wait_for(_BODY, self.runtime.timeouts.body_s)
        elif self.engine.is_reading_head:
            self.wait_for(_HEAD, self.runtime.timeouts.header_s)
        else:
            self.waiting = _NEXT_REQUEST
            self.deadline = self.runtime.keep_alive_deadline

    def _update_reading(self) -> None:
        """The read brake: on while the application has body enough, or a later request waits."""
        exchange = self.exchange
        # Some bytes of later requests may wait: while the socket is read, the client's end is seen.
        wanted = len(self.engine.pending) <= HIGH_WATER_BYTES and (
            exchange is None or exchange.buffered_bytes <= HIGH_WATER_BYTES
        )
        if wanted is self.is_reading or self.is_closing or self.transport.is_closing():
            return
        self.is_reading = wanted
        if wanted:
            self.turn.run_outside(self.transport.resume_reading)
        else:
            self.transport.pause_reading()

    def _lose(self, exchange: HTTPExchange) -> None:
        """The client is gone in the middle of its exchange."""
        exchange.disconnect()
        self.end_exchange(exchange)
        if self.runtime.cancels_on_disconnect:
            exchange.cancel("The client disconnected")
