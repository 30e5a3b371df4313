"""How much a key of a table holds that clients have chosen."""

from __future__ import annotations

from typing import Any

LONGEST_KEY = 1024
"""Characters or bytes of a key above which nothing is remembered under it: one request may bring 64 KiB."""


def is_short(key: Any) -> bool:
    """Whether the texts in ``key``, which is one or a tuple, are short enough together."""
    parts = key if type(key) is tuple else (key,)
    return sum(len(part) for part in parts if isinstance(part, (str, bytes))) <= LONGEST_KEY
