"""Chunked coding: what is decoded, where it ends, what is refused; llhttp is asked for a second opinion."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import pieces

from headrace.errors import RemoteProtocolError
from headrace.protocol.http1 import HeadParser, HTTP1Limits
from headrace.protocol.http1.chunked import MAX_EXTENSION_BYTES, ChunkedDecoder

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def decode(data: bytes, cut: int = 0, max_trailer_bytes: int = 1000) -> tuple[bytes, ChunkedDecoder, bytes]:
    """Feed until the end of the body: (body, decoder, what was not fed)."""
    decoder = ChunkedDecoder(max_trailer_bytes)
    body = b""
    fed = 0
    for piece in pieces(data, cut):
        body += decoder.feed(piece)
        fed += len(piece)
        if decoder.complete:
            break
    return body, decoder, data[fed:]


@pytest.mark.parametrize("cut", range(6))
@pytest.mark.parametrize(
    ("data", "body", "trailers"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"1\r\na\r\n0\r\n\r\n", b"a", b""),
        (b"00000000000000a\r\n0123456789\r\n000000000000000\r\n\r\n", b"0123456789", b""),
        (b"1;x\r\na\r\n2;y=1;z\r\nbc\r\n0;end\r\n\r\n", b"abc", b""),
        (b'1;q="\t ;\\"\\\\\xff"\r\na\r\n0\r\n\r\n', b"a", b""),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", b""),
        (b"0\r\nA: b\r\nC: d\r\n\r\n", b"", b"A: b\r\nC: d\r\n"),
    ],
)
def test_decoding(data: bytes, body: bytes, trailers: bytes, cut: int) -> None:
    decoded, decoder, left = decode(data + b"GET \x00\r\n\r\n", cut)
    assert decoder.complete
    assert decoded == body
    assert decoder.trailer_section == trailers
    assert decoder.surplus + left == b"GET \x00\r\n\r\n"


@pytest.mark.parametrize("cut", range(4))
@pytest.mark.parametrize(
    "data",
    [
        b"\r\n", b"\n", b"\r\r\n", b"g\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1_0\r\n", b" 1\r\n",
        b"1 \r\n",
        b"1\t\r\n", b"1\x0b\r\n", b"\xef\xbc\x91\r\n", b"\xb9\r\n", b"1\n", b"1\r1", b"1\x00\r\n", b"1,2\r\n",
        b"1.0\r\n",
        b"0000000000000000\r\n", b"ffffffffffffffff\r\n", b"10000000000000000\r\n",
        b"1;\r\n", b"1;;a\r\n", b"1; a\r\n", b"1 ;a\r\n", b"1;a =b\r\n", b"1;a= b\r\n", b"1;a=\r\n",
        b"1;=b\r\n",
        b"1;a=b=c\r\n", b'1;"a"\r\n', b'1;a="b\r\n', b'1;a="b"c\r\n', b'1;a="b" \r\n', b"1;a\nb\r\n",
        b"1;a\rb\r\n",
        b"1;a\x00\r\n", b'1;a="\n"\r\n', b"1;a(b)\r\n", b"1;\xff\r\n", b"1a;b \r\n",
        b"1\r\nab\r\n", b"1\r\na\n", b"1\r\na\r\r\n", b"1\r\na0\r\n", b"2\r\na\r\n0\r\n", b"1\r\na\n\r0\r\n",
        b"0\r\n\n", b"0\r\nA: b\n", b"0\r\nA: b\n\r\n", b"0\r\nA: b\r\n\n",
    ],
)  # fmt: skip
def test_refusals(data: bytes, cut: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(data, cut)
    assert caught.value.status == 400


def test_extensions_count_together() -> None:
    chunk = b"1;" + b"e" * 1023 + b"\r\nx\r\n"
    decoder = ChunkedDecoder(100)
    for _ in range(MAX_EXTENSION_BYTES // 1024):
        assert decoder.feed(chunk) == b"x"
    with pytest.raises(RemoteProtocolError, match="extensions"):
        decoder.feed(chunk)


@pytest.mark.parametrize("cut", range(4))
def test_trailers_above_their_limit_are_431(cut: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(b"0\r\nX: " + b"a" * 200, cut, max_trailer_bytes=100)
    assert caught.value.status == 431


def test_a_large_chunk_is_passed_on_as_it_comes() -> None:
    decoder = ChunkedDecoder(100)
    assert decoder.feed(b"ffffff\r\n") == b""
    for _ in range(255):
        assert len(decoder.feed(b"x" * 0x10000)) == 0x10000
    assert not decoder.complete


# Against llhttp

FRAGMENTS = st.sampled_from([
    b"0\r\n\r\n", b"0\r\n", b"1\r\na\r\n", b"1\r\n", b"a", b"\r\n", b"\r", b"\n", b"3\r\nabc\r\n",
    b"A\r\n0123456789\r\n",
    b";", b"x", b"=", b'"', b"\\", b" ", b"\t", b"1;a=b\r\nx\r\n", b'1;a="b;c"\r\nx\r\n', b"X: y\r\n",
    b"0;e\r\n", b"\x00",
    b"\xff", b"00", b"f", b"-", b"+", b"0x", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n", b"Connection: close\r\n", b"GET / HTTP/1.1\r\n\r\n",
])  # fmt: skip


class _Second:
    def __init__(self) -> None:
        self.body = b""
        self.messages = 0

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.messages += 1


@settings(max_examples=1000, deadline=None)
@given(
    st.one_of(
        st.lists(FRAGMENTS, max_size=12).map(b"".join),
        st.binary(max_size=30),
        st.tuples(st.binary(max_size=40), st.lists(FRAGMENTS, max_size=4).map(b"".join)).map(
            lambda drawn: b"%x\r\n%b\r\n%b0\r\n\r\n" % (len(drawn[0]), *drawn)
        ),
    ),
    st.integers(0, 9),
)
def test_what_is_accepted_llhttp_accepts_with_the_same_body(data: bytes, cut: int) -> None:
    try:
        body, decoder, left = decode(data, cut)
        if decoder.complete and decoder.trailer_section:
            HeadParser(HTTP1Limits()).parse_trailers(decoder.trailer_section)
    except RemoteProtocolError:
        return
    second = _Second()
    llhttp = httptools.HttpRequestParser(second)
    coded = data[: len(data) - len(decoder.surplus) - len(left)] if decoder.complete else data
    try:
        llhttp.feed_data(HEAD + coded)
    except httptools.HttpParserError:
        assert not decoder.complete, "llhttp refuses what was decoded whole"
    assert second.body == body
    assert second.messages == decoder.complete


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    st.binary(max_size=20),
    st.integers(0, 50),
)
def test_every_body_survives_the_coding(parts: list[bytes], behind: bytes, cut: int) -> None:
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    body, decoder, left = decode(coded + behind, cut)
    assert decoder.complete
    assert body == b"".join(parts)
    assert decoder.surplus + left == behind
