"""From the bytes of one whole request head to a checked ``Head``.

llhttp (strict, as httptools builds it) decides whether a head is well-formed: line ends are CRLF, names are
tokens, no folding, no NUL or control, one Content-Length, never Content-Length beside Transfer-Encoding.
What it tolerates and RFC 9112 does not is refused in ``_check``.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

import httptools

from headrace.errors import RemoteProtocolError
from headrace.protocol.events import RequestReceived
from headrace.protocol.fields import FORWARDING, NOT_IN_TRAILERS, is_good_host
from headrace.protocol.http1.limits import HTTP1Limits
from headrace.types import Headers

CHUNKED = -1
"""``Head.body_length`` of a body in chunked coding."""

MAX_LENGTH_DIGITS = 18
"""Of a Content-Length; llhttp takes any number of leading zeros, ``int`` does not."""

MAX_FRAMINGS = 256
MAX_FRAMING_BYTES = 512

METHOD = re.compile(rb"[A-Z][A-Z_-]* [/*!-~]+ HTTP/")
"""Telling an unknown method from noise."""

_LISTS = frozenset({b"connection", b"proxy-connection", b"upgrade"}) | FORWARDING

_DECISIVE = _LISTS | {b"content-length", b"expect", b"host", b"transfer-encoding"}
"""The fields a head is checked, framed and routed by."""

_NAMES = {
    spelling: name
    for name in (
        b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control", b"connection",
        b"content-length", b"content-type", b"cookie", b"dnt", b"host", b"if-modified-since",
        b"if-none-match", b"origin", b"pragma", b"priority", b"range", b"referer", b"sec-ch-ua",
        b"sec-ch-ua-mobile", b"sec-ch-ua-platform", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site",
        b"sec-fetch-user", b"te", b"traceparent", b"transfer-encoding", b"upgrade",
        b"upgrade-insecure-requests", b"user-agent", b"via", b"x-forwarded-for", b"x-forwarded-host",
        b"x-forwarded-proto", b"x-real-ip", b"x-request-id", b"x-requested-with",
    )
    for spelling in (name, name.title())
}  # fmt: skip
"""Usual spellings to the name in lower case: one object for each name, whose hash is known, so that every
later look-up of a field by anybody is cheaper."""

_METHODS = {
    name.encode("ascii"): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
}
_VERSIONS = {b" HTTP/1.1": "1.1", b" HTTP/1.0": "1.0"}


_new_tuple = tuple.__new__


class _Listener:
    """Takes no callbacks: llhttp only judges."""


class Head(NamedTuple):
    """A checked request head."""

    event: RequestReceived
    """What the connection is told."""
    body_length: int
    """Bytes of the body; 0 none, ``CHUNKED`` when chunked."""
    keep_alive: bool
    """The client allows another request behind this one, RFC 9112 §9.3."""
    upgrades: bool
    """llhttp saw an upgrade and would not read on."""
    events: tuple[RequestReceived]
    """The event, ready to be returned for a request without a body."""


class Framing(NamedTuple):
    """What the deciding fields of a head say together."""

    body_length: int
    expects_continue: bool
    keep_alive: bool
    upgrade: bytes
    is_forwarded: bool


class HeadParser:
    """Feeds heads to llhttp.

    One serves all connections of a worker: heads are fed whole, so nothing of a connection stays behind.
    llhttp is made again unless a head has left it at the end of one good message: else it could wait for a
    body, and take the next head, another connection's, for it.
    """

    __slots__ = ("_decisive", "_ends", "_fields", "_framings", "_llhttp", "_target", "_targets", "limits")

    def __init__(self, limits: HTTP1Limits) -> None:
        self.limits = limits
        self._llhttp: httptools.HttpRequestParser | None = None
        self._target = b""
        self._targets = 0
        self._ends = 0
        self._fields: Headers = []
        self._decisive: Headers = []
        # By the deciding fields of requests without a body: most clients send the same ones each time.
        self._framings: dict[tuple[tuple[bytes, bytes], ...], Framing] = {}

    def on_url(self, target: bytes) -> None:
        """llhttp read the request target, whole, because heads are fed whole."""
        self._target = target
        self._targets += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp read a field; the white space behind its value is still there, RFC 9112 §5.1."""
        lower = _NAMES.get(name)
        if lower is None:
            lower = name.lower()
        field = (lower, value.rstrip())
        self._fields.append(field)
        if lower in _DECISIVE:
            self._decisive.append(field)

    def on_message_complete(self) -> None:
        """llhttp expects no more body."""
        self._ends += 1

    def parse_if_whole(self, data: bytes) -> Head | None:
        """Check what ends like a head and most likely is one, without looking for an end within.

        Returns:
            None when there is more than a head in it.

        Raises:
            RemoteProtocolError: see ``parse``.
        """
        try:
            head = self.parse(data)
        except RemoteProtocolError:
            if data.find(b"\r\n\r\n") + 4 == len(data):
                raise
            return None
        if self._targets == 1 and self._ends == 1 and head.body_length == 0 and not head.upgrades:
            return head
        return head if data.find(b"\r\n\r\n") + 4 == len(data) else None

    def parse(self, head: bytes) -> Head:
        """Check one head, from the request line to the empty line that ends it.

        Raises:
            RemoteProtocolError: not well-formed (400, 417, 501, 505), or more than the limits allow (413,
                414, 431).
        """
        upgrades = self._feed(head)
        try:
            checked = self._check(head, upgrades)
        except RemoteProtocolError:
            # It may wait for the body of what has been refused: the next head would be taken for that.
            self._llhttp = None
            raise
        if self._ends != 1 or self._targets != 1 or not checked.keep_alive:
            self._llhttp = None
        return checked

    def _feed(self, head: bytes) -> bool:
        """Let llhttp judge; returns whether the head asks for an upgrade."""
        llhttp = self._llhttp
        is_used = llhttp is not None
        if llhttp is None:
            llhttp = self._llhttp = httptools.HttpRequestParser(self)
        self._targets = self._ends = 0
        self._fields = []
        self._decisive = []
        try:
            llhttp.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._llhttp = None
            return True
        except httptools.HttpParserError as error:
            self._llhttp = None
            if is_used:
                # What an earlier head may have left behind must not be this one's fault.
                return self._feed(head)
            raise RemoteProtocolError(f"{error}", status_of(error, head)) from None
        return False

    def parse_trailers(self, section: bytes) -> Headers:
        """Check a trailer section, by the same judge: as the fields of a head of its own.

        Args:
            section: field lines, each with its CRLF.

        Returns:
            The fields that may stand in trailers; those that frame, route or condition a message are left
            out, RFC 9110 §6.5.1.

        Raises:
            RemoteProtocolError: not well-formed, too many, or framing (Content-Length, Transfer-Encoding),
                which a peer that merges trailers into the head would act on.
        """
        head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n" + section + b"\r\n"
        lines = section.split(b"\r\n")[:-1]
        if len(lines) > self.limits.fields:
            raise RemoteProtocolError(f"{len(lines)} trailer fields", 431)
        try:
            httptools.HttpRequestParser(_Listener()).feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # Connection and Upgrade mean nothing here; both are left out below.
        except httptools.HttpParserError as error:
            raise RemoteProtocolError(f"In the trailers: {error}") from None
        pairs = (line.partition(b":") for line in lines)
        fields = [(name.lower(), value.strip(b" \t")) for name, _, value in pairs]
        return [field for field in fields if field[0] not in NOT_IN_TRAILERS]

    def _check(self, head: bytes, upgrades: bool) -> Head:
        """Refuse what llhttp tolerates and RFC 9112 does not, and what is too much."""
        limits = self.limits
        headers = self._fields
        target = self._target
        if head.startswith(b"GET %b HTTP/1.1\r\n" % target):
            line_end = len(target) + 13
            method, version = "GET", "1.1"
        else:
            line_end, method, version = self._request_line(head)
        if line_end > limits.request_line_bytes:
            raise RemoteProtocolError(f"Request line of {line_end} bytes", 414)
        if len(headers) > limits.fields:
            raise RemoteProtocolError(f"{len(headers)} header fields", 431)
        framing = self._framings.get(tuple(self._decisive)) if version == "1.1" else None
        if framing is None or upgrades:
            framing = self._framing(version, upgrades)
        if target.startswith(b"/") and b"#" not in target:
            raw_path, _, query = target.partition(b"?")
        else:
            raw_path, query = _split_other_target(target, method, headers)
        body_length, expects_continue, keep_alive, upgrade, is_forwarded = framing
        path = raw_path.decode("ascii")
        # Not by the classes' own functions, which are in Python and take twice as long.
        event = _new_tuple(
            RequestReceived,
            (
                1,
                method,
                unquote(path) if "%" in path else path,
                raw_path,
                query,
                headers,
                version,
                body_length == 0,
                expects_continue,
                upgrade,
                is_forwarded,
            ),
        )
        return _new_tuple(Head, (event, body_length, keep_alive, upgrades, (event,)))

    def _request_line(self, head: bytes) -> tuple[int, str, str]:
        """Where it ends, the method, and the version."""
        line_end = head.find(b"\r\n")
        if line_end > self.limits.request_line_bytes:
            raise RemoteProtocolError(f"Request line of {line_end} bytes", 414)
        token = head[: head.find(b" ")].lstrip(b"\r\n")
        version = _VERSIONS.get(head[line_end - 9 : line_end])
        if version is None:
            # HTTP/0.9 and 2.0, and RTSP or ICE, whose versions llhttp reports like HTTP's.
            raise RemoteProtocolError(f"Version not supported: {head[:line_end][-80:]!r}", 505)
        method = _METHODS.get(token) or _other_method(token)
        if method == "CONNECT":
            raise RemoteProtocolError("CONNECT is not supported", 501)
        if line_end != len(token) + len(self._target) + 10:
            # Peers that split at each single space would find another target.
            raise RemoteProtocolError(f"More than single spaces in the request line: {head[:line_end]!r:.80}")
        return line_end, method, version

    def _framing(self, version: str, upgrades: bool) -> Framing:
        """Check the deciding fields, and say what they come to."""
        fields = dict(self._decisive)
        if len(fields) != len(self._decisive):
            fields = self._merged()
        _check_host(fields.get(b"host"), version)
        body_length = self._body_length(fields, version)
        expects_continue = False
        if b"expect" in fields:
            if fields[b"expect"].lower() != b"100-continue":
                raise RemoteProtocolError(f"Unknown expectation: {fields[b'expect']!r:.80}", 417)
            expects_continue = version == "1.1" and body_length != 0
        keep_alive = _keeps_alive(fields.get(b"connection"), version)
        if b"proxy-connection" in fields:
            # llhttp reads it like Connection and reads no further; RFC 9112 Appendix C.2.2.
            keep_alive = keep_alive and _keeps_alive(fields[b"proxy-connection"], version)
        framing = Framing(
            body_length,
            expects_continue,
            keep_alive,
            # RFC 9110 §7.8: Upgrade in an HTTP/1.0 request is ignored; so is one that brings a body.
            fields.get(b"upgrade", b"") if upgrades and version == "1.1" and body_length == 0 else b"",
            not FORWARDING.isdisjoint(fields),
        )
        if version == "1.1" and body_length == 0 and not upgrades and not framing.is_forwarded:
            self._remember(framing)
        return framing

    def _remember(self, framing: Framing) -> None:
        key = tuple(self._decisive)
        if sum(len(value) for _, value in key) > MAX_FRAMING_BYTES:
            return
        if len(self._framings) >= MAX_FRAMINGS:
            self._framings.clear()
        self._framings[key] = framing

    def _merged(self) -> dict[bytes, bytes]:
        """The deciding fields when one comes more than once: joined as a list, or refused."""
        fields: dict[bytes, bytes] = {}
        for name, value in self._decisive:
            if name not in fields:
                fields[name] = value
            elif name in _LISTS:
                fields[name] += b", " + value
            else:
                # llhttp takes any coding in front of chunked, in a field of its own too.
                raise RemoteProtocolError(f"More than one {name.decode('ascii').title()} field")
        return fields

    def _body_length(self, fields: dict[bytes, bytes], version: str) -> int:
        """How the body is framed; llhttp has refused both fields together. RFC 9112 §6."""
        if b"transfer-encoding" in fields:
            coding = fields[b"transfer-encoding"]
            if version == "1.0":
                # RFC 9112 §6.1: such framing is faulty.
                raise RemoteProtocolError("Transfer-Encoding in an HTTP/1.0 request")
            if coding.lower() != b"chunked":
                raise RemoteProtocolError(f"Transfer coding not supported: {coding!r:.80}", 501)
            return CHUNKED
        if b"content-length" not in fields:
            return 0
        digits = fields[b"content-length"]
        if len(digits) > MAX_LENGTH_DIGITS:
            raise RemoteProtocolError(f"Invalid Content-Length: {digits!r:.80}")
        length = int(digits)
        limit = self.limits.body_bytes
        if limit is not None and length > limit:
            raise RemoteProtocolError(f"Request body of {length} bytes", 413)
        return length


