"""One TCP, TLS or Unix connection that speaks HTTP/1.1.

    transport ──data_received──▶ engine ──events──▶ exchange ◀──messages──▶ application
        ▲                          │
        └────────── flush ─────────┘        the only place that writes

What a connection waits for is one deadline and its reason; a sweep over all connections looks at them.
"""

from __future__ import annotations

import asyncio
import logging
import select
import sys
from collections.abc import Awaitable, Sequence
from enum import Enum, auto
from typing import Any, cast

from headrace.asgi.http import HIGH_WATER_BYTES, HTTPExchange
from headrace.asgi.scope import ScopeTemplate
from headrace.errors import RemoteProtocolError
from headrace.net.sockets import local_address, peer_address
from headrace.net.tls import is_tls_client_hello
from headrace.net.tls_extension import tls_extension
from headrace.protocol.events import ConnectionFailed, DataReceived, Event, RequestReceived
from headrace.protocol.http1 import HTTP1Engine
from headrace.protocol.http1.engine import State
from headrace.server.runtime import Runtime
from headrace.server.sendfile import send_file
from headrace.types import Address

LINGER_S = 2.0
"""How long the rest of a refused request is read and dropped: closing at once would reset the connection,
and a reset can take the answer away from the client before it has read it."""

WRITELINES_PAUSES = not (3, 12) <= sys.version_info < (3, 12, 9) and not (3, 13) <= sys.version_info < (
    3,
    13,
    2,
)
"""In these versions asyncio's ``writelines`` never put the write brake on (CVE-2024-12254)."""

_logger = logging.getLogger("uvicorn.error")


class Waiting(Enum):
    """What a connection's deadline is for."""

    NOTHING = auto()
    HEAD = auto()
    NEXT_REQUEST = auto()
    BODY = auto()
    WRITE = auto()
    LINGER = auto()


# An enum's members are looked up by a descriptor, which costs more than the branch it decides.
_NOTHING, _HEAD, _NEXT_REQUEST, _BODY, _WRITE, _LINGER = Waiting
_ANSWERING = State.ANSWERING
_CLOSED = State.CLOSED
_IDLE = State.IDLE


