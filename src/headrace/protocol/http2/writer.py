"""The sending half of the HTTP/2 engine: responses to what libnghttp2 frames. RFC 9113 §8.1.

A stream here is two facts, whether its request and its response have been given whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from headrace.protocol.fields import error_body, error_fields
from headrace.protocol.http2.binding import ngh2
from headrace.protocol.http2.response import (
    HTTP2Defaults,
    Pair,
    SpecialField,
    read_field,
    read_pairs,
    response_fields,
)

NO_ERROR = 0

REQUEST_WHOLE, RESPONSE_WHOLE, TUNNEL = 1, 2, 4
_WHOLE = REQUEST_WHOLE | RESPONSE_WHOLE


class ResponseWriter:
    """What an exchange calls.

    Args:
        connection: libnghttp2's.
        defaults: what responses begin with.

    Attributes:
        openings: how often the client has opened the connection's window.
    """

    __slots__ = ("_defaults", "_expecting", "_given", "_held", "_ngh2", "_streams", "_unfinished", "openings")

    def __init__(self, connection: Any, defaults: HTTP2Defaults) -> None:
        self._ngh2 = connection
        self._defaults = defaults
        self.openings = 0
        self._streams: dict[int, int] = {}
        """Which of the two facts hold, and whether it is a tunnel."""
        self._held: dict[int, list[Pair]] = {}
        """Heads that go out with the first piece of body."""
        self._expecting: set[int] = set()
        """Whose client waits for 100 Continue."""
        self._given: dict[int, int] = {}
        """Bytes of bodies that come in pieces."""
        self._unfinished: list[int] = []
        """Whose response is out while their request still comes."""

    def send_headers(
        self, stream_id: int, status: int, headers: Iterable[Pair], has_body: bool
    ) -> int | None:
        """Check and keep the head of a response; it goes out with the first ``send_data``.

        Args:
            stream_id: the exchange's.
            status: 200 to 999.
            headers: as the application gave them; fields of the connection are left out.
            has_body: False for HEAD, 204 and 304.

        Returns:
            The Content-Length that the application promised, or None.

        Raises:
            ValueError, TypeError: a field that cannot be sent; nothing is kept then.
        """
        defaults = self._defaults
        last_status, last_fields, head, length = defaults.last
        if status == last_status and headers == last_fields:
            self._held[stream_id] = head
            return length
        head = (defaults.heads.get(status) or defaults.head(status)).copy()
        length = None
        is_fixed = type(headers) is list
        own: set[bytes] | None = None
        known = response_fields.get
        for field in headers:
            try:
                pair = known(field)
            except TypeError:
                pair = None  # a list: fine as a pair, but no key, and it may be another when it comes again
                is_fixed = False
            if pair is None:
                pair = read_field(*field)
            if type(pair) is tuple:
                head.append(pair)
                continue
            assert isinstance(pair, SpecialField)
            if pair.length >= 0:
                if length is not None:
                    if length != pair.length:
                        raise ValueError(f"Content-Length twice: {length} and {pair.length}")
                    continue
                length = pair.length
                if status == 204:
                    continue
            elif pair.pair is not None:
                own = {pair.name} if own is None else own | {pair.name}
            if pair.pair is not None:
                head.append(pair.pair)
        if own is not None:
            head = defaults.head_without(status, own) + head[len(defaults.head(status)) :]
        if is_fixed:
            defaults.last = (status, list(headers), head, length)
        self._held[stream_id] = head
        return length

    def add_fields(self, stream_id: int, fields: Iterable[Pair]) -> None:
        """Add fields to the head that is held: the server's own, which need no check, names in lower case."""
        # The head may be kept for the next response.
        self._held[stream_id] = [*self._held[stream_id], *fields]

    def drop_headers(self, stream_id: int) -> None:
        """Forget a head that is still held."""
        self._held.pop(stream_id, None)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Encode a piece of the response's body, and the head if it is still held."""
        try:
            head = self._held.pop(stream_id, None)
            if head is not None:
                if end_stream and not data:
                    self._ngh2.send_response(stream_id, head, end_stream=True)
                    self._end_response(stream_id)
                    return
                self._ngh2.send_response(stream_id, head)
            if not end_stream:
                self._given[stream_id] = self._given.get(stream_id, 0) + len(data)
            if data or end_stream:
                self._ngh2.send_data(stream_id, data, end_stream=end_stream)
        except ngh2.NGH2Error:
            # The stream has gone in the meantime; its ``StreamClosed`` is on the way.
            return
        if end_stream:
            if self._streams.get(stream_id) == REQUEST_WHOLE:
                self._streams[stream_id] = _WHOLE
            else:
                self._end_response(stream_id)

    def send_trailers(self, stream_id: int, headers: Iterable[Pair]) -> None:
        """End the response with trailers.

        Raises:
            ValueError, TypeError: a field that cannot be sent; the body is not ended then.
        """
        self._call(self._ngh2.send_trailers, stream_id, read_pairs(headers))
        self._end_response(stream_id)

    def send_informational(self, stream_id: int, status: int, headers: Iterable[Pair]) -> None:
        """A 1xx response, RFC 9110 §15.2.

        Raises:
            ValueError, TypeError: a field that cannot be sent.
        """
        head = [(b":status", b"%d" % status), *read_pairs(headers)]
        self._call(self._ngh2.send_informational_response, stream_id, head)

    def send_continue(self, stream_id: int) -> None:
        """Ask for the body if the client waits to be asked, RFC 9110 §10.1.1."""
        if stream_id in self._expecting:
            self._expecting.discard(stream_id)
            self.send_informational(stream_id, 100, ())

    def send_error(
        self, stream_id: int, status: int, has_body: bool = True, fields: Iterable[Pair] = ()
    ) -> None:
        """A whole response of our own, for HEAD its head."""
        body = error_body(status)
        own = [*error_fields(status), *fields, (b"content-length", b"%d" % len(body))]
        self.send_headers(stream_id, status, own, has_body)
        self.send_data(stream_id, body if has_body else b"", True)

    def reset(self, stream_id: int, error_code: int) -> None:
        """End a stream at once, whatever is still queued for it."""
        self._held.pop(stream_id, None)
        if stream_id in self._streams:
            # Not the client's doing: it costs none of its allowance.
            self._streams[stream_id] |= RESPONSE_WHOLE
        self._call(self._ngh2.reset_stream, stream_id, error_code)

    def taken_bytes(self, stream_id: int) -> int:
        """How far the client is in a body that comes in pieces: grows whenever it takes something."""
        return self._given.get(stream_id, 0) - self.queued_bytes(stream_id)

    def queued_bytes(self, stream_id: int) -> int:
        """Body given to ``send_data`` that waits for the client's window or the transport."""
        return int(self._ngh2.queued_body_size(stream_id))

    def has_window(self, stream_id: int) -> bool:
        """The client would take more on this stream, if the connection's window allows."""
        try:
            return int(self._ngh2.stream_remote_window_size(stream_id)) > 0
        except ngh2.NGH2Error:
            return False

    @property
    def has_connection_window(self) -> bool:
        """The client would take more, on any stream whose own window is open."""
        return int(self._ngh2.remote_window_size) > 0

    def prefer(self, stream_id: int) -> None:
        """Let the stream go before others, unless the client has said what it wants. RFC 9218."""
        try:
            if self._ngh2.get_stream_priority(stream_id) == ngh2.Priority():
                self._ngh2.set_stream_priority(stream_id, ngh2.Priority(urgency=0, incremental=True))
        except ngh2.NGH2Error:
            return

    @property
    def all_queued_bytes(self) -> int:
        """The same of all streams together."""
        return int(self._ngh2.queued_body_size())

    # Within

    def _end_response(self, stream_id: int) -> None:
        state = self._streams.get(stream_id)
        if state is None:
            return
        self._streams[stream_id] = state | RESPONSE_WHOLE
        if not state & REQUEST_WHOLE:
            self._unfinished.append(stream_id)

    def _end_unfinished(self) -> bytes:
        """Reset streams whose response is out while their request still comes, RFC 9113 §8.1."""
        left = []
        for stream_id in self._unfinished:
            state = self._streams.get(stream_id)
            if state is None or state & REQUEST_WHOLE:
                continue
            if self.queued_bytes(stream_id):
                left.append(stream_id)
            else:
                self._call(self._ngh2.reset_stream, stream_id, NO_ERROR)
        self._unfinished = left
        return self._pull()

    def _pull(self, most_bytes: int | None = None) -> bytes:
        try:
            return bytes(self._ngh2.data_to_send(most_bytes))
        except ngh2.NGH2Error:
            return b""

    def _call(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> None:
        """Call what fails only because the stream or the connection has gone in the meantime."""
        try:
            function(*arguments, **more)
        except (ngh2.NGH2Error, ValueError):
            return
