"""Responses: what the engine encodes, read back by two client parsers that are not ours."""

from __future__ import annotations

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import GET, POST_CHUNKED

from headrace.protocol.http1 import HeadParser, HTTP1Engine, HTTP1Limits, ResponseDefaults
from headrace.protocol.http1.engine import State
from headrace.protocol.http1.responder import LARGE_BYTES
from headrace.protocol.http1.response import error_response
from headrace.types import Headers

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
GET_1_0 = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
EXPECT = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"


def engine_after(request: bytes, defaults: ResponseDefaults | None = None) -> HTTP1Engine:
    if defaults is None:
        defaults = ResponseDefaults()
        defaults.set_date(DATE)
    engine = HTTP1Engine(HeadParser(HTTP1Limits()), defaults)
    engine.receive_data(request)
    return engine


def encode(
    *body: bytes,
    request: bytes = GET,
    status: int = 200,
    headers: Headers = [],  # noqa: B006 - never changed
    has_body: bool = True,
) -> bytes:
    """The bytes of a response whose body comes in the pieces ``body``."""
    engine = engine_after(request)
    engine.send_headers(1, status, headers, has_body)
    assert engine.data_to_send() == b"", "the head waits for the first piece"
    for number, piece in enumerate(body, 1):
        engine.send_data(1, piece, number == len(body))
    return sent_by(engine)


def sent_by(engine: HTTP1Engine) -> bytes:
    data = engine.data_to_send()
    return data if isinstance(data, bytes) else b"".join(data)


class Read:
    """A response as h11's client reads it."""

    def __init__(self, data: bytes, method: str = "GET") -> None:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        self.informational: list[int] = []
        self.body = b""
        client.receive_data(data)
        client.receive_data(b"")
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.InformationalResponse):
                self.informational.append(event.status_code)
            elif isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = list(event.headers)
                self.http_version = event.http_version
            else:
                assert isinstance(event, h11.Data)
                self.body += event.data
        self.trailers = list(event.headers)
        self.closes = client.their_state is h11.MUST_CLOSE or client.their_state is h11.CLOSED
        self.surplus = client.trailing_data[0]
        if method != "HEAD":
            _agrees_with_llhttp(self, data)

    def all_of(self, name: bytes) -> list[bytes]:
        return [value for other, value in self.headers if other == name]


