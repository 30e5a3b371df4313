"""The metrics of one process: families are declared once, their series made as labels come up.

No family has more than ``max_series`` series, whatever labels come. One more is given out as well, so that
nobody has to ask, but it stands in no store: what is told to it is lost, and
``headrace_series_dropped_total`` counts that it was asked for. A family in samples has so many sets of
labels, each with all of its samples.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from threading import RLock
from typing import Any, Generic, TypeVar

from headrace.telemetry.metrics.family import Family, Kind, label_text
from headrace.telemetry.metrics.series import DETACHED, Counter, Gauge, Histogram, Sample, Series, Summary
from headrace.telemetry.metrics.store import RESERVE_BYTES, Place, Store

MAX_SERIES = 2_000

WHOLE_BYTES = 2 * RESERVE_BYTES
"""What must be left in the store for new labels of a family in samples: no histogram is cut in half."""

LINE_UNIT_BYTES = 64
"""Lines of series that may go are filled up to a multiple of it, so that others can take their place."""

DROPPED = Family(
    "headrace_series_dropped",
    Kind.COUNTER,
    "How often a series was asked for that the limit of series, or of memory, left no room for.",
    ("metric",),
)

SeriesT = TypeVar("SeriesT", bound=Series)
SetT = TypeVar("SetT", bound="SeriesSet[Any]")


class SeriesSet(Generic[SeriesT]):
    """A family's series in one process; ``labels`` gives each, the first time it makes it.

    Args:
        registry: to which it belongs.
        family: what they are series of.
        number: the family's place in the store's directory; -1 when it found none.
        series_type: their class.
    """

    __slots__ = ("_counts", "_free", "_known", "_registry", "_removed", "_series_type", "family", "number")

    def __init__(self, registry: Registry, family: Family, number: int, series_type: type[SeriesT]) -> None:
        self._registry = registry
        self._series_type = series_type
        self._known: dict[tuple[str, ...], SeriesT] = {}
        # Of a family in samples: how many samples of each set of labels are known.
        self._counts: dict[tuple[str, ...], int] = {}
        self._removed: deque[Sample] = deque()
        self._free: list[Place] = []
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


class SampleSet(SeriesSet[Sample]):
    """The same of a family in samples, whose series may go when nobody holds them any more."""

    __slots__ = ()

    def hold(self, *values: str) -> Sample:
        """As ``labels``, for somebody who will ``release`` it; one that was released by all begins anew."""
        with self._registry._making:
            sample = self.labels(*values)
            with sample.lock:
                if sample.users == 0 and sample.values[0] != sample.values[0]:
                    sample.values[0] = 0.0
                sample.users += 1
        return sample

    def release(self, sample: Sample) -> None:
        """One who held it does not any more: with the last it goes, where its family allows that.

        A finaliser may call this, whatever its thread is doing: it waits for nobody who makes series.
        """
        with sample.lock:
            sample.users -= 1
            if sample.users or not self.family.is_removable:
                return
            sample.values[0] = math.nan
        self._removed.append(sample)


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
        self._lock = RLock()
        self._making = RLock()
        self._sets: dict[str, Any] = {}
        self._family_count = 0
        self._dropped = self.counter(DROPPED)

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

    def samples(self, family: Family) -> SampleSet:
        """Declare a family that is written sample by sample; see ``counter``.

        The first value of ``labels`` is then the part: ``""`` (gauge), ``_total`` (counter), ``_count``,
        ``_sum``, or ``le=BOUND`` for what falls into one bucket of a histogram alone.

        Raises:
            ValueError: the family is not in samples, or the name stands for something else already.
        """
        if not family.in_samples:
            raise ValueError(f"{family.name} is not declared in samples")
        return self._declare(family, lambda number: SampleSet(self, family, number, Sample))

    def move(self, store: Store) -> None:
        """Go on in another store, which is empty: every series and its numbers are taken along.

        For a process that was forked: the store of before stays its parent's. Numbers that somebody keeps
        (``Series.values``) are those of the old store, so ask anew.
        """
        # The parent's other threads may have held them at the fork, and are not here to let go.
        self._lock, self._making = RLock(), RLock()
        self.store = store
        store.claim()
        self._family_count = 0
        for series_set in self._sets.values():
            self._bury(series_set)
            series_set._free.clear()
            series_set.number = self._append_family(series_set.family)
            for series in series_set.known():
                series.lock = self._lock
                if not self._place(series_set, series):
                    series.place(store, DETACHED)

    def _declare_kind(self, family: Family, kind: Kind, series_type: type[SeriesT]) -> SeriesSet[SeriesT]:
        if family.kind is not kind or family.in_samples:
            raise ValueError(f"{family.name} is not declared as a {kind.value}")
        return self._declare(family, lambda number: SeriesSet(self, family, number, series_type))

    def _declare(self, family: Family, make: Callable[[int], SetT]) -> SetT:
        with self._making:
            found: SetT | None = self._sets.get(family.name)
            if found is None:
                found = self._sets[family.name] = make(self._append_family(family))
            elif found.family.shape != family.shape:
                raise ValueError(f"{family.name} stands for another metric already")
            return found

    def _make(self, series_set: SeriesSet[SeriesT], values: tuple[str, ...]) -> SeriesT:
        """A series that was not there a moment ago; another thread may have made it since."""
        family = series_set.family
        if len(values) != len(family.labels) + family.in_samples:
            expected = len(family.labels)
            raise ValueError(
                f"{family.name}: {len(values) - family.in_samples} label values for {expected} labels"
            )
        values = tuple(map(label_text, values))
        with self._making:
            self._bury(series_set)
            found = series_set._known.get(values)
            if found is not None:
                return found
            series = series_set._series_type(family, values, self._lock)
            if self._admits(series_set, values) and self._place(series_set, series):
                series_set._known[values] = series
                if family.in_samples:
                    series_set._counts[values[1:]] = series_set._counts.get(values[1:], 0) + 1
            elif series_set is not self._dropped:
                self._dropped.labels(family.name).inc()
            return series

    def _admits(self, series_set: SeriesSet[Any], values: tuple[str, ...]) -> bool:
        """Whether the limit has room for a series of these labels, with all of its samples."""
        if not series_set.family.in_samples:
            return len(series_set._known) < self.max_series
        if values[1:] in series_set._counts:
            return True
        has_memory = bool(series_set._free) or self.store.free_bytes > WHOLE_BYTES
        return has_memory and len(series_set._counts) < self.max_series

    def _place(self, series_set: SeriesSet[SeriesT], series: SeriesT) -> bool:
        """Give a series its numbers in the store; False when there is no room."""
        if series_set.number < 0:
            return False
        family = series.family
        line = json.dumps([series_set.number, *series.labels], ensure_ascii=False).encode()
        if isinstance(series, Sample) and family.is_removable:
            return self._place_again(series_set, series, line) or self._place_sample(series, line)
        reserve = {"reserve_bytes": 0} if series_set is self._dropped else {}
        first_slot = self.store.append(line, family.slots, **reserve)
        series.place(self.store, first_slot)
        return first_slot != DETACHED

    def _place_sample(self, sample: Sample, line: bytes) -> bool:
        """Place one that may go again."""
        line = line.ljust(-(-len(line) // LINE_UNIT_BYTES) * LINE_UNIT_BYTES)
        sample.line_bytes = len(line)
        first_slot = self.store.append(line, sample.family.slots)
        sample.place(self.store, first_slot)
        return first_slot != DETACHED

    def _place_again(self, series_set: SeriesSet[Any], sample: Sample, line: bytes) -> bool:
        """Take the place of one that has gone, if there is one that is large enough."""
        free = next((place for place in series_set._free if place.line_bytes >= len(line)), None)
        if free is None:
            return False
        series_set._free.remove(free)
        # Whoever reads the old series sees by this that it is another's place.
        self.store.doubles[free.first_slot + sample.family.slots - 1] += 1.0
        sample.line_bytes = free.line_bytes
        sample.place(self.store, free.first_slot)
        self.store.replace(free, sample.family.slots, line.ljust(free.line_bytes))
        return True

    def _bury(self, series_set: SeriesSet[Any]) -> None:
        """Let go of what was removed; its numbers may be another's from now on."""
        removed = series_set._removed
        while removed:
            sample = removed.popleft()
            if sample.users or series_set._known.get(sample.labels) is not sample:
                continue
            del series_set._known[sample.labels]
            labels = sample.labels[1:]
            series_set._counts[labels] -= 1
            if not series_set._counts[labels]:
                del series_set._counts[labels]
            series_set._free.append(Place(sample.first_slot, sample.line_bytes))
            sample.place(self.store, DETACHED)

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
