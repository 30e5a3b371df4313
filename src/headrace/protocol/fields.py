"""Header fields: what may stand in them, and tables from a field to its checked form.

RFC 9110 §5 (syntax), §7.2 (Host). The tables are bounded: when one is full it is emptied, which costs the
next requests a microsecond and needs no bookkeeping on each.
"""

from __future__ import annotations

import re
from enum import IntEnum
from http import HTTPStatus
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 §5.6.2."""

FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What would end or corrupt a field line: all controls but the tab. RFC 9110 §5.5."""

HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+(?:%25[0-9A-Za-z\-._~]+)?\]"
    rb"|[0-9A-Za-z\-._~!$&'()*+,;=]*(?:%[0-9A-Fa-f]{2}[0-9A-Za-z\-._~!$&'()*+,;=]*)*)"
    rb"(?::[0-9]{0,5})?",
)
"""uri-host [":" port], RFC 9110 §7.2; the empty value is allowed there."""

FORWARDING = frozenset({
    b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix",
    b"x-forwarded-proto",
})  # fmt: skip
"""Request fields by which proxies speak for their clients."""

NOT_IN_TRAILERS = frozenset({
    b"authorization", b"cache-control", b"connection", b"content-encoding", b"content-length",
    b"content-range", b"content-type", b"cookie", b"expect", b"host", b"max-forwards", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Fields that frame, route or condition a message, RFC 9110 §6.5.1."""

MAX_TABLE_ENTRIES = 4096
MAX_CACHED_LINE_BYTES = 512


good_hosts: dict[bytes, bool] = {}
"""Host values that have been found well-formed."""


def is_good_host(host: bytes) -> bool:
    """Whether a Host or ``:authority`` value is well-formed."""
    if host in good_hosts:
        return True
    if not HOST.fullmatch(host):
        return False
    if len(host) <= MAX_CACHED_LINE_BYTES:
        remember(good_hosts, host, True)
    return True


class ResponseField(IntEnum):
    """The response fields an engine itself acts on."""

    CONTENT_LENGTH = 1
    CONNECTION = 2
    TRANSFER_ENCODING = 3
    DATE = 4
    SERVER = 5


_RESPONSE_FIELDS = {
    b"content-length": ResponseField.CONTENT_LENGTH,
    b"connection": ResponseField.CONNECTION,
    b"transfer-encoding": ResponseField.TRANSFER_ENCODING,
    b"date": ResponseField.DATE,
    b"server": ResponseField.SERVER,
}

_CHANGING = frozenset({
    b"etag", b"last-modified", b"location", b"server-timing", b"set-cookie", b"traceparent",
    b"x-process-time", b"x-request-id",
})  # fmt: skip
"""Fields whose values hardly repeat, or are secrets: remembering them would only push others out."""


class SpecialLine:
    """A checked, serialised response field that an engine acts on.

    Attributes:
        line: ``name: value CRLF``.
        value: lower-case, for Connection.
        length: the number, for Content-Length; else -1.
    """

    __slots__ = ("field", "length", "line", "value")

    def __init__(self, line: bytes, field: ResponseField, value: bytes) -> None:
        self.line = line
        self.field = field
        self.value = value
        self.length = content_length(value) if field is ResponseField.CONTENT_LENGTH else -1


response_lines: dict[tuple[bytes, bytes], bytes | SpecialLine] = {}


def check_field(name: bytes, value: bytes) -> bytes:
    """Check one response field; returns its name in lower case.

    Raises:
        ValueError: a character that would split or corrupt the head.
        TypeError: not byte strings.
    """
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise TypeError(f"header name and value must be bytes, got {(name, value)!r:.80}")
    lower = name.lower()
    if not TOKEN.fullmatch(lower):
        raise ValueError(f"Invalid HTTP header name: {name!r:.80}")
    if FORBIDDEN_IN_VALUE.search(value):
        raise ValueError(f"Invalid HTTP header value for {name!r:.80}: {value!r:.80}")
    return lower


def is_worth_remembering(lower: bytes, value: bytes) -> bool:
    """Whether a checked field is likely to come again."""
    return lower not in _CHANGING and len(value) <= MAX_CACHED_LINE_BYTES


def write_line(name: bytes, value: bytes) -> bytes | SpecialLine:
    """Check one response field and serialise it as ``name: value CRLF``, name lower-cased.

    Raises:
        ValueError, TypeError: see ``check_field``.
    """
    lower = check_field(name, value)
    field = _RESPONSE_FIELDS.get(lower)
    written: bytes | SpecialLine = b"%b: %b\r\n" % (lower, value)
    if field is not None:
        written = SpecialLine(b"%b: %b\r\n" % (lower, value), field, value.strip(b" \t").lower())
    if is_worth_remembering(lower, value):
        remember(response_lines, (name, value), written)
    return written


def content_length(value: bytes) -> int:
    """Read a Content-Length, RFC 9110 §8.6: digits and nothing else.

    Raises:
        ValueError: anything else, or more than 18 digits.
    """
    if not value.isdigit() or len(value) > 18:
        raise ValueError(f"Invalid Content-Length: {value!r:.80}")
    return int(value)


def remember(table: dict[K, V], key: K, value: V) -> None:
    """Put an entry into a bounded table."""
    if len(table) >= MAX_TABLE_ENTRIES:
        table.clear()
    table[key] = value


_PHRASES = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


def phrase(status: int) -> bytes:
    """The reason phrase of a status, empty for an unknown one."""
    return _PHRASES.get(status, b"")


def error_body(status: int) -> bytes:
    """The text of a response that the server gives by itself; 400 has uvicorn's words."""
    return b"Invalid HTTP request received." if status == 400 else phrase(status)


def error_fields(status: int) -> list[tuple[bytes, bytes]]:
    """The fields of such a response, besides its length and what every response begins with."""
    fields = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 503:
        fields.append((b"retry-after", b"1"))
    return fields
