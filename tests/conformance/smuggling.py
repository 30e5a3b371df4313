"""Requests that two parsers may read in two ways, and the one answer each is due.

``REFUSED``: (what is odd, bytes, status). ``ACCEPTED``: (what is odd, bytes, the requests that they are as
(method, target, body)). Behind each entry the tests send one more request, which nobody asked for: it must
not be read when the entry is refused, and must be read as it stands when the entry is accepted.

Decided, where RFC 9112 leaves a choice: a length with leading zeros is its number; names with an underscore
are names like others; empty lines before a request are skipped, of CR and LF in any order, as nothing else
can stand there; white space behind a value is not part of it.
"""

from __future__ import annotations

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def _post(fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"POST / HTTP/%b\r\nHost: a\r\n%b\r\n%b" % (version, fields, body)


def _chunked(body: bytes) -> bytes:
    return _post(b"Transfer-Encoding: chunked\r\n", body)


def _line(line: bytes) -> bytes:
    return b"%b\r\nHost: a\r\n\r\n" % line


def _get(fields: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n%b\r\n" % fields


END = b"0\r\n\r\n"
ONE = b"1\r\nx\r\n0\r\n\r\n"

_LENGTH_WITH_CODING = [
    ("CL then TE", _post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", END), 400),
    ("TE then CL", _post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", END), 400),
    ("CL 0 with TE", _post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", END), 400),
    ("CL with TE in capitals", _post(b"CONTENT-LENGTH: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n", END), 400),
    ("CL with TE identity", _post(b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n", b"hello"), 400),
    ("CL with an empty TE", _post(b"Content-Length: 5\r\nTransfer-Encoding:\r\n", b"hello"), 400),
    ("CL with an unknown TE", _post(b"Content-Length: 5\r\nTransfer-Encoding: x\r\n", b"hello"), 400),
    (
        "CL between two TE",
        _post(b"Transfer-Encoding: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        400,
    ),
    (
        "CL with TE and an upgrade",
        _post(
            b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", END
        ),
        400,
    ),
    (
        "CL with TE in GET",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("CL with TE in 1.0", _post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", END, b"1.0"), 400),
]

_CODING = [
    ("TE in 1.0", _post(b"Transfer-Encoding: chunked\r\n", END, b"1.0"), 400),
    ("TE empty", _post(b"Transfer-Encoding:\r\n", END), 400),
    ("TE of white space", _post(b"Transfer-Encoding: \t \r\n", END), 400),
    ("TE identity", _post(b"Transfer-Encoding: identity\r\n", END), 400),
    ("TE twice", _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", END), 400),
    (
        "TE identity, then chunked",
        _post(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", END),
        400,
    ),
    (
        "TE chunked, then identity",
        _post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", END),
        400,
    ),
    (
        "TE gzip, then chunked, apart",
        _post(b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", END),
        400,
    ),
    ("TE empty, then chunked", _post(b"Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", END), 400),
    ("TE chunked twice in a list", _post(b"Transfer-Encoding: chunked, chunked\r\n", END), 400),
    ("TE list with chunked first", _post(b"Transfer-Encoding: chunked, gzip\r\n", END), 400),
    ("TE list with chunked last", _post(b"Transfer-Encoding: gzip, chunked\r\n", END), 501),
    ("TE identity, chunked", _post(b"Transfer-Encoding: identity, chunked\r\n", END), 501),
    ("TE comma in front", _post(b"Transfer-Encoding: ,chunked\r\n", END), 501),
    ("TE comma behind", _post(b"Transfer-Encoding: chunked,\r\n", END), 400),
    ("TE xchunked", _post(b"Transfer-Encoding: xchunked\r\n", END), 400),
    ("TE chunkedx", _post(b"Transfer-Encoding: chunkedx\r\n", END), 400),
    ("TE chunk", _post(b"Transfer-Encoding: chunk\r\n", END), 400),
    ("TE in double quotes", _post(b'Transfer-Encoding: "chunked"\r\n', END), 400),
    ("TE in single quotes", _post(b"Transfer-Encoding: 'chunked'\r\n", END), 400),
    ("TE with a parameter", _post(b"Transfer-Encoding: chunked;q=1\r\n", END), 400),
    ("TE behind a vertical tab", _post(b"Transfer-Encoding: \x0bchunked\r\n", END), 400),
    ("TE before a vertical tab", _post(b"Transfer-Encoding: chunked\x0b\r\n", END), 400),
    ("TE behind a form feed", _post(b"Transfer-Encoding: \x0cchunked\r\n", END), 400),
    ("TE behind a no-break space", _post(b"Transfer-Encoding: \xa0chunked\r\n", END), 400),
    ("TE with a NUL", _post(b"Transfer-Encoding: chunked\x00\r\n", END), 400),
    ("TE space before the colon", _post(b"Transfer-Encoding : chunked\r\n", END), 400),
    ("TE tab before the colon", _post(b"Transfer-Encoding\t: chunked\r\n", END), 400),
    ("TE vertical tab before the colon", _post(b"Transfer-Encoding\x0b: chunked\r\n", END), 400),
    ("TE space in front of the name", _post(b" Transfer-Encoding: chunked\r\n", END), 400),
    ("TE tab in front of the name", _post(b"X: y\r\n\tTransfer-Encoding: chunked\r\n", END), 400),
    ("TE folded", _post(b"Transfer-Encoding:\r\n chunked\r\n", END), 400),
    ("TE folded by a tab", _post(b"Transfer-Encoding:\r\n\tchunked\r\n", END), 400),
    ("TE folded behind", _post(b"Transfer-Encoding: chunked\r\n , identity\r\n", END), 400),
    ("TE behind a bare LF", _post(b"X: y\nTransfer-Encoding: chunked\r\n", END), 400),
    ("TE behind a bare CR", _post(b"X: y\rTransfer-Encoding: chunked\r\n", END), 400),
    ("TE before a bare LF", _post(b"Transfer-Encoding: chunked\nX: y\r\n", END), 400),
    ("TE behind a NUL", _post(b"X: y\x00Transfer-Encoding: chunked\r\n", END), 400),
    ("TE name with a control", _post(b"Transfer-\x08Encoding: chunked\r\n", END), 400),
    ("TE name with a high byte", _post(b"Transfer\xadEncoding: chunked\r\n", END), 400),
    ("TE name with a space", _post(b"Transfer Encoding: chunked\r\n", END), 400),
    ("TE without colon", _post(b"Transfer-Encoding chunked\r\n", END), 400),
    ("TE by an equals sign", _post(b"Transfer-Encoding=chunked\r\n", END), 400),
    (
        "TE with a space and a tab behind, as llhttp has it",
        _post(b"Transfer-Encoding: chunked \t\r\n", END),
        400,
    ),
    ("TE in trailers", _chunked(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
    ("CL in trailers", _chunked(b"0\r\nContent-Length: 5\r\n\r\n"), 400),
    (
        "TE with an upgrade, unknown",
        _post(b"Connection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: gzip\r\n", END),
        501,
    ),
]

_LENGTH_VALUES = (
    b" +5", b" -5", b" -0", b" 0x5", b" 5.0", b" 5e0", b" 5 5", b" 5, 5", b" 5,5", b" 5,6", b" 5;", b" ,5",
    b" 5,",
    b"", b" ", b" \t", b" five", b" 5a", b" a5", b" 5_0", b" _5", b' "5"', b" \xb2", b" \xd9\xa5", b" 5\x00",
    b" \x005",
    b" 5\x0b", b" \x0c5", b" 5\r", b" 5\n", b"\r\n 5", b" 5\r\n 5", b" 18446744073709551616",
    b" 18446744073709551621",
    b" 9223372036854775808", b" 4294967296000000000000005",
    b" " + b"9" * 400, b" " + b"0" * 5000 + b"5", b"\xa05",
)  # fmt: skip

_LENGTH = [
    (f"CL {value!r}", _post(b"Content-Length:%b\r\n" % value, b"hello"), 400) for value in _LENGTH_VALUES
] + [
    ("CL twice, the same", _post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), 400),
    ("CL twice, differing", _post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!"), 400),
    ("CL twice, in other case", _post(b"Content-Length: 5\r\ncontent-length: 5\r\n", b"hello"), 400),
    ("CL twice, apart", _post(b"Content-Length: 5\r\nX: y\r\nContent-Length: 0\r\n", b"hello"), 400),
    ("CL 0 twice", _post(b"Content-Length: 0\r\nContent-Length: 0\r\n"), 400),
    ("CL and an empty one", _post(b"Content-Length: 5\r\nContent-Length:\r\n", b"hello"), 400),
    ("CL space before the colon", _post(b"Content-Length : 5\r\n", b"hello"), 400),
    ("CL tab before the colon", _post(b"Content-Length\t: 5\r\n", b"hello"), 400),
    ("CL space in front of the name", _post(b" Content-Length: 5\r\n", b"hello"), 400),
    ("CL behind a bare LF", _post(b"X: y\nContent-Length: 5\r\n", b"hello"), 400),
    ("CL behind a bare CR", _post(b"X: y\rContent-Length: 5\r\n", b"hello"), 400),
    ("CL name with a NUL", _post(b"Content-Length\x00: 5\r\n", b"hello"), 400),
    ("CL name with a space", _post(b"Content Length: 5\r\n", b"hello"), 400),
    ("CL without colon", _post(b"Content-Length 5\r\n", b"hello"), 400),
]

_CHUNK_STARTS = (
    b"0x1", b"+1", b"-1", b" 1", b"1 ", b"\t1", b"1\t", b"1\x0b", b"\x0b1", b"1\x00", b"g", b"", b"1_0",
    b"1.0", b"1,1",
    b"\xef\xbc\x91", b"1\xa0", b"10000000000000001", b"ffffffffffffffff", b"8000000000000001",
    b"00000000000000001", b'"1"',
    b"1;", b"1 ;a", b"1; a", b"1;a ", b"1;a=", b"1;a =b", b"1;=b", b"1;;", b"1;a\n", b"1;a\nx", b"1;a\rx",
    b"1;a\r",
    b"1;a\x00", b'1;a="b', b'1;a="b\n"', b"1;\x01", b"1a ;", b"1;a={", b"1,a", b"1:a", b"1;\r",
)  # fmt: skip

_CHUNKS = [(f"chunk {start!r}", _chunked(start + b"\r\nx\r\n0\r\n\r\n"), 400) for start in _CHUNK_STARTS] + [
    ("chunk size behind a bare LF", _chunked(b"1\nx\r\n0\r\n\r\n"), 400),
    ("chunk size behind a bare CR", _chunked(b"1\rx\r\n0\r\n\r\n"), 400),
    ("chunk data behind CR CR LF", _chunked(b"1\r\r\nx\r\n0\r\n\r\n"), 400),
    ("chunk longer than its size", _chunked(b"1\r\nxx\r\n0\r\n\r\n"), 400),
    ("chunk shorter than its size", _chunked(b"3\r\nx\r\n0\r\n\r\n"), 400),
    ("chunk end of a bare LF", _chunked(b"1\r\nx\n0\r\n\r\n"), 400),
    ("chunk end of a bare CR", _chunked(b"1\r\nx\r0\r\n\r\n"), 400),
    ("chunk end of LF CR", _chunked(b"1\r\nx\n\r0\r\n\r\n"), 400),
    ("chunk without end", _chunked(b"1\r\nx0\r\n\r\n"), 400),
    ("chunk end of any two bytes", _chunked(b"1\r\nxXX0\r\n\r\n"), 400),
    ("last chunk of a bare LF", _chunked(b"0\n\n"), 400),
    ("last chunk ended by a bare LF", _chunked(b"0\r\n\n"), 400),
    ("last chunk ended by LF CR LF", _chunked(b"0\r\n\n\r\n"), 400),
    ("trailer ended by a bare LF", _chunked(b"0\r\nX: y\n\r\n"), 400),
    ("trailers ended by a bare LF", _chunked(b"0\r\nX: y\r\n\n"), 400),
    ("trailer with a bare CR", _chunked(b"0\r\nX: y\rz\r\n\r\n"), 400),
    ("trailer folded", _chunked(b"0\r\nX: y\r\n z\r\n\r\n"), 400),
    ("trailer with space before the colon", _chunked(b"0\r\nX : y\r\n\r\n"), 400),
    ("trailer behind a space", _chunked(b"0\r\n X: y\r\n\r\n"), 400),
    ("trailer without colon", _chunked(b"0\r\nX\r\n\r\n"), 400),
    ("trailer without name", _chunked(b"0\r\n: y\r\n\r\n"), 400),
    ("trailer with a NUL", _chunked(b"0\r\nX: \x00\r\n\r\n"), 400),
    ("request in place of trailers", _chunked(b"0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
]

_LINES = [
    ("request line ended by a bare LF", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("request line ended by a bare CR", b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    ("all ended by bare LF", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("all ended by bare CR", b"GET / HTTP/1.1\rHost: a\r\r", 400),
    ("field ended by a bare LF", _get(b"Host: a\nX: y\r\n"), 400),
    ("field ended by a bare CR", _get(b"Host: a\rX: y\r\n"), 400),
    ("head ended by LF LF", b"GET / HTTP/1.1\r\nHost: a\n\n", 400),
    ("head ended by CRLF LF", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("head ended by LF CRLF", b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("head ended by CR CRLF", b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", 400),
    ("head ended by CRLF and a space", b"GET / HTTP/1.1\r\nHost: a\r\n \r\n", 400),
    ("CR CR LF", _get(b"Host: a\r\r\n"), 400),
    ("obs-fold", _get(b"Host: a\r\nX: y\r\n z\r\n"), 400),
    ("obs-fold by a tab", _get(b"Host: a\r\nX: y\r\n\tz\r\n"), 400),
    ("obs-fold in Host", _get(b"Host: a\r\n b\r\n"), 400),
    ("obs-fold behind the request line", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("space before the colon", _get(b"Host : a\r\n"), 400),
    ("name with a NUL", _get(b"Host: a\r\nX\x00Y: z\r\n"), 400),
    ("name empty", _get(b"Host: a\r\n: z\r\n"), 400),
    ("name with a slash", _get(b"Host: a\r\nX/Y: z\r\n"), 400),
    ("name in quotes", _get(b'Host: a\r\n"X": z\r\n'), 400),
    ("name with a high byte", _get(b"Host: a\r\n\xe9: z\r\n"), 400),
    ("field without colon", _get(b"Host: a\r\nX\r\n"), 400),
    ("value with a NUL", _get(b"Host: a\r\nX: y\x00z\r\n"), 400),
    ("value with a control", _get(b"Host: a\r\nX: y\x01\r\n"), 400),
    ("value with DEL", _get(b"Host: a\r\nX: \x7f\r\n"), 400),
    ("value with an escape", _get(b"Host: a\r\nX: \x1b[31m\r\n"), 400),
    ("space in front of the method", _line(b" GET / HTTP/1.1"), 400),
    ("NUL in front of the method", _line(b"\x00GET / HTTP/1.1"), 400),
    ("method in small letters", _line(b"get / HTTP/1.1"), 400),
    ("method unknown", _line(b"GETT / HTTP/1.1"), 501),
    ("method CONNECT", _line(b"CONNECT a:80 HTTP/1.1"), 501),
    ("method with a NUL", _line(b"GE\x00T / HTTP/1.1"), 400),
    ("tab behind the method", _line(b"GET\t/ HTTP/1.1"), 400),
    ("two spaces behind the method", _line(b"GET  / HTTP/1.1"), 400),
    ("two spaces before the version", _line(b"GET /  HTTP/1.1"), 400),
    ("tab before the version", _line(b"GET /\tHTTP/1.1"), 400),
    ("vertical tab before the version", _line(b"GET /\x0bHTTP/1.1"), 400),
    ("space behind the version", _line(b"GET / HTTP/1.1 "), 400),
    ("space in the target", _line(b"GET /a b HTTP/1.1"), 400),
    ("second version", _line(b"GET / HTTP/1.1 HTTP/1.1"), 400),
    ("target missing", _line(b"GET HTTP/1.1"), 400),
    ("target empty", _line(b"GET  HTTP/1.1"), 400),
    ("target with a NUL", _line(b"GET /\x00 HTTP/1.1"), 400),
    ("target with a high byte", _line(b"GET /\xff HTTP/1.1"), 400),
    ("target with a fragment", _line(b"GET /a#b HTTP/1.1"), 400),
    ("target without slash", _line(b"GET a HTTP/1.1"), 400),
    ("target * with GET", _line(b"GET * HTTP/1.1"), 400),
    ("target *x", _line(b"OPTIONS *x HTTP/1.1"), 400),
    ("target with userinfo", _line(b"GET http://u@b/ HTTP/1.1"), 400),
    ("target with password", _line(b"GET http://a:80@b/ HTTP/1.1"), 400),
    ("target with a fragment, absolute", _line(b"GET http://a/#b HTTP/1.1"), 400),
    ("target without authority", _line(b"GET http:///a HTTP/1.1"), 400),
    ("target of authority form", _line(b"GET a:80 HTTP/1.1"), 400),
    ("target of another scheme", _line(b"GET gopher://a/ HTTP/1.1"), 400),
    ("target with a bad port", _line(b"GET http://a:b/ HTTP/1.1"), 400),
    ("target with a backslash in the authority", _line(b"GET http://a\\b/ HTTP/1.1"), 400),
    ("version 0.9", _line(b"GET / HTTP/0.9"), 505),
    ("version missing", b"GET /\r\n\r\n", 505),
    ("version missing, with fields", _line(b"GET /"), 505),
    ("version 2.0", _line(b"GET / HTTP/2.0"), 505),
    ("version 1.2", _line(b"GET / HTTP/1.2"), 505),
    ("version 3.0", _line(b"GET / HTTP/3.0"), 505),
    ("version 1.10", _line(b"GET / HTTP/1.10"), 400),
    ("version 01.1", _line(b"GET / HTTP/01.1"), 400),
    ("version 1,1", _line(b"GET / HTTP/1,1"), 400),
    ("version 1", _line(b"GET / HTTP/1"), 400),
    ("version in small letters", _line(b"GET / http/1.1"), 400),
    ("version with a space", _line(b"GET / HTTP /1.1"), 400),
    ("version of RTSP", _line(b"GET / RTSP/1.1"), 505),
    ("version of RTSP, OPTIONS", _line(b"OPTIONS * RTSP/1.0"), 505),
    ("version of ICE", _line(b"SOURCE / ICE/1.0"), 505),
    ("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
]

_HOSTS = [
    ("Host missing", _get(b"X: y\r\n"), 400),
    ("Host missing, absolute-form", b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    ("Host twice", _get(b"Host: a\r\nHost: b\r\n"), 400),
    ("Host twice, the same", _get(b"Host: a\r\nHost: a\r\n"), 400),
    ("Host twice, in other case", _get(b"Host: a\r\nX: y\r\nhOST: b\r\n"), 400),
    ("Host twice in 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("Host twice, absolute-form", b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("Host a list", _get(b"Host: a, b\r\n"), 400),
    ("Host two words", _get(b"Host: a b\r\n"), 400),
    ("Host with a path", _get(b"Host: a/b\r\n"), 400),
    ("Host with userinfo", _get(b"Host: a@b\r\n"), 400),
    ("Host with a scheme", _get(b"Host: http://a\r\n"), 400),
    ("Host with a query", _get(b"Host: a?b\r\n"), 400),
    ("Host with a fragment", _get(b"Host: a#b\r\n"), 400),
    ("Host with a backslash", _get(b"Host: a\\b\r\n"), 400),
    ("Host with a bad port", _get(b"Host: a:8o\r\n"), 400),
    ("Host with two ports", _get(b"Host: a:80:81\r\n"), 400),
    ("Host with a long port", _get(b"Host: a:000080\r\n"), 400),
    ("Host open bracket", _get(b"Host: [::1\r\n"), 400),
    ("Host text behind the bracket", _get(b"Host: [::1]b\r\n"), 400),
    ("Host zone with a bracket", _get(b"Host: [::1%25]@b]\r\n"), 400),
    ("Host bad escape", _get(b"Host: a%zz\r\n"), 400),
    ("Host high byte", _get(b"Host: \xe9\r\n"), 400),
    ("Host with a tab", _get(b"Host: a\tb\r\n"), 400),
    ("Host with a quote", _get(b'Host: "a"\r\n'), 400),
    ("Host with a NUL", _get(b"Host: a\x00b\r\n"), 400),
]

_LENGTHS = [
    ("target absurdly long", _line(b"GET /" + b"a" * 70_000 + b" HTTP/1.1"), 414),
    ("method absurdly long", _line(b"G" * 70_000 + b" / HTTP/1.1"), 414),
    ("value absurdly long", _get(b"Host: a\r\nX: " + b"a" * 70_000 + b"\r\n"), 431),
    ("name absurdly long", _get(b"Host: a\r\n" + b"a" * 70_000 + b": y\r\n"), 431),
    ("fields absurdly many", _get(b"Host: a\r\n" + b"X: y\r\n" * 1000), 431),
    ("chunk extension absurdly long", _chunked(b"1;" + b"a" * 5000 + b"\r\nx\r\n0\r\n\r\n"), 400),
    ("chunk extensions absurdly many", _chunked((b"1;" + b"a" * 3000 + b"\r\nx\r\n") * 6 + END), 400),
    ("trailers absurdly long", _chunked(b"0\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"), 431),
    ("trailers absurdly many", _chunked(b"0\r\n" + b"X: y\r\n" * 1000 + b"\r\n"), 431),
    ("expectation unknown", _post(b"Content-Length: 5\r\nExpect: 200-ok\r\n", b"hello"), 417),
    ("expectation a list", _post(b"Content-Length: 5\r\nExpect: 100-continue, x\r\n", b"hello"), 417),
]

REFUSED: list[tuple[str, bytes, int]] = (
    _LENGTH_WITH_CODING + _CODING + _LENGTH + _CHUNKS + _LINES + _HOSTS + _LENGTHS
)

Request = tuple[str, bytes, bytes]

ACCEPTED: list[tuple[str, bytes, list[Request]]] = [
    ("CL with leading zeros", _post(b"Content-Length: 005\r\n", b"hello"), [("POST", b"/", b"hello")]),
    ("CL among white space", _post(b"Content-Length: \t 5 \t\r\n", b"hello"), [("POST", b"/", b"hello")]),
    ("CL with an underscore is none", _post(b"Content_Length: 5\r\n"), [("POST", b"/", b"")]),
    ("CL of GET", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", [("GET", b"/", b"hello")]),
    (
        "CL of HEAD",
        b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        [("HEAD", b"/", b"hello")],
    ),
    (
        "CL and a body that looks like a request",
        _post(b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED),
        [("POST", b"/", SMUGGLED)],
    ),
    (
        "CL with an upgrade",
        _post(b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", b"hello"),
        [("POST", b"/", b"hello")],
    ),
    ("no CL means no body", _post(b""), [("POST", b"/", b"")]),
    ("TE in mixed case", _post(b"tRANSFER-eNCODING: ChUnKeD\r\n", ONE), [("POST", b"/", b"x")]),
    ("TE behind white space", _post(b"Transfer-Encoding: \t chunked\r\n", ONE), [("POST", b"/", b"x")]),
    ("TE with a space behind", _post(b"Transfer-Encoding: chunked \r\n", ONE), [("POST", b"/", b"x")]),
    ("TE without white space", _post(b"Transfer-Encoding:chunked\r\n", ONE), [("POST", b"/", b"x")]),
    ("TE with an underscore is none", _post(b"Transfer_Encoding: chunked\r\n"), [("POST", b"/", b"")]),
    (
        "TE beside other names",
        _post(b"X-Transfer-Encoding: chunked\r\nTE: chunked\r\n"),
        [("POST", b"/", b"")],
    ),
    (
        "TE of GET",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + ONE,
        [("GET", b"/", b"x")],
    ),
    (
        "TE with an upgrade",
        _post(b"Connection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n", ONE),
        [("POST", b"/", b"x")],
    ),
    (
        "TE that Connection names",
        _post(b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", ONE),
        [("POST", b"/", b"x")],
    ),
    (
        "CL that Connection names",
        _post(b"Connection: content-length\r\nContent-Length: 5\r\n", b"hello"),
        [("POST", b"/", b"hello")],
    ),
    ("chunk size with leading zeros", _chunked(b"0001\r\nx\r\n000\r\n\r\n"), [("POST", b"/", b"x")]),
    (
        "chunk that looks like the last",
        _chunked(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
        [("POST", b"/", b"0\r\n\r\n")],
    ),
    ("chunk extension in quotes", _chunked(b'1;a="0;\\"b"\r\nx\r\n0\r\n\r\n'), [("POST", b"/", b"x")]),
    (
        "trailers that route or condition are dropped",
        _chunked(b"0\r\nHost: b\r\nCookie: c\r\nConnection: close\r\n\r\n"),
        [("POST", b"/", b"")],
    ),
    ("empty lines in front", b"\r\n\r\n" + _line(b"GET / HTTP/1.1"), [("GET", b"/", b"")]),
    ("empty lines of bare LF and CR in front", b"\n\r\r\n" + _line(b"GET / HTTP/1.1"), [("GET", b"/", b"")]),
    ("absolute-form above Host", _line(b"GET http://b/c HTTP/1.1"), [("GET", b"/c", b"")]),
    ("path of an absolute URI", _line(b"GET /http://b/ HTTP/1.1"), [("GET", b"/http://b/", b"")]),
    ("path of two slashes", _line(b"GET //b/ HTTP/1.1"), [("GET", b"//b/", b"")]),
    ("path with dots", _line(b"GET /a/../b/%2e%2e/ HTTP/1.1"), [("GET", b"/a/../b/%2e%2e/", b"")]),
    ("path with an escaped line end", _line(b"GET /%0d%0aX:%20y HTTP/1.1"), [("GET", b"/%0d%0aX:%20y", b"")]),
    ("value with a colon", _get(b"Host: a\r\nX: Content-Length: 5\r\n"), [("GET", b"/", b"")]),
    (
        "pipelined",
        _post(b"Content-Length: 1\r\n", b"x") + _chunked(ONE),
        [("POST", b"/", b"x"), ("POST", b"/", b"x")],
    ),
]
