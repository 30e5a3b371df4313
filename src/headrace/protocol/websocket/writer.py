"""The sending half of the WebSocket engine: messages and control frames to bytes. RFC 6455 §5.

A server's frames are not masked, RFC 6455 §5.1, and each message is one frame.
"""

from __future__ import annotations

from headrace.errors import LocalProtocolError
from headrace.protocol.websocket.closing import (
    CLOSING_HANDSHAKE,
    NO_STATUS,
    NORMAL_CLOSURE,
    State,
    Step,
    cut_reason,
    is_valid_close_code,
)
from headrace.protocol.websocket.deflate import DeflateAgreement

MAX_CONTROL_BYTES = 125
MAX_PONG_BYTES = 65_536
"""When so many bytes of Pong frames wait, only the newest Ping is answered still, RFC 6455 §5.5.3."""

_TEXT = 0x81
_BINARY = 0x82
_CLOSE = 0x88
_PING = 0x89
_PONG = 0x8A
_RSV1 = 0x40

_SHORT_TEXT_HEADS = [bytes((_TEXT, size)) for size in range(126)]
_SHORT_BINARY_HEADS = [bytes((_BINARY, size)) for size in range(126)]

# An enum's members are looked up by a descriptor, which costs more than the branch it decides.
_OPEN, _CLOSING, _CLOSED = State


