"""One line for each bad request: the peer, the reason, the first bytes; a flood of them stays short."""

from __future__ import annotations

import logging

from headrace.types import Address

MAX_LINES_PER_SWEEP = 10
MAX_SHOWN_BYTES = 64

_logger = logging.getLogger("uvicorn.error")


class BadRequestLog:
    """Writes at most ``MAX_LINES_PER_SWEEP`` lines between two sweeps and counts the rest."""

    __slots__ = ("_lines", "_suppressed")

    def __init__(self) -> None:
        self._lines = 0
        self._suppressed = 0

    def add(self, client: Address | None, reason: str, first_bytes: bytes) -> None:
        """Report one bad request.

        Args:
            client: the peer, None on a Unix socket.
            reason: what was wrong.
            first_bytes: of what it sent; they are escaped and cut.
        """
        if self._lines >= MAX_LINES_PER_SWEEP:
            self._suppressed += 1
            return
        self._lines += 1
        peer = "unix" if client is None else f"{client[0]}:{client[1]}"
        shown = ascii(first_bytes[:MAX_SHOWN_BYTES])[1:]
        _logger.warning("Invalid HTTP request received from %s: %s; it began with %s", peer, reason, shown)

    def sweep(self) -> None:
        """Start the next interval."""
        if self._suppressed:
            _logger.warning("%d more invalid HTTP requests received.", self._suppressed)
        self._lines = self._suppressed = 0