class _Listener:
    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.statuses: list[int] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.statuses.append(self.parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        self.body += data


def _agrees_with_llhttp(read: Read, data: bytes) -> None:
    listener = _Listener()
    listener.parser.feed_data(data[: len(data) - len(read.surplus)])
    assert listener.body == read.body
    assert listener.statuses == [*read.informational, read.status]
    assert listener.headers[-len(read.headers + read.trailers) :] == read.headers + read.trailers


# Framing


def test_a_body_that_is_whole_in_its_first_piece_gets_its_length() -> None:
    assert encode(b"hello", headers=[(b"Content-Type", b"text/plain")]) == (
        b"HTTP/1.1 200 OK\r\ndate: %b\r\nserver: headrace\r\ncontent-type: text/plain\r\n"
        b"content-length: 5\r\n\r\nhello" % DATE
    )
    assert Read(encode(b"")).all_of(b"content-length") == [b"0"]


@pytest.mark.parametrize(
    "body",
    [
        (b"a", b"b", b"c"),
        (b"", b"abc"),
        (b"", b""),
        (b"abc", b""),
        (b"a", b"", b"bc"),
        (b"x" * 0x10000, b"y"),
    ],
)
def test_a_body_in_pieces_is_chunked(body: tuple[bytes, ...]) -> None:
    read = Read(encode(*body))
    assert read.body == b"".join(body)
    assert read.all_of(b"transfer-encoding") == [b"chunked"]
    assert read.all_of(b"content-length") == []
    assert not read.surplus


@pytest.mark.parametrize("body", [(b"a", b"bc"), (b"", b"abc"), (b"abc", b"")])
def test_a_body_in_pieces_ends_with_the_connection_in_http_1_0(body: tuple[bytes, ...]) -> None:
    data = encode(*body, request=GET_1_0)
    assert b"chunked" not in data
    assert data.endswith(b"connection: close\r\n\r\nabc")
    assert Read(data).body == b"abc"


def test_http_1_0_gets_a_length_when_it_is_known() -> None:
    read = Read(encode(b"abc", request=GET_1_0))
    assert (read.all_of(b"content-length"), read.closes) == ([b"3"], True)


def test_the_engine_tells_how_the_response_is_framed() -> None:
    engine = engine_after(GET)
    engine.send_headers(1, 200, [], True)
    engine.send_data(1, b"a", False)
    assert engine.is_chunked
    engine = engine_after(GET_1_0)
    engine.send_headers(1, 200, [], True)
    engine.send_data(1, b"a", False)
    assert not engine.is_chunked


def test_a_declared_length_is_kept_and_told() -> None:
    engine = engine_after(GET)
    assert engine.send_headers(1, 200, [(b"Content-Length", b" 3 ")], True) == 3
    engine.send_data(1, b"a", False)
    engine.send_data(1, b"bc", True)
    read = Read(sent_by(engine))
    assert (read.body, read.all_of(b"content-length"), read.all_of(b"transfer-encoding")) == (
        b"abc",
        [b"3"],
        [],
    )


@pytest.mark.parametrize(("request_bytes", "status"), [(HEAD, 200), (GET, 204), (GET, 304)])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_without_body_nothing_is_added(request_bytes: bytes, status: int, version: bytes) -> None:
    request_bytes = request_bytes.replace(b"1.1", version)
    data = encode(b"", request=request_bytes, status=status, has_body=False)
    assert b"content-length" not in data
    assert b"transfer-encoding" not in data
    assert data.endswith(b"\r\n\r\n")
    read = Read(data, "HEAD" if request_bytes.startswith(b"HEAD") else "GET")
    assert (read.status, read.body, read.surplus) == (status, b"", b"")


def test_head_and_304_keep_the_length_that_get_would_have_and_204_has_none() -> None:
    length: Headers = [(b"content-length", b"5")]
    assert b"content-length: 5\r\n" in encode(b"", request=HEAD, headers=length, has_body=False)
    assert b"content-length: 5\r\n" in encode(b"", status=304, headers=length, has_body=False)
    assert b"content-length" not in encode(b"", status=204, headers=length, has_body=False)


def test_transfer_encoding_of_the_application_is_dropped() -> None:
    for value in (b"chunked", b"gzip, chunked", b"identity"):
        for body in ((b"abc",), (b"a", b"bc")):
            data = encode(*body, headers=[(b"Transfer-Encoding", value)])
            assert data.count(b"transfer-encoding") == len(body) - 1
            assert Read(data).body == b"abc"


def test_the_same_length_twice_is_sent_once() -> None:
    read = Read(encode(b"abc", headers=[(b"content-length", b"3"), (b"Content-Length", b"3")]))
    assert read.all_of(b"content-length") == [b"3"]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"3"), (b"content-length", b"4")],
        [(b"content-length", b"3, 3")],
        [(b"content-length", b"+3")],
        [(b"content-length", b"-3")],
        [(b"content-length", b"")],
        [(b"content-length", b"0x3")],
        [(b"content-length", b"1_0")],
        [(b"content-length", b"9" * 5000)],
        [(b"x", b"a\r\nSet-Cookie: b")],
        [(b"x", b"a\n")],
        [(b"x", b"a\r")],
        [(b"x", b"\x00")],
        [(b"x\r\ny", b"a")],
        [(b"x:", b"a")],
        [(b"x ", b"a")],
        [(b"", b"a")],
        [(b"x\x00", b"a")],
        [(b"content-length\n", b"3")],
        [(b"set-cookie", b"a\nb")],
        [(b"connection", b"close\r\n\r\n")],
        [(b"transfer-encoding", b"a\nb")],
    ],
)
def test_headers_that_cannot_be_sent_are_refused_each_time_and_leave_nothing(headers: Headers) -> None:
    engine = engine_after(GET)
    for _ in range(2):
        with pytest.raises(ValueError):
            engine.send_headers(1, 200, [(b"connection", b"close"), *headers], True)
    assert engine.data_to_send() == b""
    assert engine.keep_alive
    engine.send_headers(1, 500, [], True)
    engine.send_data(1, b"", True)
    assert Read(sent_by(engine)).status == 500