class FrameWriter:
    """Encodes frames into an out-buffer.

    Args:
        deflate: what was agreed on compression, or None.

    Attributes:
        state: how far the closing handshake is.
        out_bytes: size of the out-buffer.
    """

    __slots__ = ("_deflate", "_late_pong", "_long_bytes", "_out", "_pong_bytes", "out_bytes", "state")

    def __init__(self, deflate: DeflateAgreement | None) -> None:
        self.state = _OPEN
        self.out_bytes = 0
        self._deflate = deflate
        self._long_bytes = 126 if deflate is None else min(126, deflate.min_bytes)
        """Size from which a message has a longer head, or may be compressed."""
        self._out: list[bytes] = []
        self._pong_bytes = 0
        self._late_pong = b""

    def send_text(self, text: str) -> int:
        """Send a text message.

        Returns:
            ``out_bytes``.

        Raises:
            LocalProtocolError: the connection is not open, or the text holds a surrogate, which UTF-8 has
                no bytes for. Nothing is sent then.
        """
        if self.state is not _OPEN:
            raise LocalProtocolError("Text cannot be sent: the connection is closing")
        try:
            payload = text.encode()
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"Text cannot be sent as UTF-8: {error}"[:200]) from error
        size = len(payload)
        if size >= self._long_bytes:
            return self._send_message(_TEXT, payload)
        self._out.append(_SHORT_TEXT_HEADS[size] + payload)
        self.out_bytes = out_bytes = self.out_bytes + size + 2
        return out_bytes

    def send_bytes(self, data: bytes | bytearray | memoryview) -> int:
        """Send a binary message; what is not ``bytes`` is copied at once.

        Returns:
            ``out_bytes``.

        Raises:
            LocalProtocolError: the connection is not open.
            TypeError: not bytes-like.
        """
        if self.state is not _OPEN:
            raise LocalProtocolError("Bytes cannot be sent: the connection is closing")
        payload = data if type(data) is bytes else bytes(memoryview(data))
        size = len(payload)
        if size >= self._long_bytes:
            return self._send_message(_BINARY, payload)
        self._out.append(_SHORT_BINARY_HEADS[size] + payload)
        self.out_bytes = out_bytes = self.out_bytes + size + 2
        return out_bytes

    def short_text_frame(self, text: object) -> bytes | None:
        """The frame of a text message that need not wait in the out-buffer.

        Returns:
            None when there is something in the out-buffer, the text is long, is not ASCII or could not be
            sent: ``send_text`` then does what is right.
        """
        if type(text) is not str or not text.isascii() or not self._is_short(len(text)):
            return None
        return _SHORT_TEXT_HEADS[len(text)] + text.encode()

    def short_binary_frame(self, data: object) -> bytes | None:
        """The same of a binary message and ``send_bytes``."""
        if type(data) is not bytes or not self._is_short(len(data)):
            return None
        return _SHORT_BINARY_HEADS[len(data)] + data

    def _is_short(self, size: int) -> bool:
        return size < self._long_bytes and not self.out_bytes and self.state is _OPEN

    def send_ping(self, payload: bytes) -> None:
        """Send a Ping frame, RFC 6455 §5.5.2.

        Raises:
            LocalProtocolError: the connection is not open, or the payload has more than 125 bytes.
        """
        if self.state is not _OPEN:
            raise LocalProtocolError("A ping cannot be sent: the connection is closing")
        if len(payload) > MAX_CONTROL_BYTES:
            raise LocalProtocolError(f"A ping carries at most {MAX_CONTROL_BYTES} bytes, not {len(payload)}")
        self._append(bytes((_PING, len(payload))) + payload)

    def send_close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Send a Close frame; the second call does nothing, nor does one behind the peer's own.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; 1005 sends a Close frame without code and
                reason.
            reason: cut to 123 bytes of UTF-8.

        Raises:
            LocalProtocolError: a code that may not be sent, or a code or reason of another type, as
                applications give an exception for its text. Nothing has happened then.
        """
        if not isinstance(code, int) or isinstance(code, bool):
            raise LocalProtocolError(f"A close code is an int, not {code!r:.80}")
        if not isinstance(reason, str):
            raise LocalProtocolError(f"A close reason is a str, not {reason!r:.80}")
        if code != NO_STATUS and not is_valid_close_code(code):
            raise LocalProtocolError(f"Close code {code!r:.80} may not be sent; take 1000 or 3000 to 4999")
        self._close(Step.SEND, code, reason)

    def data_to_send(self) -> bytes:
        """Take the out-buffer."""
        if self._late_pong:
            self._append_late_pong()
        out = self._out
        self.out_bytes = self._pong_bytes = 0
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def pieces_to_send(self) -> list[bytes]:
        """The same in pieces, for who can write them without a copy."""
        if self._late_pong:
            self._append_late_pong()
        out = self._out
        self._out = []
        self.out_bytes = self._pong_bytes = 0
        return out

    def _send_message(self, first: int, payload: bytes) -> int:
        """Write a message of any size as one frame.

        Args:
            first: the frame's first byte.
            payload: not yet compressed.
        """
        deflate = self._deflate
        if deflate is not None and len(payload) >= deflate.min_bytes:
            compressed = deflate.compress(payload)
            if compressed is not None:
                payload = compressed
                first |= _RSV1
        size = len(payload)
        if size < 126:
            head = bytes((first, size))
        elif size < 65_536:
            head = bytes((first, 126, size >> 8, size & 255))
        else:
            head = bytes((first, 127)) + size.to_bytes(8, "big")
        self._out += (head, payload)
        self.out_bytes += len(head) + size
        return self.out_bytes

    def _send_pong(self, payload: bytes) -> None:
        """Answer a Ping. A peer that sends Pings and reads nothing must not fill the memory."""
        frame = bytes((_PONG, len(payload))) + payload
        if self._pong_bytes <= MAX_PONG_BYTES:
            self._pong_bytes += len(frame)
            self._append(frame)
        else:
            self.out_bytes += len(frame) - len(self._late_pong)
            self._late_pong = frame

    def _append_late_pong(self) -> None:
        self._out.append(self._late_pong)
        self._late_pong = b""

    def _close(self, step: Step, code: int, reason: str) -> None:
        """Move the closing handshake on, and write the Close frame if it is due."""
        state, is_due = CLOSING_HANDSHAKE[self.state, step]
        # Before the state moves: a closing connection without its Close frame would wait for an answer.
        payload = b"" if code == NO_STATUS or not is_due else code.to_bytes(2, "big") + cut_reason(reason)
        self.state = state
        if not is_due:
            return
        if self._late_pong:
            self._append_late_pong()
        self._append(bytes((_CLOSE, len(payload))) + payload)

    def _append(self, frame: bytes) -> None:
        self._out.append(frame)
        self.out_bytes += len(frame)
