"""Send a file's bytes: by ``sendfile(2)`` where kernel and transport allow it, else through memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from typing import Protocol

from headrace.asgi.http import HTTPExchange
from headrace.protocol.http1 import HTTP1Engine
from headrace.server.runtime import Runtime

PIECE_BYTES = 262_144
MIN_SENDFILE_BYTES = 65_536
"""Below it waiting for an empty write buffer costs more than the copy."""


class Sender(Protocol):
    """A connection, as far as sending a file needs it."""

    runtime: Runtime
    engine: HTTP1Engine
    exchange: HTTPExchange | None
    transport: asyncio.Transport
    is_writable: bool

    def flush(self) -> None:
        """Write what the engine has encoded."""

    def pause_writing(self) -> None:
        """Put the write brake on."""

    def wait_writable(self) -> Awaitable[None]:
        """Wait while it is on."""


async def send_file(connection: Sender, path: str, offset: int, count: int) -> None:
    """Send ``count`` bytes of the file at ``path`` from ``offset`` on, and end the body.

    Raises:
        OSError: the file cannot be read, or is shorter than it was.
    """
    engine = connection.engine
    transport = connection.transport
    with open(path, "rb", buffering=0) as file:  # noqa: ASYNC230 - opening a local file does not wait
        engine.send_data(1, b"", count == 0)
        connection.flush()
        fd = _bare_socket(transport)
        if fd is None or count < MIN_SENDFILE_BYTES or engine.is_chunked:
            await _copy(connection, file.fileno(), offset, count)
            return
        await _wait_until_written(connection, transport)
        duplicate = os.dup(fd)
        try:
            await _sendfile(duplicate, file.fileno(), offset, count, connection)
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            # It stalled, or it is gone; the transport tells the exchange.
            transport.abort()
        finally:
            os.close(duplicate)


def _bare_socket(transport: asyncio.Transport) -> int | None:
    """The descriptor to which bytes can go past the transport; none under TLS."""
    if not hasattr(os, "sendfile") or transport.get_extra_info("ssl_object") is not None:
        return None
    sock = transport.get_extra_info("socket")
    return None if sock is None or sock.fileno() < 0 else int(sock.fileno())


async def _copy(connection: Sender, file: int, offset: int, count: int) -> None:
    engine = connection.engine
    while count:
        piece = os.pread(file, min(count, PIECE_BYTES), offset)
        if not piece:
            raise OSError(f"The file ended {count} bytes early")
        offset += len(piece)
        count -= len(piece)
        engine.send_data(1, piece, count == 0)
        connection.flush()
        if not connection.is_writable:
            await connection.wait_writable()
        if connection.exchange is None:
            return


async def _wait_until_written(connection: Sender, transport: asyncio.Transport) -> None:
    low, high = transport.get_write_buffer_limits()
    transport.set_write_buffer_limits(high=0, low=0)
    try:
        if transport.get_write_buffer_size():
            if connection.is_writable:
                connection.pause_writing()
            await connection.wait_writable()
    finally:
        transport.set_write_buffer_limits(high=high, low=low)


async def _sendfile(out: int, file: int, offset: int, count: int, connection: Sender) -> None:
    loop = asyncio.get_running_loop()
    transport = connection.transport
    while count and not transport.is_closing():
        try:
            sent = os.sendfile(out, file, offset, min(count, PIECE_BYTES * 4))
        except BlockingIOError:
            async with asyncio.timeout(connection.runtime.timeouts.write_s or None):
                await _wait_writable(loop, out)
            continue
        if not sent:
            raise OSError(f"The file ended {count} bytes early")
        offset += sent
        count -= sent
        # Other connections get their turn between two pieces.
        await asyncio.sleep(0)


async def _wait_writable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    writable = loop.create_future()
    loop.add_writer(fd, _resolve, writable)
    try:
        await writable
    finally:
        loop.remove_writer(fd)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