@pytest.mark.parametrize(
    "headers",
    [
        [("x", b"y")],
        [(b"x", "y")],
        [(b"x", None)],
        [(bytearray(b"x"), b"y")],
        [b"xy"],
        ["xy"],
        [(b"x",)],
        [1],
    ],
)
def test_headers_of_other_types_are_type_errors(headers: object) -> None:
    engine = engine_after(GET)
    for _ in range(2):
        with pytest.raises(TypeError):
            engine.send_headers(1, 200, headers, True)  # type: ignore[arg-type]


def test_pairs_may_be_lists_and_headers_any_iterable() -> None:
    headers = iter([[b"X-A", b"1"], (b"X-A", b"2"), [b"Content-Length", b"3"]])
    read = Read(encode(b"abc", headers=headers))  # type: ignore[arg-type]
    assert read.all_of(b"x-a") == [b"1", b"2"]
    assert read.all_of(b"content-length") == [b"3"]


# Fields of the server


def test_date_and_server_of_the_application_replace_ours() -> None:
    read = Read(encode(b"", headers=[(b"Date", b"today"), (b"SERVER", b"mine")]))
    assert (read.all_of(b"date"), read.all_of(b"server")) == ([b"today"], [b"mine"])
    read = Read(encode(b"", headers=[(b"server", b"mine")]))
    assert (read.all_of(b"date"), read.all_of(b"server")) == ([DATE], [b"mine"])
    read = Read(encode(b""))
    assert (read.all_of(b"date"), read.all_of(b"server")) == ([DATE], [b"headrace"])


def test_default_fields_may_replace_date_and_server() -> None:
    defaults = ResponseDefaults(fields=((b"Server", b"x"), (b"DATE", b"y"), (b"X-A", b"z")))
    defaults.set_date(DATE)
    head = defaults.head(200)
    assert head == b"HTTP/1.1 200 OK\r\nserver: x\r\ndate: y\r\nx-a: z\r\n"
    bare = ResponseDefaults(server=None, send_date=False)
    bare.set_date(DATE)
    assert bare.head(200) == b"HTTP/1.1 200 OK\r\n"


def test_default_fields_are_checked() -> None:
    with pytest.raises(ValueError):
        ResponseDefaults(fields=((b"x", b"a\r\nb"),))


def test_the_date_changes() -> None:
    defaults = ResponseDefaults()
    defaults.set_date(b"one")
    assert b"date: one\r\n" in defaults.head(200)
    defaults.set_date(b"two")
    assert b"date: two\r\n" in defaults.head(200)


@pytest.mark.parametrize("status", [200, 299, 418, 599, 600, 999])
def test_status_lines(status: int) -> None:
    assert Read(encode(b"", status=status)).status == status


# Connection


def test_connection_close_of_the_application_closes() -> None:
    for value in (b"close", b"Close", b"x, CLOSE"):
        engine = engine_after(GET + GET)
        engine.send_headers(1, 200, [(b"Connection", value)], True)
        engine.send_data(1, b"", True)
        data = sent_by(engine)
        assert data.count(b"connection: close\r\n") == 1
        assert Read(data).closes
        assert not engine.start_next_cycle()
        assert engine.state is State.CLOSED


def test_other_connection_options_of_the_application_are_not_sent() -> None:
    data = encode(b"", headers=[(b"Connection", b"keep-alive"), (b"connection", b"upgrade")])
    assert b"connection" not in data
    data = encode(b"", request=GET_1_0, headers=[(b"Connection", b"keep-alive")])
    assert data.count(b"connection") == 1
    assert Read(data).closes


def test_the_server_may_make_a_response_the_last() -> None:
    engine = engine_after(GET)
    engine.send_headers(1, 200, [], True)
    engine.keep_alive = False
    engine.send_data(1, b"", True)
    assert Read(sent_by(engine)).closes


# 100 Continue


