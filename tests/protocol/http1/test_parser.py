"""The judge of heads: what it takes, what it refuses, and that llhttp's own callbacks say the same."""

from __future__ import annotations

import contextlib

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.errors import RemoteProtocolError
from headrace.protocol.http1 import HeadParser, HTTP1Limits
from headrace.protocol.http1.parser import CHUNKED, MAX_FRAMING_BYTES, MAX_FRAMINGS, NOT_IN_TRAILERS, Head


def parse(head: bytes) -> Head:
    return HeadParser(HTTP1Limits()).parse(head)


def status_of(head: bytes) -> int:
    with pytest.raises(RemoteProtocolError) as caught:
        parse(head)
    return caught.value.status


def with_fields(fields: bytes, method: bytes = b"POST", version: bytes = b"1.1") -> bytes:
    return b"%b / HTTP/%b\r\nHost: a\r\n%b\r\n" % (method, version, fields)


def test_body_length() -> None:
    assert parse(with_fields(b"")).body_length == 0
    assert parse(with_fields(b"Content-Length: 7\r\n")).body_length == 7
    assert parse(with_fields(b"Content-Length: 999999999999999999\r\n")).body_length == 10**18 - 1
    assert parse(with_fields(b"Transfer-Encoding: chunked\r\n")).body_length == CHUNKED


@pytest.mark.parametrize("digits", [b"1000000000000000000", b"18446744073709551615", b"0" * 5000 + b"5"])
def test_lengths_of_more_digits_than_any_body_has_are_refused(digits: bytes) -> None:
    assert status_of(with_fields(b"Content-Length: %b\r\n" % digits)) == 400


@pytest.mark.parametrize(
    ("fields", "version", "keep_alive"),
    [
        (b"", b"1.1", True),
        (b"Connection: close\r\n", b"1.1", False),
        (b"Connection: keep-alive, close\r\n", b"1.1", False),
        (b"Connection: x\r\nConnection: CLOSE\r\n", b"1.1", False),
        (b"Connection: closed\r\n", b"1.1", True),
        (b"", b"1.0", False),
    ],
)
def test_keep_alive(fields: bytes, version: bytes, keep_alive: bool) -> None:
    parser = HeadParser(HTTP1Limits())
    for _ in range(3):
        assert parser.parse(with_fields(fields, version=version)).keep_alive is keep_alive
        assert parser.parse(with_fields(b"")).keep_alive


@pytest.mark.parametrize(
    "host",
    [
        b"", b"a", b"a:", b"a:80", b"a.b-c_d~e", b"127.0.0.1:8000", b"[::1]", b"[::1]:80",
        b"[fe80::1%25eth0]",
        b"xn--bcher-kva.example", b"a%2Db", b"a,b", b"A.B.",
    ],
)  # fmt: skip
def test_hosts_that_are_taken(host: bytes) -> None:
    assert parse(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host).event.headers == [(b"host", host)]


@pytest.mark.parametrize(
    "host",
    [
        b"a b", b"a/b", b"a@b", b"a?b", b"a#b", b"a\\b", b'a"b', b"<a>", b"a:b", b"a:80:80", b"a:-1",
        b"a:123456", b"[::1",
        b"::1", b"[::1]a", b"[g::1]", b"[::1%25]", b"[::1%25a]b]", b"[::1%25a/b]", b"a%", b"a%2", b"a%zz",
        b"\xe9", b"a, b",
        b"[]", b"http://a", b"a\tb",
    ],
)  # fmt: skip
def test_hosts_that_are_refused(host: bytes) -> None:
    assert status_of(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host) == 400


def test_good_hosts_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts: dict[bytes, bool] = {}
    monkeypatch.setattr("headrace.protocol.fields.good_hosts", hosts)
    for host in (b"a", b"a", b"b" * 600):
        assert parse(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host).event.headers == [(b"host", host)]
    assert status_of(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n") == 400
    assert set(hosts) == {b"a"}


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/?", b"/", b""),
        (b"/a?b?c", b"/a", b"b?c"),
        (b"//", b"//", b""),
        (b"/http://b/", b"/http://b/", b""),
        (b"http://b/a?c", b"/a", b"c"),
        (b"http://b?c/d", b"/", b"c/d"),
        (b"https://b:1/a//b", b"/a//b", b""),
    ],
)
def test_targets(target: bytes, path: bytes, query: bytes) -> None:
    event = parse(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target).event
    assert (event.raw_path, event.query_string) == (path, query)
    assert event.headers == [(b"host", target.split(b"/")[2].split(b"?")[0] if target[:1] != b"/" else b"a")]


