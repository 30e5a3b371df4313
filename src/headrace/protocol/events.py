"""The vocabulary every HTTP version's engine speaks to the connection.

``end_stream`` is a field of the head and data events: a GET is one event. To the rest of headrace
HTTP/1.1 looks like HTTP/2 with one stream at a time, id 1.
"""

from __future__ import annotations

from typing import NamedTuple

from headrace.errors import RemoteProtocolError
from headrace.types import Headers

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client of HTTP/2 begins with, made so that no request of HTTP/1.1 can. RFC 9113 §3.4."""


class RequestReceived(NamedTuple):
    """The head of a request.

    An engine may hand out the same object, or the same ``headers``, for byte-identical requests (and for no
    others), so nobody changes ``headers``; whoever passes them on passes a copy.
    """

    stream_id: int
    method: str
    """Upper-case token, RFC 9110 §9.1."""
    path: str
    """Percent-decoded, UTF-8 with replacement."""
    raw_path: bytes
    """As on the wire, without the query."""
    query_string: bytes
    """Behind the first ``?``, raw."""
    headers: Headers
    """Wire order, names lower-case, duplicates kept."""
    http_version: str
    """"1.0", "1.1" or "2"."""
    end_stream: bool
    """No body follows."""
    expects_continue: bool
    """The client waits for ``100 Continue`` before it sends the body, RFC 9110 §10.1.1."""
    upgrade: bytes
    """The value of ``Upgrade`` when ``Connection`` names it and there is no body; of ``:protocol`` in an
    extended CONNECT, RFC 8441; else empty."""
    is_forwarded: bool = False
    """A field by which proxies speak for their clients is there: ``Forwarded`` or ``X-Forwarded-*``."""


class DataReceived(NamedTuple):
    """A piece of a request's body, the coding already undone."""

    stream_id: int
    data: bytes
    end_stream: bool


class TrailersReceived(NamedTuple):
    """The trailer section of a request; always its end. RFC 9110 §6.5."""

    stream_id: int
    headers: Headers


class RequestRepeated(NamedTuple):
    """A request of HTTP/2 again, field by field and without a body, on further streams in their order."""

    request: RequestReceived
    """As it was received first, on another stream."""
    stream_ids: list[int]


class StreamsClosed(NamedTuple):
    """Streams of HTTP/2 are over, whoever ended them; nothing more can be sent on them. RFC 9113 §5.1."""

    stream_ids: list[int]


class StreamFailed(NamedTuple):
    """A request that was refused; the answer stands in the out-buffer."""

    stream_id: int
    error: RemoteProtocolError


class EndHeard(NamedTuple):
    """The client of HTTP/2 has been told that the server ends, and what it sent before has arrived."""


class ConnectionEnded(NamedTuple):
    """The client of HTTP/2 has said that it ends, and nothing is left to do; always the last event."""


class PrefaceReceived(NamedTuple):
    """The client speaks HTTP/2 with prior knowledge: these bytes, all so far, are that engine's."""

    data: bytes


class ConnectionFailed(NamedTuple):
    """The peer broke the protocol; always the last event. The answer stands in the out-buffer unless an
    exchange of HTTP/1.1 is under way, whose response is then the last.
    """

    error: RemoteProtocolError


Event = (
    RequestReceived
    | RequestRepeated
    | DataReceived
    | TrailersReceived
    | StreamsClosed
    | StreamFailed
    | PrefaceReceived
    | EndHeard
    | ConnectionEnded
    | ConnectionFailed
)
