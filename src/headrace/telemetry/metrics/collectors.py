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
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from headrace.telemetry.metrics.family import Family, Kind, Merge, legal_name
from headrace.telemetry.metrics.registry import Registry
from headrace.telemetry.metrics.series import Sample

REGISTRY_MODULE = "prometheus_client.registry"

OWN_MODULES = frozenset(f"prometheus_client.{name}_collector" for name in ("gc", "platform", "process"))
"""Home of ``prometheus_client``'s own collectors; headrace has the same figures itself."""

SWITCH_S = 0.0005
"""How long the thread keeps the interpreter while the event loop wants it; else it were 5 ms."""

_KINDS = {
    "counter": (Kind.COUNTER, Merge.SUM),
    "gauge": (Kind.GAUGE, Merge.LIVEALL),
    "unknown": (Kind.GAUGE, Merge.LIVEALL),
    "stateset": (Kind.GAUGE, Merge.LIVEALL),
    "info": (Kind.GAUGE, Merge.LIVEMAX),
    "summary": (Kind.SUMMARY, Merge.SUM),
    "histogram": (Kind.HISTOGRAM, Merge.SUM),
}
"""``prometheus_client``'s types -> how they are shown. An Info is the same in all workers, and shown once."""

_logger = logging.getLogger("uvicorn.error")


class Row(NamedTuple):
    """One number of a metric: ``registry.samples`` explains the part."""

    part: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Collectors:
    """Asks the application's collectors; one question at a time.

    Args:
        registry: gets the answers.
        reserved: names of metrics that are headrace's own.
    """

    def __init__(self, registry: Registry, reserved: Collection[str] = ()) -> None:
        self.registry = registry
        self.reserved = reserved
        self._asking: threading.Thread | None = None
        self._shown: set[Sample] = set()
        self._warned: set[str] = set()

    async def refresh(self, timeout_s: float) -> bool:
        """Ask all; comes back when they have answered, or after ``timeout_s``, and they go on.

        Returns:
            Whether there are any.
        """
        collectors = list(application_collectors())
        if not collectors:
            return False
        if self._asking is not None and self._asking.is_alive():
            # Asked long ago, and still not back: not twice at a time.
            return True
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def ask() -> None:
            self.copy(collectors)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done.set_result, None)

        self._asking = threading.Thread(target=ask, name="headrace-collectors", daemon=True)
        self._asking.start()
        # Not ``wait_for``: before 3.12 it can swallow a cancellation.
        await asyncio.wait([done], timeout=timeout_s)
        return True

    def copy(self, collectors: Iterable[Any]) -> None:
        """Ask each, and copy what it says. What it does not say any more is not shown any more."""
        before, self._shown = self._shown, set()
        switch_s = sys.getswitchinterval()
        sys.setswitchinterval(min(switch_s, SWITCH_S))
        try:
            for collector in collectors:
                try:
                    self._copy(collector)
                except Exception as error:
                    self._warn(type(collector).__name__, error)
        finally:
            sys.setswitchinterval(switch_s)
        for sample in before - self._shown:
            if sample.family.kind is Kind.GAUGE:
                sample.set(math.nan)

    def _copy(self, collector: Any) -> None:
        if _is_value_based(collector):
            for gauge in _with_function(collector):
                for answer in gauge._child_samples():
                    gauge._value.set(float(answer.value), timestamp=time.time())
            return
        for metric in collector.collect():
            if metric.type in _KINDS:
                try:
                    self._copy_metric(metric)
                except ValueError as error:
                    self._warn(metric.name, error)

    def _copy_metric(self, metric: Any) -> None:
        kind, merge = _KINDS[metric.type]
        name = f"{metric.name}_info" if metric.type == "info" else metric.name
        if name in self.reserved:
            raise ValueError("headrace has one of that name itself")
        rows = list(_rows_of(metric, name))
        for labels, those in groupby(rows, key=lambda row: tuple(label for label, _ in row.labels)):
            legal = tuple(legal_name(label).replace(":", "_") for label in labels)
            family = Family(legal_name(name), kind, metric.documentation, legal, merge=merge, in_samples=True)
            series_set = self.registry.samples(family)
            for row in those:
                sample = series_set.labels(row.part, *(value for _, value in row.labels))
                sample.set(row.value)
                self._shown.add(sample)

    def _warn(self, name: str, error: Exception) -> None:
        if name not in self._warned:
            self._warned.add(name)
            _logger.warning(
                "What the application's collector says of %.80s is not on headrace's page: %s: %s",
                name, type(error).__name__, error,
            )  # fmt: skip


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
