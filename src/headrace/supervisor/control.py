"""What the supervisor and its workers say to each other, and how it stands on their pipes.

A frame is the payload's length (4 bytes, big endian), the message's kind (1 byte) and the payload. The
payload of ``Publish`` is bytes, as many of them pass; that of every other message is a JSON list of its
fields.

Two pipes lead to a worker. The **control pipe** is served by the event loops on both sides. The **lifeline**
is read by a thread of the worker, so that it hears also while its loop is blocked.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from typing import Any, ClassVar

from headrace.errors import ProtocolError

HEADER_BYTES = 5
MAX_PAYLOAD_BYTES = 16_777_216


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
        is_development: keep the port open with a page that shows what went wrong at the start.
    """

    kind: ClassVar[int] = 1
    worker_id: int
    config: str
    listeners: list[int]
    load_board: int
    is_leader: bool
    is_development: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: its listeners accept. ``error`` is what its page shows in development, else empty."""

    kind: ClassVar[int] = 2
    error: str


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
    """From a worker: it has reached a limit of its own and asks to be replaced."""

    kind: ClassVar[int] = 7
    reason: str


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
        channel: at most 65,535 bytes in UTF-8.
        data: anything.
    """

    kind: ClassVar[int] = 15
    channel: str
    data: bytes


Message = (
    Start | Ready | Failed | Ping | Pong | Drain | Retire | Lead | Force | DumpStacks | Stacks
    | Subscribe | Unsubscribe | Lost | Publish
)  # fmt: skip

_CLASSES: dict[int, Any] = {
    message.kind: message
    for message in (
        Start, Ready, Failed, Ping, Pong, Drain, Retire, Lead, Force, DumpStacks, Stacks,
        Subscribe, Unsubscribe, Lost,
    )
}  # fmt: skip


class ControlError(ProtocolError):
    """The other side of a pipe wrote what it should not; its process is not to be trusted any longer."""


def encode(message: Message) -> bytes:
    """The message as a frame.

    Raises:
        ValueError: it is too large, or the channel's name is.
    """
    if isinstance(message, Publish):
        channel = message.channel.encode()
        payload = len(channel).to_bytes(2, "big") + channel + message.data if len(channel) < 65_536 else b""
        if not payload:
            raise ValueError(f"A channel's name of {len(channel)} bytes; at most 65,535 are possible")
    else:
        payload = json.dumps(astuple(message)).encode()
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"A message of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are possible")
    return len(payload).to_bytes(4, "big") + bytes((message.kind,)) + payload


def decode(kind: int, payload: bytes) -> Message:
    """The message of a frame.

    Raises:
        ControlError: it is none.
    """
    try:
        if kind == Publish.kind:
            end = 2 + int.from_bytes(payload[:2], "big")
            if end > len(payload):
                raise ValueError("cut")
            return Publish(payload[2:end].decode(), payload[end:])
        message: Message = _CLASSES[kind](*json.loads(payload))
    except (KeyError, ValueError, TypeError) as error:
        raise ControlError(f"No message of kind {kind}: {payload[:80]!r}") from error
    return message


class FrameDecoder:
    """Bytes of a pipe to frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes; give the frames that are whole now, as kind and payload.

        Raises:
            ControlError: a length beyond ``MAX_PAYLOAD_BYTES``.
        """
        buffer = self._buffer + data if self._buffer else data
        frames: list[tuple[int, bytes]] = []
        at, size = 0, len(buffer)
        while size - at >= HEADER_BYTES:
            length = int.from_bytes(buffer[at : at + 4], "big")
            if length > MAX_PAYLOAD_BYTES:
                raise ControlError(f"A frame of {length} bytes")
            end = at + HEADER_BYTES + length
            if end > size:
                break
            frames.append((buffer[at + 4], buffer[at + HEADER_BYTES : end]))
            at = end
        self._buffer = buffer[at:]
        return frames
