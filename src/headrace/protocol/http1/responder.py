"""The sending half of the HTTP/1.1 engine: responses to bytes.

RFC 9112 §4 (status line), §6 (how a body is framed), §7.1 (chunks); RFC 9110 §15.2 (1xx).
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.protocol.fields import ResponseField, SpecialLine, response_lines, write_line
from headrace.protocol.http1.response import ResponseDefaults, error_response

LARGE_BYTES = 32_768
"""From this size on a piece of body is handed to the transport as it is, not joined with its head."""

# An enum's members are looked up by a descriptor, which costs more than the branch it decides.
_CONTENT_LENGTH = ResponseField.CONTENT_LENGTH
_CONNECTION = ResponseField.CONNECTION
_DATE = ResponseField.DATE
_SERVER = ResponseField.SERVER


class Responder:
    """Encodes one response after the other into an out-buffer.

    The receiving half says of each request whether it is HTTP/1.0, whether its client waits for
    ``100 Continue``, and whether another request may follow.

    Args:
        defaults: what responses begin with.

    Attributes:
        keep_alive: another request may follow the one under way.
    """

    __slots__ = (
        "_chunked_response", "_continue_due", "_defaults", "_held_head", "_large", "_must_frame", "_out",
        "_version_1_0", "keep_alive",
    )  # fmt: skip

    def __init__(self, defaults: ResponseDefaults) -> None:
        self._defaults = defaults
        self.keep_alive = True
        self._out: list[bytes] = []
        self._large = False
        self._continue_due = False
        self._held_head: list[bytes] | None = None
        self._must_frame = False
        self._chunked_response = False
        self._version_1_0 = False

    @property
    def is_chunked(self) -> bool:
        """The response under way is framed in chunks."""
        return self._chunked_response

    @property
    def is_close_delimited(self) -> bool:
        """The body of the response under way ends with the connection, RFC 9112 §6.3."""
        return self._version_1_0 and self._must_frame

    def send_error(
        self, stream_id: int, status: int, has_body: bool = True, fields: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Answer by ourselves, to HEAD without the body, and let the connection end."""
        self._out.append(error_response(self._defaults, status, has_body, fields))
        self.keep_alive = False

    def send_continue(self, stream_id: int) -> None:
        """Ask for the body if the client waits to be asked, RFC 9110 §10.1.1."""
        if self._continue_due:
            self._continue_due = False
            self._out.append(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send_informational(self, stream_id: int, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """A 1xx response, RFC 9110 §15.2; HTTP/1.0 has none."""
        if self._version_1_0:
            return
        lines = [_line(field) for field in headers]
        self._out.append(
            b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, b"Early Hints" if status == 103 else b"", b"".join(lines))
        )

    def send_upgrade(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """101 Switching Protocols, RFC 9110 §15.2.2: the engine's last words.

        Raises:
            ValueError, TypeError: a field that cannot be sent; nothing is sent then.
        """
        lines = b"".join([_line(field) for field in headers])
        self._out.append(b"%b%b\r\n" % (self._defaults.head(101), lines))

    def send_headers(
        self, stream_id: int, status: int, headers: Iterable[tuple[bytes, bytes]], has_body: bool
    ) -> int | None:
        """Check and serialise the head of a response; it goes out with the first ``send_data``.

        Args:
            stream_id: 1.
            status: 200 to 999.
            headers: as the application gave them.
            has_body: False for HEAD, 204 and 304; nothing may be sent behind the head.

        Returns:
            The Content-Length that the application promised, or None.

        Raises:
            ValueError, TypeError: a field that cannot be sent; nothing is kept then.
        """
        parts: list[bytes] = [b""]
        length: int | None = None
        own_date = own_server = False
        keep_alive = self.keep_alive
        known = response_lines.get
        for field in headers:
            try:
                line = known(field)
            except TypeError:
                line = write_line(*field)  # a list: fine as a pair, but no key
            if line is None:
                line = write_line(*field)
            if type(line) is bytes:
                parts.append(line)
                continue
            assert isinstance(line, SpecialLine)
            kind = line.field
            if kind is _CONTENT_LENGTH:
                if length is None:
                    length = line.length
                    if status != 204:
                        parts.append(line.line)
                elif length != line.length:
                    raise ValueError(f"Content-Length twice: {length} and {line.length}")
            elif kind is _CONNECTION:
                if b"close" in line.value:
                    keep_alive = False
            elif kind is _DATE:
                own_date = True
                parts.append(line.line)
            elif kind is _SERVER:
                own_server = True
                parts.append(line.line)
        if own_date or own_server:
            parts[0] = self._defaults.head_without(status, date=own_date, server=own_server)
        else:
            parts[0] = self._defaults.heads.get(status) or self._defaults.head(status)
        self.keep_alive = keep_alive
        self._must_frame = has_body and length is None
        self._chunked_response = False
        self._held_head = parts
        return length

    def add_fields(self, stream_id: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Add fields to the head that is held: the server's own, which need no check, names in lower case."""
        assert self._held_head is not None
        self._held_head += [b"%b: %b\r\n" % field for field in fields]

    def drop_headers(self, stream_id: int) -> None:
        """Forget a head that is still held."""
        self._held_head = None

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Encode a piece of the response's body, and the head if it is still held.

        A response that is whole in its first piece gets its Content-Length, one that comes in pieces is
        chunked, and to an HTTP/1.0 client ends with the connection. RFC 9112 §6.
        """
        out = self._out
        head = self._held_head
        if head is not None:
            self._held_head = None
            if self._continue_due:
                # RFC 9110 §10.1.1: a client that was not asked for its body may send it or not, so what
                # comes behind this response could be either; and it is too late to ask.
                self._continue_due = False
                self.keep_alive = False
            if self._must_frame:
                if end_stream:
                    head.append(b"content-length: %d\r\n" % len(data))
                elif self._version_1_0:
                    self.keep_alive = False
                else:
                    self._chunked_response = True
                    head.append(b"transfer-encoding: chunked\r\n")
            head.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
            out += head
        if len(data) >= LARGE_BYTES:
            self._large = True
        if not self._chunked_response:
            if data:
                out.append(data)
            return
        if data:
            out.append(b"%x\r\n" % len(data))
            out.append(data)
            out.append(b"\r\n")
        if end_stream:
            out.append(b"0\r\n\r\n")

    def send_trailers(self, stream_id: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """End the response with trailers; where the framing has no place for them they are dropped.

        Raises:
            ValueError, TypeError: a field that cannot be sent; the body is not ended then.
        """
        lines = [_line(field) for field in headers]
        if self._chunked_response:
            self._out.append(b"0\r\n%b\r\n" % b"".join(lines))

    def data_to_send(self) -> bytes | list[bytes]:
        """Take the out-buffer: joined, or in pieces when some are dear to copy."""
        out = self._out
        if self._large:
            self._large = False
            self._out = []
            return out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data


def _line(field: tuple[bytes, bytes]) -> bytes:
    name, value = field
    line = write_line(name, value)
    return line.line if isinstance(line, SpecialLine) else line
