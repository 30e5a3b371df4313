"""permessage-deflate, RFC 7692: the codec of one connection.

Memory is the point: zlib keeps its window between messages only where context takeover was agreed. Without
it, which is the default, an idle connection holds no zlib state at all. A compressor is then borrowed from
a pool of the process; its messages end with a full flush, which forgets the history, so that nothing of
another connection can leak and the peer can start afresh with each. Decompressors are never shared: a
reference to what came before would read another client's data.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from headrace.errors import RemoteProtocolError
from headrace.protocol.websocket.closing import INVALID_DATA, MESSAGE_TOO_BIG
from headrace.protocol.websocket.codec import (
    CORRUPT,
    LONG_BYTES,
    Compressor,
    Decompressor,
    make_compressor,
    make_decompressor,
)

MIN_COMPRESSED_BYTES = 128
"""Without context takeover a shorter message goes as it is: there is hardly anything to refer to in it."""

TAIL = b"\x00\x00\xff\xff"
"""End of a flush; not sent, RFC 7692 §7.2.1."""

_BEHIND_FINAL_BLOCK = frozenset({b"", b"\x00", TAIL, b"\x00" + TAIL})
"""What may follow a block with BFINAL: the empty block of RFC 7692 §7.2.3.4, or nothing."""

_idle_compressors: dict[tuple[int, int, int, bool], list[Compressor]] = {}
"""Arguments of ``make_compressor`` -> compressors without history. Taking one out and putting it back are
atomic, so two threads never hold the same."""


@dataclass(frozen=True, slots=True)
class DeflateOptions:
    """The server's own configuration.

    Attributes:
        server_context_takeover: our messages may refer to earlier ones; costs about
            2^(bits + 2) + 2^(memory level + 9) bytes for each connection that has sent one.
        client_context_takeover: the client's may; costs about 2^bits + 10,000 bytes for each connection.
        server_max_window_bits: 9 to 15.
        client_max_window_bits: 9 to 15; only used if the client offers ``client_max_window_bits``, else 15.
        level: 1 (fast) to 9 (small); which codec that is, and what it costs: see ``codec``.
        memory_level: 1 to 9.
    """

    server_context_takeover: bool = False
    client_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15
    level: int = 1
    memory_level: int = 5


class DeflateAgreement:
    """What one connection agreed, and its compressor and decompressor.

    Args:
        options: the server's own configuration, for level and memory level.
        server_context_takeover: our messages may refer to earlier ones.
        client_context_takeover: the client's may.
        server_bits: window of our messages, 9 to 15.
        client_bits: window of the client's, 8 to 15.
        response: value of our ``Sec-WebSocket-Extensions``.

    Attributes:
        response: as given.
        min_bytes: a message with fewer bytes goes uncompressed; at least 1, because an empty one would be
            longer, RFC 7692 §7.2.3.6.
    """

    __slots__ = (
        "_client_bits", "_client_context_takeover", "_compressor", "_compressor_key", "_decompressor",
        "_server_context_takeover", "min_bytes", "response",
    )  # fmt: skip

    def __init__(
        self,
        options: DeflateOptions,
        *,
        server_context_takeover: bool,
        client_context_takeover: bool,
        server_bits: int,
        client_bits: int,
        response: bytes,
    ) -> None:
        self.response = response
        self.min_bytes = 1 if server_context_takeover else MIN_COMPRESSED_BYTES
        self._compressor_key = server_bits, options.level, options.memory_level
        self._server_context_takeover = server_context_takeover
        self._compressor: Compressor | None = None
        # A larger window reads what a smaller one wrote, and some zlib calls refuse 8.
        self._client_bits = max(client_bits, 9)
        self._client_context_takeover = client_context_takeover
        self._decompressor: Decompressor | None = None

    def compress(self, payload: bytes) -> bytes | None:
        """Compress a message, RFC 7692 §7.2.1.

        Args:
            payload: at least ``min_bytes``.

        Returns:
            The payload of its frame, RSV1 to be set; None when the message had better go as it is.
        """
        if self._server_context_takeover:
            compressor = self._compressor
            if compressor is None:
                compressor = self._compressor = make_compressor(*self._compressor_key, False)
            return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        key = *self._compressor_key, len(payload) >= LONG_BYTES
        idle = _idle_compressors.setdefault(key, [])
        try:
            compressor = idle.pop()
        except IndexError:
            compressor = make_compressor(*key)
        compressed = compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH)
        # If either call raises, the compressor with a part of the message in it does not come back.
        idle.append(compressor)
        return compressed[:-4] if len(compressed) < len(payload) else None

    def decompress(self, payload: bytes, is_last: bool, max_bytes: int) -> bytes:
        """Decompress a frame of a message, RFC 7692 §7.2.2.

        Args:
            payload: as it came, unmasked.
            is_last: the message ends with it.
            max_bytes: of the result, 0 or more.

        Raises:
            RemoteProtocolError: 1007, the data is corrupt; 1009, there is more, of which no more than a
                byte has been decompressed.
        """
        decompressor = self._decompressor
        if decompressor is None:
            decompressor = self._decompressor = make_decompressor(self._client_bits)
        try:
            data = decompressor.decompress(payload + TAIL if is_last else payload, max_bytes + 1)
        except CORRUPT as error:
            text = f"Compressed data is corrupt: {error}"
            raise RemoteProtocolError(text, close_code=INVALID_DATA) from None
        if len(data) > max_bytes:
            text = "A message of too many bytes when decompressed"
            raise RemoteProtocolError(text, close_code=MESSAGE_TOO_BIG)
        is_over = decompressor.eof
        if is_over and decompressor.unused_data not in _BEHIND_FINAL_BLOCK:
            raise RemoteProtocolError("Data behind the final block of a message", close_code=INVALID_DATA)
        if is_last and (is_over or not self._client_context_takeover):
            self._decompressor = None
        return data


def compressed_bound(size_bytes: int) -> int:
    """The most bytes that zlib makes of a message of that size, with any of its settings."""
    return size_bytes + (size_bytes >> 3) + (size_bytes >> 6) + 64
