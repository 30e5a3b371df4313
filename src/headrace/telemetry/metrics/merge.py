"""The figures of several processes as one page: what ended processes left, and what the living say now.

``Merged`` reads stores and never writes one but its own. When a process has ended its numbers are added to
the base, and its store can go; both in one step, so that no page sees them twice or not at all, and no
counter ever falls. Directories are parsed once: a look reads only what was added since the last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from headrace.telemetry.metrics.family import Family, Merge
from headrace.telemetry.metrics.merged_family import MergedFamily, MergedSeries, Part
from headrace.telemetry.metrics.registry import DROPPED, Registry
from headrace.telemetry.metrics.store import Entry, Store

MAX_SERIES = 10_000
"""Of one family over all processes there ever were, beyond which new ones are not shown."""

MAX_ENDED = 32
"""Ended processes whose gauges of the mode ``all`` are shown still; without a limit the page would grow with
every replaced worker."""

LOOK_ENTRIES = 100
"""Entries of a directory that one look takes up, so that a look takes half a millisecond or so."""

PATIENCE_LOOKS = 3
"""How often an entry that does not fit its checksum is looked at again before it is passed over."""

Labels = tuple[str, ...]


class Merged:
    """The books of all processes.

    Args:
        max_series: limit of each family over all processes.

    Attributes:
        registry: for figures of whoever keeps the books; shown with the rest.
    """

    def __init__(self, *, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._families: dict[str, dict[tuple[Any, ...], MergedFamily]] = {}
        self._readers: dict[int, _Reader] = {}
        self._ended: list[list[tuple[MergedFamily, Labels, MergedSeries]]] = []
        self.registry = Registry(max_series=max_series)
        self._dropped = self.registry.counter(DROPPED)
        self.attach(self.registry.store)

    def attach(self, store: Store) -> None:
        """Show a process's figures from now on; it need not have written any yet."""
        self._readers[id(store)] = _Reader(store, self._adopt)

    def fold(self, store: Store) -> None:
        """A process has ended, in whatever way: keep its figures, forget its store, which is not closed.

        Nothing may write it any more. A store that is not attached is passed over.
        """
        reader = self._readers.pop(id(store), None)
        if reader is None:
            return
        while self._look_at(reader):
            pass
        kept: list[tuple[MergedFamily, Labels, MergedSeries]] = []
        for merged_family, labels, series, part in reader.places:
            merge = merged_family.family.merge
            if not series.fold(part, merge):
                merged_family.forget(labels)
            elif merge is Merge.ALL:
                kept.append((merged_family, labels, series))
        self._forget_long_ended(kept)

    def look(self) -> bool:
        """Take up some of what processes have declared since the last look.

        Returns:
            Whether there is more: look again, when other work has had its turn.
        """
        return any(self._look_at(reader) for reader in list(self._readers.values()))

    def families(self) -> Iterator[MergedFamily]:
        """Every metric that has series, by name; numbers are read when ``MergedFamily.series`` is walked.

        Shown is what earlier calls of ``look`` took up.
        """
        for name in sorted(self._families):
            shapes = [found for found in self._families[name].values() if len(found)]
            if shapes:
                yield from _compatible(shapes)

    def _look_at(self, reader: _Reader) -> bool:
        """Take up some of one process's; whether there is more."""
        for merged_family, labels, part in reader.read():
            series = merged_family.find(labels, self._max_series)
            if series is None:
                self._dropped.labels(merged_family.family.name).inc()
                continue
            series.parts.append(part)
            reader.places.append((merged_family, labels, series, part))
        return reader.has_more

    def _adopt(self, family: Family) -> MergedFamily:
        """The books of a family that a process declares; it is the latest of its name then."""
        shapes = self._families.setdefault(family.name, {})
        found = shapes.pop(family.shape, None)
        if found is None:
            found = MergedFamily(family)
        shapes[family.shape] = found
        found.family = family
        return found

    def _forget_long_ended(self, kept: list[tuple[MergedFamily, Labels, MergedSeries]]) -> None:
        """Keep only so many ended processes' own series."""
        if kept:
            self._ended.append(kept)
        if len(self._ended) > MAX_ENDED:
            for merged_family, labels, series in self._ended.pop(0):
                if not series.parts:  # a living process may have got the number of an ended one
                    merged_family.forget(labels)


class _Reader:
    """One store, and how far it has been parsed.

    Attributes:
        places: where each of its series went.
        has_more: the last ``read`` has left something.
    """

    __slots__ = ("_adopt", "_families", "_looks", "_position", "has_more", "places", "store")

    def __init__(self, store: Store, adopt: Callable[[Family], MergedFamily]) -> None:
        self.store = store
        self._adopt = adopt
        self._position = 0
        self._looks = 0
        self._families: dict[int, tuple[MergedFamily, Family, Labels]] = {}
        self.places: list[tuple[MergedFamily, Labels, MergedSeries, Part]] = []
        self.has_more = False

    def read(self) -> Iterator[tuple[MergedFamily, Labels, Part]]:
        """Some of the series that were added since; families are adopted on the way."""
        self.has_more = False
        before = self._position
        entries = self.store.entries(before, skips_garbage=self._looks >= PATIENCE_LOOKS)
        for count, (position, entry) in enumerate(entries):
            if count == LOOK_ENTRIES:
                self.has_more = True
                return
            self._position = position
            try:
                line = json.loads(entry.line)
                if isinstance(line, dict):
                    self._take_family(line)
                elif (found := self._series(line, entry)) is not None:
                    yield found
            except (ValueError, LookupError, TypeError):
                continue  # garbage; what the writer writes is not
        is_stuck = self._position == before and before < self.store.used_bytes
        self._looks = self._looks + 1 if is_stuck else 0

    def _take_family(self, fields: dict[str, Any]) -> None:
        family = Family.from_json(fields)
        is_own = len(family.page_labels) > len(family.labels)
        pid = (str(self.store.pid),) if is_own else ()
        self._families[int(fields["number"])] = (self._adopt(family), family, pid)

    def _series(self, line: Any, entry: Entry) -> tuple[MergedFamily, Labels, Part] | None:
        merged_family, family, pid = self._families[line[0]]
        labels = tuple(line[1:])
        if len(labels) != len(family.labels) + family.in_samples or entry.slots != family.slots:
            return None
        return merged_family, labels + pid, Part(self.store, entry.first_slot, family)


def _compatible(shapes: list[MergedFamily]) -> Iterator[MergedFamily]:
    """What may stand under one name: the latest declaration, and others that differ in labels only.

    Processes of two versions of an application may differ for a while. Figures that were counted in other
    buckets, or are of another type, cannot be shown beside the latest. headrace's own go before an
    application's of the same name.
    """
    own = [found for found in shapes if not found.family.in_samples]
    latest = (own or shapes)[-1].family
    for found in own or shapes:
        family = found.family
        if (family.kind, family.buckets, family.merge) == (latest.kind, latest.buckets, latest.merge):
            yield found
