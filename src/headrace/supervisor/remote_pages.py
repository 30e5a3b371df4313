"""A worker's way to the page of metrics of all workers: its supervisor makes it."""

from __future__ import annotations

import asyncio

from headrace.supervisor.control import PageAsked, PagePiece
from headrace.supervisor.pipe import ControlPipe
from headrace.telemetry.metrics.exposition import Format
from headrace.telemetry.metrics.page import PageKind

PATIENCE_S = 5.0
"""What the supervisor has to answer in."""

PIECE_BYTES = 65_536
"""Of the page in one message: pings get in between."""


class RemotePages:
    """Asks the supervisor; ``telemetry.metrics.page.Pages``.

    Args:
        pipe: to the supervisor; its pieces come in through ``on_piece``.
    """

    def __init__(self, pipe: ControlPipe) -> None:
        self._pipe = pipe
        self._asked = 0
        self._waiting: dict[int, tuple[asyncio.Future[bytes | None], list[bytes]]] = {}

    async def page(self, kind: PageKind) -> bytes | None:
        """The page; None when the supervisor is gone, is silent, or keeps no metrics."""
        if not self._pipe.is_open:
            return None
        self._asked += 1
        number = self._asked
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, [])
        try:
            self._pipe.send(PageAsked(number, kind.format.name, kind.is_gzipped))
            # Not ``wait_for``: before 3.12 it can swallow a cancellation.
            await asyncio.wait([future], timeout=PATIENCE_S)
            return future.result() if future.done() else None
        finally:
            del self._waiting[number]

    def on_piece(self, piece: PagePiece) -> None:
        """The supervisor says more; nobody may wait for it any longer."""
        if piece.number not in self._waiting:
            return
        future, parts = self._waiting[piece.number]
        parts.append(piece.data)
        if piece.is_last and not future.done():
            # No page is empty.
            future.set_result(b"".join(parts) or None)


def asked_kind(asked: PageAsked) -> PageKind:
    """What a worker asks for.

    Raises:
        KeyError: there is no such format.
    """
    return PageKind(Format[asked.format], asked.is_gzipped)


async def send_page(pipe: ControlPipe, number: int, page: bytes | None) -> None:
    """Answer a worker; None is no page."""
    data = page or b""
    for start in range(0, max(len(data), 1), PIECE_BYTES):
        end = start + PIECE_BYTES
        pipe.send(PagePiece(number, end >= len(data), data[start:end]))
        await pipe.wait_writable()
