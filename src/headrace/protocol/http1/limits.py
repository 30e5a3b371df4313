"""How much of a request the engine takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HTTP1Limits:
    """Sizes above which a request is refused, each with its own status.

    ``request_line_bytes`` 414, ``head_bytes`` and ``fields`` 431, ``body_bytes`` 413 (None: no limit).
    """

    request_line_bytes: int = 16_384
    head_bytes: int = 65_536
    fields: int = 128
    body_bytes: int | None = None
