"""What a connection waits for, until when, and what happens then.

A connection has one deadline and its reason; a sweep over all connections looks at them (``Sweep``). The
ends of a connection are here too, because most of them come of a deadline.

    close    everything encoded is written, then the transport closes
    linger   the same, and what the client still sends is read and dropped for a moment
    abort    at once; the client must not take what it has for the whole
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
from enum import Enum, auto
from typing import cast

from headrace.asgi.http import HTTPExchange
from headrace.errors import RemoteProtocolError
from headrace.protocol.http1 import HTTP1Engine
from headrace.server.pieces import write_pieces
from headrace.server.runtime import Runtime
from headrace.types import Address

LINGER_S = 2.0
"""How long the rest of a refused request is read and dropped: closing at once would reset the connection,
and a reset can take the answer away from the client before it has read it."""


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


class TimedConnection(asyncio.Protocol):
    """The deadline of a connection and its ends; ``HTTPConnection`` is the rest.

    Attributes:
        waiting: what the deadline is for.
        deadline: a time of the loop's clock; 0.0 is none.
        exchange: the one under way.
    """

    __slots__ = (
        "client", "deadline", "engine", "exchange", "is_closing", "is_reading", "runtime", "transport",
        "unwritten_bytes", "waiting",
    )  # fmt: skip

    def __init__(self, runtime: Runtime, client: Address | None) -> None:
        self.runtime = runtime
        self.engine = HTTP1Engine(runtime.parser, runtime.defaults, runtime.serves_http2)
        self.exchange: HTTPExchange | None = None
        self.transport = cast("asyncio.Transport", None)
        self.client = client
        self.waiting = _NOTHING
        self.deadline = 0.0
        self.is_reading = True
        self.is_closing = False
        self.unwritten_bytes = 0

    def on_sweep(self, now: float) -> None:
        """Act if the deadline has passed, and ``forget`` when idle."""
        if 0.0 < self.deadline <= now:
            self._on_deadline()
        elif self.waiting is _NEXT_REQUEST:
            self.forget()
            if self.engine.is_reading_head:
                # Half a head came behind the last request, and nothing since.
                self.wait_for(_HEAD, self.runtime.timeouts.header_s)

    def forget(self) -> None:
        """Give back what an idle connection can do without."""
        self.engine.forget()

    def flush(self) -> None:
        """Write what the engine has encoded."""
        data = self.engine.data_to_send()
        if isinstance(data, list):
            write_pieces(self.transport, data)
        elif data:
            self.transport.write(data)

    def abort(self) -> None:
        """Cut the connection: the client must not take what it has for the whole."""
        self.flush()
        self.is_closing = True
        if self.engine.is_close_delimited:
            self._reset_on_close()
        self.transport.abort()

    def _reset_on_close(self) -> None:
        """Where the end of the connection is the end of the body, only a reset says that it is not."""
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return
        # The options belong to the connection, not to the descriptor.
        with socket.socket(fileno=os.dup(sock.fileno())) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def wait_for(self, what: Waiting, timeout_s: float) -> None:
        """Set the deadline; a timeout of 0 sets none."""
        self.waiting = what
        self.deadline = self.runtime.deadline_in(timeout_s)

    def wait_for_nothing(self) -> None:
        """Take the deadline away."""
        self.waiting = _NOTHING
        self.deadline = 0.0

    def _on_deadline(self) -> None:
        waiting = self.waiting
        self.wait_for_nothing()
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
            self.unwritten_bytes = self.transport.get_write_buffer_size()
            self.wait_for(_WRITE, self.runtime.timeouts.write_s)
        else:
            self.transport.abort()

    def end_exchange(self, exchange: HTTPExchange) -> None:
        """The response is out, or will never be."""
        if self.exchange is exchange:
            self.exchange = None
            self.record(exchange)

    def record(self, exchange: HTTPExchange) -> None:
        """Tell the consumers what is known of the exchange at its end."""
        if not exchange.is_recorded:
            return
        consumers = self.runtime.consumers
        if consumers:
            finished = exchange.finished()
            for consumer in consumers:
                consumer.add(finished)

    def close(self) -> None:
        """Close when everything is written."""
        self.flush()
        self.is_closing = True
        self.wait_for(_LINGER, self.runtime.timeouts.write_s)
        self.transport.close()

    def linger(self) -> None:
        """Send what there is and our end, and go on reading for a moment, dropping what comes."""
        self.flush()
        self.is_closing = True
        if not self.is_reading:
            self.is_reading = True
            self.transport.resume_reading()
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the client may have reset it in this moment
                self.transport.write_eof()
            self.wait_for(_LINGER, LINGER_S)
        else:
            self.close()

    def has_unread_bytes(self) -> bool:
        """The kernel holds something that the client sent."""
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return False
        readable = select.poll() if hasattr(select, "poll") else None
        if readable is None:
            return False
        readable.register(sock.fileno(), select.POLLIN)
        return bool(readable.poll(0))

    def _close_idle(self) -> None:
        if self.has_unread_bytes():
            # A request came in the moment between; closing now would lose it (the 502 of many a proxy).
            self.wait_for(_NEXT_REQUEST, self.runtime.sweep_s)
        else:
            self.close()

    def _close_headless(self) -> None:
        if not self.engine.is_reading_head:
            self.close()
            return
        self.runtime.bad_requests.add(self.client, "its head did not come in time (408)", b"")
        self.engine.send_error(1, 408)
        self.linger()

    def _give_up_body(self) -> None:
        exchange = self.exchange
        if exchange is None:
            self.close()
            return
        if not exchange.waits_for_body:
            return
        self.runtime.bad_requests.add(self.client, "its body did not come in time (408)", b"")
        self.give_up(exchange, RemoteProtocolError("The body did not come in time", 408))

    def give_up(self, exchange: HTTPExchange, error: RemoteProtocolError) -> None:
        """Answer a request whose rest is broken, or leave its response visibly incomplete."""
        is_answered = exchange.fail(error)
        self.end_exchange(exchange)
        if self.engine.is_close_delimited and not is_answered:
            self.abort()
        else:
            self.linger()

    def _check_progress(self) -> None:
        """The client has taken too little to be under the mark; has it taken anything?"""
        unwritten = self.transport.get_write_buffer_size()
        if unwritten < self.unwritten_bytes:
            self.unwritten_bytes = unwritten
            self.wait_for(_WRITE, self.runtime.timeouts.write_s)
        else:
            self.transport.abort()
