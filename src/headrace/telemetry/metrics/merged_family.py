"""One metric over all processes: what ended ones left, and what each of the living says now."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from operator import add
from typing import NamedTuple

from headrace.telemetry.metrics.family import Family, Kind, Merge
from headrace.telemetry.metrics.store import Exemplar, Store

Values = Sequence[float]

_REMOVED = (math.nan,)


class SeriesValue(NamedTuple):
    """One series as the page shows it.

    Attributes:
        labels: values in the order of ``Family.page_labels``.
        values: a counter's or gauge's value; a summary's count and sum; a histogram's counts, one for each
            bucket by itself with ``+Inf`` last, and then the sum.
        buckets: a histogram's bounds without ``+Inf``.
        exemplar: the latest that any process has noted.
    """

    labels: tuple[str, ...]
    values: Values
    buckets: tuple[float, ...] = ()
    exemplar: Exemplar | None = None


class Part:
    """One process's share of a series: where its numbers stand.

    Args:
        store: of the process.
        first_slot: of the numbers.
        family: the series is of.
    """

    __slots__ = ("_exemplar_slot", "_first_slot", "_layout", "_owner", "store")

    def __init__(self, store: Store, first_slot: int, family: Family) -> None:
        self.store = store
        self._first_slot = first_slot
        self._layout = _layout(family.value_slots + family.is_removable)
        self._exemplar_slot = first_slot + family.value_slots if family.has_exemplars else 0
        self._owner = store.doubles[first_slot + family.value_slots] if family.is_removable else None

    @property
    def is_replaced(self) -> bool:
        """The numbers are another series' by now."""
        return (
            self._owner is not None and self.store.values(self._first_slot, self._layout)[-1] != self._owner
        )

    def disown(self) -> None:
        """Nobody knows whose numbers they are: they count as another's."""
        self._owner = math.nan

    def values(self) -> Values:
        """The numbers as they are now; not a number when the process has removed the series."""
        values = self.store.values(self._first_slot, self._layout)
        if self._owner is None:
            return values
        return values[:-1] if values[-1] == self._owner else _REMOVED

    def exemplar(self) -> Exemplar | None:
        """The latest exemplar."""
        return self.store.exemplar(self._exemplar_slot) if self._exemplar_slot else None


class MergedSeries:
    """One series over all processes."""

    __slots__ = ("base", "base_exemplar", "parts")

    def __init__(self) -> None:
        self.base: Values | None = None
        self.base_exemplar: Exemplar | None = None
        self.parts: list[Part] = []

    def values(self, how: Merge) -> Values:
        """The numbers of base and processes together; nothing when all processes have removed it."""
        found: Values | None = self.base
        for part in self.parts:
            values = part.values()
            if values[0] != values[0]:  # NaN: its process has removed it
                continue
            found = values if found is None else _COMBINE[how](found, values)
        return found or ()

    def exemplar(self) -> Exemplar | None:
        """The latest of all."""
        found = self.base_exemplar
        for part in self.parts:
            exemplar = part.exemplar()
            if exemplar is not None and (found is None or exemplar.time_s > found.time_s):
                found = exemplar
        return found

    def fold(self, part: Part, merge: Merge) -> bool:
        """A process has ended: keep its numbers, or let them go; False when nothing is left of the series."""
        values = part.values()
        if not merge.is_live and values[0] == values[0]:
            self.base = values if self.base is None else _COMBINE[merge.how](self.base, values)
            self.base_exemplar = self.exemplar()
        self.parts.remove(part)
        return bool(self.parts) or self.base is not None


