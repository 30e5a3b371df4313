"""What every format of access lines is, and the table of repeated texts that makes them cheap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.table_key import is_short

_MOST_TEXTS = 2048
_LONGEST_TEXT = 400
"""Bounds of each table of texts, about three megabytes, because clients choose what goes in."""


class LineFormat(Protocol):
    """Turns finished exchanges into lines."""

    def lines(self, exchanges: Sequence[FinishedExchange], wall_offset_s: float) -> list[str]:
        """One line for each exchange, without line ends.

        Args:
            exchanges: in any order.
            wall_offset_s: what to add to an exchange's times to get Unix time.
        """


class TextTable(dict[Any, str]):
    """Short texts already made, by what they were made from; emptied when full."""

    def keep(self, key: Any, text: str) -> str:
        """Return ``text``, and remember it if it and the key are short."""
        if len(text) <= _LONGEST_TEXT and is_short(key):
            if len(self) >= _MOST_TEXTS:
                self.clear()
            self[key] = text
        return text
