"""Finished exchanges become figures: in batches, off the request's path, in one way for every preset.

For each (route, method, status) the places to write are looked up once and kept. Writing goes straight into
the store: an addition there costs 0.05 us, less than to keep numbers aside and to carry them over once a
batch (2026-11-25).
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from typing import Any, NamedTuple, TypeAlias

from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.metrics.family import Kind
from headrace.telemetry.metrics.presets import METHODS, OTHER_METHOD, Measure, Row, Source, choose_preset
from headrace.telemetry.metrics.registry import Registry, SeriesSet
from headrace.telemetry.metrics.series import Series
from headrace.telemetry.route import route_template

BATCH_EXCHANGES = 32
"""Waiting exchanges that are processed at once; see ``access_log.BATCH_ENTRIES`` for why not more."""

_Key = tuple[str | None, str, int]
_Histograms: TypeAlias = "tuple[tuple[tuple[float, ...], memoryview[float]], ...]"
"""Bounds and numbers; a summary is one without bounds."""
_Totals: TypeAlias = "tuple[memoryview[float], ...]"

_logger = logging.getLogger("uvicorn.error")


class _Places(NamedTuple):
    """Where the figures of one (route, method, status) are written."""

    durations: _Histograms
    received_sizes: _Histograms
    sent_sizes: _Histograms
    requests: _Totals
    received_totals: _Totals
    sent_totals: _Totals
    traced: tuple[Series, ...]


class HTTPMetrics:
    """A consumer of finished exchanges. All calls come from one thread.

    Args:
        registry: declares the metrics, and keeps them.
        preset: their names, see ``presets.PRESETS``.
        buckets: upper bounds of the duration's, in seconds, ascending; empty for the preset's own.

    Attributes:
        in_flight: the gauge of requests being worked on, for whoever knows.

    Raises:
        ConfigError: no such preset, or the buckets are not valid.
        ValueError: one of the names stands for something else in the registry.
    """

    def __init__(
        self, registry: Registry, *, preset: str = "classic", buckets: tuple[float, ...] = ()
    ) -> None:
        self._preset = choose_preset(preset, buckets)
        self._sets = [(row, _declared(registry, row)) for row in self._preset.rows]
        self.in_flight = registry.gauge(self._preset.in_flight).labels()
        self._max_places = registry.max_series
        self._places: dict[_Key, _Places] = {}
        self._waiting: list[FinishedExchange] = []
        self._sampled: dict[_Key, tuple[Any, float, float]] = {}
        self._has_warned = False

    def add(self, exchange: FinishedExchange) -> None:
        """Take one; the last of a batch does the work for all of it."""
        waiting = self._waiting
        waiting.append(exchange)
        if len(waiting) >= BATCH_EXCHANGES:
            self._process()

    def flush(self) -> None:
        """Write what waits, and for each series the latest trace that was sampled since the last time."""
        self._process()
        if self._sampled:
            self._note_traces()

    def close(self) -> None:
        """Write what waits; the figures stay in the registry's store."""
        self.flush()

    def _process(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            self._record(waiting)
        except Exception:
            if not self._has_warned:
                self._has_warned = True
                _logger.exception("Metrics of some requests are lost")

    def _record(self, exchanges: list[FinishedExchange]) -> None:
        find = self._places.get
        for scope, status, sent_bytes, started_s, finished_s, _, received_bytes, _ in exchanges:
            method = scope["method"]
            if method not in METHODS:
                method = OTHER_METHOD
            key = (route_template(scope), method, status)
            places = find(key) or self._look_up(key)
            durations, received_sizes, sent_sizes, requests, received_totals, sent_totals, _ = places
            duration_s = finished_s - started_s
            for bounds, numbers in durations:
                numbers[bisect_left(bounds, duration_s)] += 1.0
                numbers[-1] += duration_s
            for bounds, numbers in received_sizes:
                numbers[bisect_left(bounds, received_bytes)] += 1.0
                numbers[-1] += received_bytes
            for bounds, numbers in sent_sizes:
                numbers[bisect_left(bounds, sent_bytes)] += 1.0
                numbers[-1] += sent_bytes
            for numbers in requests:
                numbers[0] += 1.0
            if received_bytes:
                for numbers in received_totals:
                    numbers[0] += received_bytes
            if sent_bytes:
                for numbers in sent_totals:
                    numbers[0] += sent_bytes
            span = scope.get("headrace.span")
            if span is not None and span.is_sampled:
                self._sampled[key] = (span, duration_s, finished_s)

    def _note_traces(self) -> None:
        unix_s = time.time() - time.monotonic()
        sampled, self._sampled = self._sampled, {}
        for key, (span, duration_s, finished_s) in sampled.items():
            places = self._places.get(key)
            for series in places.traced if places else ():
                series.set_exemplar(span.trace_id, span.span_id, duration_s, finished_s + unix_s)

    def _look_up(self, key: _Key) -> _Places:
        """Find or make the series; kept, unless there are more than could have series of their own."""
        route, method, status = key
        texts = {
            Source.ENDPOINT: self._preset.unmatched if route is None else route,
            Source.METHOD: method,
            Source.STATUS: str(status),
            Source.STATUS_CLASS: f"{status // 100}xx",
        }
        found = [
            (row, series_set.labels(*(texts[source] for source in row.sources)))
            for row, series_set in self._sets
        ]

        def histograms(measure: Measure) -> _Histograms:
            return tuple(
                (series.family.buckets, series.values)
                for row, series in found
                if row.measure is measure and row.family.kind is not Kind.COUNTER
            )

        def totals(measure: Measure) -> _Totals:
            return tuple(
                series.values
                for row, series in found
                if row.measure is measure and row.family.kind is Kind.COUNTER
            )

        places = _Places(
            histograms(Measure.DURATION),
            histograms(Measure.REQUEST_BYTES),
            histograms(Measure.RESPONSE_BYTES),
            totals(Measure.REQUESTS),
            totals(Measure.REQUEST_BYTES),
            totals(Measure.RESPONSE_BYTES),
            tuple(series for row, series in found if row.family.has_exemplars),
        )
        if len(self._places) < self._max_places:
            self._places[key] = places
        return places


def _declared(registry: Registry, row: Row) -> SeriesSet[Any]:
    """The row's metric in the registry."""
    family = row.family
    if family.kind is Kind.HISTOGRAM:
        return registry.histogram(family)
    return registry.summary(family) if family.kind is Kind.SUMMARY else registry.counter(family)
