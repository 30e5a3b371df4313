"""``--limit-connections``: accept no more than so many at a time, and let the rest queue in the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

RETRY_S = 1.0
"""Time between two tries to accept again when the process is out of file descriptors."""

_logger = logging.getLogger("uvicorn.error")


class Admitted(Protocol):
    """A connection, as the limit knows it."""

    def on_admitted(self) -> None:
        """It had to wait, and now is served."""


class ConnectionLimit:
    """Counts connections; pauses accepting at the limit.

    An event loop accepts several connections at once, so some more may be open when the limit is reached:
    they are kept unread until it is their turn.

    Args:
        limit: connections that are served at a time, 1 or more.
        pause: stops accepting.
        resume: accepts again.
    """

    def __init__(
        self, limit: int, pause: Callable[[], None], resume: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._limit = limit
        self._pause = pause
        self._resume = resume
        self._served: set[Admitted] = set()
        self._waiting: deque[Admitted] = deque()
        self._resuming: asyncio.Task[None] | None = None
        self._is_closed = False
        self._is_paused = False

    def admit(self, connection: Admitted) -> bool:
        """Take in a connection; False when it is new and has to wait for ``on_admitted``."""
        if connection in self._served:
            return True
        if len(self._served) >= self._limit:
            self._waiting.append(connection)
            return False
        self._served.add(connection)
        if len(self._served) == self._limit:
            self._stop_accepting()
        return True

    def replace(self, old: Admitted, new: Admitted) -> None:
        """``new`` takes the place of ``old`` if that is served; else it has yet to be admitted."""
        if old in self._served:
            self._served.discard(old)
            self._served.add(new)

    def release(self, connection: Admitted) -> None:
        """A connection is closed: let in the next."""
        if connection not in self._served:
            with contextlib.suppress(ValueError):  # refused before it was counted
                self._waiting.remove(connection)
            return
        self._served.discard(connection)
        if self._waiting:
            admitted = self._waiting.popleft()
            self._served.add(admitted)
            admitted.on_admitted()
            return
        if self._is_closed or not self._is_paused:
            return
        if self._resuming is None or self._resuming.done():
            self._resuming = asyncio.get_running_loop().create_task(self._accept_again())

    async def close(self) -> None:
        """Accept no more; to be awaited before the listeners are closed."""
        self._is_closed = True
        if self._resuming is not None:
            await asyncio.wait([self._resuming])

    def _stop_accepting(self) -> None:
        self._is_paused = True
        self._pause()

    async def _accept_again(self) -> None:
        while self._is_paused and len(self._served) < self._limit and not self._is_closed:
            try:
                await self._resume()
            except OSError as error:
                _logger.error("Cannot accept connections, trying again: %s", error)
                await asyncio.sleep(RETRY_S)
            else:
                self._is_paused = False
        if len(self._served) >= self._limit:
            self._stop_accepting()
