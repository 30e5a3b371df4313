"""The supervisor's books: the figures of all workers there are, and of all there were."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from headrace.supervisor.child import Child
from headrace.telemetry.metrics.build import declare_build
from headrace.telemetry.metrics.family import Family, Kind
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.page import MergedPages, PageKind
from headrace.telemetry.metrics.process import SUPERVISOR, ProcessMetrics
from headrace.telemetry.metrics.store import Store

LOOK_S = 1.0
"""Time between two looks at what workers have declared, so that a scrape finds little that is new."""

WORKERS = Family("headrace_workers", Kind.GAUGE, "Workers, by what they do.", ("state",))
TARGET = Family("headrace_workers_target", Kind.GAUGE, "How many workers there are to be.")
RESTARTS = Family(
    "headrace_worker_restarts", Kind.COUNTER, "Workers whose place another took, by why it did.", ("reason",)
)

STATES = ("starting", "ready", "draining", "blocked")

CAUSES = {
    "a reload": "reload",
    "a change": "reload",
    "an operator": "operator",
    "it has served": "requests",
    "it has lived": "lifetime",
    "it holds": "memory",
    "it was sent": "signal",
    "its event loop": "blocked",
    "its loop": "blocked",
}
"""How the sentence begins by which somebody asks for a replacement -> what it is called."""

OTHER = "other"
CRASHES = frozenset(
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")
    if hasattr(signal, name)
)
REASONS = (*dict.fromkeys(CAUSES.values()), "killed", "crashed", "exited", OTHER)
"""Every value of the label ``reason``."""


class Books:
    """Keeps the stores of living workers, and what ended ones have left.

    Args:
        refresh: awaited before each page: has workers write what they do not count but look up.
    """

    def __init__(self, refresh: Callable[[], Awaitable[None]]) -> None:
        self._merged = Merged()
        self._pages = MergedPages(lambda: self._merged, refresh)
        registry = self._merged.registry
        self._process = ProcessMetrics(registry, SUPERVISOR)
        self._workers = registry.gauge(WORKERS)
        self._target = registry.gauge(TARGET).labels()
        self._restarts = registry.counter(RESTARTS)
        for reason in REASONS:
            # From 0 on: a rate is seen from the first one.
            self._restarts.labels(reason)
        declare_build(registry)

    def open(self) -> Store:
        """A store for a worker that is about to be made; each has one of its own, and nobody a second.

        Raises:
            OSError: there is no memory or descriptor for it.
        """
        store = Store.create()
        self._merged.attach(store)
        return store

    def fold(self, store: Store) -> None:
        """Its worker has ended, or has never been: keep the figures, let go of the store."""
        self._merged.fold(store)
        store.close()

    def count_restart(self, reason: str) -> None:
        """A worker's place is another's.

        Args:
            reason: as the log says it, or one of ``REASONS``.
        """
        named = (cause for start, cause in CAUSES.items() if reason.startswith(start))
        self._restarts.labels(reason if reason in REASONS else next(named, OTHER)).inc()

    async def page(self, kind: PageKind, children: Iterable[Child], target: int) -> bytes:
        """The page of all figures; see ``MergedPages``."""
        self._process.sample()
        states = Counter("blocked" if child.is_condemned else child.state.value for child in children)
        for state in STATES:
            self._workers.labels(state).set(states[state])
        self._target.set(target)
        return await self._pages.page(kind)

    async def keep(self) -> None:
        """Look again and again until cancelled."""
        while True:
            pause_s = 0.0 if self._merged.look() else LOOK_S
            await asyncio.sleep(pause_s)


def end_reason(code: int) -> str:
    """Why the place of a worker that has ended by itself is another's: one of ``REASONS``.

    Args:
        code: its exit code; minus the number for a signal.
    """
    if code >= 0:
        return "exited"
    if -code == signal.SIGKILL:
        # Who sent it is not known; the kernel does when there is no memory.
        return "killed"
    return "crashed" if -code in CRASHES else "signal"
