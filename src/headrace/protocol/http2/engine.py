"""The HTTP/2 engine of one connection, server side.

Frames, HPACK, flow control and the states of streams are libnghttp2's. What is ours: which requests are
refused and how, how much a stream may hold, what a flood is, and the same calls and events that HTTP/1.1 has.

A stream is over when ``StreamsClosed`` says so.

Floods (RFC 9113 §10.5). A connection has two allowances, refilled at each ``tick`` of whoever owns the clock:

- **resets**: streams that the client ends, or makes end, before their response was given whole (rapid
  reset, CVE-2023-44487, and its kin that provoke a reset by the server). Each stream that ends in order gives
  one back, so a client that works is never taken for one that floods.
- **control frames**: SETTINGS, PING, GOAWAY, PRIORITY_UPDATE and empty DATA, which cost more than they carry.
  WINDOW_UPDATE costs a tenth of these, and body sent pays for it.

Whoever uses one up is sent GOAWAY with ENHANCE_YOUR_CALM. Header sections, CONTINUATION frames and SETTINGS
entries are bounded by libnghttp2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from headrace.errors import RemoteProtocolError
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
from headrace.protocol.http2.binding import is_available, ngh2
from headrace.protocol.http2.limits import HTTP2Limits
from headrace.protocol.http2.request import FEW_FIELDS, read_request, read_trailers
from headrace.protocol.http2.response import HTTP2Defaults, Pair
from headrace.protocol.http2.writer import NO_ERROR, REQUEST_WHOLE, RESPONSE_WHOLE, TUNNEL, ResponseWriter

MAX_RESETS = 1_000
RESETS_PER_TICK = 33
MAX_CONTROL = 10_000
CONTROL_COST = 10
"""Of a frame that carries nothing: so 1,000 between two ticks."""
BYTES_PER_CONTROL = 256
CONTROL_PER_STREAM = 4
"""Given back by each stream that ends in order: clients open windows for it, however little it carried."""

PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 1, 11

_LARGE_BYTES = 16_384
_END_PING = b"headrace"


class HTTP2Engine(ResponseWriter):
    """Bytes of one connection to events of its streams; its ``ResponseWriter`` half is what exchanges call.

    Args:
        limits: what a client may ask for.
        defaults: what responses begin with.

    Attributes:
        last_stream_id: the highest stream whose request has been given out.
        is_failed: nothing more is read or encoded; ``data_to_send`` has the last words.
    """

    __slots__ = (
        "_control", "_has_peer_ended", "_large_bytes", "_last_fields", "_last_request", "_last_words",
        "_limits", "_partial_bytes", "_received", "_resets", "is_failed", "last_stream_id",
    )  # fmt: skip

    def __init__(self, limits: HTTP2Limits, defaults: HTTP2Defaults) -> None:
        super().__init__(ngh2.Connection(ngh2.Role.SERVER, _configuration(limits)), defaults)
        self._limits = limits
        # Below these limits even a few small fields may be too much.
        is_narrow = limits.head_bytes < 4 * _LARGE_BYTES or limits.fields < FEW_FIELDS
        self._large_bytes = -1 if is_narrow else _LARGE_BYTES
        self._partial_bytes = 0
        """At most so much has been read of a header section that is not yet whole."""
        self._received: dict[int, int] = {}
        self._last_fields: tuple[Pair, ...] = ()
        self._last_request = cast("RequestReceived", None)
        self._resets = MAX_RESETS
        self._control = MAX_CONTROL
        self._last_words = b""
        self.last_stream_id = 0
        self.is_failed = False
        self._has_peer_ended = False
        self._ngh2.initiate_connection({
            ngh2.Setting.MAX_CONCURRENT_STREAMS: limits.streams,
            ngh2.Setting.INITIAL_WINDOW_SIZE: limits.window_bytes,
            ngh2.Setting.MAX_HEADER_LIST_SIZE: limits.head_bytes,
            ngh2.Setting.ENABLE_CONNECT_PROTOCOL: int(limits.allows_connect),
            ngh2.Setting.NO_RFC7540_PRIORITIES: 1,
        })  # fmt: skip
        self._ngh2.set_local_window_size(limits.connection_window_bytes)

    # Receiving

    def receive_data(self, data: bytes) -> Sequence[Event]:
        """Take what the socket gave; does not raise for what a peer sends."""
        if self.is_failed:
            return ()
        error: RemoteProtocolError | None = None
        try:
            self._ngh2.receive_data(data)
        except ngh2.DenialOfServiceError as dos:
            error = RemoteProtocolError(str(dos), error_code=ENHANCE_YOUR_CALM)
        except ngh2.NGH2Error as broken:
            error = RemoteProtocolError(str(broken), error_code=PROTOCOL_ERROR)
        size = len(data)
        events = self.events(self._partial_bytes + size > self._large_bytes)
        # A header section is not interrupted by anything that gives an event, RFC 9113 §4.3.
        self._partial_bytes = size if events else self._partial_bytes + size
        if error is not None and not self.is_failed:
            self._fail(error, events)
        return events

    def events(self, is_large: bool = False) -> list[Event]:
        """What has happened since: by what was received, and by what was sent."""
        found: list[Event] = []
        repeated: list[int] = []
        closed: list[int] = []
        event: Any
        for event in self._ngh2.events():
            kind = type(event)
            if kind is _CLOSED:
                closed.append(event.stream_id)
                continue
            if closed:
                self._close(closed, found)
                closed = []
                repeated = []
            # Clients often repeat themselves (polls, probes, the same page's requests). The fields that were
            # found right once are right again.
            if kind is _REQUEST and event.headers == self._last_fields and event.end_stream:
                self.last_stream_id = stream_id = event.stream_id
                self._streams[stream_id] = REQUEST_WHOLE
                if not repeated:
                    found.append(RequestRepeated(self._last_request, repeated))
                repeated.append(stream_id)
            else:
                repeated = []
                self._on_event(event, is_large, found)
        if closed:
            self._close(closed, found)
        if (self._control < 0 or self._resets < 0) and not self.is_failed:
            what = "control frames" if self._control < 0 else "streams reset"
            self._fail(RemoteProtocolError(f"Too many {what}", error_code=ENHANCE_YOUR_CALM), found)
        return found

    def _on_event(self, event: Any, is_large: bool, found: list[Event]) -> None:
        """Take an event of libnghttp2's, but for those that come with each request."""
        kind = type(event)
        if kind is _REQUEST:
            self._on_request(event, is_large, found)
        elif kind is ngh2.DataReceived:
            if not event.data and not event.end_stream:
                self._control -= CONTROL_COST
            else:
                self._on_data(event, found)
        elif kind is ngh2.ConnectionClosed:
            self._on_connection_closed(event, found)
        elif kind is ngh2.WindowUpdated:
            self._control -= 1
            if not event.stream_id:
                self.openings += 1
        elif kind is ngh2.TrailersReceived:
            self._on_trailers(event, found)
        elif kind in _CONTROL_FRAMES:
            self._control -= CONTROL_COST
        if kind is ngh2.PingAcknowledged and event.opaque_data == _END_PING:
            found.append(EndHeard())
        elif kind is ngh2.GoAwayReceived:
            self._has_peer_ended = True

    def tick(self) -> None:
        """A while has passed, about a second: refill the allowances."""
        self._control = max(self._control, MAX_CONTROL)
        self._resets = min(MAX_RESETS, self._resets + RESETS_PER_TICK)

    def consumed(self, stream_id: int, size: int) -> None:
        """The application took ``size`` bytes of the stream's body: the client may send as many more."""
        if not self.is_failed:
            self._call(self._ngh2.acknowledge_received_data, size, stream_id)

    def _on_request(self, event: Any, is_large: bool, found: list[Event]) -> None:
        stream_id = event.stream_id
        self.last_stream_id = stream_id
        self._streams[stream_id] = REQUEST_WHOLE if event.end_stream else 0
        try:
            request = read_request(stream_id, event.headers, event.end_stream, self._limits, is_large)
        except RemoteProtocolError as error:
            self._refuse(stream_id, error, _is_head(event.headers))
            found.append(StreamFailed(stream_id, error))
            return
        if request.upgrade:
            # What follows are bytes of another protocol, and no body with a length.
            self._streams[stream_id] |= TUNNEL
        if event.end_stream:
            self._last_fields = event.headers
            self._last_request = request
        elif request.expects_continue:
            self._expecting.add(stream_id)
        found.append(request)

    def _on_data(self, event: Any, found: list[Event]) -> None:
        stream_id = event.stream_id
        size = len(event.data)
        # A client that sends the body no longer waits for 100 Continue.
        self._expecting.discard(stream_id)
        if event.end_stream:
            self._streams[stream_id] = self._streams.get(stream_id, 0) | REQUEST_WHOLE
        limit = self._limits.body_bytes
        if limit is not None and not self._streams.get(stream_id, 0) & TUNNEL:
            received = self._received[stream_id] = self._received.get(stream_id, 0) + size
            if received > limit:
                self.consumed(stream_id, size)
                if received - size <= limit:
                    error = RemoteProtocolError(f"Request body of more than {limit} bytes", 413)
                    found.append(StreamFailed(stream_id, error))
                return
        found.append(DataReceived(stream_id, event.data, event.end_stream))

    def _on_trailers(self, event: Any, found: list[Event]) -> None:
        stream_id = event.stream_id
        self._streams[stream_id] = self._streams.get(stream_id, 0) | REQUEST_WHOLE
        try:
            found.append(TrailersReceived(stream_id, read_trailers(event.headers, self._limits)))
        except RemoteProtocolError as error:
            found.append(StreamFailed(stream_id, error))

    def _close(self, stream_ids: list[int], found: list[Event]) -> None:
        """Forget these streams, and tell of them."""
        known: list[int] = []
        in_order = 0
        has_more = self._received or self._expecting or self._given or self._held
        for stream_id in stream_ids:
            state = self._streams.pop(stream_id, None)
            if has_more:
                self._forget(stream_id)
            if state is not None:
                known.append(stream_id)
                if state & RESPONSE_WHOLE:
                    in_order += 1
        self._resets = min(MAX_RESETS, self._resets + 2 * in_order - len(stream_ids))
        self._control = min(MAX_CONTROL, self._control + CONTROL_PER_STREAM * in_order)
        if known:
            found.append(StreamsClosed(known))

    def _forget(self, stream_id: int) -> None:
        self._received.pop(stream_id, None)
        self._expecting.discard(stream_id)
        self._given.pop(stream_id, None)
        self._held.pop(stream_id, None)

    def _on_connection_closed(self, event: Any, found: list[Event]) -> None:
        """Everything has been sent, GOAWAY too: ours for an error of the client's, or the client's own."""
        if self.is_failed:
            return
        if self._has_peer_ended or not event.error_code:
            self.is_failed = True
            found.append(ConnectionEnded())
        else:
            why = ngh2.ErrorCode(event.error_code).name
            error = RemoteProtocolError(f"The client broke HTTP/2: {why}", error_code=event.error_code)
            self._fail(error, found, b"")

    def _refuse(self, stream_id: int, error: RemoteProtocolError, is_head: bool) -> None:
        self.send_error(stream_id, error.status, not is_head)

    def _fail(self, error: RemoteProtocolError, found: list[Event], last_words: bytes | None = None) -> None:
        """Give up the connection with GOAWAY, RFC 9113 §5.4.1."""
        if last_words is None:
            # A frame that is begun is written whole, and no body behind it.
            self._call(self._ngh2.terminate_connection, error.error_code, last_stream_id=self.last_stream_id)
            last_words = self._pull()
            goaway = _goaway(self.last_stream_id, error.error_code)
            if goaway not in last_words:
                last_words += goaway  # libnghttp2 has given up
        self._last_words = last_words
        self.is_failed = True
        found.append(ConnectionFailed(error))

    def data_to_send(self, most_bytes: int | None = None) -> bytes:
        """Take what may be sent now; ask ``events`` behind it which streams are over.

        Args:
            most_bytes: leave what is more to the next call, which may prefer what has come meanwhile.
        """
        if self.is_failed:
            data, self._last_words = self._last_words, b""
            return data
        data = self._pull(most_bytes)
        # The end of a response may be in what is left.
        if self._unfinished and (most_bytes is None or len(data) < most_bytes):
            data += self._end_unfinished()
        if self._control < MAX_CONTROL:
            self._control = min(MAX_CONTROL, self._control + len(data) // BYTES_PER_CONTROL)
        return data

    # The end of the connection

    def announce_end(self) -> None:
        """Tell the client to open no more streams; those that are on the way are still served.

        ``end`` follows a round trip later, when ``EndHeard`` comes. RFC 9113 §6.8.
        """
        self._call(self._ngh2.send_shutdown_notice)
        self.ask()

    def ask(self) -> None:
        """Have ``EndHeard`` come when the client has read all that has been sent until now."""
        self._call(self._ngh2.ping, _END_PING)

    def end(self, error_code: int = NO_ERROR) -> None:
        """GOAWAY with the last stream that is served; later ones are ignored."""
        self._call(self._ngh2.send_goaway, error_code, last_stream_id=self.last_stream_id)


def _configuration(limits: HTTP2Limits) -> Any:
    """libnghttp2's limits: wide of ours where a single stream can be refused, else the connection ends."""
    most_head_bytes = 2 * limits.head_bytes + 32 * 2 * limits.fields
    return ngh2.Configuration(
        auto_window_update=False,
        max_inbound_header_list_size=most_head_bytes,
        max_inbound_header_count=2 * limits.fields + 16,
        max_continuations=8 + most_head_bytes // 16_384,
        # Resets and what has to be acknowledged are counted here, by what they cost. libnghttp2 would give up
        # at once, in the middle of a frame.
        stream_reset_rate_limit=(2**32, 2**32),
        max_outbound_ack=2**20,
        # A response's head is as large as the application makes it, as in HTTP/1.1.
        max_send_header_block_length=2**31 - 1,
    )


def _goaway(last_stream_id: int, error_code: int) -> bytes:
    """A GOAWAY frame, RFC 9113 §6.8."""
    return (
        b"\x00\x00\x08\x07\x00\x00\x00\x00\x00"
        + last_stream_id.to_bytes(4, "big")
        + error_code.to_bytes(4, "big")
    )


def _is_head(fields: tuple[Pair, ...]) -> bool:
    return any(field == (b":method", b"HEAD") for field in fields[:4])


_CONTROL_FRAMES: tuple[Any, ...] = ()
_REQUEST = _CLOSED = None
if is_available:
    _REQUEST, _CLOSED = ngh2.RequestReceived, ngh2.StreamClosed
    _CONTROL_FRAMES = (
        ngh2.SettingsReceived,
        ngh2.PingReceived,
        ngh2.PingAcknowledged,
        ngh2.PriorityUpdateReceived,
        ngh2.GoAwayReceived,
    )
