"""The backplane's exchange in the supervisor: what one worker publishes goes to the others that subscribe.

A message is forwarded unopened: only its channel is looked at. It does not go back to the worker that
published it, whose relay has delivered it there. All that one read brought for a subscriber is one write to
it. The order of one publisher's messages is kept; those of several arrive in any order, which may differ from
worker to worker.

Who waits for whom:

- **A slow worker costs only itself.** What its pipe does not take waits here, up to ``MAX_WAITING_BYTES`` and
  one batch. From then on it misses what is published, until all that waits is written; it is then told how
  many messages that was (``Lost``), before it gets the next. Nobody else waits for it.
- **Control messages overtake.** A batch is written only while the pipe is under its mark, so a ping has at
  most that mark, one batch and the kernel's buffer before it, and not all that waits here.
- **A worker that floods has one read a turn**, as every other pipe has: at most 256 KiB: 2 ms of work
  for messages of 100 bytes to four workers, and 30 ms for empty ones. What the supervisor has not read waits
  at the worker's own end, and brakes it there (``Relay``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from headrace.supervisor.control import (
    MAX_CHANNELS,
    ControlError,
    Lost,
    Publish,
    Subscribe,
    Unsubscribe,
    channel_of,
    decode,
    encode_channel,
    encode_frame,
)
from headrace.supervisor.pipe import ControlPipe

MAX_WAITING_BYTES = 1_048_576
"""What is kept for a worker that does not read; a batch begins to wait only below it."""


class Hub:
    """Routes the messages of a supervisor's workers.

    Attributes:
        messages: published since the start.
        lost: deliveries that were not made, as a subscriber was too slow.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.lost = 0
        self._members: dict[int, _Member] = {}
        # Channel to who subscribes; one without subscribers is not here.
        self._routes: dict[bytes, tuple[_Member, ...]] = {}

    def add(self, worker_id: int, pipe: ControlPipe) -> None:
        """A worker takes part; ``remove`` must follow.

        Args:
            worker_id: one that is still there under the same number is removed.
            pipe: to write to; its frames come in through ``on_frames``.
        """
        self.remove(worker_id)
        self._members[worker_id] = _Member(pipe)

    def remove(self, worker_id: int) -> None:
        """A worker is gone: forget its subscriptions and what waits for it. Nothing happens a second time."""
        member = self._members.pop(worker_id, None)
        if member is None:
            return
        for channel in member.channels:
            self._remove_route(channel, member)
        member.close()

    def waiting_bytes(self, worker_id: int) -> int:
        """What waits here for a worker, without what its pipe has taken; 0 for one that takes no part."""
        member = self._members.get(worker_id)
        return member.waiting_bytes if member is not None else 0

    def on_frames(self, worker_id: int, frames: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Take what one read of a worker's pipe brought; give the frames that are not the backplane's.

        Raises:
            ControlError: one of the frames is none, or over a limit; the worker is not to be trusted any
                longer. No message of this read has been forwarded.
        """
        others = []
        publisher = self._members.get(worker_id)
        batches: dict[_Member, list[bytes]] = {}
        routes = self._routes
        for kind, payload in frames:
            if kind == Publish.kind:
                self.messages += 1
                frame = b""
                for member in routes.get(channel_of(payload), ()):
                    if member is publisher:
                        continue
                    frame = frame or encode_frame(kind, payload)
                    if member in batches:
                        batches[member].append(frame)
                    else:
                        batches[member] = [frame]
            elif kind == Subscribe.kind or kind == Unsubscribe.kind:
                self._change(publisher, decode(kind, payload))
            else:
                others.append((kind, payload))
        for member, batch in batches.items():
            self.lost += member.take(batch)
        return others

    def _change(self, member: _Member | None, message: object) -> None:
        if member is None:
            return  # its last words, read when it had been removed
        assert isinstance(message, (Subscribe, Unsubscribe))
        channel = _name(message.channel)
        if isinstance(message, Subscribe) and channel not in member.channels:
            if len(member.channels) >= MAX_CHANNELS:
                raise ControlError(f"A subscription beyond {MAX_CHANNELS} channels")
            member.channels.add(channel)
            self._routes[channel] = (*self._routes.get(channel, ()), member)
        elif isinstance(message, Unsubscribe) and channel in member.channels:
            member.channels.discard(channel)
            self._remove_route(channel, member)

    def _remove_route(self, channel: bytes, member: _Member) -> None:
        others = tuple(other for other in self._routes[channel] if other is not member)
        if others:
            self._routes[channel] = others
        else:
            del self._routes[channel]


class _Member:
    """A worker that takes part: what it wants, and what waits for it.

    Attributes:
        channels: that it subscribes to.
        waiting_bytes: of the batches that wait.
    """

    def __init__(self, pipe: ControlPipe) -> None:
        self.channels: set[bytes] = set()
        self.waiting_bytes = 0
        self._pipe = pipe
        self._waiting: deque[bytes] = deque()
        self._lost = 0  # since the worker was told last
        self._writing: asyncio.Task[None] | None = None

    def take(self, batch: list[bytes]) -> int:
        """Write frames, now or later; gives how many of them are lost instead."""
        if self._writing is None and self._pipe.is_writable:
            self._pipe.write(b"".join(batch))
            return 0
        if self._lost or self.waiting_bytes >= MAX_WAITING_BYTES:
            self._lost += len(batch)
            return len(batch)
        joined = b"".join(batch)
        self._waiting.append(joined)
        self.waiting_bytes += len(joined)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_waiting())
        return 0

    def close(self) -> None:
        """Let go of what waits."""
        if self._writing is not None:
            self._writing.cancel()
        self._waiting.clear()

    async def _write_waiting(self) -> None:
        while self._waiting or self._lost:
            await self._pipe.wait_writable()
            if self._waiting:
                batch = self._waiting.popleft()
                self.waiting_bytes -= len(batch)
                self._pipe.write(batch)
            else:
                # Behind all that waited and before all that comes: where the gap is.
                self._pipe.send(Lost(self._lost))
                self._lost = 0
        self._writing = None


def _name(channel: str) -> bytes:
    try:
        return encode_channel(channel)
    except ValueError as error:
        raise ControlError(str(error)) from error
