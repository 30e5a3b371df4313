"""Send a file's bytes: by ``sendfile(2)`` where kernel and transport allow it, else through memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from typing import Any, Protocol

from headrace.asgi.http import HTTPExchange
from headrace.server.runtime import Runtime

PIECE_BYTES = 262_144
MIN_SENDFILE_BYTES = 65_536
"""Below it waiting for an empty write buffer costs more than the copy."""


class Copier(Protocol):
    """A stream, as far as sending a file through memory needs it."""

    stream_id: int
    exchange: HTTPExchange | None

    @property
    def engine(self) -> Any:
        """Encodes the body."""

    @property
    def is_writable(self) -> bool:
        """The write brake is off."""

    def flush(self) -> None:
        """Write what the engine has encoded."""

    def wait_writable(self) -> Awaitable[None]:
        """Wait while it is on."""


class Sender(Copier, Protocol):
    """A connection, as far as sending a file past it needs it."""

    runtime: Runtime
    transport: asyncio.Transport

    def pause_writing(self) -> None:
        """Put the write brake on."""


async def send_file(connection: Sender, file: int, offset: int, count: int) -> int:
    """Send ``count`` bytes of the open file ``file`` from ``offset`` on, and end the body.

    Returns:
        Bytes sent; fewer than ``count`` when the client left or stalled, and the connection is cut then.

    Raises:
        OSError: the file cannot be read, or is shorter than it was.
    """
    engine = connection.engine
    transport = connection.transport
    engine.send_data(1, b"", count == 0)
    connection.flush()
    fd = _bare_socket(transport)
    if fd is None or count < MIN_SENDFILE_BYTES or engine.is_chunked:
        return await copy_file(connection, file, offset, count)
    # Before any wait: behind one, the number may be another connection's.
    duplicate = os.dup(fd)
    try:
        await _wait_until_written(connection, transport)
        sent = await _sendfile(duplicate, file, offset, count, connection)
    finally:
        os.close(duplicate)
    if sent < count:
        transport.abort()
    return sent


def _bare_socket(transport: asyncio.Transport) -> int | None:
    """The descriptor to which bytes can go past the transport; none under TLS."""
    if not hasattr(os, "sendfile") or transport.get_extra_info("ssl_object") is not None:
        return None
    sock = transport.get_extra_info("socket")
    return None if sock is None or sock.fileno() < 0 else int(sock.fileno())


async def copy_file(
    stream: Copier, file: int, offset: int, count: int, piece_bytes: int = PIECE_BYTES
) -> int:
    """Send the same through memory, ``piece_bytes`` at a time.

    Returns, Raises: see ``send_file``.
    """
    engine = stream.engine
    left = count
    if not count:
        engine.send_data(stream.stream_id, b"", True)
        stream.flush()
    while left:
        piece = os.pread(file, min(left, piece_bytes), offset)
        if not piece:
            raise OSError(f"The file ended {left} bytes early")
        offset += len(piece)
        left -= len(piece)
        engine.send_data(stream.stream_id, piece, left == 0)
        stream.flush()
        if left and not stream.is_writable:
            await stream.wait_writable()
        if stream.exchange is None:
            break
    return count - left


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


async def _sendfile(out: int, file: int, offset: int, count: int, connection: Sender) -> int:
    transport = connection.transport
    left = count
    while left and not transport.is_closing():
        try:
            sent = os.sendfile(out, file, offset, min(left, PIECE_BYTES * 4))
        except BlockingIOError:
            if not await _wait_writable(out, connection.runtime.timeouts.write_s):
                break
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
        if not sent:
            raise OSError(f"The file ended {left} bytes early")
        offset += sent
        left -= sent
        # Other connections get their turn between two pieces.
        await asyncio.sleep(0)
    return count - left


async def _wait_writable(fd: int, timeout_s: float) -> bool:
    """Wait until the kernel takes more; False when it did not in time. 0 waits for ever."""
    loop = asyncio.get_running_loop()
    writable = loop.create_future()
    loop.add_writer(fd, _resolve, writable)
    try:
        async with asyncio.timeout(timeout_s or None):
            await writable
    except TimeoutError:
        return False
    finally:
        loop.remove_writer(fd)
    return True


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
