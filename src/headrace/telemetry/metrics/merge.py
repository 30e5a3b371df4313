"""The figures of several processes as one page: what ended processes left, and what the living say now.

``Merged`` reads stores and never writes one but its own. When a process has ended its numbers are added to
the base, and its store can go; both in one step, so that no page sees them twice or not at all, and no
counter ever falls. Directories are parsed once: a look reads only what was added since the last.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from headrace.telemetry.metrics.family import Family, Merge
from headrace.telemetry.metrics.merged_family import MergedFamily, MergedSeries, Part
from headrace.telemetry.metrics.registry import DROPPED, Registry
from headrace.telemetry.metrics.store import Entry, Place, Store

MAX_SERIES = 10_000
"""Of one family over all processes. Beyond it those that only ended processes have told give way; there being
none, new ones are not shown until one goes."""

MAX_ENDED = 32
"""Ended processes whose gauges of the mode ``all`` are shown still; without a limit the page would grow with
every replaced worker."""

LOOK_ENTRIES = 100
"""Entries of a directory that one look takes up, so that a look takes half a millisecond or so."""

PATIENCE_LOOKS = 3
"""How often an entry that does not fit its checksum is looked at again before it is passed over."""

Labels = tuple[str, ...]


def limit_over_all(max_series: int) -> int:
    """The limit over all processes of which one may have ``max_series`` of a family."""
    return max(MAX_SERIES, max_series)


class Merged:
    """The books of all processes.

    Args:
        max_series: limit of each family over all processes; what is of one process alone (``Merge.ALL``) is
            bounded in each process.

    Attributes:
        registry: for figures of whoever keeps the books; shown with the rest.
    """

    def __init__(self, *, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._families: dict[str, dict[tuple[Any, ...], MergedFamily]] = {}
        self._readers: dict[int, _Reader] = {}
        self._ended: deque[list[tuple[MergedFamily, Labels, MergedSeries]]] = deque()
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
        while self._look_at(reader, is_ended=True):
            pass
        kept: list[tuple[MergedFamily, Labels, MergedSeries]] = []
        for merged_family, labels, series, part in reader.places.values():
            merge = merged_family.family.merge
            if not series.fold(part, merge):
                merged_family.forget(labels, series)
            elif merge is Merge.ALL:
                kept.append((merged_family, labels, series))
            elif not series.parts:
                merged_family.note_ended(labels)
        self._forget_long_ended(kept)
        for other in self._readers.values():
            self._admit_refused(other)

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
        shown = {name: list(_compatible(shapes)) for name, shapes in self._shapes()}
        taken: set[str] = set()
        # headrace's own come first: nothing that an application declares takes a line of theirs.
        for name in sorted(shown, key=lambda name: (shown[name][0].family.in_samples, name)):
            names = shown[name][0].family.line_names
            if taken.isdisjoint(names):
                taken |= names
            else:
                del shown[name]
        for name in sorted(shown):
            yield from shown[name]

    def _shapes(self) -> Iterator[tuple[str, list[MergedFamily]]]:
        """Name -> what has series under it."""
        for name, families in self._families.items():
            shapes = [found for found in families.values() if len(found)]
            if shapes:
                yield name, shapes

    def _look_at(self, reader: _Reader, *, is_ended: bool = False) -> bool:
        """Take up some of one process's; whether there is more."""
        for slot in reader.replaced():
            merged_family, labels, series, part = reader.places.pop(slot)
            series.parts.remove(part)
            if not series.parts and series.base is None:
                merged_family.forget(labels, series)
        for place in reader.read(is_ended=is_ended):
            if not self._admit(reader, place):
                reader.refused.append(place)
                self._dropped.labels(place.merged_family.family.name).inc()
        return reader.has_more

    def _admit(self, reader: _Reader, place: _Place) -> bool:
        """Show a process's share of a series; False above the limit."""
        merged_family, labels, slot, part = place
        series = merged_family.find(labels, self._max_series)
        if series is None:
            return False
        series.parts.append(part)
        reader.places[slot] = (merged_family, labels, series, part)
        return True

    def _admit_refused(self, reader: _Reader) -> None:
        """Others have gone: there may be room now."""
        refused, reader.refused = reader.refused, []
        reader.refused = [place for place in refused if not self._admit(reader, place)]

    def _adopt(self, family: Family) -> MergedFamily:
        """The books of a family that a process declares; it is the latest of its name then.

        Its labels stand in the order in which the first process has declared them.
        """
        shapes = self._families.setdefault(family.name, {})
        found = shapes.pop(family.page_shape, None)
        if found is None:
            found = MergedFamily(family)
        shapes[family.page_shape] = found
        found.family = replace(family, labels=found.family.labels)
        return found

    def _forget_long_ended(self, kept: list[tuple[MergedFamily, Labels, MergedSeries]]) -> None:
        """Keep only so many ended processes' own series."""
        if kept:
            self._ended.append(kept)
        while len(self._ended) > MAX_ENDED or sum(map(len, self._ended)) > max(self._max_series, len(kept)):
            for merged_family, labels, series in self._ended.popleft():
                if not series.parts:  # a living process may have got the number of an ended one
                    merged_family.forget(labels, series)


