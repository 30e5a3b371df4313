"""From the bytes of one whole request head to a checked ``Head``.

llhttp (strict, as httptools builds it) decides whether a head is well-formed: line ends are CRLF, names are
tokens, no folding, no NUL or control, one Content-Length, never Content-Length beside Transfer-Encoding.
What it has passed can be split at CRLF and ``:`` without ambiguity, which is three times cheaper than a
callback for each field. What llhttp tolerates and RFC 9112 does not is refused in ``_check``.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import httptools

from headrace.errors import RemoteProtocolError
from headrace.protocol.events import RequestReceived
from headrace.protocol.fields import HOST, RequestField, read_line, request_lines
from headrace.protocol.http1.limits import HTTP1Limits
from headrace.types import Headers

CHUNKED = -1
"""``Head.body_length`` of a body in chunked coding."""


MAX_LENGTH_DIGITS = 18
"""Of a Content-Length; llhttp takes any number of leading zeros, ``int`` does not."""

METHOD = re.compile(rb"[A-Z][A-Z_-]* [/*!-~]+ HTTP/")
"""Telling an unknown method from noise."""

NOT_IN_TRAILERS = frozenset({
    b"authorization", b"cache-control", b"connection", b"content-encoding", b"content-length",
    b"content-range", b"content-type", b"cookie", b"expect", b"host", b"max-forwards", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip


class _Listener:
    """Takes no callbacks: llhttp only judges."""


class Head:
    """A checked request head.

    Attributes:
        event: what the connection is told.
        body_length: bytes of the body; 0 none, ``CHUNKED`` when chunked.
        keep_alive: the client allows another request behind this one, RFC 9112 §9.3.
        upgrades: llhttp saw an upgrade and would not read on.
        events: the event in a tuple, ready to be returned for a request without a body.
    """

    __slots__ = ("body_length", "event", "events", "keep_alive", "upgrades")

    def __init__(self, event: RequestReceived, body_length: int, keep_alive: bool, upgrades: bool) -> None:
        self.event = event
        self.body_length = body_length
        self.keep_alive = keep_alive
        self.upgrades = upgrades
        self.events = (event,)


class HeadParser:
    """Feeds heads to llhttp.

    One serves all connections of a worker: heads are fed whole, so nothing of a connection stays behind.
    llhttp is made again when a head has left it in the middle of a message, waiting for a body.
    """

    __slots__ = ("_complete", "_keep_alive", "_llhttp", "_target", "limits")

    def __init__(self, limits: HTTP1Limits) -> None:
        self.limits = limits
        self._llhttp: httptools.HttpRequestParser | None = None
        self._target = b""
        self._complete = False
        self._keep_alive = False

    def on_url(self, target: bytes) -> None:
        """llhttp read the request target, whole, because heads are fed whole."""
        self._target = target

    def on_headers_complete(self) -> None:
        """llhttp has read the head; behind a whole message it would forget what ``Connection`` said."""
        assert self._llhttp is not None
        self._keep_alive = self._llhttp.should_keep_alive()

    def on_message_complete(self) -> None:
        """llhttp expects no body."""
        self._complete = True

    def parse(self, head: bytes) -> Head:
        """Check one head, from the request line to the empty line that ends it.

        Raises:
            RemoteProtocolError: not well-formed (400, 505), or more than the limits allow (414, 431).
        """
        llhttp = self._llhttp
        if llhttp is None:
            llhttp = self._llhttp = httptools.HttpRequestParser(self)
        self._complete = False
        try:
            llhttp.feed_data(head)
            upgrades = False
        except httptools.HttpParserUpgrade:
            upgrades = True
        except httptools.HttpParserError as error:
            self._llhttp = None
            raise RemoteProtocolError(f"{error}", status_of(error, head)) from None
        try:
            return self._check(head, llhttp, upgrades)
        finally:
            if upgrades or not self._complete or not self._keep_alive:
                self._llhttp = None

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
        fields = (read_line(line)[0] for line in lines)
        return [field for field in fields if field[0] not in NOT_IN_TRAILERS]

    def _check(self, head: bytes, llhttp: httptools.HttpRequestParser, upgrades: bool) -> Head:
        lines = head.split(b"\r\n")
        limits = self.limits
        if len(lines[0]) > limits.request_line_bytes:
            raise RemoteProtocolError(f"Request line of {len(lines[0])} bytes", 414)
        if len(lines) - 3 > limits.fields:
            raise RemoteProtocolError(f"{len(lines) - 3} header fields", 431)
        method: str = llhttp.get_method().decode("ascii")
        version: str = llhttp.get_http_version()
        _check_request_line(lines[0], len(method) + len(self._target), version)
        headers: Headers = []
        hosts = 0
        body_length = 0
        expects_continue = False
        upgrade = b""
        known = request_lines.get
        for line in lines[1:-2]:
            field, kind = known(line) or read_line(line)
            headers.append(field)
            if kind == 0:
                continue
            value = field[1]
            if kind == RequestField.HOST:
                hosts += 1
                if not HOST.fullmatch(value):
                    raise RemoteProtocolError(f"Invalid Host: {value!r:.80}")
            elif kind == RequestField.CONTENT_LENGTH:
                if len(value) > MAX_LENGTH_DIGITS:
                    raise RemoteProtocolError(f"Invalid Content-Length: {value!r:.80}")
                body_length = int(value)
            elif kind == RequestField.TRANSFER_ENCODING:
                _check_transfer_encoding(value, version)
                body_length = CHUNKED
            elif kind == RequestField.EXPECT:
                if value.lower() != b"100-continue":
                    raise RemoteProtocolError(f"Unknown expectation: {value!r:.80}", 417)
                expects_continue = version == "1.1"
            elif kind == RequestField.UPGRADE:
                upgrade = value
        if hosts != 1 and (hosts > 1 or version == "1.1"):
            raise RemoteProtocolError(f"{hosts} Host fields; there must be one")
        if body_length > 0 and limits.body_bytes is not None and body_length > limits.body_bytes:
            raise RemoteProtocolError(f"Request body of {body_length} bytes", 413)
        raw_path, query = _split_target(self._target, method, headers)
        path = raw_path.decode("ascii")
        event = RequestReceived(
            1,
            method,
            unquote(path) if "%" in path else path,
            raw_path,
            query,
            headers,
            version,
            body_length == 0,
            expects_continue and body_length != 0,
            # RFC 9110 §7.8: Upgrade in an HTTP/1.0 request is ignored; so is one that brings a body.
            upgrade if upgrades and version == "1.1" and body_length == 0 else b"",
        )
        return Head(event, body_length, self._keep_alive, upgrades)


def status_of(error: httptools.HttpParserError, head: bytes | bytearray) -> int:
    """The status that answers an error of llhttp: 501 for a method it does not know, RFC 9110 §15.6.2."""
    unknown_method = isinstance(error, httptools.HttpParserInvalidMethodError) and METHOD.match(head)
    return 501 if unknown_method else 400


def _check_request_line(line: bytes, length: int, version: str) -> None:
    """Refuse what llhttp reads as a request line and RFC 9112 §3 does not.

    Args:
        line: the request line.
        length: bytes of method and target together.
        version: as llhttp read it.
    """
    if not line.endswith(b" HTTP/1.1") and (version != "1.0" or not line.endswith(b" HTTP/1.0")):
        # HTTP/0.9 and 2.0, and RTSP or ICE, whose versions llhttp reports like HTTP's.
        raise RemoteProtocolError(f"Version not supported: {line[-80:]!r}", 505)
    if len(line) != length + 10:
        # Peers that split at each single space would find another target.
        raise RemoteProtocolError(f"More than single spaces in the request line: {line!r:.80}")


def _check_transfer_encoding(value: bytes, version: str) -> None:
    if version == "1.0":
        # RFC 9112 §6.1: such framing is faulty.
        raise RemoteProtocolError("Transfer-Encoding in an HTTP/1.0 request")
    if value.lower() != b"chunked":
        raise RemoteProtocolError(f"Transfer coding not supported: {value!r:.80}", 501)


def _split_target(target: bytes, method: str, headers: Headers) -> tuple[bytes, bytes]:
    """The four forms of RFC 9112 §3.2 to (path, query)."""
    if b"#" in target:
        raise RemoteProtocolError(f"Fragment in the request target: {target!r:.80}")
    if method == "CONNECT":
        raise RemoteProtocolError("CONNECT is not supported", 501)
    if target[:1] == b"/":
        path, _, query = target.partition(b"?")
        return path, query
    if target == b"*":
        if method != "OPTIONS":
            raise RemoteProtocolError(f"Target * with {method}")
        return b"*", b""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise RemoteProtocolError(f"Invalid request target: {target!r:.80}")
    rest, _, query = rest.partition(b"?")
    authority, slash, path = rest.partition(b"/")
    if not authority or b"@" in authority or not HOST.fullmatch(authority):
        raise RemoteProtocolError(f"Invalid authority: {authority!r:.80}")
    # RFC 9112 §3.2.2: the authority of an absolute target stands above the Host field.
    headers[:] = [(name, authority if name == b"host" else value) for name, value in headers]
    return slash + path or b"/", query
