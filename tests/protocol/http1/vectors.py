"""Bytes of requests, and what an engine must make of them.

``pieces`` cuts, ``Serving`` answers each request as it ends and writes down what it saw.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from headrace.errors import RemoteProtocolError
from headrace.protocol.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    RequestReceived,
    TrailersReceived,
)
from headrace.protocol.http1 import HeadParser, HTTP1Engine, HTTP1Limits, ResponseDefaults
from headrace.protocol.http1.engine import State
from headrace.types import Headers


@dataclass
class Seen:
    """One request as its events told it."""

    method: str
    path: str
    headers: Headers
    query: bytes = b""
    version: str = "1.1"
    body: bytes = b""
    trailers: Headers | None = None
    upgrade: bytes = b""
    expects_continue: bool = False
    raw_path: bytes | None = None
    complete: bool = True

    def __post_init__(self) -> None:
        if self.raw_path is None:
            self.raw_path = self.path.encode()


@dataclass
class Vector:
    name: str
    data: bytes
    requests: list[Seen] = field(default_factory=list)
    closes: bool = False
    """The last request is the connection's last."""


class Serving:
    """An engine with a server around it that answers every request at once."""

    def __init__(self, limits: HTTP1Limits | None = None, parser: HeadParser | None = None) -> None:
        self.engine = HTTP1Engine(parser or HeadParser(limits or HTTP1Limits()), ResponseDefaults())
        self.seen: list[Seen] = []
        self.failure: RemoteProtocolError | None = None
        self.out = b""
        self.answers = True

    def receive(self, data: bytes) -> None:
        self._take(self.engine.receive_data(data))

    def receive_all(self, pieces: Iterable[bytes]) -> Serving:
        for piece in pieces:
            self.receive(piece)
        return self

    def _take(self, events: Iterable[Event]) -> None:
        while events:
            for event in events:
                assert self.failure is None, "an event behind the failure"
                self._note(event)
            events = self._answer() if self.seen and self.answers else ()
        data = self.engine.data_to_send()
        assert isinstance(data, bytes)
        self.out += data

    def _note(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            assert event.stream_id == 1
            assert not self.seen or self.seen[-1].complete
            self.seen.append(
                Seen(
                    event.method,
                    event.path,
                    list(event.headers),
                    event.query_string,
                    event.http_version,
                    upgrade=event.upgrade,
                    expects_continue=event.expects_continue,
                    raw_path=event.raw_path,
                    complete=event.end_stream,
                )
            )
        elif isinstance(event, DataReceived):
            assert event.data or event.end_stream, "an empty piece says nothing"
            assert not self.seen[-1].complete
            self.seen[-1].body += event.data
            self.seen[-1].complete = event.end_stream
        elif isinstance(event, TrailersReceived):
            assert not self.seen[-1].complete
            self.seen[-1].trailers = list(event.headers)
            self.seen[-1].complete = True
        else:
            assert isinstance(event, ConnectionFailed)
            assert self.engine.state is State.CLOSED
            self.failure = event.error

    def _answer(self) -> Iterable[Event]:
        if not self.seen[-1].complete or self.engine.state is not State.ANSWERING:
            return ()
        self.engine.send_headers(1, 200, [], True)
        self.engine.send_data(1, b"", True)
        events = self.engine.start_next_cycle()
        assert (events is None) <= self.engine.should_close
        return events or ()


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    """Cut ``data`` at random places; seed 0 leaves it whole, seed 1 cuts it into single bytes."""
    if seed == 0:
        yield data
        return
    chance = random.Random(seed)
    while data:
        size = 1 if seed == 1 else chance.choice((1, 1, 2, 3, 5, 17, 60))
        yield data[:size]
        data = data[size:]


HOST = [(b"host", b"a")]
CHUNKED = [*HOST, (b"transfer-encoding", b"chunked")]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST_CHUNKED = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def _get(*more: tuple[bytes, bytes]) -> Seen:
    return Seen("GET", "/", [*HOST, *more])


def _length(body: bytes, *more: tuple[bytes, bytes]) -> Seen:
    return Seen("POST", "/p", [*HOST, (b"content-length", b"%d" % len(body)), *more], body=body)


def _chunked(body: bytes, trailers: Headers | None = None) -> Seen:
    return Seen("POST", "/c", CHUNKED, body=body, trailers=trailers)


def _post(body: bytes, more: bytes = b"") -> bytes:
    return b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), more, body)


