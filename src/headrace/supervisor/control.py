"""What the supervisor and its workers say to each other, and how it stands on their pipes.

A frame is the payload's length (4 bytes, big endian), the message's kind (1 byte) and the payload. The
payload of ``Publish``, as many of them pass, is the length of the channel's name (2 bytes, big endian), the
name, and the data; that of ``PagePiece``, which may be long, is the number (4 bytes), one byte, 1 in the last
piece and else 0, and the data; that of every other message is a JSON list of its fields.

Two pipes lead to a worker. The **control pipe** is served by the event loops on both sides. The **lifeline**
is read by a thread of the worker, so that it hears also while its loop is blocked.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, fields
from struct import Struct
from struct import error as StructError
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from headrace.errors import ProtocolError

HEADER_BYTES = 5
MAX_PAYLOAD_BYTES = 16_777_216
MAX_CHANNEL_BYTES = 1_024
"""Of a channel's name in UTF-8."""
MAX_CHANNELS = 65_536
"""That one worker subscribes to."""
MAX_DATA_BYTES = 1_048_576
"""Of one published message: as it cannot be interrupted, it delays what stands behind it on the pipe."""

_HEADER = Struct(">IB")
_PUBLISH_HEADER = Struct(">IBH")
_PIECE_HEADER = Struct(">I?")


@dataclass(frozen=True, slots=True)
class Start:
    """To a new worker, first of all.

    Attributes:
        worker_id: small and reused: the worker's place in the load board, and its name to people.
        config: the resolved configuration, pickled, in base64.
        listeners: descriptors of the listening sockets, inherited under the same numbers.
        load_board: descriptor of the shared memory that holds the number of open connections of each worker;
            -1 for none.
        is_leader: whether it leads from its beginning.
        shows: which errors of its start it shows as a page, with the port open: ``none``, ``application``
            (its own faults) or ``every``.
    """

    kind: ClassVar[int] = 1
    worker_id: int
    config: str
    listeners: list[int]
    load_board: int
    is_leader: bool
    shows: str


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: its listeners accept."""

    kind: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Failed:
    """From a worker: it could not start, and ends.

    Attributes:
        sentence: one, for the operator.
        traceback: of the application's fault; empty for others.
    """

    kind: ClassVar[int] = 3
    sentence: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Ping:
    """To a worker, again and again."""

    kind: ClassVar[int] = 4
    number: int


@dataclass(frozen=True, slots=True)
class Pong:
    """From a worker's event loop, and how it does.

    Attributes:
        number: the ping's.
        connections, running: open, and exchanges whose application has not returned.
        requests: since its start.
        memory_bytes: resident set.
        lag_s: the longest time its loop was late since the last pong.
    """

    kind: ClassVar[int] = 5
    number: int
    connections: int
    running: int
    requests: int
    memory_bytes: int
    lag_s: float


@dataclass(frozen=True, slots=True)
class Drain:
    """To a worker: end what runs, and go.

    Attributes:
        graceful_s: how long running requests may take; -1 waits for ever.
        is_replaced: another serves on: idle connections may be used once more, for their keep-alive time.
    """

    kind: ClassVar[int] = 6
    graceful_s: float
    is_replaced: bool


@dataclass(frozen=True, slots=True)
class Retire:
    """From a worker: it has reached a limit of its own and asks to be replaced; see ``seat.Reason``."""

    kind: ClassVar[int] = 7
    cause: str
    words: str


@dataclass(frozen=True, slots=True)
class Lead:
    """To a worker: it is the leader from now on."""

    kind: ClassVar[int] = 8


@dataclass(frozen=True, slots=True)
class Force:
    """To a worker that drains: wait no longer."""

    kind: ClassVar[int] = 9


@dataclass(frozen=True, slots=True)
class DumpStacks:
    """Over the lifeline: say where every thread and task is."""

    kind: ClassVar[int] = 10


@dataclass(frozen=True, slots=True)
class Stacks:
    """The answer over the lifeline.

    Attributes:
        where: file, line and function that the loop's thread is in.
        text: all threads and tasks, many lines.
    """

    kind: ClassVar[int] = 11
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """From a worker: messages of this channel are wanted."""

    kind: ClassVar[int] = 12
    channel: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """From a worker: they no longer are."""

    kind: ClassVar[int] = 13
    channel: str


@dataclass(frozen=True, slots=True)
class Lost:
    """To a worker that was too slow: so many published messages did not reach it."""

    kind: ClassVar[int] = 14
    count: int


@dataclass(frozen=True, slots=True)
class Publish:
    """A message of the backplane, from the worker that publishes and to those that subscribe.

    Attributes:
        channel: at most ``MAX_CHANNEL_BYTES`` in UTF-8.
        data: anything, at most ``MAX_DATA_BYTES``.
    """

    kind: ClassVar[int] = 15
    channel: str
    data: bytes


@dataclass(frozen=True, slots=True)
class PageAsked:
    """From a worker: the page of all workers' metrics is wanted.

    Attributes:
        number: its answer has the same.
        format: name of a ``telemetry.metrics.exposition.Format``.
        is_gzipped: in gzip.
    """

    kind: ClassVar[int] = 16
    number: int
    format: str
    is_gzipped: bool


@dataclass(frozen=True, slots=True)
class PagePiece:
    """To a worker: a part of the page it asked for; of no data at all when there is no page.

    Attributes:
        number: as it was asked by, below 2**32.
        is_last: the page is whole.
        data: the next bytes of it.
    """

    kind: ClassVar[int] = 17
    number: int
    is_last: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Collect:
    """To a worker: have what the application's own collectors say written into the store of metrics."""

    kind: ClassVar[int] = 18


