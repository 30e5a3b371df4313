"""What every response begins with, and the framing of its body.

RFC 9112 §4 (status line), §6 (framing); RFC 9110 §6.6.1 (Date), §10.2.4 (Server).
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.protocol.fields import SpecialLine, error_body, error_fields, phrase, write_line


class ResponseDefaults:
    """The status line and the default fields of a response, serialised once a second for each status.

    The server that owns the clock calls ``set_date``.

    Args:
        server: value of the Server field; None sends none.
        send_date: whether Date is sent.
        fields: further default fields, (name, value) byte pairs; ``server`` or ``date`` among them stand in
            place of ours.

    Attributes:
        heads: by status, what ``head`` has made since the last ``set_date``.

    Raises:
        ValueError: a field that cannot be sent.
    """

    def __init__(
        self,
        server: bytes | None = b"headrace",
        send_date: bool = True,
        fields: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        names = {name.lower() for name, _ in fields}
        self._send_date = send_date and b"date" not in names
        self._server = b"" if server is None or b"server" in names else b"server: %b\r\n" % server
        self._fields = b"".join(_serialised(name, value) for name, value in fields)
        self._date = b""
        self.heads: dict[int, bytes] = {}

    def set_date(self, value: bytes) -> None:
        """Take the Date of the next second, an IMF-fixdate."""
        self._date = b"date: %b\r\n" % value if self._send_date else b""
        self.heads.clear()

    def head(self, status: int) -> bytes:
        """Status line and default fields, up to the application's own fields."""
        head = self.heads.get(status)
        if head is None:
            head = self.heads[status] = self.head_without(status, date=False, server=False)
        return head

    def head_without(self, status: int, *, date: bool, server: bool) -> bytes:
        """The same, without the fields that the application sets itself."""
        return b"HTTP/1.1 %d %b\r\n%b%b%b" % (
            status,
            phrase(status),
            b"" if date else self._date,
            b"" if server else self._server,
            self._fields,
        )


def _serialised(name: bytes, value: bytes) -> bytes:
    line = write_line(name, value)
    return line.line if isinstance(line, SpecialLine) else line


def error_response(
    defaults: ResponseDefaults,
    status: int,
    has_body: bool = True,
    fields: Iterable[tuple[bytes, bytes]] = (),
) -> bytes:
    """A whole response that the server gives by itself and closes behind.

    Without its body it is the answer to HEAD, RFC 9110 §9.3.2.
    """
    body = error_body(status)
    further = b"".join(_serialised(name, value) for name, value in (*error_fields(status), *fields))
    return b"%b%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        defaults.head(status),
        further,
        len(body),
        body if has_body else b"",
    )
