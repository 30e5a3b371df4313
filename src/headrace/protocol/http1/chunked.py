"""Chunked coding, RFC 9112 §7.1: bytes in, body out, and the exact place where the body ends.

llhttp undoes it too, but goes on into the next request and does not say where the body ended; here the
surplus stays bytes, so pipelined requests cost no memory before their turn. Stricter than the grammar where
proxies disagree: no white space around the size or in front of an extension, CRLF only.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from headrace.errors import RemoteProtocolError

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})((?:;%b(?:=(?:%b|%b))?)*)" % (_TOKEN, _TOKEN, _QUOTED))
PARTIAL_SIZE_LINE = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;[\t -~\x80-\xff]*)?")
"""What can still become a size line."""
PLAIN_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")

BARE_LF = re.compile(rb"(?<!\r)\n")
MAX_SIZE_LINE_BYTES = 4096
MAX_EXTENSION_BYTES = 16_384
"""Of one body together; what they say is ignored, so more is only a way to keep us busy."""


class _Reading(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkedDecoder:
    """Decodes one body.

    Attributes:
        complete: the end of the body, trailers included, has been read.
        trailer_section: raw field lines, each with its CRLF; unchecked.
        surplus: bytes behind the end; they belong to the next request.
    """

    __slots__ = (
        "_extension_bytes",
        "_left",
        "_max_trailer_bytes",
        "_partial",
        "_reading",
        "_searched",
        "surplus",
        "trailer_section",
    )

    def __init__(self, max_trailer_bytes: int) -> None:
        self._max_trailer_bytes = max_trailer_bytes
        self._reading = _Reading.SIZE
        self._partial = b""
        self._left = 0
        self._extension_bytes = 0
        self._searched = 0
        self.trailer_section = b""
        self.surplus = b""

    @property
    def complete(self) -> bool:
        """The end of the body has been read."""
        return self._reading is _Reading.DONE

    def feed(self, data: bytes) -> bytes:
        """Decode what has arrived.

        Returns:
            The body's bytes in it, perhaps none.

        Raises:
            RemoteProtocolError: not chunked coding, or its frills are larger than allowed.
        """
        if self._partial:
            data = self._partial + data
            self._partial = b""
        body: list[bytes] = []
        position = 0
        while self._reading is not _Reading.DONE:
            start = position
            if self._reading is _Reading.DATA:
                piece = data[position : position + self._left]
                if not piece:
                    break
                body.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._reading = _Reading.DATA_END
            elif self._reading is _Reading.SIZE:
                position = self._read_size(data, self._read_whole_chunks(data, position, body))
            elif self._reading is _Reading.DATA_END:
                position = self._read_data_end(data, position)
            else:
                position = self._read_trailers(data, position)
            if position == start:
                self._partial = data[start:]
                break
        if self._reading is _Reading.DONE:
            self.surplus = data[position:]
        return body[0] if len(body) == 1 else b"".join(body)

    def _read_whole_chunks(self, data: bytes, start: int, body: list[bytes]) -> int:
        """Take the chunks without extension that are whole in ``data``: nearly all, and the tiny ones."""
        match_at = PLAIN_SIZE_LINE.match
        while match := match_at(data, start):
            begin = match.end()
            end = begin + int(match[1], 16)
            if end == begin or data[end : end + 2] != b"\r\n":
                break
            body.append(data[begin:end])
            start = end + 2
        return start

    def _read_size(self, data: bytes, start: int) -> int:
        end = data.find(b"\r\n", start, start + MAX_SIZE_LINE_BYTES)
        if end < 0:
            # Nothing may be waited for that cannot become a size line.
            line = data[start : start + MAX_SIZE_LINE_BYTES].removesuffix(b"\r")
            if (line and not PARTIAL_SIZE_LINE.fullmatch(line)) or len(data) - start >= MAX_SIZE_LINE_BYTES:
                raise RemoteProtocolError(f"Invalid chunk size: {line[:80]!r}")
            return start
        match = SIZE_LINE.fullmatch(data, start, end)
        if match is None:
            raise RemoteProtocolError(f"Invalid chunk size: {data[start:end][:80]!r}")
        self._extension_bytes += len(match[2])
        if self._extension_bytes > MAX_EXTENSION_BYTES:
            raise RemoteProtocolError("Chunk extensions of more than 16 KiB")
        self._left = int(match[1], 16)
        self._reading = _Reading.DATA if self._left else _Reading.TRAILERS
        return end + 2

    def _read_data_end(self, data: bytes, start: int) -> int:
        end = data[start : start + 2]
        if not b"\r\n".startswith(end):
            raise RemoteProtocolError(f"Chunk is longer than its size: {end!r}")
        if len(end) < 2:
            return start
        self._reading = _Reading.SIZE
        return start + 2

    def _read_trailers(self, data: bytes, start: int) -> int:
        if data.startswith(b"\r\n", start):
            self._reading = _Reading.DONE
            return start + 2
        # Only what is new is searched, or trailers sent in single bytes would cost the square of their size.
        fresh = start + max(self._searched - 3, 0)
        end = data.find(b"\r\n\r\n", fresh, start + self._max_trailer_bytes)
        if end < 0:
            if len(data) - start >= self._max_trailer_bytes:
                raise RemoteProtocolError(f"Trailers of more than {self._max_trailer_bytes} bytes", 431)
            if BARE_LF.search(data, fresh):
                raise RemoteProtocolError("Invalid line end in the trailers")
            self._searched = len(data) - start
            return start
        self.trailer_section = data[start : end + 2]
        self._reading = _Reading.DONE
        return end + 4