def test_continue_is_sent_once_and_only_when_due() -> None:
    engine = engine_after(EXPECT)
    engine.send_continue(1)
    engine.send_continue(1)
    assert engine.data_to_send() == b"HTTP/1.1 100 Continue\r\n\r\n"
    for request in (GET, POST_CHUNKED, EXPECT + b"x", EXPECT.replace(b"1.1", b"1.0")):
        engine = engine_after(request)
        engine.send_continue(1)
        assert engine.data_to_send() == b""
    engine = engine_after(EXPECT)
    engine.receive_data(b"x")
    engine.send_continue(1)
    assert engine.data_to_send() == b""


def test_a_response_without_asking_for_the_body_is_the_last() -> None:
    """RFC 9110 §10.1.1: nobody knows whether the body will still come."""
    engine = engine_after(EXPECT)
    engine.send_headers(1, 200, [], True)
    engine.send_data(1, b"", True)
    assert Read(sent_by(engine)).closes
    engine.start_next_cycle()
    assert engine.should_close


def test_a_held_head_lets_continue_pass() -> None:
    engine = engine_after(EXPECT)
    engine.send_headers(1, 200, [], True)
    engine.send_continue(1)
    engine.send_data(1, b"a", True)
    read = Read(sent_by(engine))
    assert (read.informational, read.status, read.closes) == ([100], 200, False)


def test_continue_never_stands_inside_a_response() -> None:
    engine = engine_after(EXPECT)
    engine.send_headers(1, 200, [], True)
    engine.send_data(1, b"a", False)
    engine.send_continue(1)
    engine.send_data(1, b"b", True)
    read = Read(sent_by(engine))
    assert (read.informational, read.body, read.closes) == ([], b"ab", True)


# Informational responses, trailers, pieces, errors


def test_early_hints() -> None:
    engine = engine_after(GET)
    engine.send_headers(1, 200, [], True)
    engine.send_informational(1, 103, [(b"Link", b"</a.css>; rel=preload"), (b"link", b"</b.css>")])
    engine.send_data(1, b"ok", True)
    data = sent_by(engine)
    assert data.startswith(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.css>\r\n\r\nHTTP/1.1 200"
    )
    read = Read(data)
    assert (read.informational, read.body) == ([103], b"ok")


def test_http_1_0_gets_no_informational_response() -> None:
    engine = engine_after(GET_1_0)
    engine.send_informational(1, 103, [(b"link", b"</a.css>")])
    assert engine.data_to_send() == b""


def test_informational_fields_are_checked() -> None:
    engine = engine_after(GET)
    with pytest.raises(ValueError):
        engine.send_informational(1, 103, [(b"link", b"a\r\n\r\n")])
    assert engine.data_to_send() == b""


def test_trailers() -> None:
    engine = engine_after(GET)
    engine.send_headers(1, 200, [(b"trailer", b"x-sum")], True)
    engine.send_data(1, b"abc", False)
    engine.send_trailers(1, [(b"X-Sum", b"6"), (b"date", b"y")])
    read = Read(sent_by(engine))
    assert (read.body, read.trailers, read.surplus) == (b"abc", [(b"x-sum", b"6"), (b"date", b"y")], b"")
    engine = engine_after(GET)
    engine.send_headers(1, 200, [], True)
    engine.send_data(1, b"abc", False)
    with pytest.raises(ValueError):
        engine.send_trailers(1, [(b"x", b"y"), (b"x", b"\n")])
    engine.send_trailers(1, [])
    assert Read(sent_by(engine)).body == b"abc"


@pytest.mark.parametrize(
    ("request_bytes", "headers"), [(GET_1_0, []), (GET, [(b"content-length", b"3")])], ids=["1.0", "length"]
)
def test_trailers_have_no_place_outside_of_chunked_coding(request_bytes: bytes, headers: Headers) -> None:
    engine = engine_after(request_bytes)
    engine.send_headers(1, 200, headers, True)
    engine.send_data(1, b"abc", False)
    engine.send_trailers(1, [(b"x-sum", b"6")])
    data = sent_by(engine)
    assert b"x-sum" not in data
    assert Read(data).body == b"abc"


