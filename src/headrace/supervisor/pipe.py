"""One end of a control pipe in an event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from headrace.supervisor.control import ControlError, FrameDecoder, Message, encode

HIGH_WATER_BYTES = 262_144


class ControlPipe(asyncio.Protocol):
    """Frames of one pipe, both ways.

    Args:
        on_frames: gets what one read brought, as (kind, payload) each.
        on_end: called once: the other side is gone, or wrote what is no frame.

    Attributes:
        is_writable: the transport is under its mark.
        is_open: the other side has not gone.
    """

    def __init__(
        self, on_frames: Callable[[list[tuple[int, bytes]]], None], on_end: Callable[[], None]
    ) -> None:
        self._on_frames = on_frames
        self._on_end = on_end
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.is_open = True

    async def open(self, sock: socket.socket) -> None:
        """Serve one end of a pair of sockets in the running loop; the socket is the pipe's from then on.

        Frames may come before this returns.
        """
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            self.is_open = False
            raise

    @property
    def is_writable(self) -> bool:
        """Whether the transport is under its mark."""
        return self._writable.is_set()

    @property
    def waiting_bytes(self) -> int:
        """Written, and not yet taken by the kernel."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def send(self, message: Message) -> None:
        """Write one message; nothing happens when the pipe is not open, or the other side is gone."""
        self.write(encode(message))

    def write(self, frames: bytes) -> None:
        """Write frames that are encoded already."""
        if self.is_open and self._transport is not None:
            self._transport.write(frames)

    async def wait_writable(self) -> None:
        """Wait until the transport is under its mark, or the other side is gone."""
        await self._writable.wait()

    def close(self) -> None:
        """Close behind what is written; ``on_end`` is not called."""
        self.is_open = False
        self._on_end = _nothing
        if self._transport is not None:
            self._transport.close()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is in the loop."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def data_received(self, data: bytes) -> None:
        """The other side wrote."""
        try:
            frames = self._decoder.feed(data)
            self._on_frames(frames)
        except ControlError:
            assert self._transport is not None
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The other side is gone."""
        self.is_open = False
        self._writable.set()
        self._on_end()

    def pause_writing(self) -> None:
        """The transport is over its mark."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The transport is under its mark."""
        self._writable.set()


def _nothing() -> None:
    pass
