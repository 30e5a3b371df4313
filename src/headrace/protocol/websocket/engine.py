"""The WebSocket engine of one connection, server side: bytes in, events out. RFC 6455 §5.

How the closing handshake moves on is the table ``CLOSING_HANDSHAKE`` of ``closing``. Inside a state the next
byte is one of three things, and a frame is handled only when it is whole:

    start of a frame ──its head──▶ payload ──its last byte──▶ start of a frame
       │     ▲
       └─────┴─ between two fragments of a message, where control frames may come, RFC 6455 §5.4

A head is judged as soon as its bytes are there; nothing is collected for a frame that will be refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.errors import RemoteProtocolError
from headrace.protocol.websocket.closing import (
    INVALID_DATA,
    MESSAGE_TOO_BIG,
    NO_STATUS,
    State,
    Step,
    is_valid_close_code,
)
from headrace.protocol.websocket.deflate import DeflateAgreement, compressed_bound
from headrace.protocol.websocket.events import CloseReceived, ConnectionFailed, Event, PongReceived
from headrace.protocol.websocket.mask import apply_mask
from headrace.protocol.websocket.message import FragmentedMessage
from headrace.protocol.websocket.writer import MAX_CONTROL_BYTES, FrameWriter

NO_EVENTS: tuple[Event, ...] = ()

MAX_TAKEN_BYTES = 65_536
"""When the messages of one call hold so much, it takes no more: a few bytes can decompress to a lot."""

_FIN = 0x80
_RSV1 = 0x40
_OPCODE = 0x0F
_TEXT = 0x1
_CLOSE = 0x8
_PING = 0x9
_PONG = 0xA

_PLAIN_FIRST_BYTES = frozenset({0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A})
"""FIN, three reserved bits and opcode of the frames that exist, RFC 6455 §5.2; control frames always have
FIN, §5.5."""
_DEFLATE_FIRST_BYTES = _PLAIN_FIRST_BYTES | {0x41, 0x42, 0xC1, 0xC2}
"""RSV1 is for the first frame of a data message, RFC 7692 §6."""

# An enum's members are looked up by a descriptor, which costs more than the branch it decides.
_OPEN, _CLOSING, _CLOSED = State


class WebSocketEngine(FrameWriter):
    """Bytes of one connection to events; its ``FrameWriter`` half makes bytes of messages.

    Args:
        max_message_bytes: of one message, over its fragments and decompressed; a larger one is refused with
            1009 before it is collected.
        deflate: what was agreed on compression, or None; belongs to this connection alone.

    Attributes:
        has_others: the last call gave events that are no messages.
        has_unread: the start of a data frame waits in the engine, and perhaps whole messages, because
            ``max_messages`` or ``MAX_TAKEN_BYTES`` was reached. Until it is read no more should be received.
    """

    __slots__ = (
        "_first", "_first_bytes", "_is_holding", "_mask", "_max_compressed_bytes", "_max_message_bytes",
        "_max_short", "_message", "_missing_bytes", "_payload", "_rest", "_rest_start", "_taken_bytes",
        "has_others", "has_unread",
    )  # fmt: skip

    def __init__(self, max_message_bytes: int, deflate: DeflateAgreement | None = None) -> None:
        super().__init__(deflate)
        self.has_others = self.has_unread = False
        self._first_bytes = _PLAIN_FIRST_BYTES if deflate is None else _DEFLATE_FIRST_BYTES
        self._max_message_bytes = max_message_bytes
        self._max_compressed_bytes = compressed_bound(max_message_bytes)
        self._max_short = 128 + min(max_message_bytes, 125)
        """Second byte of the largest masked frame that is short and within the limit."""
        self._message: FragmentedMessage | None = None
        self._is_holding = False
        """Something of earlier calls waits: ``_rest`` or ``_payload``."""
        self._rest = b""
        self._rest_start = 0
        self._payload: bytearray | None = None
        """What has come of a payload that is not whole; still masked."""
        self._missing_bytes = 0
        self._first = 0
        self._mask = b""
        self._taken_bytes = 0
        """Size of the messages that this call has taken, but for those in line, which are short."""

    @property
    def under_way_bytes(self) -> int:
        """What has come of a message that is not whole; control frames, and heads, do not count."""
        message = self._message
        payload = self._payload
        size = 0 if message is None else len(message.data) + len(message.held)
        return size if payload is None or self._first & _OPCODE >= _CLOSE else size + len(payload)

    def receive_data(self, data: bytes, max_messages: int = 32) -> Sequence[Event]:
        """Take what the connection gave; nothing a peer sends makes it raise.

        Args:
            data: any bytes; none to go on with what is unread.
            max_messages: so many at most, and no more once they hold ``MAX_TAKEN_BYTES``;
                what comes behind stays bytes, see ``has_unread``. Only control frames are taken still, up to
                the next data frame: a Close or a Ping does not wait for who takes messages.

        Returns:
            Events in order. After CloseReceived or ConnectionFailed the state is CLOSED, what follows is
            dropped, and the connection is to end once the out-buffer is written.
        """
        self.has_others = False
        if self.state is not _OPEN:
            if self.state is _CLOSED:
                return NO_EVENTS
        elif 6 <= len(data) < 132 and not self._is_holding and self._message is None and max_messages > 0:
            # One short binary message and nothing else, as from a client that waits for its answer. Text can
            # turn out not to be UTF-8, and goes below.
            second = data[1]
            if data[0] == 0x82 and second == len(data) + 122 and second <= self._max_short:
                return (apply_mask(data[6:], data[2:6]),)
        events: list[Event] = []
        position = self._taken_bytes = 0
        try:
            if self._is_holding:
                data, position = self._resume(data, max_messages, events)
                if self._taken_bytes >= MAX_TAKEN_BYTES:
                    max_messages = 0
            size = len(data)
            while position < size and len(events) < max_messages:
                if self._message is None and self.state is _OPEN:
                    taken = self._take_short(data, position, max_messages - len(events), events)
                    if taken > position:
                        position = taken
                        continue
                position = self._take_frame(data, position, events)
                if self._taken_bytes >= MAX_TAKEN_BYTES:
                    break
            if position < size and self._payload is None:
                position = self._take_controls(data, position, events)
        except RemoteProtocolError as error:
            return self._fail(error, events)
        except UnicodeDecodeError as error:
            text = f"Text is not UTF-8: {error.reason}"
            return self._fail(RemoteProtocolError(text, close_code=INVALID_DATA), events)
        if position < size:
            self._hold(data, position)
            self.has_unread = True
        return events

    def _resume(self, data: bytes, max_messages: int, events: list[Event]) -> tuple[bytes, int]:
        """Go on with what earlier calls left.

        Returns:
            Bytes, and the place in them where the next frame starts.
        """
        position = 0
        if self._rest:
            position = self._rest_start
            if data:
                data = self._rest[position:] + data
                position = 0
            else:
                data = self._rest
            self._rest = b""
            self.has_unread = False
        payload = self._payload
        if payload is None:
            self._is_holding = False
            return data, position
        if max_messages < 1 and self._first & _OPCODE < _CLOSE:
            return data, position
        fresh = data[position : position + self._missing_bytes]
        payload += fresh
        self._missing_bytes -= len(fresh)
        if self._missing_bytes:
            return data, len(data)
        self._payload = None
        self._is_holding = False
        unmasked = apply_mask(payload, self._mask)
        del payload
        self._take_payload(self._first, unmasked, events)
        return data, len(data) if self.state is _CLOSED else position + len(fresh)

    def _take_short(self, data: bytes, position: int, most: int, events: list[Event]) -> int:
        """Take whole, short messages of one frame each, which most are; the rest is ``_take_frame``'s.

        Returns:
            Where they end.
        """
        size = len(data)
        max_short = self._max_short
        append = events.append
        for _ in range(most):
            start = position + 6
            if start > size:
                break
            second = data[position + 1]
            end = start + second - 128
            if not 127 < second <= max_short or end > size:
                break
            first = data[position]
            if first == 0x82:
                append(apply_mask(data[start:end], data[start - 4 : start]))
            elif first == 0x81:
                append(apply_mask(data[start:end], data[start - 4 : start]).decode())
            else:
                break
            position = end
        return position

    def _take_controls(self, data: bytes, position: int, events: list[Event]) -> int:
        """Take the control frames that stand before the next data frame.

        Returns:
            Where that starts.
        """
        size = len(data)
        while position < size and data[position] & _OPCODE >= _CLOSE:
            position = self._take_frame(data, position, events)
        return position

    def _hold(self, data: bytes, position: int) -> None:
        self._rest = data
        self._rest_start = position
        self._is_holding = True

    def _take_frame(self, data: bytes, position: int, events: list[Event]) -> int:
        """Take the frame that starts at ``position``, or keep what has come of it.

        Returns:
            Where the next one starts; the end of ``data`` when nothing more is to be read in it.
        """
        size = len(data)
        if size - position < 2:
            self._hold(data[position:], 0)
            return size
        first = data[position]
        second = data[position + 1]
        self._check_start(first, second)
        start = position + 6
        length = second & 127
        if length > 125:
            start += 2 if length == 126 else 8
            if start - 4 > size:
                self._hold(data[position:], 0)
                return size
            length = _read_length(data[position + 2 : start - 4])
        self._check_length(first, length)
        if start > size:
            self._hold(data[position:], 0)
            return size
        mask = data[start - 4 : start]
        end = start + length
        if end > size:
            self._payload = bytearray(data[start:])
            self._missing_bytes = end - size
            self._first = first
            self._mask = mask
            self._is_holding = True
            return size
        self._take_payload(first, apply_mask(data[start:end], mask), events)
        return size if self.state is _CLOSED else end

    def _check_start(self, first: int, second: int) -> None:
        """Judge the first two bytes of a frame: FIN, reserved bits, opcode, MASK, length."""
        if first not in self._first_bytes:
            raise RemoteProtocolError(_why_refused(first))
        if second < 128:
            raise RemoteProtocolError("A client's frame is not masked")
        opcode = first & _OPCODE
        if opcode >= _CLOSE:
            if second - 128 > MAX_CONTROL_BYTES:
                raise RemoteProtocolError(f"A control frame of more than {MAX_CONTROL_BYTES} bytes")
        elif opcode:
            if self._message is not None:
                raise RemoteProtocolError("A message starts inside a message")
        elif self._message is None:
            raise RemoteProtocolError("A continuation without a start")

    def _check_length(self, first: int, length: int) -> None:
        """Judge a payload by its length, before any of it is collected."""
        message = self._message
        if first & _OPCODE >= _CLOSE:
            return
        if first & _RSV1 or (message is not None and message.is_compressed):
            is_too_big = length > self._max_compressed_bytes
        else:
            is_too_big = length + (0 if message is None else len(message.data)) > self._max_message_bytes
        if is_too_big:
            raise RemoteProtocolError(
                f"A message of more than {self._max_message_bytes} bytes", close_code=MESSAGE_TOO_BIG
            )

    def _take_payload(self, first: int, payload: bytes, events: list[Event]) -> None:
        """Take a whole frame, its payload unmasked."""
        opcode = first & _OPCODE
        if opcode >= _CLOSE:
            self._take_control(opcode, payload, events)
            return
        message = self._message
        is_last = first >= _FIN
        if message is None and not is_last:
            message = self._message = FragmentedMessage(opcode == _TEXT, bool(first & _RSV1))
        if first & _RSV1 or (message is not None and message.is_compressed):
            assert self._deflate is not None, "RSV1 is refused without an agreement"
            collected = 0
            if message is not None:
                message.hold(payload)
                if not is_last and len(message.held) <= self._max_message_bytes:
                    return
                # It is whole, or its sender has spent as much as decompressing it can cost.
                payload = message.release()
                collected = len(message.data)
            payload = self._deflate.decompress(payload, is_last, self._max_message_bytes - collected)
        if not is_last:
            assert message is not None
            message.add(payload)
            return
        whole: str | bytes
        if message is not None:
            self._message = None
            whole = message.end(payload)
        else:
            whole = payload.decode() if opcode == _TEXT else payload
        if self.state is _OPEN:
            events.append(whole)
            self._taken_bytes += len(whole)

    def _take_control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == _PING:
            # RFC 6455 §5.5.2: "unless it already received a Close frame"; that ours is sent is no reason.
            self._send_pong(payload)
            return
        self.has_others = True
        if opcode == _PONG:
            events.append(PongReceived(payload))
            return
        code = NO_STATUS
        if len(payload) == 1:
            raise RemoteProtocolError("A Close frame with half a code")
        if payload:
            code = payload[0] << 8 | payload[1]
            if not is_valid_close_code(code):
                raise RemoteProtocolError(f"Close code {code} may not be sent")
        events.append(CloseReceived(code, payload[2:].decode()))
        self._message = None
        self._close(Step.RECEIVE, code, "")

    def _fail(self, error: RemoteProtocolError, events: list[Event]) -> Sequence[Event]:
        """Answer a breach of the protocol and read no more, RFC 6455 §7.1.7."""
        self._close(Step.FAIL, error.close_code, str(error))
        self._message = None
        self.has_others = True
        events.append(ConnectionFailed(error))
        return events


def _read_length(digits: bytes) -> int:
    """Read an extended payload length, RFC 6455 §5.2.

    "the minimal number of bytes MUST be used to encode the length", and of eight "the most significant bit
    MUST be 0".
    """
    length = int.from_bytes(digits, "big")
    if length < (126 if len(digits) == 2 else 65_536):
        raise RemoteProtocolError(f"Payload length {length} in {len(digits)} bytes")
    if length >> 63:
        raise RemoteProtocolError("Payload length of more than 63 bits")
    return length


def _why_refused(first: int) -> str:
    """What is wrong with a frame's first byte."""
    opcode = first & _OPCODE
    if 2 < opcode < _CLOSE or opcode > _PONG:
        return f"Reserved opcode {opcode:#x}"
    if first & 0x70:
        return f"Reserved bits {first >> 4 & 7:03b} set"
    return f"A control frame in fragments, opcode {opcode:#x}"
