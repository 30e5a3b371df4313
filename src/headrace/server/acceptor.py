"""Accepts connections one by one, and leaves them to other workers when those have fewer.

All workers watch the same listening sockets, so each connection wakes all of them. Whoever is ahead of
another stops watching for a moment. It takes the connection after all when the others give no sign of life,
so that a blocked or dying worker strands nothing: it costs one wait of ``PATIENCE`` times ``WAIT_S``, and is
waited for again only when it has shown itself.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from headrace.server.load_board import BoardSlot

WAIT_S = 0.001
"""How long a connection is left to others before this worker looks again."""

PATIENCE = 20
"""After how many waits in a row a worker that gave no sign of life is waited for no longer. A living worker
is silent for a turn of its loop, and for as long as others have its core: on a busy machine bursts gave one
worker up to 4 times the mean with one wait, and once 1.9 times with 10 (2026-11-25, 4 workers, 2 cores)."""

MAX_WAITS = 2 * PATIENCE
"""After so many the connection is taken even though the others live: they may not see this listener."""

MAX_TAKEN = 8
"""Connections accepted in one turn of the loop, as long as this worker is not ahead: what is open already
has a right to the loop, too. One a turn cost 15 µs of CPU more for each (2026-11-25, one worker)."""

RETRY_S = 1.0
"""Time between two tries when the process or the machine is out of descriptors or memory."""

SETTLE_S = 2.0
"""What a stop leaves to TLS handshakes under way."""

_OTHERS_FAULT = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENONET", "ENOPROTOOPT",
        "EOPNOTSUPP", "EPERM", "EPROTO",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Errors of the one connection that would have been next; accept(2) passes them on."""

_logger = logging.getLogger("uvicorn.error")


class Acceptor:
    """Accepts for one of several workers.

    Args:
        sockets: listening; they stay the caller's.
        factory: makes the protocol of a connection.
        options: further ones of ``loop.connect_accepted_socket``.
        count: how many connections are open.
        slot: this worker's place on the load board.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        factory: Callable[[], asyncio.Protocol],
        options: dict[str, Any],
        count: Callable[[], int],
        slot: BoardSlot,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._factory = factory
        self._options = options
        self._count = count
        self._slot = slot
        self._attaching: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._waits = 0
        self._is_short = False
        # Duplicates, because a selector cannot forget a socket that somebody else has closed.
        self._sockets = [socket.socket(fileno=os.dup(sock.fileno())) for sock in sockets]
        for sock in self._sockets:
            sock.setblocking(False)

    def start(self) -> None:
        """Accept, again after a ``pause``; nothing happens behind ``close``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sockets:
            self._waits = 0
            self._slot.set(self._open())
            self._watch()

    def pause(self) -> None:
        """Stop accepting; the kernel queues, and the other workers take."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unwatch()
        self._slot.leave()

    def close(self) -> None:
        """Stop accepting for good; what has been accepted goes on. ``settle`` is to follow."""
        self.pause()
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    async def settle(self, timeout_s: float = SETTLE_S) -> None:
        """Wait until all accepted connections have their protocol, and cut those that take longer.

        Args:
            timeout_s: for TLS handshakes; without TLS it takes a turn of the loop or two.
        """
        if not self._attaching:
            return
        _, late = await asyncio.wait(self._attaching, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    # Within

    def _open(self) -> int:
        return self._count() + len(self._attaching)

    def _watch(self) -> None:
        for sock in self._sockets:
            self._loop.add_reader(sock, self._on_ready, sock)

    def _unwatch(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    def _on_ready(self, sock: socket.socket) -> None:
        """Somebody wants to connect; another worker may have been faster."""
        for taken in range(MAX_TAKEN):
            is_ahead = self._slot.set(self._open())
            if is_ahead and self._waits < MAX_WAITS:
                if not taken:
                    self._step_back()
                return
            self._waits = 0
            if not self._accept(sock):
                return

    def _step_back(self) -> None:
        if not self._waits:
            self._slot.watch()
        self._waits += 1
        self._unwatch()
        self._timer = self._loop.call_later(WAIT_S, self._on_waited)

    def _on_waited(self) -> None:
        self._timer = None
        if self._waits % PATIENCE == 0:
            self._slot.judge()
        for sock in self._sockets:
            self._on_ready(sock)
            if self._timer is not None:
                return
        self._watch()

    def _accept(self, sock: socket.socket) -> bool:
        """Take one connection; False when there is none."""
        try:
            connection, _ = sock.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _OTHERS_FAULT:
                return True
            self._give_up_for_now(error)
            return False
        self._is_short = False
        connection.setblocking(False)
        task = self._loop.create_task(
            self._loop.connect_accepted_socket(self._factory, connection, **self._options)
        )
        self._attaching.add(task)
        task.add_done_callback(self._on_attached)
        return True

    def _on_attached(self, task: asyncio.Task[Any]) -> None:
        self._attaching.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, OSError):
            # The client left, or its TLS handshake failed: nothing that an operator could mend.
            _logger.debug("A connection ended before it began: %s", error)
        elif error is not None:
            self._loop.call_exception_handler(
                {"message": "A connection got no protocol", "exception": error, "task": task}
            )

    def _give_up_for_now(self, error: OSError) -> None:
        """Out of descriptors or memory: leave what is queued to the others, and try again later."""
        if not self._is_short:
            self._is_short = True
            _logger.error("Cannot accept connections, trying again every %g s: %s", RETRY_S, error)
        self.pause()
        self._timer = self._loop.call_later(RETRY_S, self.start)
