"""One of the N places of workers: keeps it filled, and replaces who is in it.

bring up ──ready──▶ serving ──asked──▶ bring up another ──ready──▶ the old one drains
   ▲                  │                      └──failed──▶ the old one stays
   └──── back-off ◀───┘ gone
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from headrace.errors import WorkerError
from headrace.server.seat import Cause, Reason
from headrace.supervisor.child import Child
from headrace.supervisor.metrics import end_cause
from headrace.supervisor.process import end_words
from headrace.supervisor.replacements import Replacements, answer

FIRST_BACK_OFF_S = 0.1
LONGEST_BACK_OFF_S = 30.0
STEADY_S = 10.0
"""A worker that has lived so long has not died of its start: the back-off begins anew."""

_logger = logging.getLogger("uvicorn.error")


class Slot:
    """Keeps one worker alive.

    Args:
        bring_up: starts a worker and gives it when it is ready; raises ``WorkerError`` when it is not to be.
        retire: lets a worker drain, in the background.
        on_start_failed: told of each start that failed.
        on_restart: told why, whenever another takes the place of a worker, or is to; see
            ``Books.count_restart``.
        child: ready already, for the first.

    Attributes:
        child: serving, or None while there is none.
        failures: starts that failed since the last one that did not.
    """

    def __init__(
        self,
        bring_up: Callable[[], Awaitable[Child]],
        retire: Callable[[Child], None],
        on_start_failed: Callable[[WorkerError], None],
        on_restart: Callable[[Cause], None],
        child: Child | None = None,
    ) -> None:
        self._bring_up = bring_up
        self._retire = retire
        self._on_start_failed = on_start_failed
        self._on_restart = on_restart
        self._asked = Replacements()
        self.child = child
        self.failures = 0
        self._back_off_s = 0.0

    def replace(self, reason: Reason, child: Child | None = None) -> asyncio.Future[None]:
        """Have another worker in this place; done when it serves, with ``WorkerError`` when it could not.

        A start that is under way already does not count: it may be of older code.

        Args:
            reason: for figures and the log.
            child: who is to be replaced; where another has taken its place by then, all is well. None is
                whoever is there.
        """
        return self._asked.ask(reason, child)

    def abandon(self) -> None:
        """Its worker is being ended by force: fill the place without waiting for that."""
        self.child = None
        self._on_restart(Cause.BLOCKED)
        self._asked.news.set()

    def dismiss(self) -> None:
        """The place is given up; whoever waits for a replacement is told so."""
        answer(self._asked.take(), WorkerError("There are fewer workers now."))

    async def keep(self) -> None:
        """Keep the place filled until cancelled."""
        while True:
            if self.child is None:
                await self._fill()
            elif self.child.gone.done():
                self._on_gone(self.child)
            elif self._asked:
                await self._replace(self.child)
            else:
                await self._wait(self.child)

    async def _wait(self, child: Child) -> None:
        self._asked.news.clear()
        news = asyncio.ensure_future(self._asked.news.wait())
        either: list[asyncio.Future[Any]] = [child.gone, news]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    async def _wait_back_off(self) -> None:
        """Wait, unless somebody asks: what was at fault may be mended."""
        self._asked.news.clear()
        if self._asked or not self._back_off_s:
            return
        news = asyncio.ensure_future(self._asked.news.wait())
        try:
            await asyncio.wait([news], timeout=self._back_off_s)
        finally:
            news.cancel()

    async def _fill(self) -> None:
        await self._wait_back_off()
        asked = self._asked.take()
        try:
            self.child = await self._bring_up()
        except WorkerError as error:
            self.failures += 1
            self._grow_back_off()
            answer(asked, error)
            self._on_start_failed(error)
            _logger.error("%s Trying again in %.1f s.", _sentence(error), self._back_off_s)
        else:
            self.failures = 0
            answer(asked, None)

    async def _replace(self, old: Child) -> None:
        asked = self._asked.take()
        wanted = [one for one in asked if one.child in (None, old)]
        answer([one for one in asked if one not in wanted], None)
        if not wanted:
            return
        _logger.info("%s is replaced: %s.", old.name, wanted[0].reason.words)
        try:
            new = await self._bring_up()
        except WorkerError as error:
            stays = "the old one stays" if not old.gone.done() else "and the old one has ended"
            _logger.error("The new worker did not come up, %s. %s", stays, _sentence(error))
            answer(wanted, error)
            return
        # The old one may have been abandoned, or have ended, in the meantime.
        if self.child is old and not old.gone.done():
            self._retire(old)
        self.child = new
        self.failures = 0
        self._back_off_s = 0.0
        self._on_restart(wanted[0].reason.cause)
        answer(wanted, None)

    def _on_gone(self, child: Child) -> None:
        self.child = None
        if child.age_s > STEADY_S:
            self._back_off_s = 0.0
        code = child.gone.result()
        self._on_restart(end_cause(code))
        self._grow_back_off()
        _logger.error(
            "%s %s; another takes its place in %.1f s.", child.name, end_words(code), self._back_off_s
        )

    def _grow_back_off(self) -> None:
        # A single death costs a moment only; a worker that dies again and again is not started in a loop.
        self._back_off_s = min(LONGEST_BACK_OFF_S, 2 * self._back_off_s) or FIRST_BACK_OFF_S


def _sentence(error: WorkerError) -> str:
    text = str(error)
    return text if text.endswith(".") else f"{text}."