VECTORS = [
    Vector("get", GET, [_get()]),
    Vector(
        "browser",
        b"GET /a/b?c=d&e HTTP/1.1\r\nHost: example.org:8080\r\nUser-Agent: Mozilla/5.0 (X11)\r\n"
        b"Accept: text/html,*/*;q=0.8\r\nCookie: a=b; c=d\r\nX-Empty:\r\nX-Spaces: \t v \t\r\n\r\n",
        [
            Seen(
                "GET",
                "/a/b",
                [
                    (b"host", b"example.org:8080"),
                    (b"user-agent", b"Mozilla/5.0 (X11)"),
                    (b"accept", b"text/html,*/*;q=0.8"),
                    (b"cookie", b"a=b; c=d"),
                    (b"x-empty", b""),
                    (b"x-spaces", b"v"),
                ],
                b"c=d&e",
            )
        ],
    ),
    Vector("keep-alive, the same head again", GET * 4, [_get()] * 4),
    Vector(
        "pipelined, of three kinds",
        GET + _post(b"hello") + POST_CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + GET,
        [_get(), _length(b"hello"), _chunked(b"abc"), _get()],
    ),
    Vector("leading empty lines", b"\r\n\r\n" + GET + b"\r\n" + GET, [_get(), _get()]),
    Vector("empty line behind a body", _post(b"x") + b"\r\n" + GET, [_length(b"x"), _get()]),
    Vector(
        "percent-encoded path",
        b"GET /%C3%A9%20%2F%zz?%20 HTTP/1.1\r\nHost: a\r\n\r\n",
        [Seen("GET", "/é /%zz", HOST, b"%20", raw_path=b"/%C3%A9%20%2F%zz")],
    ),
    Vector(
        "path that is not UTF-8",
        b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n",
        [Seen("GET", "/�", HOST, raw_path=b"/%ff")],
    ),
    Vector(
        "query with question marks",
        b"GET /?a?b=/c HTTP/1.1\r\nHost: a\r\n\r\n",
        [Seen("GET", "/", HOST, b"a?b=/c")],
    ),
    Vector("path of two slashes", b"GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n", [Seen("GET", "//b/c", HOST)]),
    Vector(
        "absolute-form above Host",
        b"GET http://b:81/x?y HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n",
        [Seen("GET", "/x", [(b"host", b"b:81"), (b"x", b"1")], b"y")],
    ),
    Vector(
        "absolute-form without path",
        b"GET HTTPS://b HTTP/1.1\r\nHost: a\r\n\r\n",
        [Seen("GET", "/", [(b"host", b"b")])],
    ),
    Vector(
        "absolute-form, query without path",
        b"GET http://[::1]?q HTTP/1.1\r\nHost: a\r\n\r\n",
        [Seen("GET", "/", [(b"host", b"[::1]")], b"q")],
    ),
    Vector("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", [Seen("OPTIONS", "*", HOST)]),
    Vector("empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", [Seen("GET", "/", [(b"host", b"")])]),
    Vector(
        "other methods",
        b"".join(
            b"%b /m HTTP/1.1\r\nHost: a\r\n\r\n" % method
            for method in (b"HEAD", b"DELETE", b"PATCH", b"TRACE", b"PURGE", b"M-SEARCH", b"PROPFIND")
        ),
        [
            Seen(method, "/m", HOST)
            for method in ("HEAD", "DELETE", "PATCH", "TRACE", "PURGE", "M-SEARCH", "PROPFIND")
        ],
    ),
    Vector("length", _post(b"hello world"), [_length(b"hello world")]),
    Vector("length 0", _post(b""), [_length(b"")]),
    Vector("body that looks like a request", _post(GET) + GET, [_length(GET), _get()]),
    Vector(
        "length with leading zeros",
        b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabc",
        [Seen("POST", "/p", [*HOST, (b"content-length", b"0003")], body=b"abc")],
    ),
    Vector(
        "GET with a body",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        [Seen("GET", "/", [*HOST, (b"content-length", b"2")], body=b"hi")],
    ),
    Vector(
        "chunked", POST_CHUNKED + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", [_chunked(b"abc0123456789")]
    ),
    Vector("chunked, empty", POST_CHUNKED + b"0\r\n\r\n", [_chunked(b"")]),
    Vector(
        "chunked, sizes in both cases",
        POST_CHUNKED + b"a\r\n0123456789\r\n00B\r\n01234567890\r\n000\r\n\r\n",
        [_chunked(b"012345678901234567890")],
    ),
    Vector(
        "chunked, CRLF in the data",
        POST_CHUNKED + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
        [_chunked(b"\r\n0\r\n\r\n")],
    ),
    Vector(
        "chunked, extensions",
        POST_CHUNKED + b'1;a\r\nx\r\n1;b=c;d="e;\\"f\\xff"\r\ny\r\n0;last=1\r\n\r\n',
        [_chunked(b"xy")],
    ),
    Vector(
        "chunked, trailers",
        POST_CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 1\r\nx-more: \t2 \r\n\r\n" + GET,
        [_chunked(b"x", [(b"x-sum", b"1"), (b"x-more", b"2")]), _get()],
    ),
    Vector(
        "chunked, trailers without body",
        POST_CHUNKED + b"0\r\nX-Sum: 1\r\n\r\n",
        [_chunked(b"", [(b"x-sum", b"1")])],
    ),
    Vector(
        "trailers that have no place there are left out",
        POST_CHUNKED
        + b"1\r\nx\r\n0\r\nHost: b\r\nAuthorization: c\r\nConnection: upgrade\r\nUpgrade: d\r\nX: e\r\n\r\n"
        + GET,
        [_chunked(b"x", [(b"x", b"e")]), _get()],
    ),
    Vector(
        "TE in capitals",
        b"POST /c HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: Chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        [Seen("POST", "/c", [*HOST, (b"transfer-encoding", b"Chunked")], body=b"x")],
    ),
    Vector(
        "expect",
        _post(b"hi", b"Expect: 100-Continue\r\n"),
        [
            Seen(
                "POST",
                "/p",
                [*HOST, (b"content-length", b"2"), (b"expect", b"100-Continue")],
                body=b"hi",
                expects_continue=True,
            )
        ],
    ),
    Vector(
        "expect without a body",
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        [_get((b"expect", b"100-continue"))],
    ),
    Vector(
        "upgrade",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n" + GET,
        [
            Seen(
                "GET",
                "/",
                [*HOST, (b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"websocket")],
                upgrade=b"websocket",
            ),
            _get(),
        ],
    ),
    Vector(
        "upgrade that Connection does not name",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n" + GET,
        [_get((b"upgrade", b"h2c")), _get()],
    ),
    Vector(
        "upgrade with a body",
        _post(b"hello", b"Connection: upgrade\r\nUpgrade: websocket\r\n") + GET,
        [_length(b"hello", (b"connection", b"upgrade"), (b"upgrade", b"websocket")), _get()],
    ),
    Vector(
        "upgrade with a chunked body",
        POST_CHUNKED[:-2] + b"Connection: upgrade\r\nUpgrade: x\r\n\r\n1\r\nz\r\n0\r\n\r\n" + GET,
        [
            Seen("POST", "/c", [*CHUNKED, (b"connection", b"upgrade"), (b"upgrade", b"x")], body=b"z"),
            _get(),
        ],
    ),
    Vector(
        "names with an underscore are names like others",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n",
        [Seen("POST", "/", [*HOST, (b"content_length", b"5")])],
    ),
    Vector(
        "duplicates stay, in order",
        b"GET / HTTP/1.1\r\nX: 1\r\nHost: a\r\nx: 2\r\nX: 1\r\n\r\n",
        [Seen("GET", "/", [(b"x", b"1"), *HOST, (b"x", b"2"), (b"x", b"1")])],
    ),
    Vector(
        "obs-text in a value",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\xff\r\n\r\n",
        [_get((b"x", b"\xe9\xff"))],
    ),
    Vector("1.0", b"GET / HTTP/1.0\r\n\r\n", [Seen("GET", "/", [], version="1.0")], closes=True),
    Vector(
        "1.0 with a body",
        b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        [Seen("POST", "/", [*HOST, (b"content-length", b"2")], version="1.0", body=b"hi")],
        closes=True,
    ),
    Vector(
        "1.0 keep-alive is not taken up",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        [Seen("GET", "/", [(b"connection", b"keep-alive")], version="1.0")],
        closes=True,
    ),
    Vector(
        "1.0 knows neither Expect nor Upgrade",
        b"POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx",
        [
            Seen(
                "POST",
                "/",
                [(b"content-length", b"1"), (b"expect", b"100-continue")],
                version="1.0",
                body=b"x",
            )
        ],
        closes=True,
    ),
    Vector(
        "1.0 with Upgrade",
        b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        [Seen("GET", "/", [(b"connection", b"upgrade"), (b"upgrade", b"websocket")], version="1.0")],
        closes=True,
    ),
    Vector(
        "Connection: close in a list",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x , Close\r\n\r\n",
        [_get((b"connection", b"x , Close"))],
        closes=True,
    ),
    Vector(
        "Connection: close with a body",
        _post(b"hello", b"Connection: close\r\n"),
        [_length(b"hello", (b"connection", b"close"))],
        closes=True,
    ),
]