@dataclass(frozen=True, slots=True)
class Collected:
    """From a worker: it is written, as far as it could be had in time.

    Attributes:
        is_any: the application has such collectors.
    """

    kind: ClassVar[int] = 19
    is_any: bool


Message = (
    Start | Ready | Failed | Ping | Pong | Drain | Retire | Lead | Force | DumpStacks | Stacks
    | Subscribe | Unsubscribe | Lost | Publish | PageAsked | PagePiece | Collect | Collected
)  # fmt: skip

_CLASSES: dict[int, Any] = {
    message.kind: message
    for message in (
        Start, Ready, Failed, Ping, Pong, Drain, Retire, Lead, Force, DumpStacks, Stacks,
        Subscribe, Unsubscribe, Lost, PageAsked, Collect, Collected,
    )
}  # fmt: skip


_HINTS: dict[int, tuple[Any, ...]] = {
    kind: tuple(hints[field.name] for field in fields(message))
    for kind, message in _CLASSES.items()
    for hints in (get_type_hints(message),)
}
"""Kind to the types of the fields."""


class ControlError(ProtocolError):
    """The other side of a pipe wrote what it should not; its process is not to be trusted any longer."""


def encode(message: Message) -> bytes:
    """The message as a frame.

    Raises:
        ValueError: it is too large, or the channel's name is or has no UTF-8.
    """
    if isinstance(message, Publish):
        return encode_publish(encode_channel(message.channel), message.data)
    if isinstance(message, PagePiece):
        return encode_frame(message.kind, _PIECE_HEADER.pack(message.number, message.is_last) + message.data)
    payload = json.dumps(astuple(message)).encode()
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"A message of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are possible")
    return encode_frame(message.kind, payload)


def encode_frame(kind: int, payload: bytes) -> bytes:
    """The frame of a payload that is known to be good."""
    return _HEADER.pack(len(payload), kind) + payload


def encode_channel(channel: str) -> bytes:
    """The name of a channel as ``encode_publish`` takes it.

    Raises:
        ValueError: it is too long, or has no UTF-8.
    """
    name = channel.encode()
    if len(name) > MAX_CHANNEL_BYTES:
        raise ValueError(
            f"The name of a channel has {len(name)} bytes; at most {MAX_CHANNEL_BYTES} are possible"
        )
    return name


def encode_publish(name: bytes, data: bytes) -> bytes:
    """``Publish`` as a frame, from what ``encode_channel`` gave.

    Raises:
        ValueError: there are too many data.
    """
    if len(data) > MAX_DATA_BYTES:
        raise ValueError(f"A message has {len(data)} bytes; at most {MAX_DATA_BYTES} are possible")
    return _PUBLISH_HEADER.pack(2 + len(name) + len(data), Publish.kind, len(name)) + name + data


def channel_of(payload: bytes) -> bytes:
    """The channel's name in a payload of ``Publish``; the data are behind it.

    Raises:
        ControlError: it is cut, or something is too large.
    """
    size = len(payload)
    end = 2 + (payload[0] << 8 | payload[1]) if size >= 2 else 2
    if end > size or end > 2 + MAX_CHANNEL_BYTES or size - end > MAX_DATA_BYTES:
        raise ControlError(f"No message of a channel: {size} bytes, {payload[:80]!r}")
    return payload[2:end]


def decode(kind: int, payload: bytes) -> Message:
    """The message of a frame.

    Raises:
        ControlError: it is none.
    """
    try:
        if kind == Publish.kind:
            channel = channel_of(payload)
            return Publish(channel.decode(), payload[2 + len(channel) :])
        if kind == PagePiece.kind:
            number, is_last = _PIECE_HEADER.unpack_from(payload)
            return PagePiece(number, is_last, payload[_PIECE_HEADER.size :])
        values = json.loads(payload)
        if not _is_of(values, list) or not all(map(_is_of, values, _HINTS[kind])):
            raise TypeError("fields")
        message: Message = _CLASSES[kind](*values)
    except (KeyError, ValueError, TypeError, RecursionError, StructError) as error:
        raise ControlError(f"No message of kind {kind}: {payload[:80]!r}") from error
    return message


def _is_of(value: object, hint: Any) -> bool:
    """Whether a value out of JSON is what a field's annotation says."""
    if get_origin(hint) is list:
        return type(value) is list and all(_is_of(item, get_args(hint)[0]) for item in value)
    # Not isinstance: a bool is no number here.
    return type(value) is hint or (hint is float and type(value) is int)


class FrameDecoder:
    """Bytes of a pipe to frames."""

    __slots__ = ("_missing_bytes", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # the beginning of a frame, as it was read
        self._missing_bytes = 0  # until it is worth looking at: its header, or all of it

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes; give the frames that are whole now, as kind and payload.

        Raises:
            ControlError: a length beyond ``MAX_PAYLOAD_BYTES``.
        """
        if self._parts:
            self._parts.append(data)
            self._missing_bytes -= len(data)
            if self._missing_bytes > 0:
                # Joined when it is whole and not before: a large frame comes in hundreds of reads.
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        frames: list[tuple[int, bytes]] = []
        at, size = 0, len(data)
        unpack = _HEADER.unpack_from
        missing = HEADER_BYTES - size
        while missing <= 0:
            length, kind = unpack(data, at)
            if length > MAX_PAYLOAD_BYTES:
                raise ControlError(f"A frame of {length} bytes")
            start = at + HEADER_BYTES
            end = start + length
            if end > size:
                missing = end - size
                break
            frames.append((kind, data[start:end]))
            at = end
            missing = HEADER_BYTES + at - size
        if at < size:
            self._parts.append(data[at:])
            self._missing_bytes = missing
        return frames
