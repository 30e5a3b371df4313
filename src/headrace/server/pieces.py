"""Several pieces to one transport, without a copy that joins them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

WRITELINES_PAUSES = not ((3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2))
"""Elsewhere asyncio's ``writelines`` never puts the write brake on (CVE-2024-12254)."""


def write_pieces(transport: asyncio.WriteTransport, pieces: Iterable[bytes]) -> None:
    """Write them in order."""
    if WRITELINES_PAUSES:
        transport.writelines(pieces)
        return
    for piece in pieces:
        transport.write(piece)
