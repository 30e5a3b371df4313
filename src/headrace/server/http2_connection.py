"""One TCP, TLS or Unix connection that speaks HTTP/2.

    transport ──data_received──▶ engine ──events──▶ streams ──▶ exchanges, sessions
        ▲                          │
        └────────── flush ─────────┘        once a turn, for all streams together

A connection waits for its first request (``--timeout-header``), and without streams for the next one
(``--timeout-keep-alive``); streams have deadlines of their own. The engine is emptied in slices, and while
the transport takes no more it is not: what exchanges send waits there, stream by stream, so that what is
urgent goes ahead of all that the client's windows would let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from time import monotonic
from typing import cast

from headrace.asgi.scope import ScopeTemplate
from headrace.net.sockets import local_address, peer_address
from headrace.protocol.events import (
    ConnectionEnded,
    ConnectionFailed,
    DataReceived,
    EndHeard,
    Event,
    RequestReceived,
    RequestRepeated,
    StreamFailed,
    StreamsClosed,
    TrailersReceived,
)
from headrace.protocol.http2 import HTTP2Engine
from headrace.server.http2_stream import HTTP2Stream
from headrace.server.runtime import Runtime
from headrace.server.upgrades import scope_template
from headrace.types import Address

LINGER_S = 2.0
"""How long a peer has to take the last frames and to end; and how long one that was told of the end may still
open streams that it had on the way."""


SLICE_BYTES = 131_072
"""Taken from the engine at once: what comes later and is more urgent waits for no more than this, and for
what the transport holds below its mark."""

UNSENT_BYTES = 131_072
"""Kept by the kernel beyond what is on its way to the client. It would hold megabytes, behind which nothing
is urgent any more."""

LAST_WORDS_BYTES = 32_768
"""Written though the transport is over its mark: the rest of a frame, and what goes before all bodies."""

TICK_S = 1.0
"""Between two refills of the engine's allowances; sweeps may come more often."""


