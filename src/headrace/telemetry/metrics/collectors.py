"""Figures of the application that ``prometheus_client`` asks for when it is scraped: collectors, functions of
gauges, Info, Enum.

They have no values that a bridge could keep, so somebody must ask: before a page is made, in a thread, since
it may take its time. The answers are copied into the registry, and merged from there like all other figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from headrace.telemetry.metrics.family import Family, Kind, Merge, legal_name
from headrace.telemetry.metrics.registry import Registry, SampleSet
from headrace.telemetry.metrics.series import Sample

REGISTRY_MODULE = "prometheus_client.registry"

OWN_MODULES = frozenset(f"prometheus_client.{name}_collector" for name in ("gc", "platform", "process"))
"""Home of ``prometheus_client``'s own collectors; headrace has the same figures itself."""

SWITCH_S = 0.0005
"""How long the thread keeps the interpreter while the event loop wants it; else it were 5 ms."""

HUNG_S = 30.0
"""A collector that has not answered for so long is told of, and what it said last is left out."""

_KINDS = {
    "counter": (Kind.COUNTER, Merge.LIVEALL),
    "gauge": (Kind.GAUGE, Merge.LIVEALL),
    "unknown": (Kind.GAUGE, Merge.LIVEALL),
    "stateset": (Kind.GAUGE, Merge.LIVEALL),
    "info": (Kind.GAUGE, Merge.LIVEMAX),
    "summary": (Kind.SUMMARY, Merge.LIVEALL),
    "histogram": (Kind.HISTOGRAM, Merge.LIVEALL),
}
"""``prometheus_client``'s types -> how they are shown. Each process stands for itself: whether a total is its
own, or one that all of them look up in the same place, nobody says. An Info is the same in all workers, and
shown once."""

_logger = logging.getLogger("uvicorn.error")

_Key = tuple[str, tuple[str, ...]]


class Row(NamedTuple):
    """One number of a metric: ``registry.samples`` explains the part."""

    part: str
    labels: tuple[tuple[str, str], ...]
    value: float


class _Question:
    """A collector that has been asked, and has not answered.

    Attributes:
        collector: who is asked.
        since_s: when; monotonic.
        is_told: it takes so long that it was told of.
    """

    __slots__ = ("collector", "is_told", "since_s")

    def __init__(self, collector: Any) -> None:
        self.collector = collector
        self.since_s = time.monotonic()
        self.is_told = False


class Collectors:
    """Asks the application's collectors, each once at a time; one that hangs holds up no other.

    Args:
        registry: gets the answers.
        reserved: names of metrics that are headrace's own.
        hung_s: see ``HUNG_S``.
    """

    def __init__(
        self, registry: Registry, reserved: frozenset[str] = frozenset(), *, hung_s: float = HUNG_S
    ) -> None:
        self.registry = registry
        self.reserved = reserved
        self._hung_s = hung_s
        self._waiting: deque[Any] = deque()
        self._asked: dict[int, _Question] = {}
        self._shown: dict[int, dict[_Key, tuple[SampleSet, Sample]]] = {}
        # Guards what is shown: an answer may come at the moment in which it is given up.
        self._showing = threading.Lock()
        self._warned: set[str] = set()

    async def refresh(self, timeout_s: float) -> bool:
        """Ask all; comes back when they have answered, or after ``timeout_s``, and they go on.

        Returns:
            Whether there are any.
        """
        collectors = list(application_collectors())
        self._forget(collectors)
        if not collectors:
            return False
        busy = {*self._asked, *map(id, self._waiting)}
        self._waiting.extend(one for one in collectors if id(one) not in busy)
        if not self._waiting:
            return True
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def ask() -> None:
            self._ask_waiting()
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done.set_result, None)

        # Where another thread is still at one that takes its time, this one goes on with the rest.
        with _quick_switches():
            threading.Thread(target=ask, name="headrace-collectors", daemon=True).start()
            # Not ``wait_for``: before 3.12 it can swallow a cancellation.
            await asyncio.wait([done], timeout=timeout_s)
        return True

    def copy(self, collectors: Iterable[Any]) -> None:
        """Ask each, and copy what it says. What it does not say any more is not shown any more."""
        self._waiting.extend(collectors)
        self._ask_waiting()

    def _ask_waiting(self) -> None:
        while True:
            try:
                collector = self._waiting.popleft()
            except IndexError:
                return
            self._asked[id(collector)] = _Question(collector)
            try:
                answer = _answer(collector)
            except Exception as error:
                self._warn(type(collector).__name__, error)
                answer = []
            with self._showing:
                del self._asked[id(collector)]
                self._show(collector, answer)

    def _forget(self, collectors: Collection[Any]) -> None:
        """Give up what collectors have said that are not there any more, or hang."""
        now_s = time.monotonic()
        known = {id(collector) for collector in collectors}
        with self._showing:
            for key in [key for key in self._shown if key not in known]:
                self._release(self._shown.pop(key))
            for question in list(self._asked.values()):
                if question.is_told or now_s - question.since_s < self._hung_s:
                    continue
                question.is_told = True
                self._show(question.collector, [])
                _logger.warning(
                    "The application's collector %.80s has not answered for %.0f s; what it said last is "
                    "left out of headrace's page until it does.",
                    type(question.collector).__name__, now_s - question.since_s,
                )  # fmt: skip

    def _show(self, collector: Any, answer: list[Any]) -> None:
        """Copy an answer, and give up what is not in it."""
        if _is_value_based(collector):
            said = dict(answer)
            for gauge in _with_function(collector):
                gauge._value.set(said.get(gauge, math.nan), timestamp=time.time())
            return
        before = self._shown.pop(id(collector), {})
        shown = self._shown[id(collector)] = {}
        for metric in answer:
            try:
                self._show_metric(metric, before, shown)
            except ValueError as error:
                self._warn(metric.name, error)
        self._release({key: held for key, held in before.items() if key not in shown})

    def _show_metric(
        self,
        metric: Any,
        before: dict[_Key, tuple[SampleSet, Sample]],
        shown: dict[_Key, tuple[SampleSet, Sample]],
    ) -> None:
        kind, merge = _KINDS[metric.type]
        name = f"{metric.name}_info" if metric.type == "info" else metric.name
        rows = list(_rows_of(metric, name))
        for labels, those in groupby(rows, key=lambda row: tuple(label for label, _ in row.labels)):
            legal = tuple(legal_name(label).replace(":", "_") for label in labels)
            family = Family(legal_name(name), kind, metric.documentation, legal, merge=merge, in_samples=True)
            if self.reserved & family.line_names:
                raise ValueError("headrace has one of that name itself")
            samples = self.registry.samples(family)
            for row in those:
                values = (row.part, *(value for _, value in row.labels))
                key = (name, values)
                held = before.get(key) or shown.get(key) or (samples, samples.hold(*values))
                shown[key] = held
                held[1].set(row.value)

    def _release(self, shown: dict[_Key, tuple[SampleSet, Sample]]) -> None:
        for samples, sample in shown.values():
            samples.release(sample)

    def _warn(self, name: str, error: Exception) -> None:
        if name not in self._warned:
            self._warned.add(name)
            _logger.warning(
                "What the application's collector says of %.80s is not on headrace's page: %s: %s",
                name, type(error).__name__, error,
            )  # fmt: skip


