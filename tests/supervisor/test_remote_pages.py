"""A worker's way to the page that its supervisor makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headrace.server.loops import loop_factory
from headrace.supervisor import remote_pages
from headrace.supervisor.control import PageAsked, PagePiece, decode
from headrace.supervisor.pipe import ControlPipe
from headrace.supervisor.remote_pages import RemotePages, asked_kind, send_page
from headrace.telemetry.metrics.exposition import Format
from headrace.telemetry.metrics.page import PageKind
from live import PATIENCE_S
from team import small_pair

KIND = PageKind(Format.OPENMETRICS, True)


class Pair:
    """A worker's end and its supervisor's, in one loop; the pipe between them is real and narrow.

    Attributes:
        asked: what has come to the supervisor.
        answer: what it gives; None is silence.
    """

    def __init__(self) -> None:
        self.asked: list[PageAsked] = []
        self.answers: list[bytes | None] | None = None
        self._sending: list[asyncio.Task[None]] = []
        self.worker = ControlPipe(self._on_worker_frames, lambda: None)
        self.supervisor = ControlPipe(self._on_supervisor_frames, lambda: None)
        self.pages = RemotePages(self.worker)

    async def open(self) -> None:
        near, far = small_pair()
        await self.worker.open(near)
        await self.supervisor.open(far)

    def _on_worker_frames(self, frames: list[tuple[int, bytes]]) -> None:
        for kind, payload in frames:
            piece = decode(kind, payload)
            assert isinstance(piece, PagePiece)
            self.pages.on_piece(piece)

    def _on_supervisor_frames(self, frames: list[tuple[int, bytes]]) -> None:
        for kind, payload in frames:
            asked = decode(kind, payload)
            assert isinstance(asked, PageAsked)
            self.asked.append(asked)
            if self.answers is not None:
                work = send_page(self.supervisor, asked.number, self.answers.pop(0))
                self._sending.append(asyncio.ensure_future(work))


@asynccontextmanager
async def opened() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.open()
    try:
        yield pair
    finally:
        pair.worker.close()
        pair.supervisor.close()


def run(loop_name: str, work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await work

    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        runner.run(within())


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 3_000_000])
def test_page_of_any_size(loop_name: str, size: int) -> None:
    async def ask() -> None:
        async with opened() as pair:
            page = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            pair.answers = [page]
            assert await pair.pages.page(KIND) == page
            assert [asked_kind(asked) for asked in pair.asked] == [KIND]

    run(loop_name, ask())


def test_several_at_once(loop_name: str) -> None:
    async def ask() -> None:
        async with opened() as pair:
            wanted = [letter.encode() * 200_000 for letter in "abcde"]
            pair.answers = list(wanted)
            assert await asyncio.gather(*(pair.pages.page(KIND) for _ in wanted)) == wanted

    run(loop_name, ask())


def test_no_page(loop_name: str) -> None:
    async def ask() -> None:
        async with opened() as pair:
            pair.answers = [None, b"later"]
            assert await pair.pages.page(KIND) is None
            assert await pair.pages.page(KIND) == b"later"

    run(loop_name, ask())


def test_silent_supervisor(loop_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        async with opened() as pair:
            assert await pair.pages.page(KIND) is None
            monkeypatch.setattr(remote_pages, "PATIENCE_S", PATIENCE_S)
            # What comes too late is nobody's, and not the next one's.
            late = send_page(pair.supervisor, 1, b"late")
            pair.answers = [b"in time"]
            await late
            assert await pair.pages.page(KIND) == b"in time"

    monkeypatch.setattr(remote_pages, "PATIENCE_S", 0.01)
    run(loop_name, ask())


def test_supervisor_is_gone(loop_name: str) -> None:
    async def ask() -> None:
        async with opened() as pair:
            pair.supervisor.close()
            while pair.worker.is_open:
                await asyncio.sleep(0.001)
            assert await pair.pages.page(KIND) is None

    run(loop_name, ask())


def test_who_leaves_waits_no_longer(loop_name: str) -> None:
    async def ask() -> None:
        async with opened() as pair:
            asking = asyncio.ensure_future(pair.pages.page(KIND))
            while not pair.asked:
                await asyncio.sleep(0.001)
            asking.cancel()
            await asyncio.wait([asking])
            assert pair.pages._waiting == {}

    run(loop_name, ask())
