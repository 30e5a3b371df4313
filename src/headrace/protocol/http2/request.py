"""From the fields of one HTTP/2 request to the same checked event that HTTP/1.1 gives.

libnghttp2 has refused what is malformed by RFC 9113 §8.2 and §8.3: upper-case names, connection-specific
fields, pseudo-header fields that are missing, unknown, repeated or behind others. What it tolerates and HTTP
does not is refused here.
"""

from __future__ import annotations

from itertools import chain
from urllib.parse import unquote

from headrace.errors import RemoteProtocolError
from headrace.protocol.events import RequestReceived
from headrace.protocol.fields import FORWARDING, NOT_IN_TRAILERS, content_length, is_good_host
from headrace.protocol.http2.limits import HTTP2Limits
from headrace.types import Headers

_METHODS = {
    name.encode("ascii"): name
    for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT")
}

FEW_FIELDS = 8
"""Up to so many fields cannot exceed the default limit by way of HPACK's table, whose entries have at most
4,096 bytes; literals are seen in what the socket gave."""


def read_request(
    stream_id: int,
    fields: tuple[tuple[bytes, bytes], ...],
    end_stream: bool,
    limits: HTTP2Limits,
    is_large: bool,
) -> RequestReceived:
    """Check one request.

    Args:
        fields: all of the header section, the pseudo-header fields first.
        end_stream: no body follows.
        is_large: so much has been received, or so little is allowed, that the fields must be measured even
            if they are few.

    Raises:
        RemoteProtocolError: 400, or more than the limits allow (413, 414, 431), or 501.
    """
    if len(fields) > FEW_FIELDS or is_large:
        _check_size(fields, limits)
    present = dict(fields)
    token = present[b":method"]
    method = _METHODS.get(token) or _method(token)
    protocol = present.get(b":protocol", b"")
    if method == "CONNECT" and not protocol:
        raise RemoteProtocolError("CONNECT is not supported", 501)
    # libnghttp2 has seen to it that :method, :scheme and :path are there, before all other fields.
    count = 4 if protocol else 3
    headers: Headers
    authority = present.get(b":authority")
    if authority is not None:
        headers = [(b"host", authority), *fields[count + 1 :]]
        if b"host" in present:
            headers = _without_same_host(headers, authority)
    else:
        headers = list(fields[count:])
        authority = _host(headers)
    if not is_good_host(authority):
        raise RemoteProtocolError(f"Invalid authority: {authority!r:.80}")
    if b"cookie" in present:
        headers = join_cookies(headers)
    target = present[b":path"]
    if len(target) > limits.target_bytes:
        raise RemoteProtocolError(f"Request target of {len(target)} bytes", 414)
    raw_path, _, query = target.partition(b"?")
    if not target.startswith(b"/") or b"#" in target or not target.isascii():
        _check_target(target, method)
    path = raw_path.decode("ascii")
    if b"content-length" in present:
        _check_length(present[b"content-length"], limits)
    expects_continue = False
    if b"expect" in present:
        if present[b"expect"].lower() != b"100-continue":
            raise RemoteProtocolError(f"Unknown expectation: {present[b'expect']!r:.80}", 417)
        expects_continue = not end_stream
    return RequestReceived(
        stream_id,
        method,
        unquote(path) if "%" in path else path,
        raw_path,
        query,
        headers,
        "2",
        end_stream,
        expects_continue,
        protocol,
        not present.keys().isdisjoint(FORWARDING),
    )


def read_trailers(fields: tuple[tuple[bytes, bytes], ...], limits: HTTP2Limits) -> Headers:
    """The fields that may stand in trailers, RFC 9110 §6.5.1.

    Raises:
        RemoteProtocolError: more than the limits allow (431).
    """
    _check_size(fields, limits)
    return [field for field in fields if field[0] not in NOT_IN_TRAILERS]


def join_cookies(headers: Headers) -> Headers:
    """Make one of several cookie fields, in the place of the first. RFC 9113 §8.2.3."""
    crumbs = [value for name, value in headers if name == b"cookie"]
    if len(crumbs) == 1:
        return headers
    joined: Headers = []
    for field in headers:
        if field[0] != b"cookie":
            joined.append(field)
        elif crumbs:
            joined.append((b"cookie", b"; ".join(crumbs)))
            crumbs = []
    return joined


def _check_size(fields: tuple[tuple[bytes, bytes], ...], limits: HTTP2Limits) -> None:
    if len(fields) > limits.fields + 5:  # the pseudo-header fields are none of the client's choosing
        raise RemoteProtocolError(f"{len(fields)} header fields", 431)
    size = len(b"".join(chain.from_iterable(fields))) + 4 * len(fields)
    if size > limits.head_bytes:
        raise RemoteProtocolError(f"Header section of {size} bytes", 431)


def _host(headers: Headers) -> bytes:
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1:
        raise RemoteProtocolError("No :authority and no Host" if not hosts else "More than one Host field")
    return hosts[0]


def _without_same_host(headers: Headers, authority: bytes) -> Headers:
    for name, value in headers:
        if name == b"host" and value.lower() != authority.lower():
            # RFC 9113 §8.3.1: caches and proxies would see two hosts in one request.
            raise RemoteProtocolError(f"Host {value!r:.80} beside the authority {authority!r:.80}")
    return [headers[0], *(field for field in headers if field[0] != b"host")]


def _method(token: bytes) -> str:
    if not token.isascii() or not token.replace(b"-", b"").replace(b"_", b"").isalpha():
        raise RemoteProtocolError(f"Invalid method: {token!r:.80}")
    if token != token.upper():
        raise RemoteProtocolError(f"Unknown method: {token!r:.80}", 501)
    return token.decode("ascii")


def _check_target(target: bytes, method: str) -> None:
    """Refuse what is no path of ASCII characters; the one other form is ``*``, RFC 9113 §8.3.1."""
    if target != b"*":
        raise RemoteProtocolError(f"Invalid request target: {target!r:.80}")
    if method != "OPTIONS":
        raise RemoteProtocolError(f"Target * with {method}")


def _check_length(value: bytes, limits: HTTP2Limits) -> None:
    try:
        length = content_length(value)
    except ValueError as error:
        raise RemoteProtocolError(str(error)) from None
    if limits.body_bytes is not None and length > limits.body_bytes:
        raise RemoteProtocolError(f"Request body of {length} bytes", 413)
