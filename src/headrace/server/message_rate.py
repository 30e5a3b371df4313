"""How many messages a WebSocket's client may send: ``--ws-max-rate``."""

from __future__ import annotations

import asyncio


class MessageRate:
    """A token bucket: ``rate`` messages a second, and a second's worth at once."""

    __slots__ = ("_rate", "_tokens", "_updated", "timer")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = max(rate, 1.0)
        self._updated = now
        self.timer: asyncio.TimerHandle | None = None

    def allowance(self, now: float) -> int:
        """Messages that may be taken now."""
        self._tokens = min(max(self._rate, 1.0), self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        return int(self._tokens)

    def take(self, count: int) -> None:
        """So many have been taken."""
        self._tokens -= count

    @property
    def wait_s(self) -> float:
        """Time until one more may be taken."""
        return max(0.0, (1.0 - self._tokens) / self._rate)