@pytest.mark.parametrize(
    "target",
    [
        b"*", b"*x", b"a", b"a/b", b"?a", b"#", b"/#", b"/a#b", b"http:/a", b"http:a", b"http://",
        b"http:///a", b"http://?a",
        b"http://u@b/", b"http://u:p@b/", b"http://a b/", b"http://b:x/", b"http://[::1/", b"ftp://a/",
        b"ws://a/",
        b"file:///a", b"javascript://a", b"/\xe9", b"/\x01", b"/\x7f", b"/\t",
    ],
)  # fmt: skip
def test_targets_that_are_refused(target: bytes) -> None:
    assert status_of(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target) == 400


@pytest.mark.parametrize(
    "bad",
    [
        b"POST / HTTP/1.1\r\ncontent-length: 100000\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\nexpect: x\r\ncontent-length: 100000\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\nPOST / HTTP/1.0\r\ncontent-length: 100000\r\n\r\n",
    ],
)
def test_a_bad_head_leaves_nothing_behind_for_other_connections(bad: bytes) -> None:
    # One parser serves all: llhttp must not go on waiting for the body of what was refused.
    parser = HeadParser(HTTP1Limits())
    with contextlib.suppress(RemoteProtocolError):
        parser.parse_if_whole(bad)
    event = parser.parse(b"GET /x HTTP/1.1\r\nhost: b\r\n\r\n").event
    assert (event.raw_path, event.headers) == (b"/x", [(b"host", b"b")])


def test_an_absolute_target_does_not_change_what_others_share() -> None:
    parser = HeadParser(HTTP1Limits())
    head = b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"
    assert parser.parse(head).event.headers == [(b"host", b"b")]
    assert parser.parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").event.headers == [(b"host", b"a")]


@pytest.mark.parametrize(
    "fields",
    [
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Host: a\r\n",
        b"HOST: b\r\n",
        b"Content-Length: 1\r\ncontent-length: 1\r\n",
    ],
)
def test_fields_that_frame_or_route_come_once(fields: bytes) -> None:
    assert status_of(with_fields(fields)) == 400


def test_chunked_coding_has_no_place_in_http_1_0() -> None:
    assert status_of(with_fields(b"Transfer-Encoding: chunked\r\n", version=b"1.0")) == 400


# Trailers


def test_trailers_that_frame_route_or_condition_are_left_out() -> None:
    parser = HeadParser(HTTP1Limits())
    section = b"".join(
        b"%b: 1\r\n" % name for name in sorted(NOT_IN_TRAILERS - {b"content-length", b"transfer-encoding"})
    )
    assert parser.parse_trailers(section + b"X-A: 1\r\nx-a: 2\r\n") == [(b"x-a", b"1"), (b"x-a", b"2")]


