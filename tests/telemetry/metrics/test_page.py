"""The page as a whole, made for many at once."""

from __future__ import annotations

import asyncio
import zlib

import pytest

from headrace.telemetry.metrics.exposition import Format
from headrace.telemetry.metrics.family import Family, Kind
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.page import MergedPages, PageKind, process_pages, use_pages, wants_gzip
from headrace.telemetry.metrics.registry import Registry, process_registry, use_registry
from live import PATIENCE_S

ORDERS = Family("orders", Kind.COUNTER, "Orders.", ("kind",))
TEXT, GZIPPED = PageKind(Format.TEXT, False), PageKind(Format.TEXT, True)


class Made:
    """Pages, and how often one was made."""

    def __init__(self, count: int = 1) -> None:
        self.registry = Registry(max_series=10_000)
        for number in range(count):
            self.registry.counter(ORDERS).labels(str(number)).inc()
        self.merged = Merged()
        self.merged.attach(self.registry.store)
        self.times = 0
        self.go = asyncio.Event()
        self.go.set()
        self.pages = MergedPages(lambda: self.merged, self.refresh)

    async def refresh(self) -> None:
        self.times += 1
        await self.go.wait()


class TestMade:
    def test_gzip(self) -> None:
        async def both() -> tuple[bytes, bytes]:
            made = Made(2_000)
            return await made.pages.page(TEXT), await made.pages.page(GZIPPED)

        plain, gzipped = asyncio.run(both())
        assert plain.count(b"orders_total{") == 2_000
        assert zlib.decompress(gzipped, 31) == plain
        assert len(gzipped) < len(plain) / 4

    def test_loop_goes_on_meanwhile(self) -> None:
        async def count() -> int:
            made = Made(5_000)
            turns = 0
            making = asyncio.ensure_future(made.pages.page(TEXT))
            while not making.done():
                await asyncio.sleep(0)
                turns += 1
            return turns

        assert asyncio.run(count()) > 50

    def test_who_asks_while_one_is_made_shares_the_next(self) -> None:
        async def ask() -> None:
            made = Made()
            made.go.clear()
            first = asyncio.ensure_future(made.pages.page(TEXT))
            while not made.times:
                await asyncio.sleep(0)
            later = [asyncio.ensure_future(made.pages.page(TEXT)) for _ in range(50)]
            await asyncio.sleep(0)
            # Asked behind this, and told so.
            made.registry.counter(ORDERS).labels("late").inc()
            made.go.set()
            assert len({await page for page in later}) == 1
            assert b"late" in await later[0]
            assert await first
            assert made.times == 2

        asyncio.run(asyncio.wait_for(ask(), PATIENCE_S))

    def test_who_leaves_takes_no_page_from_others(self) -> None:
        async def ask() -> None:
            made = Made()
            made.go.clear()
            one, other = (asyncio.ensure_future(made.pages.page(TEXT)) for _ in range(2))
            while not made.times:
                await asyncio.sleep(0)
            one.cancel()
            await asyncio.wait([one])
            made.go.set()
            assert b"orders_total" in await other

        asyncio.run(asyncio.wait_for(ask(), PATIENCE_S))

    def test_loop_that_ended_in_the_middle(self) -> None:
        made = Made()
        made.go.clear()
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(made.pages.page(TEXT), 0.01))
        made.go = asyncio.Event()
        made.go.set()
        assert asyncio.run(asyncio.wait_for(made.pages.page(TEXT), PATIENCE_S))


class TestProcess:
    def test_registry_of_the_moment(self) -> None:
        before = process_registry()
        try:
            for kind in ("a", "b"):
                registry = Registry()
                registry.counter(ORDERS).labels(kind).inc()
                use_registry(registry)
                page = asyncio.run(process_pages().page(TEXT))
                assert page is not None
                lines = [line for line in page.splitlines() if line.startswith(b"orders_total")]
                assert lines == [b'orders_total{kind="%s"} 1' % kind.encode()]
                assert b"headrace_build_info{" in page
        finally:
            use_registry(before)

    def test_another_maker(self) -> None:
        class Other:
            async def page(self, kind: PageKind) -> bytes | None:
                return b"other"

        before = process_pages()
        use_pages(Other())
        assert asyncio.run(process_pages().page(TEXT)) == b"other"
        use_pages(before)


@pytest.mark.parametrize(
    ("field", "is_wanted"),
    [
        ("", False), ("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.000", False),
        ("*", True), ("identity", False), ("deflate, x-gzip", True), ("gzip;q=1", True),
        ("*, gzip;q=0", False),
    ],
)  # fmt: skip
def test_accept_encoding(field: str, is_wanted: bool) -> None:
    assert wants_gzip(field) is is_wanted
