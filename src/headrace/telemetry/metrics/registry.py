"""The metrics of one process: families are declared once, their series made as labels come up.

No family has more than ``max_series`` series, whatever labels come. One more is given out as well, so that
nobody has to ask, but it stands in no store: what is told to it is lost, and
``headrace_series_dropped_total`` counts that it was asked for.
"""

from __future__ import annotations

import json
import threading
from typing import Any, Generic, TypeVar

from headrace.telemetry.metrics.family import Family, Kind, legal_text
from headrace.telemetry.metrics.series import DETACHED, Counter, Gauge, Histogram, Sample, Series, Summary
from headrace.telemetry.metrics.store import Store

MAX_SERIES = 2_000

DROPPED = Family(
    "headrace_series_dropped",
    Kind.COUNTER,
    "How often a series was asked for that the limit of series, or of memory, left no room for.",
    ("metric",),
)

SeriesT = TypeVar("SeriesT", bound=Series)


class SeriesSet(Generic[SeriesT]):
    """A family's series in one process; ``labels`` gives each, the first time it makes it.

    Args:
        registry: to which it belongs.
        family: what they are series of.
        number: the family's place in the store's directory; -1 when it found none.
        series_type: their class.
    """

    __slots__ = ("_known", "_registry", "_series_type", "family", "number")

    def __init__(self, registry: Registry, family: Family, number: int, series_type: type[SeriesT]) -> None:
        self._registry = registry
        self._series_type = series_type
        self._known: dict[tuple[str, ...], SeriesT] = {}
        self.family = family
        self.number = number

    def labels(self, *values: str) -> SeriesT:
        """The series of these values; keep it where it is needed often.

        Args:
            values: in the order of the family's labels; of a family in samples, its part (``_sum``,
                ``le=0.5``) first.

        Raises:
            ValueError: there are too many or too few.
        """
        found = self._known.get(values)
        return found if found is not None else self._registry._make(self, values)

    def known(self) -> list[SeriesT]:
        """Those that stand in the store, in the order they were made."""
        return list(self._known.values())

    def _new(self, values: tuple[str, ...], lock: threading.Lock) -> SeriesT:
        expected = len(self.family.labels) + self.family.in_samples
        if len(values) != expected:
            raise ValueError(f"{self.family.name}: {len(values)} label values for {expected} labels")
        return self._series_type(self.family, values, lock)


class Registry:
    """Declares metrics and keeps their figures in a store, of which it is the only writer.

    Args:
        store: where; None for memory of this process alone.
        max_series: limit of each family, 1 or more.

    Attributes:
        store: as given.
    """

    def __init__(self, store: Store | None = None, *, max_series: int = MAX_SERIES) -> None:
        self.store = Store.local() if store is None else store
        self.store.claim()
        self.max_series = max_series
        self._lock = threading.Lock()
        self._making = threading.RLock()
        self._sets: dict[str, SeriesSet[Any]] = {}
        self._family_count = 0
        self._dropped = self._declare(DROPPED, Counter)

    def counter(self, family: Family) -> SeriesSet[Counter]:
        """Declare a counter; the same again gives the same.

        Raises:
            ValueError: it is another kind, or the name stands for something else already.
        """
        return self._declare_kind(family, Kind.COUNTER, Counter)

    def gauge(self, family: Family) -> SeriesSet[Gauge]:
        """Declare a gauge; see ``counter``."""
        return self._declare_kind(family, Kind.GAUGE, Gauge)

    def histogram(self, family: Family) -> SeriesSet[Histogram]:
        """Declare a histogram; see ``counter``."""
        return self._declare_kind(family, Kind.HISTOGRAM, Histogram)

    def summary(self, family: Family) -> SeriesSet[Summary]:
        """Declare a summary; see ``counter``."""
        return self._declare_kind(family, Kind.SUMMARY, Summary)

    def samples(self, family: Family) -> SeriesSet[Sample]:
        """Declare a family that is written sample by sample; see ``counter``.

        The first value of ``labels`` is then the part: ``""`` (gauge), ``_total`` (counter), ``_count``,
        ``_sum``, or ``le=BOUND`` for what falls into one bucket of a histogram alone.

        Raises:
            ValueError: the family is not in samples, or the name stands for something else already.
        """
        if not family.in_samples:
            raise ValueError(f"{family.name} is not declared in samples")
        return self._declare(family, Sample)

    def move(self, store: Store) -> None:
        """Go on in another store, which is empty: every series and its numbers are taken along.

        For a process that was forked: the store of before stays its parent's. Numbers that somebody keeps
        (``Series.values``) are those of the old store, so ask anew.
        """
        # The parent's other threads may have held them at the fork, and are not here to let go.
        self._lock, self._making = threading.Lock(), threading.RLock()
        self.store = store
        store.claim()
        self._family_count = 0
        for series_set in self._sets.values():
            series_set.number = self._append_family(series_set.family)
            for series in series_set.known():
                series.lock = self._lock
                if not self._place(series_set, series):
                    series.place(store, DETACHED)

    def _declare_kind(self, family: Family, kind: Kind, series_type: type[SeriesT]) -> SeriesSet[SeriesT]:
        if family.kind is not kind or family.in_samples:
            raise ValueError(f"{family.name} is not declared as a {kind.value}")
        return self._declare(family, series_type)

    def _declare(self, family: Family, series_type: type[SeriesT]) -> SeriesSet[SeriesT]:
        with self._making:
            found = self._sets.get(family.name)
            if found is None:
                number = self._append_family(family)
                found = SeriesSet(self, family, number, series_type)
                self._sets[family.name] = found
            elif found.family.shape != family.shape:
                raise ValueError(f"{family.name} stands for another metric already")
            return found

    def _make(self, series_set: SeriesSet[SeriesT], values: tuple[str, ...]) -> SeriesT:
        """A series that was not there a moment ago; another thread may have made it since."""
        values = tuple(map(legal_text, values))
        with self._making:
            found = series_set._known.get(values)
            if found is not None:
                return found
            series = series_set._new(values, self._lock)
            if len(series_set._known) < self.max_series and self._place(series_set, series):
                series_set._known[values] = series
            elif series_set is not self._dropped:
                self._dropped.labels(series_set.family.name).inc()
            return series

    def _place(self, series_set: SeriesSet[SeriesT], series: SeriesT) -> bool:
        """Give a series its numbers in the store; False when there is no room."""
        if series_set.number < 0:
            return False
        line = json.dumps([series_set.number, *series.labels]).encode()
        reserve = {"reserve_bytes": 0} if series_set is self._dropped else {}
        first_slot = self.store.append(line, series.family.slots, **reserve)
        series.place(self.store, first_slot)
        return first_slot != DETACHED

    def _append_family(self, family: Family) -> int:
        """The family's number in the store, -1 when there is no room."""
        number = self._family_count
        line = json.dumps({"number": number, **family.to_json()}).encode()
        if self.store.append(line, 0) < 0:
            return -1
        self._family_count += 1
        return number


_processes_own: list[Registry] = []


def process_registry() -> Registry:
    """The registry of this process: the one it was given by ``use_registry``, else made at the first call."""
    if not _processes_own:
        _processes_own.append(Registry())
    return _processes_own[0]


def use_registry(registry: Registry) -> None:
    """Make it the registry of this process; before the application is imported."""
    _processes_own[:] = [registry]