@pytest.mark.parametrize(
    "section",
    [
        b" X: y\r\n", b"X: y\r\n z\r\n", b"X : y\r\n", b"X\r\n", b": y\r\n", b"X: \x00\r\n", b"X: a\rb\r\n",
        b"X: \x7f\r\n",
        b"Content-Length: 5\r\n", b"Content-Length: x\r\n", b"Transfer-Encoding: chunked\r\n",
        b"TRANSFER-encoding: gzip\r\n",
        b"A: b\r\nContent-Length: 0\r\n",
    ],
)  # fmt: skip
def test_trailers_that_are_refused(section: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        HeadParser(HTTP1Limits()).parse_trailers(section)
    assert caught.value.status == 400


def test_an_upgrade_in_the_trailers_means_nothing() -> None:
    section = b"Connection: upgrade\r\nUpgrade: websocket\r\nX: y\r\n"
    assert HeadParser(HTTP1Limits()).parse_trailers(section) == [(b"x", b"y")]


# Against llhttp's callbacks

_NAMES = [
    b"Host", b"host", b"X", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect",
    b"Cookie",
    b"Content_Length", b"X!#$%&'*+-.^_`|~", b"", b"X ", b" X", b"X\t", b"X\x00", b"X\xe9",
    b"Proxy-Connection",
]  # fmt: skip
_VALUES = [
    b"a", b"", b" a ", b"\ta\t", b"5", b"0", b"chunked", b"gzip, chunked", b"close", b"upgrade",
    b"keep-alive", b"websocket",
    b"100-continue", b"\xff", b"a\x00", b"a\rb", b"a\nb", b"a\r\n b", b"a:b", b"a: b", b"  ", b"\x0b",
    b'"a, b"', b"a\x7f",
]  # fmt: skip
_fields = st.lists(
    st.tuples(
        st.sampled_from(_NAMES), st.sampled_from([b":", b": ", b":\t ", b" :", b""]), st.sampled_from(_VALUES)
    ),
    max_size=5,
).map(lambda drawn: b"".join(b"%b%b%b\r\n" % field for field in drawn))
_lines = st.tuples(
    st.sampled_from([b"GET", b"POST", b"OPTIONS", b"get", b"CONNECT", b"PRI", b"SOURCE", b"BREW", b"G\x00T"]),
    st.sampled_from([b" ", b"  ", b"\t"]),
    st.sampled_from(
        [b"/", b"/a?b", b"*", b"http://b/c", b"http://u@b/", b"/a b", b"/\xe9", b"/#f", b"", b"/%zz|^"]
    ),
    st.sampled_from([b" ", b"  ", b""]),
    st.sampled_from(
        [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"RTSP/1.1", b"HTTP/1.1 ", b"http/1.1", b""]
    ),
).map(b"".join)
_noise = st.tuples(
    st.integers(0, 400), st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\x00", b" ", b":", b"\t", b"a"])
)


class _Second:
    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.heads = 0
        self.keep_alive: bool | None = None
        self.llhttp = httptools.HttpRequestParser(self)

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.heads += 1
        self.keep_alive = self.llhttp.should_keep_alive()


def _verdict(parser: HeadParser, head: bytes) -> Head | int:
    try:
        return parser.parse(head)
    except RemoteProtocolError as error:
        return error.status


SHARED = HeadParser(HTTP1Limits())
"""One for all examples: nothing of a head, refused or not, may show in the next."""


@settings(max_examples=1200, deadline=None)
@given(
    st.one_of(st.just(b"GET / HTTP/1.1"), _lines),
    st.booleans(),
    _fields,
    st.one_of(st.none(), _noise),
)
@example(b"GET / HTTP/1.1", True, b"X: y\r\n", None)
@example(b"GET / HTTP/1.1", True, b"Proxy-Connection: close\r\n", None)
def test_what_is_accepted_llhttp_reports_the_same(line, has_host, fields, noise) -> None:
    head = line + b"\r\n" + (b"Host: a\r\n" if has_host else b"") + fields + b"\r\n"
    if noise is not None:
        place, what = noise
        head = head[: place % len(head)] + what + head[place % len(head) :]
    head = head.lstrip(b"\r\n")
    end = head.find(b"\r\n\r\n") + 4
    if end < 4:
        return
    head = head[:end]
    parsed = _verdict(SHARED, head)
    fresh = _verdict(HeadParser(HTTP1Limits()), head)
    if not isinstance(parsed, Head) or not isinstance(fresh, Head):
        assert parsed == fresh
        return
    event = parsed.event
    second = _Second()
    llhttp = second.llhttp
    try:
        llhttp.feed_data(head)
    except httptools.HttpParserUpgrade:
        assert parsed.upgrades
    assert second.heads == 1
    assert event.method == llhttp.get_method().decode()
    assert event.http_version == llhttp.get_http_version()
    if second.target[:1] in (b"/", b"*"):
        assert event.headers == second.fields
        assert second.target in (event.raw_path, event.raw_path + b"?" + event.query_string)
    else:
        assert [name for name, _ in event.headers] == [name for name, _ in second.fields]
    assert parsed.keep_alive == second.keep_alive
    assert (fresh.event, fresh.body_length, fresh.keep_alive) == (
        event,
        parsed.body_length,
        parsed.keep_alive,
    )
    assert event.http_version == "1.0" or [name for name, _ in event.headers].count(b"host") == 1


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_pri_is_no_method(version: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        HeadParser(HTTP1Limits()).parse(b"PRI / HTTP/" + version + b"\r\nhost: a\r\n\r\n")
    assert caught.value.status in (400, 501)


def test_what_deciding_fields_say_is_remembered_within_bounds() -> None:
    parser = HeadParser(HTTP1Limits())
    for number in range(3 * MAX_FRAMINGS):
        head = parser.parse(b"GET /%d HTTP/1.1\r\nhost: h%d.test\r\nx: %d\r\n\r\n" % (number, number, number))
        assert (head.event.path, head.keep_alive, head.body_length) == (f"/{number}", True, 0)
    assert len(parser._framings) <= MAX_FRAMINGS
    known = len(parser._framings)
    # Long, with a body, told by a proxy: of these there would be one for each request.
    parser.parse(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: %b\r\n\r\n" % (b"x" * MAX_FRAMING_BYTES))
    parser.parse(b"POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\n")
    parser.parse(b"GET / HTTP/1.1\r\nhost: a.test\r\nx-forwarded-for: 192.0.2.1\r\n\r\n")
    assert len(parser._framings) == known
