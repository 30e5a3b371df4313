"""Handles on one series each: what is told to them stands in the store at once.

They may be used from any thread. One lock for all of a registry guards the read and the write of an
increment; it costs 0.05 us, and nobody holds it longer than that. Its holder may take it again: a finaliser
that counts may run wherever Python collects garbage, here as well.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from threading import RLock

from headrace.telemetry.metrics.family import Family
from headrace.telemetry.metrics.store import Exemplar, Store, write_exemplar

DETACHED = -1
"""Stands for the place of a series for which there was none: what is told to it is lost."""


class Series:
    """One series of a family.

    Args:
        family: it belongs to.
        labels: its values, in the family's order.
        lock: the registry's; another only in a process that was forked.

    Attributes:
        values: the numbers, as ``Family.value_slots`` describes them; whoever is the only one that writes
            this series may write here without a lock.
        is_dropped: it stands in no store.
    """

    __slots__ = ("_store", "family", "first_slot", "labels", "lock", "values")

    def __init__(self, family: Family, labels: tuple[str, ...], lock: RLock) -> None:
        self.family = family
        self.labels = labels
        self.lock = lock
        self._store: Store | None = None
        self.first_slot = DETACHED
        self.values: memoryview[float] = _numbers(family.value_slots)

    @property
    def is_dropped(self) -> bool:
        """It stands in no store."""
        return self.first_slot == DETACHED

    def place(self, store: Store, first_slot: int) -> None:
        """Stand there from now on, ``DETACHED`` for nowhere; the numbers are taken along."""
        count = self.family.value_slots
        if first_slot == DETACHED:
            self._store, values = None, _numbers(count)
        else:
            self._store, values = store, store.doubles[first_slot : first_slot + count]
        with self.lock:
            values[:] = self.values
            self.values, self.first_slot = values, first_slot

    def set_exemplar(self, trace_id: int, span_id: int, value: float, time_s: float) -> None:
        """Note the trace of a value that was observed; the latest stays.

        Args:
            trace_id, span_id: 128 and 64 bits.
            value: as observed.
            time_s: Unix time.
        """
        if self._store is None or not self.family.has_exemplars:
            return
        start = self.first_slot + self.family.value_slots
        end = start + self.family.slots - self.family.value_slots
        words, doubles = self._store.words[start:end], self._store.doubles[start:end]
        exemplar = Exemplar(trace_id, span_id, value, time_s)
        with self.lock:
            write_exemplar(words, doubles, exemplar)


class Counter(Series):
    """Only rises."""

    __slots__ = ()

    def inc(self, amount: float = 1.0) -> None:
        """Count.

        Raises:
            ValueError: the amount is negative.
        """
        if amount < 0:
            raise ValueError(f"{self.family.name}: a counter does not fall, and {amount} is negative")
        with self.lock:
            self.values[0] += amount

    def set_total(self, total: float) -> None:
        """Take over what somebody else counts, the kernel for instance; less than before is passed over."""
        with self.lock:
            if total > self.values[0]:
                self.values[0] = total

    def get(self) -> float:
        """What was counted."""
        return float(self.values[0])


class Gauge(Series):
    """Rises and falls."""

    __slots__ = ()

    def set(self, value: float, time_s: float | None = None) -> None:
        """Replace the value.

        Args:
            value: the new one.
            time_s: Unix time it was true, for those merged by time; None for now.
        """
        with self.lock:
            self.values[0] = value
            if len(self.values) > 1:
                self.values[1] = time.time() if time_s is None else time_s

    def inc(self, amount: float = 1.0) -> None:
        """Add, or with a negative amount take away."""
        with self.lock:
            self.values[0] += amount
            if len(self.values) > 1:
                self.values[1] = time.time()

    def get(self) -> float:
        """The value."""
        return float(self.values[0])


class Histogram(Series):
    """How often values fell between the bounds of the buckets, and their sum."""

    __slots__ = ()

    def observe(self, value: float) -> None:
        """Count a value in the bucket whose bound is the first that is not below it."""
        index = bucket_of(self.family.buckets, value)
        with self.lock:
            self.values[index] += 1.0
            self.values[-1] += value


class Summary(Series):
    """How many values there were, and their sum."""

    __slots__ = ()

    def observe(self, value: float) -> None:
        """Count a value."""
        with self.lock:
            self.values[0] += 1.0
            self.values[1] += value


class Sample(Series):
    """One line of the page, of a family that is written sample by sample.

    Attributes:
        users: how many hold it; see ``SeriesSet.hold``.
        line_bytes: length of its line in the store.
    """

    __slots__ = ("line_bytes", "users")

    def __init__(self, family: Family, labels: tuple[str, ...], lock: RLock) -> None:
        super().__init__(family, labels, lock)
        self.users = 0
        self.line_bytes = 0

    def set(self, value: float, time_s: float | None = None) -> None:
        """Replace the value; ``time_s`` (Unix) counts for gauges that are merged by time."""
        with self.lock:
            self.values[0] = value
            if len(self.values) > 1:
                self.values[1] = time_s or 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add, or with a negative amount take away."""
        with self.lock:
            self.values[0] += amount

    def get(self) -> float:
        """The value."""
        return float(self.values[0])


def _numbers(count: int) -> memoryview[float]:
    """So many 64-bit floats in memory of their own."""
    return memoryview(bytearray(8 * count)).cast("d")


def bucket_of(buckets: tuple[float, ...], value: float) -> int:
    """Index of the bucket a value falls into, that of ``+Inf`` being ``len(buckets)``."""
    return bisect_left(buckets, value)