def test_large_pieces_are_not_joined() -> None:
    engine = engine_after(GET)
    large = b"x" * LARGE_BYTES
    engine.send_headers(1, 200, [(b"content-length", b"%d" % (2 * LARGE_BYTES + 1))], True)
    engine.send_data(1, large, False)
    pieces = engine.data_to_send()
    assert isinstance(pieces, list)
    assert pieces[-1] is large
    assert engine.data_to_send() == b""
    engine.send_data(1, large, False)
    assert engine.data_to_send() == [large]
    engine.send_data(1, b"x", True)
    last = engine.data_to_send()
    assert last == b"x"
    assert Read(b"".join([*pieces, large, b"x"])).body == large + large + b"x"


def test_a_dropped_head_is_forgotten() -> None:
    engine = engine_after(GET)
    engine.send_headers(1, 200, [(b"x", b"y")], True)
    engine.drop_headers(1)
    engine.send_error(1, 500)
    read = Read(sent_by(engine))
    assert (read.status, read.all_of(b"x"), read.closes) == (500, [], True)
    engine.start_next_cycle()
    assert engine.should_close


@pytest.mark.parametrize("status", [400, 408, 413, 414, 417, 431, 500, 501, 503, 504, 505])
def test_error_responses_are_whole(status: int) -> None:
    data = error_response(ResponseDefaults(), status)
    read = Read(data)
    assert (read.status, read.closes, read.surplus) == (status, True, b"")
    assert read.all_of(b"retry-after") == ([b"1"] if status == 503 else [])
    assert read.all_of(b"content-length") == [b"%d" % len(read.body)]


def test_responses_of_one_connection_do_not_mix() -> None:
    engine = engine_after(GET)
    engine.send_headers(1, 200, [], True)
    engine.send_data(1, b"a", False)
    engine.send_data(1, b"", True)
    engine.start_next_cycle()
    engine.receive_data(GET)
    engine.send_headers(1, 200, [(b"content-length", b"3")], True)
    engine.send_data(1, b"abc", True)
    engine.send_trailers(1, [(b"x", b"y")])
    engine.start_next_cycle()
    engine.receive_data(HEAD)
    engine.send_headers(1, 200, [], False)
    engine.send_data(1, b"", True)
    data = sent_by(engine)
    first = data.index(b"0\r\n\r\n") + 5
    assert Read(data[:first]).body == b"a"
    second = data.index(b"abc") + 3
    assert Read(data[first:second]).body == b"abc"
    assert Read(data[second:], "HEAD").status == 200


# Whatever is accepted is read back as it was given

_bytes = st.one_of(
    st.binary(max_size=12), st.sampled_from([b"close", b"3", b"chunked", b"a b", b"a\tb", b"\xe9"])
)
_names = st.one_of(
    st.sampled_from(
        [b"X-A", b"Date", b"Server", b"Connection", b"Content-Length", b"Transfer-Encoding", b"Set-Cookie"]
    ),
    st.binary(max_size=6),
)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(_names, _bytes), max_size=5),
    st.lists(st.binary(max_size=9), min_size=1, max_size=4),
    st.sampled_from([GET, GET_1_0]),
)
def test_whatever_is_accepted_is_read_back(headers: Headers, body: list[bytes], request: bytes) -> None:
    engine = engine_after(request)
    try:
        length = engine.send_headers(1, 200, headers, True)
    except ValueError:
        assert engine.data_to_send() == b""
        return
    if length is not None:
        body = [b"x" * min(length, 100)]
        if length > 100:
            return
    for number, piece in enumerate(body, 1):
        engine.send_data(1, piece, number == len(body))
    read = Read(sent_by(engine))
    assert read.body == b"".join(body)
    assert read.surplus == b""
    framing = (b"content-length", b"transfer-encoding", b"connection")
    ours = [(name.lower(), value.strip(b" \t")) for name, value in headers]
    kept = [field for field in ours if field[0] not in framing]
    assert [field for field in read.headers if field in kept] == kept
    assert len(read.all_of(b"date")) == max(1, sum(name == b"date" for name, _ in kept))
    assert len(read.all_of(b"content-length")) + len(read.all_of(b"transfer-encoding")) <= 1
    assert read.closes is not engine.keep_alive
