"""The supervisor's books: the figures of all workers there are, and of all there were."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from headrace.server.seat import Cause
from headrace.supervisor.child import Child
from headrace.telemetry.metrics.build import declare_build
from headrace.telemetry.metrics.family import Family, Kind
from headrace.telemetry.metrics.merge import Merged, limit_over_all
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

CRASHES = frozenset(
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")
    if hasattr(signal, name)
)


class Books:
    """Keeps the stores of living workers, and what ended ones have left.

    Args:
        refresh: awaited before each page: has workers write what they do not count but look up.
        max_series: limit of a family in one worker.
    """

    def __init__(self, refresh: Callable[[], Awaitable[None]], max_series: int) -> None:
        self._merged = Merged(max_series=limit_over_all(max_series))
        self._pages = MergedPages(lambda: self._merged, refresh)
        self._has_opened = asyncio.Event()
        registry = self._merged.registry
        self._process = ProcessMetrics(registry, SUPERVISOR)
        self._workers = registry.gauge(WORKERS)
        self._target = registry.gauge(TARGET).labels()
        self._restarts = registry.counter(RESTARTS)
        for cause in Cause:
            # From 0 on: a rate is seen from the first one.
            self._restarts.labels(cause.value)
        declare_build(registry)

    def open(self) -> Store:
        """A store for a worker that is about to be made; each has one of its own, and nobody a second.

        Raises:
            OSError: there is no memory or descriptor for it.
        """
        store = Store.create()
        self._merged.attach(store)
        self._has_opened.set()
        return store

    def fold(self, store: Store) -> None:
        """Its worker has ended, or has never been: keep the figures, let go of the store."""
        self._merged.fold(store)
        store.close()

    def count_restart(self, cause: Cause) -> None:
        """A worker's place is another's."""
        self._restarts.labels(cause.value).inc()

    async def page(self, kind: PageKind, children: Iterable[Child], target: int) -> bytes:
        """The page of all figures; see ``MergedPages``."""
        self._process.sample()
        states = Counter("blocked" if child.is_condemned else child.state.value for child in children)
        for state in STATES:
            self._workers.labels(state).set(states[state])
        self._target.set(target)
        return await self._pages.page(kind)

    async def keep(self) -> None:
        """Look again and again until cancelled, once there is a worker with figures."""
        await self._has_opened.wait()
        while True:
            pause_s = 0.0 if self._merged.look() else LOOK_S
            await asyncio.sleep(pause_s)


def end_cause(code: int) -> Cause:
    """Why the place of a worker that has ended by itself is another's.

    Args:
        code: its exit code; minus the number for a signal.
    """
    if code >= 0:
        return Cause.EXITED
    if -code == signal.SIGKILL:
        # Who sent it is not known; the kernel does when there is no memory.
        return Cause.KILLED
    return Cause.CRASHED if -code in CRASHES else Cause.SIGNAL
