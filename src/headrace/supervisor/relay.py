"""The backplane's end in a worker: messages to and from the other workers, by way of the supervisor's hub.

A message that is published here is given to this worker's own subscribers at once, and goes out to the others
with all else of the same turn of the loop, in one write. While the pipe is over its mark, messages wait at
this end up to ``MAX_UNSENT_BYTES``; beyond that they stay in this worker. Who publishes much awaits
``wait_writable``, and loses none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from headrace.supervisor.control import (
    MAX_CHANNELS,
    Lost,
    Publish,
    Subscribe,
    Unsubscribe,
    channel_of,
    decode,
    encode,
    encode_channel,
    encode_publish,
)
from headrace.supervisor.pipe import ControlPipe

MAX_UNSENT_BYTES = 1_048_576
"""Over it nothing more is sent to the other workers; a message that finds less goes out whole."""

MAX_BATCH_BYTES = 65_536
"""What is collected before a write that does not wait for the end of the turn."""

Callback = Callable[[bytes], None]
"""Gets a message's data. It is called in the middle of other work and must be quick. It should not raise: the
exception is logged, and the next subscriber gets the message all the same."""

_logger = logging.getLogger("uvicorn.error")


class Relay:
    """Publishes and subscribes for one worker.

    Args:
        pipe: to the supervisor; its frames come in through ``on_frames``. None where there are no workers.

    Attributes:
        lost: messages of other workers that did not arrive, as this one was too slow.
        unsent: messages of this worker that did not go out, as the supervisor was too slow or is gone.
    """

    def __init__(self, pipe: ControlPipe | None) -> None:
        self.lost = 0
        self.unsent = 0
        self._pipe = pipe
        # A tuple is replaced, not changed: a callback may subscribe and unsubscribe.
        self._callbacks: dict[bytes, tuple[Callback, ...]] = {}
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._turn_bytes = 0  # collected in this turn, written already or not
        self._is_end_due = False

    @property
    def is_writable(self) -> bool:
        """Whether the way to the other workers is free, and this turn has not used it much already."""
        return self._pipe is None or (self._turn_bytes < MAX_BATCH_BYTES and self._pipe.is_writable)

    def subscribe(self, channel: str, callback: Callback) -> None:
        """Have a function called with each message of a channel, this worker's own included.

        Messages of other workers come from when the supervisor has heard of it.

        Args:
            channel: at most ``MAX_CHANNEL_BYTES`` in UTF-8.
            callback: see ``Callback``. One that subscribes twice is called twice.

        Raises:
            ValueError: the name is too long or has no UTF-8, or the worker has ``MAX_CHANNELS`` already.
        """
        name = encode_channel(channel)
        callbacks = self._callbacks.get(name, ())
        if not callbacks:
            if len(self._callbacks) >= MAX_CHANNELS:
                raise ValueError(f"A worker can subscribe to {MAX_CHANNELS} channels at most")
            self._collect(encode(Subscribe(channel)))
        self._callbacks[name] = (*callbacks, callback)

    def unsubscribe(self, channel: str, callback: Callback) -> None:
        """Take a subscription back; it gets nothing more, unless a message is being delivered right now.

        Raises:
            KeyError: it is none.
        """
        name = encode_channel(channel)
        callbacks = list(self._callbacks.get(name, ()))
        if callback not in callbacks:
            raise KeyError(f"No such subscription to {channel[:80]!r}")
        callbacks.remove(callback)
        if callbacks:
            self._callbacks[name] = tuple(callbacks)
        else:
            del self._callbacks[name]
            self._collect(encode(Unsubscribe(channel)))

    def publish(self, channel: str, data: bytes) -> bool:
        """Give a message to all that subscribe to a channel, here and in the other workers.

        Args:
            channel: at most ``MAX_CHANNEL_BYTES`` in UTF-8.
            data: anything, at most ``MAX_DATA_BYTES``.

        Returns:
            Whether it goes to the other workers, too. If not, it is counted in ``unsent``: the way to them is
            full, and ``wait_writable`` was not awaited, or the supervisor is gone.

        Raises:
            ValueError: the name or the data is too large, or the name has no UTF-8. Nobody has got it.
        """
        name = encode_channel(channel)
        frame = encode_publish(name, data)
        is_sent = self._has_room()
        if is_sent:
            self._collect(frame)
        else:
            self.unsent += 1
        self._deliver(name, data)
        return is_sent

    async def wait_writable(self) -> None:
        """Wait until the way to the other workers is free, or the supervisor is gone.

        Who awaits it before or after each message has none ``unsent``, and gives way to others every
        ``MAX_BATCH_BYTES``, also if nothing brakes.
        """
        if self._pipe is None:
            return
        if self._turn_bytes >= MAX_BATCH_BYTES:
            await asyncio.sleep(0)
        while not self._pipe.is_writable:
            await self._pipe.wait_writable()

    def flush(self) -> None:
        """Write what has been collected now, and not at the end of the turn."""
        if self._batch and self._pipe is not None:
            self._pipe.write(b"".join(self._batch))
        self._batch.clear()
        self._batch_bytes = 0

    def on_frames(self, frames: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Deliver what one read of the pipe brought; give the frames that are not the backplane's.

        Raises:
            ControlError: one of the frames is none.
        """
        others = []
        for kind, payload in frames:
            if kind == Publish.kind:
                name = channel_of(payload)
                self._deliver(name, payload[2 + len(name) :])
            elif kind == Lost.kind:
                message = decode(kind, payload)
                assert isinstance(message, Lost)
                self.lost += message.count
            else:
                others.append((kind, payload))
        return others

    def _deliver(self, name: bytes, data: bytes) -> None:
        for callback in self._callbacks.get(name, ()):
            try:
                callback(data)
            except Exception:
                _logger.exception("A subscriber of channel %.80r failed", name.decode())

    def _has_room(self) -> bool:
        pipe = self._pipe
        if pipe is None:
            return True
        return pipe.is_open and (
            pipe.is_writable or pipe.waiting_bytes + self._batch_bytes < MAX_UNSENT_BYTES
        )

    def _collect(self, frame: bytes) -> None:
        if self._pipe is None:
            return
        self._batch.append(frame)
        self._batch_bytes += len(frame)
        self._turn_bytes += len(frame)
        if not self._is_end_due:
            self._is_end_due = True
            asyncio.get_running_loop().call_soon(self._end_turn)
        if self._batch_bytes >= MAX_BATCH_BYTES:
            self.flush()

    def _end_turn(self) -> None:
        self._is_end_due = False
        self._turn_bytes = 0
        self.flush()