class HTTP2Connection(asyncio.Protocol):
    """An asyncio protocol; its streams carry the exchanges.

    Args:
        runtime: what all connections share.
        client, server: in place of the socket's own addresses, when a PROXY header has told them.
    """

    __slots__ = (
        "_asked", "_closes_when_written", "_deadline", "_is_announced", "_server", "_tick_due",
        "_unwritten_bytes", "_waiting", "_write_deadline", "client", "engine", "is_closing",
        "is_flush_due", "is_writable", "runtime", "streams", "template", "transport", "turn",
    )  # fmt: skip

    def __init__(self, runtime: Runtime, client: Address | None, server: Address | None) -> None:
        self.runtime = runtime
        self.turn = runtime.turn
        self.client = client
        self._server = server
        self.engine = HTTP2Engine(runtime.http2_limits, runtime.http2_defaults)
        self.streams: dict[int, HTTP2Stream] = {}
        self.transport = cast("asyncio.Transport", None)
        self.template = cast("ScopeTemplate", None)
        self.is_writable = True
        self.is_closing = False
        self.is_flush_due = False
        self._is_announced = False
        """The client has been told to open no more streams."""
        self._asked = 0
        """How often the client has been asked whether it has read all, and has not answered."""
        self._deadline = 0.0
        """For the client to ask for something, or to end."""
        self._write_deadline = 0.0
        """For the client to take something."""
        self._closes_when_written = False
        self._tick_due = 0.0
        self._unwritten_bytes = 0
        self._waiting: set[HTTP2Stream] = set()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open, and known to speak HTTP/2."""
        runtime = self.runtime
        self.transport = cast("asyncio.Transport", transport)
        if self.client is None:
            self.client = peer_address(self.transport)
            self._server = local_address(self.transport)
        self.template = scope_template(runtime, self.transport, self.client, self._server)
        _keep_little_unsent(self.transport)
        runtime.connections.add(self)
        limit = runtime.connection_limit
        if limit is not None and not limit.admit(self):
            self.transport.pause_reading()
            return
        self._begin()

    def on_admitted(self) -> None:
        """It had to wait for ``--limit-connections``, and now is served."""
        self.transport.resume_reading()
        self._begin()

    def _begin(self) -> None:
        self._deadline = self.runtime.deadline_in(self.runtime.timeouts.header_s)
        self.flush()
        if self.runtime.is_ending:
            self.drain()

    def data_received(self, data: bytes) -> None:
        """The client sent something."""
        if self.is_closing:
            return
        self._take(self.engine.receive_data(data))
        # Also where nothing is answered: an opened window lets go what is queued, and wakes who waits.
        self.flush_later()

    def eof_received(self) -> bool:
        """The client sent its end: in HTTP/2 it can then not open windows either, so all is over."""
        if not self.is_closing:
            # The transport closes, but not before the client has taken what is still unwritten.
            self.is_closing = True
            self._close_streams()
            self._deadline = self.runtime.deadline_in(LINGER_S)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        runtime = self.runtime
        runtime.connections.discard(self)
        self.is_closing = True
        self.is_writable = True
        self._deadline = self._write_deadline = 0.0
        self._close_streams()
        if runtime.connection_limit is not None:
            runtime.connection_limit.release(self)
        runtime.on_connection_lost()

    def pause_writing(self) -> None:
        """The transport is over its high mark."""
        self.is_writable = False
        self._unwritten_bytes = self.transport.get_write_buffer_size()
        self._write_deadline = self.runtime.deadline_in(self.runtime.timeouts.write_s)

    def resume_writing(self) -> None:
        """The transport is under its low mark again."""
        self.is_writable = True
        self._write_deadline = 0.0
        if self.is_closing:
            self._deadline = self.runtime.deadline_in(LINGER_S)
        else:
            # Not from within this call of the transport's: asyncio's must not be closed in it.
            self.runtime.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.is_writable and not self.is_closing:
            self.flush()
            self._wait_if_idle()

    # The streams' side

    def flush_later(self) -> None:
        """Write at the end of the turn, for all streams that send until then."""
        if not self.is_flush_due:
            self.is_flush_due = True
            self.turn.flush_later(self)

    def flush(self) -> None:
        """Write what may be sent now, until the transport is over its mark."""
        self.is_flush_due = False
        if not self.is_writable or self.is_closing:
            return
        self.write_early()
        events = self.engine.events()
        if events:
            self._take(events)
        if self._waiting:
            self._wake_writers()

    def write_early(self) -> None:
        """Write, and leave what comes of it (streams that are over) to the ``flush`` that follows."""
        if self.is_writable and not self.is_closing:
            data = self.engine.data_to_send(SLICE_BYTES)
            if data:
                self.transport.write(data)
                if len(data) >= SLICE_BYTES:
                    self._write_more()

    def wait_for_window(self, stream: HTTP2Stream) -> None:
        """Call the stream's ``release`` when enough of what it queued is gone."""
        self._waiting.add(stream)

    # The engine's side

    def _take(self, events: Sequence[Event]) -> None:
        streams = self.streams
        for event in events:
            if isinstance(event, RequestReceived):
                self._deadline = 0.0
                stream_id = event.stream_id
                stream = streams[stream_id] = HTTP2Stream(self, stream_id)
                stream.start(event)
            elif isinstance(event, RequestRepeated):
                self._deadline = 0.0
                self._start_again(event.request, event.stream_ids)
            elif isinstance(event, StreamsClosed):
                self._on_closed(event.stream_ids)
            elif isinstance(event, DataReceived):
                known = streams.get(event.stream_id)
                if known is None:
                    self.engine.consumed(event.stream_id, len(event.data))
                else:
                    known.feed(event)
            elif isinstance(event, TrailersReceived):
                known = streams.get(event.stream_id)
                if known is not None:
                    known.feed_trailers(event.headers)
            elif isinstance(event, StreamFailed):
                self._on_stream_failed(event)
            elif isinstance(event, EndHeard):
                self._asked -= 1
                self._finish()
            elif isinstance(event, ConnectionEnded):
                self._close_streams()
                self._end()
                return
            elif isinstance(event, ConnectionFailed):
                self._on_failed(event)
                return

    def _start_again(self, request: RequestReceived, stream_ids: list[int]) -> None:
        """Do for several what ``HTTP2Stream.start`` does for one."""
        runtime = self.runtime
        if runtime.has_limits or request.upgrade:
            for stream_id in stream_ids:
                stream = self.streams[stream_id] = HTTP2Stream(self, stream_id)
                stream.start(request)
            return
        runtime.total_requests += len(stream_ids)
        started_s = monotonic() if runtime.takes_time else 0.0
        streams = [HTTP2Stream(self, stream_id, request, started_s) for stream_id in stream_ids]
        self.streams.update(zip(stream_ids, streams, strict=True))
        runtime.turn.start_all(streams)

    def _on_closed(self, stream_ids: list[int]) -> None:
        streams = self.streams
        for stream_id in stream_ids:
            stream = streams.pop(stream_id, None)
            if stream is not None and not stream.is_done:
                self._waiting.discard(stream)
                stream.on_closed()
        if not streams:
            self._wait_if_idle()

    def _on_stream_failed(self, event: StreamFailed) -> None:
        self.runtime.bad_requests.add(self.client, str(event.error), b"")
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.fail(event.error)

    def _on_failed(self, event: ConnectionFailed) -> None:
        """The connection is lost for all its streams; GOAWAY says why."""
        self.runtime.bad_requests.add(self.client, str(event.error), b"")
        data = self.engine.data_to_send()
        if data:
            self.transport.write(data)
        self._close_streams()
        self._end()

    def _close_streams(self) -> None:
        streams = list(self.streams.values())
        self.streams.clear()
        self._waiting.clear()
        for stream in streams:
            stream.on_closed()

    # The server's side

    def on_sweep(self, now: float) -> None:
        """Act on what is due, for the connection and its streams."""
        if now >= self._tick_due:
            self._tick_due = now + TICK_S
            self.engine.tick()
        if self._closes_when_written and not self.transport.get_write_buffer_size():
            self.transport.close()
        if 0.0 < self._deadline <= now:
            self._on_deadline()
        if 0.0 < self._write_deadline <= now:
            self._check_progress()
        for stream in list(self.streams.values()):
            stream.on_sweep(now)

    def drain(self) -> None:
        """Take no more streams, let those there are end, and close behind the last. RFC 9113 §6.8."""
        if self._is_announced or self.is_closing:
            return
        self._is_announced = True
        self._asked += 1
        self.engine.announce_end()
        for stream in list(self.streams.values()):
            stream.drain()
        # A client that is slow to read is told as well, before it asks for more.
        self._write_first(LAST_WORDS_BYTES)
        self.flush()
        if not self.streams:
            # What is on the way in this moment is still served; ``EndHeard`` closes.
            self._deadline = self.runtime.deadline_in(LINGER_S)

    def abort(self) -> None:
        """Cut it."""
        self.is_closing = True
        self.transport.abort()

    # Within

    def _write_more(self) -> None:
        data_to_send = self.engine.data_to_send
        while self.is_writable:
            data = data_to_send(SLICE_BYTES)
            if data:
                self.transport.write(data)
            if len(data) < SLICE_BYTES:
                return

    def _write_first(self, most_bytes: int) -> None:
        """Write what goes before all bodies, whatever the transport holds."""
        data = self.engine.data_to_send(most_bytes)
        if data:
            self.transport.write(data)
            self._take(self.engine.events())

    def _wait_if_idle(self) -> None:
        """Start the keep-alive timer when no stream is open."""
        if self.streams or self.is_closing or not self.is_writable:
            # A transport that takes nothing has a deadline of its own.
            return
        runtime = self.runtime
        if runtime.is_draining or not runtime.timeouts.keep_alive_s:
            self._close_behind_last()
        else:
            self._deadline = runtime.keep_alive_deadline

    def _close_behind_last(self) -> None:
        """The last stream has ended; its client may still be reading it.

        What a client sends of its own accord while it reads, behind our end, makes asyncio's TLS cut the
        connection, and the reset takes away what it has not read.
        """
        if not self._asked and self.transport.can_write_eof():
            self._close()
            return
        if not self._asked:
            self._asked = 1
            self.engine.ask()
            self.flush_later()
        self._deadline = self.runtime.deadline_in(LINGER_S)

    def _finish(self) -> None:
        """The client has read what was sent: name the last stream that is served, or close."""
        if not self.streams:
            if not self._asked:
                self._close()
            return
        self.engine.end()
        self.flush_later()

    def _close(self) -> None:
        """No stream is open and none is to come."""
        self.engine.end()
        self._write_first(LAST_WORDS_BYTES)
        if not self.is_closing:
            self._end()

    def _end(self) -> None:
        """Close behind what is written; what the peer still sends is dropped."""
        self.is_closing = True
        self._deadline = self.runtime.deadline_in(LINGER_S)
        if self.transport.can_write_eof() and not self.transport.is_closing():
            with contextlib.suppress(OSError):  # the client may have reset it in this moment
                self.transport.write_eof()
        elif self.transport.get_write_buffer_size():
            # asyncio's TLS drops what is unwritten when it is closed; ``on_sweep`` looks again.
            self._closes_when_written = True
        else:
            self.transport.close()

    def _on_deadline(self) -> None:
        self._deadline = 0.0
        if not self.is_closing:
            # While the transport is over its mark, the client cannot have heard of an end; see ``_go_on``.
            if not self.streams and self.is_writable:
                self._close()
        elif self._write_deadline:
            pass  # its last response is on its way, and watched
        elif self.transport.get_write_buffer_size():
            self._unwritten_bytes = self.transport.get_write_buffer_size()
            self._write_deadline = self.runtime.deadline_in(self.runtime.timeouts.write_s)
        else:
            self.transport.abort()

    def _check_progress(self) -> None:
        """The client has taken too little to be under the mark; has it taken anything?"""
        unwritten = self.transport.get_write_buffer_size()
        if not unwritten:
            self._write_deadline = 0.0
            self._deadline = self.runtime.deadline_in(LINGER_S)
        elif unwritten < self._unwritten_bytes:
            self._unwritten_bytes = unwritten
            self._write_deadline = self.runtime.deadline_in(self.runtime.timeouts.write_s)
        else:
            self._write_deadline = 0.0
            self.abort()

    def _wake_writers(self) -> None:
        for stream in list(self._waiting):
            if stream.has_room():
                self._waiting.discard(stream)
                stream.release()


def _keep_little_unsent(transport: asyncio.Transport) -> None:
    """Let what waits wait where it has an order, and not in the kernel."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    sock = transport.get_extra_info("socket")
    if option is None or sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # the client may have reset it in this moment
        sock.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)