class _Place(NamedTuple):
    """One process's share of a series, as its directory says."""

    merged_family: MergedFamily
    labels: Labels
    first_slot: int
    part: Part


class _Declared(NamedTuple):
    """A family as a process has declared it.

    Attributes:
        order: for each label of ``merged_family`` its place in the process's.
        pid: the value of the label ``pid``, where it is added.
    """

    merged_family: MergedFamily
    family: Family
    order: list[int]
    pid: Labels


class _Removable(NamedTuple):
    """A series that may go, and whose numbers may be another's then."""

    place: Place
    slots: int
    part: Part


class _Reader:
    """One store, and how far it has been parsed.

    Attributes:
        places: first slot -> where the series went that has its numbers there.
        refused: those that the limit had no room for.
        has_more: the last ``read`` has left something.
    """

    __slots__ = (
        "_adopt",
        "_families",
        "_looks",
        "_position",
        "_removable",
        "_renamed",
        "_replaced_lines",
        "has_more",
        "places",
        "refused",
        "store",
    )  # fmt: skip

    def __init__(self, store: Store, adopt: Callable[[Family], MergedFamily]) -> None:
        self.store = store
        self._adopt = adopt
        self._position = 0
        self._looks = 0
        self._replaced_lines = 0
        self._families: dict[int, _Declared] = {}
        self._removable: dict[int, _Removable] = {}
        self._renamed: list[Entry] = []
        self.places: dict[int, tuple[MergedFamily, Labels, MergedSeries, Part]] = {}
        self.refused: list[_Place] = []
        self.has_more = False

    def replaced(self) -> list[int]:
        """First slots of series that are not there any more, their places being others', which ``read`` gives
        next."""
        count = self.store.replaced_lines
        if count == self._replaced_lines:
            return []
        self._replaced_lines = count
        gone: set[int] = set()
        for slot, (place, slots, part) in self._removable.items():
            # A line that is just being written is counted when it is there: it is found the next time.
            if part.is_replaced and (line := self.store.line(place, slots)) is not None:
                gone.add(slot)
                self._renamed.append(Entry(line, slot, slots))
        self.refused = [place for place in self.refused if place.first_slot not in gone]
        return [slot for slot in gone if slot in self.places]

    def read(self, *, is_ended: bool = False) -> Iterator[_Place]:
        """Some of the series that were added since; families are adopted on the way.

        Args:
            is_ended: nobody writes any more, so that what is damaged stays so.
        """
        self.has_more = False
        renamed, self._renamed = self._renamed, []
        for entry in renamed:
            if (place := self._parsed(entry)) is not None:
                yield place
        before = self._position
        skips_garbage = is_ended or self._looks >= PATIENCE_LOOKS
        for count, (position, entry) in enumerate(self.store.entries(before, skips_garbage=skips_garbage)):
            if count == LOOK_ENTRIES:
                self.has_more = True
                return
            self._position = position
            if (place := self._parsed(entry)) is not None:
                yield place
        is_stuck = self._position == before and before < self.store.used_bytes
        self._looks = self._looks + 1 if is_stuck else 0

    def _parsed(self, entry: Entry) -> _Place | None:
        """The series of a line; None for a family's, or for garbage, which the writer does not write."""
        try:
            line = json.loads(entry.line)
            if not isinstance(line, dict):
                return self._series(line, entry)
            self._take_family(line)
        except (ValueError, LookupError, TypeError):
            pass
        return None

    def _take_family(self, fields: dict[str, Any]) -> None:
        family = Family.from_json(fields)
        is_own = len(family.page_labels) > len(family.labels)
        pid = (str(self.store.pid),) if is_own else ()
        found = self._adopt(family)
        order = [family.labels.index(label) for label in found.family.labels]
        self._families[int(fields["number"])] = _Declared(found, family, order, pid)

    def _series(self, line: Any, entry: Entry) -> _Place | None:
        merged_family, family, order, pid = self._families[line[0]]
        labels = tuple(line[1:])
        if len(labels) != len(family.labels) + family.in_samples or entry.slots != family.slots:
            return None
        if not all(isinstance(label, str) for label in labels):
            return None
        start = int(family.in_samples)
        labels = labels[:start] + tuple(labels[start + place] for place in order)
        part = Part(self.store, entry.first_slot, family)
        if family.is_removable:
            place = Place(entry.first_slot, len(entry.line))
            self._removable[entry.first_slot] = _Removable(place, entry.slots, part)
            # Its owner was read behind the line, which may have been replaced in between.
            if self.store.line(place, entry.slots) != entry.line:
                part.disown()
                self._replaced_lines = -1
                return None
        return _Place(merged_family, labels + pid, entry.first_slot, part)


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
