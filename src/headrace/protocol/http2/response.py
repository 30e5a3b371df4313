"""Response fields of HTTP/2: what every response begins with, and a table from a field to its checked form.

RFC 9113 §8.2 (names in lower case, no connection-specific fields), §8.3.2 (``:status``).
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.protocol.fields import check_field, content_length, is_worth_remembering, remember

Pair = tuple[bytes, bytes]

_CONNECTION_SPECIFIC = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""RFC 9113 §8.2.2: an application that also runs under HTTP/1.1 may send them; they are left out."""


class SpecialField:
    """A checked response field that the engine acts on.

    Attributes:
        pair: what is sent, None for a field that has no place in HTTP/2.
        name: in lower case.
        length: the number, for Content-Length; else -1.
    """

    __slots__ = ("length", "name", "pair")

    def __init__(self, pair: Pair | None, name: bytes, length: int) -> None:
        self.pair = pair
        self.name = name
        self.length = length


response_fields: dict[Pair, Pair | SpecialField] = {}


def read_field(name: bytes, value: bytes) -> Pair | SpecialField:
    """Check one response field, and remember it.

    Raises:
        ValueError, TypeError: see ``protocol.fields.check_field``.
    """
    lower = check_field(name, value)
    # RFC 9113 §8.2.1: no white space around a value; peers refuse the whole response for it.
    value_sent = value.strip(b" \t")
    read: Pair | SpecialField = (lower, value_sent)
    if lower == b"content-length":
        read = SpecialField((lower, value_sent), lower, content_length(value_sent))
    elif lower in (b"date", b"server"):
        read = SpecialField((lower, value_sent), lower, -1)
    elif lower in _CONNECTION_SPECIFIC:
        read = SpecialField(None, lower, -1)
    if is_worth_remembering(lower, value):
        remember(response_fields, (name, value), read)
    return read


def read_pairs(fields: Iterable[Pair]) -> list[Pair]:
    """Check several fields; those that have no place in HTTP/2 are left out.

    Raises:
        ValueError, TypeError: see ``protocol.fields.check_field``.
    """
    pairs = []
    for name, value in fields:
        read = read_field(name, value)
        pair = read.pair if isinstance(read, SpecialField) else read
        if pair is not None:
            pairs.append(pair)
    return pairs


CheckedHead = tuple[int, list[Pair] | None, list[Pair], int | None]
"""Status and fields as the application gave them, the head made of them, and the length that it promises."""

_NO_HEAD: CheckedHead = (0, None, [], None)


class HTTP2Defaults:
    """``:status`` and the default fields of a response, made once a second for each status.

    Args:
        server: value of the Server field; None sends none.
        send_date: whether Date is sent.
        fields: further default fields; ``server`` or ``date`` among them stand in place of ours.

    Attributes:
        heads: by status, what ``head`` has made since the last ``set_date``; to be copied, not changed.
        last: the head that was checked last, not to be changed either: the same fields need no second look.

    Raises:
        ValueError: a field that cannot be sent.
    """

    def __init__(
        self, server: bytes | None = b"headrace", send_date: bool = True, fields: tuple[Pair, ...] = ()
    ) -> None:
        names = {name.lower() for name, _ in fields}
        self._send_date = send_date and b"date" not in names
        self._server = None if server is None or b"server" in names else (b"server", server)
        self._fields = read_pairs(fields)
        self._date: Pair | None = None
        self.heads: dict[int, list[Pair]] = {}
        self.last: CheckedHead = _NO_HEAD

    def set_date(self, value: bytes) -> None:
        """Take the Date of the next second, an IMF-fixdate."""
        self._date = (b"date", value) if self._send_date else None
        self.heads.clear()
        self.last = _NO_HEAD

    def head(self, status: int) -> list[Pair]:
        """``:status`` and the default fields."""
        head = self.heads.get(status)
        if head is None:
            head = self.heads[status] = self.head_without(status, frozenset())
        return head

    def head_without(self, status: int, names: frozenset[bytes] | set[bytes]) -> list[Pair]:
        """The same, without the fields that the application sets itself."""
        head = [(b":status", b"%d" % status)]
        if self._date is not None and b"date" not in names:
            head.append(self._date)
        if self._server is not None and b"server" not in names:
            head.append(self._server)
        return head + self._fields
