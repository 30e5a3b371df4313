"""The HTTP/1.1 engine of one connection, server side.

    IDLE ──head──▶ BODY ──its end──▶ ANSWERING ──start_next_cycle──▶ IDLE
      └───head without body────────────▲  │
                                          └─ last response, or a protocol error ──▶ CLOSED

One request at a time: what a client sends behind it (pipelining, RFC 9112 §9.3.2) stays bytes until the
response is complete. When the response ends before the request's body does, the rest is read and dropped
(``discarding``), up to ``MAX_DISCARDED_BYTES``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import httptools

from headrace.errors import RemoteProtocolError
from headrace.protocol.events import (
    HTTP2_PREFACE,
    ConnectionFailed,
    DataReceived,
    Event,
    PrefaceReceived,
    TrailersReceived,
)
from headrace.protocol.http1.chunked import ChunkedDecoder
from headrace.protocol.http1.parser import CHUNKED, Head, HeadParser, status_of
from headrace.protocol.http1.responder import Responder
from headrace.protocol.http1.response import ResponseDefaults, error_response

MAX_DISCARDED_BYTES = 1_048_576
"""Rest of an unread body that is read and dropped to keep the connection; above it the connection closes."""

MAX_REMEMBERED_HEAD_BYTES = 2048

_LINE_ENDS = b"\r\n"

NO_EVENTS: tuple[Event, ...] = ()


class State(Enum):
    """What the next byte of the client is."""

    IDLE = auto()
    """Part of a request head."""
    BODY = auto()
    """Part of the body of the request under way."""
    ANSWERING = auto()
    """Part of a later request; it waits until the response is complete."""
    CLOSED = auto()
    """Nothing; ignore it."""


# An enum's members are looked up by a descriptor, which costs more than the branch it decides.
_IDLE, _BODY, _ANSWERING, _CLOSED = State


class _Scout:
    """Takes no callbacks: it only lets llhttp find what is wrong in a head that is not yet whole."""


class HTTP1Engine(Responder):
    """Bytes of one connection to events; its ``Responder`` half makes bytes of responses.

    Args:
        parser: checks heads; may be shared by all connections of a thread.
        defaults: what responses begin with.
        sniffs_http2: the first bytes may be the preface of HTTP/2, which is then told.

    Attributes:
        state: what the next byte is.
        discarding: a body is read only to be dropped; no events come of it.
    """

    __slots__ = (
        "_body_left", "_counted_bytes", "_decoder", "_eof", "_last", "_last_bytes", "_parser", "_partial",
        "_scout", "_sniffed", "discarding", "pending", "state",
    )  # fmt: skip

    def __init__(self, parser: HeadParser, defaults: ResponseDefaults, sniffs_http2: bool = False) -> None:
        super().__init__(defaults)
        self._sniffed: bytes | None = b"" if sniffs_http2 else None
        self._parser = parser
        self.state = _IDLE
        self.discarding = False
        self.pending = b""
        """Bytes of later requests."""
        self._last_bytes: bytes | None = None
        self._last: Head | None = None
        self._partial: bytearray | None = None
        self._scout: httptools.HttpRequestParser | None = None
        self._decoder: ChunkedDecoder | None = None
        self._body_left = 0
        self._counted_bytes = 0
        self._eof = False

    @property
    def is_reading_head(self) -> bool:
        """A part of a head has arrived and the rest has not."""
        return self._partial is not None or bool(self._sniffed)

    @property
    def should_close(self) -> bool:
        """Nothing more can be exchanged once the out-buffer is written."""
        return self.state is _CLOSED or (self._eof and self.state is _IDLE)

    @property
    def is_abandoning_body(self) -> bool:
        """The connection ends although the client is still sending a body."""
        return self.state is _CLOSED and (self._body_left > 0 or self._decoder is not None)

    def receive_data(self, data: bytes) -> Sequence[Event]:
        """Take what the socket gave.

        Returns:
            Events in order; none at all while a head is incomplete or a later request waits.
        """
        state = self.state
        if state is _IDLE:
            if self._sniffed is not None:
                data = self._sniffed + data
                if HTTP2_PREFACE.startswith(data):
                    self._sniffed = data
                    return NO_EVENTS if len(data) < len(HTTP2_PREFACE) else (PrefaceReceived(data),)
                self._sniffed = None
                if data.startswith(HTTP2_PREFACE):
                    return (PrefaceReceived(data),)
            # A client that keeps its connection often repeats itself to the byte (polls, probes, the same
            # page's requests). The head that was found right once is right again.
            last = self._last
            if last is not None and data == self._last_bytes and self._partial is None:
                self.state = _ANSWERING
                self.keep_alive = last.keep_alive
                return last.events
            try:
                return self._receive_head(data)
            except RemoteProtocolError as error:
                return self._fail(error)
        if state is _BODY:
            try:
                return self._receive_body(data)
            except RemoteProtocolError as error:
                return self._fail(error)
        if state is _ANSWERING:
            self.pending += data
        return NO_EVENTS

    def receive_eof(self) -> None:
        """The client will send nothing more; what it has sent whole is still answered."""
        self._eof = True
        if self.state is _BODY or (self.state is _IDLE and self.is_reading_head):
            self.state = _CLOSED
            self.keep_alive = False

    def start_next_cycle(self) -> Sequence[Event] | None:
        """The response is complete: go on to the next request.

        Returns:
            The events of a request that has arrived already; None when the connection is to end.
        """
        state = self.state
        if state is _ANSWERING and self.keep_alive:
            self.state = _IDLE
            if not self.pending:
                return None if self._eof else NO_EVENTS
            data = self.pending
            self.pending = b""
            try:
                events = self._receive_head(data, is_alone=False)
            except RemoteProtocolError as error:
                events = self._fail(error)
            if self._eof and (self.state is _IDLE or self.state is _BODY):
                # The rest of an incomplete request will not come, so it does not begin.
                self.state = _CLOSED
                return None
            return events
        if state is _BODY and self.keep_alive and self._body_left <= MAX_DISCARDED_BYTES:
            self.discarding = True
            self._counted_bytes = 0
            return NO_EVENTS
        self.state = _CLOSED
        return None

    def forget(self) -> None:
        """Give back what only makes the next request faster; for connections that have gone idle."""
        self._last = self._last_bytes = None

    def _receive_head(self, data: bytes, is_alone: bool = True) -> Sequence[Event]:
        """Take bytes at the place of a head.

        Args:
            data: as they came.
            is_alone: most likely they are one head. Of pipelined ones each would be parsed with all behind
                it, which costs the square of their number.
        """
        if self._partial is None:
            if not data or data[0] in _LINE_ENDS:
                # RFC 9112 §2.2: empty lines before a request are skipped.
                data = data.lstrip(_LINE_ENDS)
                if not data:
                    return NO_EVENTS
            if is_alone and data.endswith(b"\r\n\r\n") and len(data) <= self._parser.limits.head_bytes:
                head = self._parser.parse_if_whole(data)
                if head is not None:
                    return self._begin_whole(head, data)
            end = data.find(b"\r\n\r\n") + 4
        else:
            searched = max(len(self._partial) - 3, 0)
            self._partial += data
            end = self._partial.find(b"\r\n\r\n", searched) + 4
            if end >= 4:
                data = bytes(self._partial)
                self._partial = self._scout = None
        limit = self._parser.limits.head_bytes
        if end < 4:
            self._receive_partial_head(data, limit)
            return NO_EVENTS
        if end > limit:
            line_end = data.find(b"\r\n")
            too_long = line_end > self._parser.limits.request_line_bytes
            raise RemoteProtocolError(f"Request head of {end} bytes", 414 if too_long else 431)
        return self._begin(self._parser.parse(data[:end]), data[end:])

    def _begin_whole(self, head: Head, data: bytes) -> Sequence[Event]:
        """Start a request of which ``data`` is the head and nothing else.

        What it means is remembered when the same bytes come a second time: most that come once never do.
        """
        event, body_length, keep_alive, upgrades, events = head
        if body_length != 0:
            return self._begin(head, b"")
        if data == self._last_bytes:
            self._last = head
        elif not upgrades and len(data) <= MAX_REMEMBERED_HEAD_BYTES:
            self._last_bytes = data
            self._last = None
        self.keep_alive = keep_alive
        self._version_1_0 = event.http_version == "1.0"
        self.state = _ANSWERING
        return events

    def _receive_partial_head(self, data: bytes, limit: int) -> None:
        """Keep an incomplete head, and refuse at once what cannot become a good one."""
        if self._partial is None:
            self._partial = bytearray(data)
            self._scout = httptools.HttpRequestParser(_Scout())
        partial = self._partial
        line_limit = self._parser.limits.request_line_bytes
        if len(partial) > line_limit + 1 and partial.find(b"\r\n", 0, line_limit + 2) < 0:
            raise RemoteProtocolError(f"Request line of more than {line_limit} bytes", 414)
        if len(partial) > limit:
            raise RemoteProtocolError(f"Request head of more than {limit} bytes", 431)
        assert self._scout is not None
        try:
            self._scout.feed_data(data)
        except httptools.HttpParserError as error:
            raise RemoteProtocolError(f"{error}", status_of(error, partial)) from None

    def _begin(self, head: Head, behind: bytes) -> Sequence[Event]:
        """Start a request whose head is ``head`` and behind which ``behind`` has arrived."""
        event = head.event
        self.keep_alive = head.keep_alive
        self._version_1_0 = event.http_version == "1.0"
        if head.body_length == 0:
            self.state = _ANSWERING
            self.pending = behind
            return head.events
        self.state = _BODY
        self._continue_due = event.expects_continue and not behind
        if head.body_length == CHUNKED:
            self._body_left = 0
            self._decoder = ChunkedDecoder(self._parser.limits.head_bytes)
            self._counted_bytes = 0
        else:
            self._body_left = head.body_length
        if not behind:
            return head.events
        try:
            return (event, *self._receive_body(behind))
        except RemoteProtocolError:
            # No exchange is under way yet, so none begins, and the answer is ours to give.
            self.state = _IDLE
            raise

    def _receive_body(self, data: bytes) -> Sequence[Event]:
        # A client that sends the body no longer waits for 100 Continue.
        self._continue_due = False
        if self._decoder is not None:
            return self._receive_chunked(self._decoder, data)
        left = self._body_left
        if len(data) > left:
            self.pending = data[left:]
            data = data[:left]
        self._body_left = left = left - len(data)
        if left == 0:
            return self._end_body(DataReceived(1, data, True))
        return NO_EVENTS if self.discarding else (DataReceived(1, data, False),)

    def _receive_chunked(self, decoder: ChunkedDecoder, data: bytes) -> Sequence[Event]:
        body = decoder.feed(data)
        self._counted_bytes += len(body)
        if self.discarding:
            if self._counted_bytes > MAX_DISCARDED_BYTES:
                self.state = _CLOSED
                return NO_EVENTS
        else:
            limit = self._parser.limits.body_bytes
            if limit is not None and self._counted_bytes > limit:
                raise RemoteProtocolError(f"Request body of more than {limit} bytes", 413)
        if not decoder.complete:
            return NO_EVENTS if self.discarding or not body else (DataReceived(1, body, False),)
        self._decoder = None
        self.pending = decoder.surplus
        trailers = self._parser.parse_trailers(decoder.trailer_section) if decoder.trailer_section else None
        if trailers is None or self.discarding:
            return self._end_body(DataReceived(1, body, True))
        data_event = (DataReceived(1, body, False),) if body else ()
        return (*data_event, *self._end_body(TrailersReceived(1, trailers)))

    def _end_body(self, event: Event) -> Sequence[Event]:
        self.state = _ANSWERING
        if not self.discarding:
            return (event,)
        self.discarding = False
        return self.start_next_cycle() or NO_EVENTS

    def _fail(self, error: RemoteProtocolError) -> Sequence[Event]:
        """Give up the connection; the answer goes out unless an exchange is under way to give it."""
        if self.state is _IDLE:
            self._out.append(error_response(self._defaults, error.status))
        self.state = _CLOSED
        self.keep_alive = False
        self._partial = self._scout = None
        self.pending = b""
        return (ConnectionFailed(error),)
