"""A message that comes in fragments, RFC 6455 §5.4.

The fragments go into one buffer, so a message in single bytes costs no more memory than a whole one. Text is
checked as it comes, so that it fails in the fragment where it goes wrong. What is compressed is held as it
came until the message is whole: else a few KiB of an unfinished message could stand for all that the size
limit allows, on each of the hundred WebSockets that one connection of HTTP/2 carries.
"""

from __future__ import annotations

from codecs import utf_8_decode

from headrace.errors import RemoteProtocolError
from headrace.protocol.websocket.closing import POLICY_VIOLATION

MAX_EMPTY_FRAGMENTS = 1024
"""Of one message. Honest peers send one or two; a message of empty fragments alone never ends and reaches
no size limit."""

MAX_EMPTY_COMPRESSED_FRAGMENTS = 1_048_576
"""The same where fragments are compressed. A compressor that is not flushed after each, as wsproto's, gives
nothing until it has thousands of symbols, which may stand for megabytes: a message of 16 MiB in fragments of
16 bytes stays within this. An empty fragment costs its 6 bytes on the way and 1 us, but no memory."""


class FragmentedMessage:
    """A message under way.

    Args:
        is_text: its first frame was a text frame.
        is_compressed: RSV1 of its first frame was set, RFC 7692 §6.

    Attributes:
        data: what has come, decompressed.
        held: what has come behind it, still compressed.
    """

    __slots__ = ("_checked_bytes", "_empty_fragments", "_is_text", "data", "held", "is_compressed")

    def __init__(self, is_text: bool, is_compressed: bool) -> None:
        self._is_text = is_text
        self.is_compressed = is_compressed
        self.data = bytearray()
        self.held = bytearray()
        self._checked_bytes = 0
        self._empty_fragments = 0

    def hold(self, payload: bytes) -> None:
        """Take a fragment, perhaps the last, of a compressed message as it came.

        Raises:
            RemoteProtocolError: 1008, too many fragments without data.
        """
        if not payload:
            self._count_empty()
        self.held += payload

    def release(self) -> bytes:
        """Give what is held, to be decompressed."""
        held = bytes(self.held)
        self.held.clear()
        return held

    def add(self, payload: bytes) -> None:
        """Take a fragment that is not the last, decompressed.

        Raises:
            UnicodeDecodeError: the text is not UTF-8, whatever follows.
            RemoteProtocolError: 1008, too many fragments without data.
        """
        if not payload:
            self._count_empty()
            return
        self.data += payload
        if self._is_text:
            # A character may be cut by the end of the fragment; its first bytes are then left for the next.
            # (CPython refuses the first two bytes of a surrogate only with the third.)
            with memoryview(self.data) as view, view[self._checked_bytes :] as unchecked:
                self._checked_bytes += utf_8_decode(unchecked, "strict", False)[1]

    def end(self, payload: bytes) -> str | bytes:
        """Take the last fragment.

        Returns:
            The whole message.

        Raises:
            UnicodeDecodeError: the text is not UTF-8.
        """
        self.data += payload
        return self.data.decode("utf-8") if self._is_text else bytes(self.data)

    def _count_empty(self) -> None:
        self._empty_fragments += 1
        most = MAX_EMPTY_COMPRESSED_FRAGMENTS if self.is_compressed else MAX_EMPTY_FRAGMENTS
        if self._empty_fragments > most:
            text = f"More than {most} empty fragments in one message"
            raise RemoteProtocolError(text, close_code=POLICY_VIOLATION)