class HTTPConnection(asyncio.Protocol):
    """An asyncio protocol, and the ``Stream`` of its exchanges.

    Args:
        runtime: what all connections share.
        client, server: in place of the socket's own addresses, when a PROXY header has told them.
    """

    __slots__ = (
        "_client", "_has_ended", "_is_closing", "_is_cycle_due", "_is_reading", "_server", "_template",
        "_unwritten_bytes", "_writable",
        "deadline", "engine", "exchange", "is_writable", "runtime", "transport", "turn", "waiting",
    )  # fmt: skip

    def __init__(
        self, runtime: Runtime, client: Address | None = None, server: Address | None = None
    ) -> None:
        self.runtime = runtime
        self.engine = HTTP1Engine(runtime.parser, runtime.defaults)
        self.exchange: HTTPExchange | None = None
        self.turn = runtime.turn
        self.waiting = _NOTHING
        self.deadline = 0.0
        self.is_writable = True
        self.transport = cast("asyncio.Transport", None)
        self._template = cast("ScopeTemplate", None)
        self._client = client
        self._server = server
        self._is_reading = True
        self._is_closing = False
        self._has_ended = False
        self._is_cycle_due = False
        self._writable: asyncio.Event | None = None
        self._unwritten_bytes = 0

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open, and past the TLS handshake if there is one."""
        runtime = self.runtime
        self.transport = cast("asyncio.Transport", transport)
        ssl_object = transport.get_extra_info("ssl_object")
        extensions: dict[str, dict[str, Any]] = {
            "http.response.early_hint": {},
            "http.response.pathsend": {},
            "http.response.trailers": {},
        }
        if ssl_object is not None:
            extensions["tls"] = tls_extension(ssl_object)
        if self._client is None:
            self._client = peer_address(self.transport)
            self._server = local_address(self.transport)
        self._template = ScopeTemplate(
            scheme="http" if ssl_object is None else "https",
            client=self._client,
            server=self._server,
            root_path=runtime.root_path,
            root_path_mode=runtime.root_path_mode,
            state=runtime.state,
            extensions=extensions,
        )
        runtime.connections.add(self)
        limit = runtime.connection_limit
        if limit is not None and not limit.admit(self):
            self._is_reading = False
            self.transport.pause_reading()
            return
        self._wait_for(_HEAD, runtime.timeouts.header_s)

    def on_admitted(self) -> None:
        """It had to wait for ``--limit-connections``, and now is served."""
        self._is_reading = True
        self.transport.resume_reading()
        self._wait_for(_HEAD, self.runtime.timeouts.header_s)

    def data_received(self, data: bytes) -> None:
        """The client sent something."""
        if self._is_closing:
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
        self.engine.receive_eof()
        self._has_ended = True
        if self._is_closing:
            return False
        if exchange is None:
            return self._is_cycle_due and self.transport.get_extra_info("ssl_object") is None
        if self.engine.state is _CLOSED or self.runtime.cancels_on_disconnect:
            self._lose(exchange)
            return False
        exchange.half_close()
        return self.transport.get_extra_info("ssl_object") is None

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self.runtime.connections.discard(self)
        self._is_closing = True
        self.waiting = _NOTHING
        self.deadline = 0.0
        self.is_writable = True
        if self._writable is not None:
            self._writable.set()
        if self.exchange is not None:
            self._lose(self.exchange)
        if self.runtime.connection_limit is not None:
            self.runtime.connection_limit.release(self)
        self.runtime.on_connection_lost()

    def pause_writing(self) -> None:
        """The transport is over its high mark: the application waits in ``send``."""
        self.is_writable = False
        self._unwritten_bytes = self.transport.get_write_buffer_size()
        self._wait_for(_WRITE, self.runtime.timeouts.write_s)

    def resume_writing(self) -> None:
        """The transport is under its low mark again."""
        self.is_writable = True
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        if self.waiting is _WRITE:
            self._wait_for_nothing()
            if self._is_closing:
                self._wait_for(_LINGER, LINGER_S)
            self._wait_if_idle()
        if self._is_cycle_due:
            # Not from within this call of the transport's: asyncio's must not be closed in it.
            self.runtime.loop.call_soon(self._start_due_cycle)

    # The engine's side

    def _start_due_cycle(self) -> None:
        if self._is_cycle_due and self.is_writable and not self._is_closing:
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
            elif self.exchange is not None:
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
            self._linger()
        elif self.engine.is_reading_head:
            if self.waiting is not _HEAD:
                self._wait_for(_HEAD, self.runtime.timeouts.header_s)
        elif self.waiting is _BODY and not self.engine.discarding:
            self._wait_if_idle()

    def _start(self, event: RequestReceived) -> None:
        runtime = self.runtime
        self.deadline = 0.0
        self.waiting = _NOTHING
        exchange = HTTPExchange(runtime.application, self, self._template.build(event), event)
        runtime.total_requests += 1
        if runtime.access_log is not None:
            exchange.started_s = runtime.loop.time()
        if runtime.has_limits and not self._is_admitted(exchange):
            return
        self.exchange = exchange
        runtime.running.add(exchange)
        runtime.start(exchange)

    def _is_admitted(self, exchange: HTTPExchange) -> bool:
        runtime = self.runtime
        if runtime.limit_concurrency is not None and len(runtime.running) >= runtime.limit_concurrency:
            self._shed(exchange)
            return False
        if runtime.is_draining or not runtime.timeouts.keep_alive_s:
            self.engine.keep_alive = False
        elif runtime.limit_requests is not None and runtime.total_requests >= runtime.limit_requests:
            self.engine.keep_alive = False
            runtime.on_limit_requests()
        return True

    def _feed(self, event: DataReceived) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        if self.waiting is _BODY:
            self._wait_for_nothing()
        exchange.feed(event.data, event.end_stream)

    def _shed(self, exchange: HTTPExchange) -> None:
        exchange.status = 503
        self.engine.send_error(503)
        self._log(exchange)
        self._linger()

    def _on_failed(self, error: RemoteProtocolError, data: bytes) -> None:
        reason = str(error)
        if is_tls_client_hello(data) and self.transport.get_extra_info("ssl_object") is None:
            reason = "it speaks TLS to a port without TLS (give --ssl-certfile, or use http://)"
        self.runtime.bad_requests.add(self._client, reason, data)
        if self.exchange is not None:
            self.exchange.fail(error)
            self._end_exchange(self.exchange)
        self._linger()

    # The exchange's side: Stream

    @property
    def is_draining(self) -> bool:
        """The server stops."""
        return self.runtime.is_draining

    def flush(self) -> None:
        """Write what the engine has encoded."""
        data = self.engine.data_to_send()
        if isinstance(data, list):
            if WRITELINES_PAUSES:
                self.transport.writelines(data)
                return
            for piece in data:
                self.transport.write(piece)
        elif data:
            self.transport.write(data)

    def wait_writable(self) -> Awaitable[None]:
        """Wait until the transport is under its low mark, or gone."""
        if self._writable is None:
            self._writable = asyncio.Event()
        return cast("Awaitable[None]", self._writable.wait())

    def on_consumed(self) -> None:
        """The application took what was waiting of the body."""
        if not self._is_reading:
            self._update_reading()

    def on_body_wanted(self) -> None:
        """The application waits for the body."""
        if self.waiting is _NOTHING:
            self._wait_for(_BODY, self.runtime.timeouts.body_s)

    def on_response_complete(self, exchange: HTTPExchange) -> None:
        """Log, and go on to the next request or close."""
        self.exchange = None
        if self.runtime.access_log is not None:
            self._log(exchange)
        if self._is_closing:
            return
        if not self.is_writable:
            # A client that sends requests and reads no responses would fill our memory with them.
            self._is_cycle_due = True
            return
        events = self.engine.start_next_cycle()
        if events is None or events or not self._is_reading:
            self._go_on(events)
        elif self.engine.state is _IDLE:
            self.waiting = _NEXT_REQUEST
            self.deadline = self.runtime.keep_alive_deadline
        else:
            self._wait_if_idle()

    def _go_on(self, events: Sequence[Event] | None) -> None:
        """Close, take the next request if it has arrived already, or wait for it."""
        if events is None:
            self._linger_or_close()
            return
        if not self._is_reading:
            self._update_reading()
        if not events:
            self._wait_if_idle()
            return
        self._take(events, b"")
        if self._has_ended and self.exchange is not None:
            self.exchange.half_close()

    def on_application_done(self, exchange: HTTPExchange) -> None:
        """The application's task ends."""
        runtime = self.runtime
        runtime.running.discard(exchange)
        if runtime.is_draining and not runtime.running:
            runtime.on_idle()

    async def send_file(self, file: int, offset: int, count: int) -> int:
        """Write ``count`` bytes of an open file, by the kernel alone where that can be."""
        return await send_file(self, file, offset, count)

    def abort(self) -> None:
        """Cut the connection: the client must not take what it has for the whole."""
        self._is_closing = True
        self.transport.abort()

    # The server's side

    def drain(self) -> None:
        """Let the exchange under way be the last, and close at once when there is none.

        A connection that has not been used yet, or has a request waiting to be read, gets a moment for it.
        """
        exchange = self.exchange
        if exchange is not None:
            self.engine.keep_alive = False
            if exchange.is_event_stream:
                exchange.tell_to_end()
        elif self.waiting is _HEAD or (self.waiting is _NEXT_REQUEST and self._has_unread_bytes()):
            self._wait_for(_HEAD, LINGER_S)
        elif self.waiting is not _LINGER:
            self._close()

    def on_sweep(self, now: float) -> None:
        """Act if the deadline has passed, and give back what an idle connection can do without."""
        if 0.0 < self.deadline <= now:
            self._on_deadline()
        elif self.waiting is _NEXT_REQUEST:
            self.engine.forget()
            if self.engine.is_reading_head:
                # Half a head came behind the last request, and nothing since.
                self._wait_for(_HEAD, self.runtime.timeouts.header_s)

    def _on_deadline(self) -> None:
        waiting = self.waiting
        self._wait_for_nothing()
        if waiting is _NEXT_REQUEST:
            self._close_idle()
        elif waiting is _HEAD:
            self._close_headless()
        elif waiting is _BODY:
            self._give_up_body()
        elif waiting is _WRITE:
            self._check_progress()
        elif self.transport.get_write_buffer_size():
            # The last response is still on its way to a slow reader.
            self._unwritten_bytes = self.transport.get_write_buffer_size()
            self._wait_for(_WRITE, self.runtime.timeouts.write_s)
        else:
            self.transport.abort()

    # Within

    def _wait_for(self, what: Waiting, timeout_s: float) -> None:
        self.waiting = what
        self.deadline = self.runtime.deadline_in(timeout_s)

    def _wait_for_nothing(self) -> None:
        self.waiting = _NOTHING
        self.deadline = 0.0

    def _wait_if_idle(self) -> None:
        """Start the keep-alive timer if the client is to send the next request."""
        if self.exchange is not None or self._is_closing or not self.is_writable:
            return
        if self.engine.discarding:
            self._wait_for(_BODY, self.runtime.timeouts.body_s)
        elif self.engine.is_reading_head:
            self._wait_for(_HEAD, self.runtime.timeouts.header_s)
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
        if wanted is self._is_reading or self.transport.is_closing():
            return
        self._is_reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _end_exchange(self, exchange: HTTPExchange) -> None:
        """The response is out, or will never be."""
        if self.exchange is exchange:
            self.exchange = None
            self._log(exchange)

    def _lose(self, exchange: HTTPExchange) -> None:
        """The client is gone in the middle of its exchange."""
        exchange.disconnect()
        self._end_exchange(exchange)
        if self.runtime.cancels_on_disconnect and exchange.task is not None:
            exchange.task.cancel("The client disconnected")

    def _log(self, exchange: HTTPExchange) -> None:
        access_log = self.runtime.access_log
        if access_log is None:
            return
        access_log.add((
            exchange.scope,
            exchange.status or 499,
            exchange.sent_bytes,
            exchange.started_s,
            self.runtime.loop.time(),
            exchange.response_headers,
        ))  # fmt: skip

    def _close(self) -> None:
        """Close when everything is written."""
        self._is_closing = True
        self._wait_for(_LINGER, self.runtime.timeouts.write_s)
        self.transport.close()

    def _linger_or_close(self) -> None:
        """Close behind a response; linger when the client is still sending."""
        if self.engine.is_abandoning_body:
            self._linger()
        else:
            self._close()

    def _linger(self) -> None:
        """Send what there is and our end, and go on reading for a moment, dropping what comes."""
        self.flush()
        self._is_closing = True
        if not self._is_reading:
            self._is_reading = True
            self.transport.resume_reading()
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._wait_for(_LINGER, LINGER_S)
        else:
            self._close()

    def _close_idle(self) -> None:
        if self._has_unread_bytes():
            # A request came in the moment between; closing now would lose it (the 502 of many a proxy).
            self._wait_for(_NEXT_REQUEST, self.runtime.sweep_s)
        else:
            self._close()

    def _has_unread_bytes(self) -> bool:
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return False
        readable = select.poll() if hasattr(select, "poll") else None
        if readable is None:
            return False
        readable.register(sock.fileno(), select.POLLIN)
        return bool(readable.poll(0))

    def _close_headless(self) -> None:
        if not self.engine.is_reading_head:
            self._close()
            return
        self.runtime.bad_requests.add(self._client, "its head did not come in time (408)", b"")
        self.engine.send_error(408)
        self._linger()

    def _give_up_body(self) -> None:
        exchange = self.exchange
        if exchange is None:
            self._close()
            return
        if not exchange.waits_for_body:
            return
        self.runtime.bad_requests.add(self._client, "its body did not come in time (408)", b"")
        exchange.fail(RemoteProtocolError("The body did not come in time", 408))
        self._end_exchange(exchange)
        self._linger()

    def _check_progress(self) -> None:
        """The client has taken too little to be under the mark; has it taken anything?"""
        unwritten = self.transport.get_write_buffer_size()
        if unwritten < self._unwritten_bytes:
            self._unwritten_bytes = unwritten
            self._wait_for(_WRITE, self.runtime.timeouts.write_s)
        else:
            self.transport.abort()
