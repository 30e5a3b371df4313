"""The page of metrics, whole: made in pieces so that the loop goes on, once for all who ask meanwhile."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from headrace.telemetry.metrics.bridge import refresh_collected
from headrace.telemetry.metrics.build import declare_build
from headrace.telemetry.metrics.exposition import Format, render
from headrace.telemetry.metrics.merge import Merged, limit_over_all
from headrace.telemetry.metrics.registry import process_registry
from headrace.telemetry.metrics.store import Store

COLLECT_S = 0.25
"""How long a page waits for the application's own collectors. Who is late is on the next page."""

_GZIP_WINDOW = 31
"""zlib's word for gzip's framing (RFC 1952) at the full window."""

_FASTEST = 1
"""Of zlib's levels. A page of 600 KB becomes 30 KB in 4 ms; the usual level makes 22 KB in 12."""


class PageKind(NamedTuple):
    """What is asked for: the format, and whether in gzip."""

    format: Format
    is_gzipped: bool


class Pages(Protocol):
    """Whoever can give the page."""

    async def page(self, kind: PageKind) -> bytes | None:
        """The page's bytes; None when it is not to be had now."""


class MergedPages:
    """Makes the page of merged books, in the running loop.

    One page is made at a time. Who asks while one is made waits for the next, and all who wait share it: it
    is never older than the question, and many who ask cost no more than one.

    Args:
        merged: gives the books.
        refresh: awaited before each page, to have figures written that are looked up and not counted.
    """

    def __init__(self, merged: Callable[[], Merged], refresh: Callable[[], Awaitable[object]]) -> None:
        self._merged = merged
        self._refresh = refresh
        self._loop: asyncio.AbstractEventLoop | None = None

    async def page(self, kind: PageKind) -> bytes:
        """The page's bytes."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # What an earlier loop, such as a test client's, has left undone never ends.
            self._loop = loop
            self._lock = asyncio.Lock()
            self._next: dict[PageKind, asyncio.Task[bytes]] = {}
        making = self._next.get(kind)
        if making is None:
            making = self._next[kind] = asyncio.ensure_future(self._make(kind))
        # Behind a shield: others may wait for it as well.
        return await asyncio.shield(making)

    async def _make(self, kind: PageKind) -> bytes:
        async with self._lock:
            del self._next[kind]
            await self._refresh()
            compressor = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP_WINDOW)
            parts = []
            for piece in render(self._merged(), kind.format):
                part = piece.encode()
                parts.append(compressor.compress(part) if kind.is_gzipped else part)
                await asyncio.sleep(0)
            if kind.is_gzipped:
                parts.append(compressor.flush())
            return b"".join(parts)


class _OwnBooks:
    """The books of this process alone, of whatever registry is its own at the moment."""

    def __init__(self) -> None:
        self._store: Store | None = None

    def __call__(self) -> Merged:
        store = process_registry().store
        if store is not self._store:
            limit = limit_over_all(process_registry().max_series)
            self._store, self._merged = store, Merged(max_series=limit)
            declare_build(self._merged.registry)
            self._merged.attach(store)
        return self._merged


_processes_own: list[Pages] = []


def process_pages() -> Pages:
    """Whoever gives the page in this process: as ``use_pages`` said, else made of its own registry."""
    if not _processes_own:
        _processes_own.append(MergedPages(_OwnBooks(), lambda: refresh_collected(COLLECT_S)))
    return _processes_own[0]


def use_pages(pages: Pages) -> None:
    """Have ``process_pages`` give these."""
    _processes_own[:] = [pages]


def wants_gzip(accept_encoding: str) -> bool:
    """Whether an ``Accept-Encoding`` field (RFC 9110 §12.5.3) takes gzip."""
    takes = {}
    for item in accept_encoding.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        takes[name] = not _is_refused(parameters)
    return takes.get("gzip", takes.get("x-gzip", takes.get("*", False)))


def _is_refused(parameters: list[str]) -> bool:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q" and not value.strip().strip("0."):
            return True
    return False
