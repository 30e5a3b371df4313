"""How late an event loop is."""

from __future__ import annotations

import asyncio

INTERVAL_S = 0.1


class LoopLag:
    """Asks to be called every ``INTERVAL_S`` and notes how late that is.

    A callback that blocks the loop for a second is seen as up to a second's lag.
    """

    __slots__ = ("_due", "_loop", "_timer", "_worst_s")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._worst_s = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""
        self._due = self._loop.time() + INTERVAL_S
        self._timer = self._loop.call_at(self._due, self._look)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()

    def take(self) -> float:
        """The longest lag since the last call, in seconds, and forget it."""
        worst_s, self._worst_s = self._worst_s, 0.0
        return worst_s

    def _look(self) -> None:
        self._worst_s = max(self._worst_s, self._loop.time() - self._due)
        self.start()