def _other_method(token: bytes) -> str:
    """A method that llhttp knows; PRI is none, but what HTTP/2 begins with. RFC 9113 §11.6."""
    if token == b"PRI":
        raise RemoteProtocolError("PRI is not a method", 501)
    return token.decode("ascii")


def _check_host(host: bytes | None, version: str) -> None:
    """RFC 9112 §3.2: one Host, and a good one; HTTP/1.0 may do without."""
    if host is None:
        if version == "1.1":
            raise RemoteProtocolError("No Host field")
    elif not is_good_host(host):
        raise RemoteProtocolError(f"Invalid Host: {host!r:.80}")


def _keeps_alive(connection: bytes | None, version: str) -> bool:
    """RFC 9112 §9.3; HTTP/1.0 ends with its response, as with uvicorn."""
    if version == "1.0":
        return False
    if connection is None or connection == b"keep-alive":
        return True
    return b"close" not in [option.strip(b" \t") for option in connection.lower().split(b",")]


def status_of(error: httptools.HttpParserError, head: bytes | bytearray) -> int:
    """The status that answers an error of llhttp.

    501 for a method it does not know, RFC 9110 §15.6.2; 505 for a version, §15.6.6.
    """
    if str(error) == "Invalid HTTP version":
        return 505
    unknown_method = isinstance(error, httptools.HttpParserInvalidMethodError) and METHOD.match(head)
    return 501 if unknown_method else 400


def _split_other_target(target: bytes, method: str, headers: Headers) -> tuple[bytes, bytes]:
    """The forms of RFC 9112 §3.2 that do not begin with a path, to (path, query)."""
    if b"#" in target:
        raise RemoteProtocolError(f"Fragment in the request target: {target!r:.80}")
    if target == b"*":
        if method != "OPTIONS":
            raise RemoteProtocolError(f"Target * with {method}")
        return b"*", b""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise RemoteProtocolError(f"Invalid request target: {target!r:.80}")
    rest, _, query = rest.partition(b"?")
    authority, slash, path = rest.partition(b"/")
    if not authority or b"@" in authority or not is_good_host(authority):
        raise RemoteProtocolError(f"Invalid authority: {authority!r:.80}")
    # RFC 9112 §3.2.2: the authority of an absolute target stands above the Host field.
    headers[:] = [(name, authority if name == b"host" else value) for name, value in headers]
    return slash + path or b"/", query
