"""Which requests get an access line."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

from headrace.errors import ConfigError
from headrace.telemetry.exchange import FinishedExchange
from headrace.types import Scope

_LOW_64_BITS = 0xFFFF_FFFF_FFFF_FFFF
_FIRST_ERROR = 400


class Sampling:
    """Keeps a share of the lines that say that all went well, and every other one.

    Informational, 2xx and 3xx responses are drawn, unless they took as long as ``slow_s``; 4xx and 5xx always
    have a line. Whether a request is drawn depends on its trace id, else on its request id, so each service
    that sees the id and keeps the same share keeps the lines of the same requests. The rule for trace ids is
    that of OpenTelemetry's ratio sampler: with the same share there, the lines are those of the recorded
    traces. Requests without ids are drawn at random. Clients choose ids: one could choose an id that is not
    drawn.

    Args:
        share: of the lines that are drawn, 0 to 1.
        slow_s: seconds.
        skip: paths without a line, whatever their status; a ``*`` at the end stands for the rest.

    Raises:
        ConfigError: the share is not between 0 and 1, or ``slow_s`` is negative.
    """

    def __init__(self, share: float = 1.0, *, slow_s: float = 1.0, skip: Sequence[str] = ()) -> None:
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"The share of access lines {share!r} is not between 0 and 1.")
        if not slow_s >= 0.0:
            raise ConfigError(f"The duration {slow_s!r} s above which access lines are kept is negative.")
        self._share = share
        self._slow_s = slow_s
        self._skipped = frozenset(path for path in skip if not path.endswith("*"))
        self._skipped_starts = tuple(path[:-1] for path in skip if path.endswith("*"))
        self._skips = bool(skip)

    @property
    def keeps_all(self) -> bool:
        """Every request has a line."""
        return self._share == 1.0 and not self._skips

    @property
    def draws(self) -> bool:
        """Some lines stand for others, so each must say how many."""
        return self._share < 1.0

    def kept(self, exchanges: Sequence[FinishedExchange]) -> Sequence[FinishedExchange]:
        """Those that get a line."""
        if self.keeps_all:
            return exchanges
        return [exchange for exchange in exchanges if self._keeps(exchange)]

    def share_of(self, status: int, duration_s: float) -> float:
        """The share of lines like this one that is kept; a line stands for as many as fit into 1."""
        return self._share if status < _FIRST_ERROR and duration_s < self._slow_s else 1.0

    def _keeps(self, exchange: FinishedExchange) -> bool:
        scope = exchange[0]
        if self._skips:
            path = scope["path"]
            if path in self._skipped or path.startswith(self._skipped_starts):
                return False
        share = self.share_of(exchange[1], exchange[4] - exchange[3])
        return share == 1.0 or _draw(scope) < share


def _draw(scope: Scope) -> float:
    """A number from 0 up to, not including, 1: the same for the same id."""
    span = scope.get("headrace.span")
    if span is not None:
        return float((span.trace_id & _LOW_64_BITS) / (_LOW_64_BITS + 1))
    state = scope.get("state")
    request_id = state.get("request_id") if state else None
    if request_id is not None:
        return zlib.crc32(str(request_id).encode("utf-8", "surrogatepass")) / 0x1_0000_0000
    return random.random()