class MergedFamily:
    """All series of one shape; ``series`` makes them one by one, so that a page can be made in pieces.

    Args:
        family: as the latest process declared it.
    """

    __slots__ = ("_ended", "_series", "family")

    def __init__(self, family: Family) -> None:
        self.family = family
        self._ended: dict[tuple[str, ...], None] = {}
        self._series: dict[tuple[str, ...], MergedSeries | dict[str, MergedSeries]] = {}

    def __len__(self) -> int:
        """How many series there are."""
        return len(self._series)

    def find(self, labels: tuple[str, ...], max_series: int) -> MergedSeries | None:
        """The series of these labels as the store has them, made when it is new; None above the limit.

        What only ended processes have told gives way to the living. Where each process stands for itself
        there is no limit but the process's own.
        """
        part, key = self._split(labels)
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= max_series and not self._is_of_processes and not self._make_room():
                return None
            found = self._series[key] = {} if self.family.in_samples else MergedSeries()
        return found.setdefault(part, MergedSeries()) if isinstance(found, dict) else found

    def note_ended(self, labels: tuple[str, ...]) -> None:
        """A process that told this one has ended, and its figures are kept."""
        self._ended[self._split(labels)[1]] = None

    def forget(self, labels: tuple[str, ...], series: MergedSeries) -> None:
        """Nothing is left of this one, whose labels may be another's by now."""
        part, key = self._split(labels)
        found = self._series.get(key)
        if isinstance(found, dict):
            if found.get(part) is not series:
                return
            del found[part]
            if found:
                return
        elif found is not series:
            return
        del self._series[key]
        self._ended.pop(key, None)

    @property
    def _is_of_processes(self) -> bool:
        return len(self.family.page_labels) > len(self.family.labels)

    def _split(self, labels: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """The part of a sample, and the labels it has on the page."""
        return (labels[0], labels[1:]) if self.family.in_samples else ("", labels)

    def _make_room(self) -> bool:
        """Forget the series longest without a living process; False when there is none."""
        while self._ended:
            key = next(iter(self._ended))
            del self._ended[key]
            found = self._series.get(key)
            if found is None:
                continue
            if not any(one.parts for one in (found.values() if isinstance(found, dict) else (found,))):
                del self._series[key]
                return True
        return False

    def series(self) -> Iterator[SeriesValue]:
        """Each series with its numbers of the moment it is reached."""
        family, how = self.family, self.family.merge.how
        for labels, merged in list(self._series.items()):
            if isinstance(merged, dict):
                parts = {part: series.values(how)[:1] for part, series in merged.items()}
                if any(parts.values()):
                    yield _assembled(family.kind, labels, parts)
            elif values := merged.values(how):
                shown = values[:1] if how is Merge.MOSTRECENT else values
                exemplar = merged.exemplar() if family.has_exemplars else None
                yield SeriesValue(labels, shown, family.buckets, exemplar)


def _assembled(kind: Kind, labels: tuple[str, ...], parts: dict[str, Values]) -> SeriesValue:
    """One series out of its samples."""

    def value(part: str) -> float:
        return next(iter(parts.get(part, ())), 0.0)

    if kind is Kind.HISTOGRAM:
        bounds = sorted((float(part.removeprefix("le=")), part) for part in parts if part.startswith("le="))
        counts = [value(part) for _, part in bounds]
        if not bounds or bounds[-1][0] != float("inf"):
            counts.append(0.0)
        buckets = tuple(bound for bound, _ in bounds if bound != float("inf"))
        return SeriesValue(labels, (*counts, value("_sum")), buckets)
    if kind is Kind.SUMMARY:
        return SeriesValue(labels, (value("_count"), value("_sum")))
    return SeriesValue(labels, next(iter(parts.values()))[:1])


@lru_cache(maxsize=256)
def _layout(slots: int) -> struct.Struct:
    return struct.Struct(f"{slots}d")


def _sum(one: Values, other: Values) -> Values:
    return list(map(add, one, other))


def _min(one: Values, other: Values) -> Values:
    return list(map(min, one, other))


def _max(one: Values, other: Values) -> Values:
    return list(map(max, one, other))


def _newer(one: Values, other: Values) -> Values:
    """That of the process that was attached later."""
    return other


def _latest(one: Values, other: Values) -> Values:
    """The one whose time, behind the value, is later."""
    return max(one, other, key=lambda values: (values[1], values[0]))


_COMBINE: dict[Merge, Callable[[Values, Values], Values]] = {
    # Figures of two processes meet here only where a process number came up again.
    Merge.ALL: _newer,
    Merge.SUM: _sum,
    Merge.MIN: _min,
    Merge.MAX: _max,
    Merge.MOSTRECENT: _latest,
}