def _answer(collector: Any) -> list[Any]:
    """What a collector says: metrics, or of what keeps values the gauges that have a function, and theirs."""
    if not _is_value_based(collector):
        return [metric for metric in collector.collect() if metric.type in _KINDS]
    return [
        (gauge, float(answer.value))
        for gauge in list(_with_function(collector))
        for answer in gauge._child_samples()
    ]


@contextlib.contextmanager
def _quick_switches() -> Iterator[None]:
    """Have threads give the interpreter back sooner, while the block lasts."""
    usual_s = sys.getswitchinterval()
    if usual_s <= SWITCH_S:
        yield
        return
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)


def application_collectors() -> Iterator[Any]:
    """Those of ``prometheus_client.REGISTRY`` that must be asked for their figures."""
    module = sys.modules.get(REGISTRY_MODULE)
    if module is None:
        return
    # A copy, made at once: another thread may register one.
    for collector in list(module.REGISTRY._collector_to_names):
        if type(collector).__module__ in OWN_MODULES:
            continue
        if not _is_value_based(collector) or any(_with_function(collector)):
            yield collector


def _is_value_based(collector: Any) -> bool:
    """Whether it keeps its numbers in values, which a bridge has."""
    return hasattr(collector, "_metric_init") and getattr(collector, "_type", "") in list(Kind)


def _with_function(collector: Any) -> Iterator[Any]:
    """Of a gauge and its children, those that have been given a function to ask."""
    for gauge in (collector, *list(getattr(collector, "_metrics", {}).values())):
        if "_child_samples" in vars(gauge):
            yield gauge


def _rows_of(metric: Any, name: str) -> Iterator[Row]:
    """The numbers of a metric; a histogram's buckets are counted each by itself."""
    below: dict[tuple[tuple[str, str], ...], float] = {}
    for answer in metric.samples:
        part = answer.name.removeprefix(name)
        labels = dict(answer.labels)
        bound = labels.pop("le", None) if part == "_bucket" else None
        items = tuple(sorted((key, str(value)) for key, value in labels.items()))
        value = float(answer.value)
        if bound is not None:
            yield Row(f"le={float(bound)}", items, value - below.get(items, 0.0))
            below[items] = value
        elif part in _PARTS[_KINDS[metric.type][0]] and "quantile" not in labels:
            yield Row(part, items, value)


_PARTS = {
    Kind.COUNTER: ("_total",),
    Kind.GAUGE: ("",),
    Kind.SUMMARY: ("_count", "_sum"),
    Kind.HISTOGRAM: ("_sum",),
}
"""What stands behind a metric's name, of what is shown. A histogram's ``_count`` is that of its buckets."""
