"""The one place of a worker while somebody develops: a change of the source puts another in it at once.

The old worker is told to end before the new one is there: who asks meanwhile waits in the kernel's queue for
the new code, and is never answered by the old.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from headrace.errors import WorkerError
from headrace.server.seat import Cause, Reason
from headrace.supervisor.child import Child
from headrace.supervisor.metrics import end_cause
from headrace.supervisor.process import end_words
from headrace.supervisor.replacements import Replacements, answer
from headrace.supervisor.watch import Watcher

MOST_NAMED = 3

_logger = logging.getLogger("uvicorn.error")


class DevelopmentSlot:
    """Keeps the newest code in its place.

    Args:
        bring_up: as a ``Slot``'s.
        end: has a worker end soon, in the background.
        watcher: tells of changes.
        on_restart: as a ``Slot``'s.
        child: ready already, for the first.

    Attributes:
        child: serving, or None while there is none.
        failures: starts that failed since the last one that did not.
    """

    def __init__(
        self,
        bring_up: Callable[[], Awaitable[Child]],
        end: Callable[[Child], None],
        watcher: Watcher,
        on_restart: Callable[[Cause], None],
        child: Child | None = None,
    ) -> None:
        self._bring_up = bring_up
        self._end = end
        self._watcher = watcher
        self._on_restart = on_restart
        self._asked = Replacements()
        self.child = child
        self.failures = 0

    def replace(self, reason: Reason, child: Child | None = None) -> asyncio.Future[None]:
        """Have a new worker, as if the source had changed."""
        return self._asked.ask(reason, child)

    def abandon(self) -> None:
        """Its worker is being ended by force."""
        self.child = None
        self._on_restart(Cause.BLOCKED)
        self.replace(Reason(Cause.BLOCKED, "its loop was blocked"))

    def dismiss(self) -> None:
        """The place is given up."""
        answer(self._asked.take(), WorkerError("The server stops."))

    async def keep(self) -> None:
        """Keep the place filled with the newest code until cancelled."""
        change = asyncio.ensure_future(self._watcher.next_change())
        starting: asyncio.Future[Child] | None = None
        try:
            while True:
                news = asyncio.ensure_future(self._wait(starting))
                await asyncio.wait([change, news], return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                is_asked = self._asked.news.is_set()
                self._asked.news.clear()
                if change.done() or is_asked:
                    if change.done():
                        _logger.warning("Reloading: %s changed.", _names(change.result()))
                        change = asyncio.ensure_future(self._watcher.next_change())
                    if starting is not None:
                        starting.cancel()
                    if self.child is not None:
                        self._on_restart(Cause.RELOAD)
                        self._end(self.child)
                        self.child = None
                    starting = asyncio.ensure_future(self._bring_up())
                elif starting is not None and starting.done():
                    self._take(starting)
                    starting = None
                elif self.child is not None and self.child.gone.done():
                    self._on_gone(self.child)
        finally:
            change.cancel()
            if starting is not None:
                starting.cancel()

    async def _wait(self, starting: asyncio.Future[Child] | None) -> None:
        """Wait until somebody asks, or the worker is there, or gone."""
        waiting: list[asyncio.Future[object]] = [asyncio.ensure_future(self._asked.news.wait())]
        others = [starting] if starting is not None else [self.child.gone] if self.child is not None else []
        try:
            await asyncio.wait([*waiting, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting[0].cancel()

    def _take(self, starting: asyncio.Future[Child]) -> None:
        try:
            self.child = starting.result()
        except WorkerError as error:
            self.failures += 1
            _logger.error("%s Waiting for a change.", error)
            answer(self._asked.take(), error)
        else:
            self.failures = 0
            answer(self._asked.take(), None)

    def _on_gone(self, child: Child) -> None:
        self.child = None
        self._on_restart(end_cause(child.gone.result()))
        _logger.error("%s %s. Waiting for a change.", child.name, end_words(child.gone.result()))


def _names(paths: Iterable[Path]) -> str:
    names = sorted(os.path.relpath(path) for path in paths)
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
