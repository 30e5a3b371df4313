"""What keeps an event loop from its work: how late it is, and how long collections of garbage stop it."""

from __future__ import annotations

import asyncio
import gc
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from headrace.telemetry.metrics.family import Family, Kind
from headrace.telemetry.metrics.registry import Registry

INTERVAL_S = 0.1
"""Time between two looks at the clock."""

SAMPLE_LOOKS = 10
"""So many looks lie between two calls of ``on_sample``: a second."""

LAG = Family(
    "headrace_event_loop_lag_seconds",
    Kind.HISTOGRAM,
    "How late the event loops of the workers were, looked at ten times a second.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
PAUSE = Family(
    "headrace_gc_pause_seconds",
    Kind.HISTOGRAM,
    "How long collections of garbage have stopped a worker.",
    ("generation",),
    (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)

FAMILIES = (LAG, PAUSE)


class LoopMetrics:
    """Figures of the running event loop; ``stop`` must follow ``start``.

    Args:
        registry: keeps them.
        on_sample: called once a second, and at the end: for figures that are looked up and not counted.
    """

    def __init__(self, registry: Registry, on_sample: Callable[[], None] = lambda: None) -> None:
        self._on_sample = on_sample
        self._lag = registry.histogram(LAG).labels()
        generations = range(len(gc.get_stats()))
        self._places = [registry.histogram(PAUSE).labels(str(number)) for number in generations]
        # The counts of each generation's buckets, then the seconds. A collection may begin within any
        # statement, also one that holds a lock of the registry: nothing but these lists is touched then.
        self._pauses = [[0.0] * PAUSE.value_slots for _ in generations]
        self._collection_began_s = 0.0
        self._looks = 0
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, in the running loop."""
        self._loop = asyncio.get_running_loop()
        gc.callbacks.append(self._on_collection)
        self._on_sample()
        self._wait()

    def stop(self) -> None:
        """End, with a last look. Nothing happens when it has not begun."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        gc.callbacks.remove(self._on_collection)
        self._sample()

    def _wait(self) -> None:
        self._due_s = self._loop.time() + INTERVAL_S
        self._timer = self._loop.call_at(self._due_s, self._look)

    def _look(self) -> None:
        self._lag.observe(max(0.0, self._loop.time() - self._due_s))
        self._looks += 1
        if self._looks % SAMPLE_LOOKS == 0:
            self._sample()
        self._wait()

    def _sample(self) -> None:
        for series, figures in zip(self._places, self._pauses, strict=True):
            for index, figure in enumerate(figures):
                series.values[index] = figure
        self._on_sample()

    def _on_collection(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._collection_began_s = time.perf_counter()
            return
        pause_s = time.perf_counter() - self._collection_began_s
        figures = self._pauses[info["generation"]]
        figures[bisect_left(PAUSE.buckets, pause_s)] += 1.0
        figures[-1] += pause_s
