"""Figures of several processes become one, and counters never fall."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.telemetry.metrics import merge
from headrace.telemetry.metrics.exposition import Format, render
from headrace.telemetry.metrics.family import Family, Kind, Merge
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.registry import Registry
from headrace.telemetry.metrics.store import Exemplar, Store

COUNTER = Family("a", Kind.COUNTER, "A.", ("x",))
HISTOGRAM = Family("h", Kind.HISTOGRAM, "H.", ("x",), (0.1, 1.0), has_exemplars=True)
SUMMARY = Family("s", Kind.SUMMARY, "S.", ("x",))
SAMPLED = Family("p", Kind.HISTOGRAM, "P.", ("x",), in_samples=True)

Page = dict[str, dict[tuple[str, ...], tuple[float, ...]]]

# 64 KiB are the reserve; what is drawn needs little more.
SIZE_BYTES = 262_144


def registry_of() -> Registry:
    return Registry(Store.local(SIZE_BYTES))


def ascribe(registry: Registry, pid: int) -> None:
    """As if another process had written it; afterwards nothing can be declared any more."""
    registry.store.words[2] = pid


def page_of(merged: Merged) -> Page:
    while merged.look():
        pass
    page: Page = {}
    for found in merged.families():
        for series in found.series():
            assert series.labels not in page.get(found.family.name, {})
            page.setdefault(found.family.name, {})[series.labels] = tuple(series.values)
    return page


def merged_of(*registries: Registry) -> Merged:
    merged = Merged()
    for registry in registries:
        merged.attach(registry.store)
    return merged


def count(registry: Registry, label: str, amount: float) -> None:
    registry.counter(COUNTER).labels(label).inc(amount)


def observe(registry: Registry, label: str, amount: float) -> None:
    registry.histogram(HISTOGRAM).labels(label).observe(amount)


def sum_up(registry: Registry, label: str, amount: float) -> None:
    registry.summary(SUMMARY).labels(label).observe(amount)


def sample(registry: Registry, label: str, amount: float) -> None:
    """As prometheus_client writes a histogram."""
    samples = registry.samples(SAMPLED)
    samples.labels("_sum", label).inc(amount)
    for bound in ("1.0", "10.0", "+Inf"):
        bucket = samples.labels(f"le={bound}", label)
        if amount <= float(bound):
            bucket.inc()
            break


WRITES: list[Callable[[Registry, str, float], None]] = [count, observe, sum_up, sample]


def test_processes_are_summed() -> None:
    one, other = registry_of(), registry_of()
    for registry, amount in ((one, 0.5), (other, 4.0), (other, 40.0)):
        for write in WRITES:
            write(registry, "x", amount)
    count(other, "y", 1.0)
    assert page_of(merged_of(one, other)) == {
        "a": {("x",): (44.5,), ("y",): (1.0,)},
        "h": {("x",): (0.0, 1.0, 2.0, 44.5)},
        "s": {("x",): (3.0, 44.5)},
        "p": {("x",): (1.0, 1.0, 1.0, 44.5)},
    }


def test_what_comes_later_is_seen() -> None:
    registry = registry_of()
    merged = merged_of(registry)
    assert page_of(merged) == {}
    count(registry, "x", 1.0)
    assert page_of(merged) == {"a": {("x",): (1.0,)}}
    count(registry, "x", 1.0)
    observe(registry, "x", 1.0)
    assert page_of(merged) == {"a": {("x",): (2.0,)}, "h": {("x",): (0.0, 1.0, 0.0, 1.0)}}


def test_ended_process_stays_in_the_sums() -> None:
    one, other = registry_of(), registry_of()
    merged = merged_of(one, other)
    for write in WRITES:
        write(one, "x", 3.0)
        write(other, "x", 4.0)
    before = page_of(merged)
    merged.fold(one.store)
    assert page_of(merged) == before
    count(one, "x", 100.0)  # nobody listens any more
    merged.fold(one.store)
    assert page_of(merged) == before
    merged.fold(other.store)
    assert page_of(merged) == before
    heir = registry_of()
    merged.attach(heir.store)
    count(heir, "x", 1.0)
    assert page_of(merged)["a"] == {("x",): (8.0,)}


def test_process_that_was_never_looked_at_is_kept_as_well() -> None:
    registry = registry_of()
    merged = merged_of(registry)
    for number in range(3 * merge.LOOK_ENTRIES):
        count(registry, str(number), 1.0)
    merged.fold(registry.store)
    assert len(page_of(merged)["a"]) == 3 * merge.LOOK_ENTRIES


def test_one_look_takes_a_bounded_number() -> None:
    registry = registry_of()
    merged = merged_of(registry)
    for number in range(3 * merge.LOOK_ENTRIES):
        count(registry, str(number), 1.0)
    seen = []
    while merged.look():
        [family] = merged.families()
        seen.append(len(family))
    assert len(seen) >= 3
    assert max(b - a for a, b in pairwise(seen)) <= merge.LOOK_ENTRIES


GAUGES = {
    Merge.SUM: ({(): 6.0}, {(): 6.0}),
    Merge.LIVESUM: ({(): 6.0}, {(): 5.0}),
    Merge.MIN: ({(): 1.0}, {(): 1.0}),
    Merge.LIVEMIN: ({(): 1.0}, {(): 2.0}),
    Merge.MAX: ({(): 3.0}, {(): 3.0}),
    Merge.LIVEMAX: ({(): 3.0}, {(): 3.0}),
    Merge.MOSTRECENT: ({(): 1.0}, {(): 1.0}),
    Merge.LIVEMOSTRECENT: ({(): 1.0}, {(): 3.0}),
    Merge.ALL: ({("11",): 1.0, ("12",): 2.0, ("13",): 3.0},) * 2,
    Merge.LIVEALL: ({("11",): 1.0, ("12",): 2.0, ("13",): 3.0}, {("12",): 2.0, ("13",): 3.0}),
}


@pytest.mark.parametrize("mode", Merge)
@pytest.mark.parametrize("in_samples", [False, True])
def test_gauges_merge_by_their_mode(mode: Merge, in_samples: bool) -> None:
    """Three processes; the first, whose value is the latest and the least, ends."""
    family = Family("g", Kind.GAUGE, "G.", merge=mode, in_samples=in_samples)
    registries = [registry_of() for _ in range(3)]
    for registry, value, time_s in zip(registries, (1.0, 2.0, 3.0), (30.0, 10.0, 20.0), strict=True):
        handle: Any = registry.samples(family).labels("") if in_samples else registry.gauge(family).labels()
        handle.set(value, time_s)
        ascribe(registry, 10 + int(value))
    merged = merged_of(*registries)

    def values() -> dict[tuple[str, ...], float]:
        return {labels: value for labels, (value,) in page_of(merged).get("g", {}).items()}

    before, after = GAUGES[mode]
    assert values() == before
    merged.fold(registries[0].store)
    assert values() == after
    for registry in registries[1:]:
        merged.fold(registry.store)
    assert bool(values()) is not mode.is_live


def test_process_numbers_stand_in_a_label() -> None:
    registry = Registry(Store.local(SIZE_BYTES))
    registry.gauge(Family("g", Kind.GAUGE, "G.", ("x",), merge=Merge.ALL)).labels("1").set(5)
    merged = merged_of(registry)
    assert f'g{{x="1",pid="{os.getpid()}"}} 5' in "".join(render(merged))


def test_long_ended_processes_own_gauges_are_forgotten() -> None:
    family = Family("g", Kind.GAUGE, "G.", merge=Merge.ALL)
    merged = Merged()
    for pid in range(1, merge.MAX_ENDED + 11):
        registry = registry_of()
        registry.gauge(family).labels().set(pid)
        ascribe(registry, pid)
        merged.attach(registry.store)
        merged.fold(registry.store)
    pids = [int(pid) for (pid,) in page_of(merged)["g"]]
    assert pids == list(range(11, merge.MAX_ENDED + 11))


def test_process_number_that_came_up_again_shows_the_living() -> None:
    family = Family("g", Kind.GAUGE, "G.", merge=Merge.ALL)
    merged = Merged()
    for value in (1.0, 2.0):
        registry = registry_of()
        registry.gauge(family).labels().set(value)
        ascribe(registry, 7)
        merged.attach(registry.store)
        assert page_of(merged) == {"g": {("7",): (value,)}}
        if value == 1.0:
            merged.fold(registry.store)
    for pid in range(100, 101 + merge.MAX_ENDED):
        ended = registry_of()
        ended.gauge(family).labels().set(pid)
        ascribe(ended, pid)
        merged.attach(ended.store)
        merged.fold(ended.store)
    assert page_of(merged)["g"][("7",)] == (2.0,)


def test_latest_exemplar_is_shown_and_outlives_its_process() -> None:
    one, other = registry_of(), registry_of()
    merged = merged_of(one, other)
    for registry, time_s in ((one, 20.0), (other, 10.0)):
        observe(registry, "x", 0.5)
        registry.histogram(HISTOGRAM).labels("x").set_exemplar(1, int(time_s), 0.5, time_s)

    def exemplar() -> Exemplar | None:
        while merged.look():
            pass
        [family] = merged.families()
        [series] = family.series()
        return series.exemplar

    assert exemplar() == Exemplar(1, 20, 0.5, 20.0)
    merged.fold(one.store)
    assert exemplar() == Exemplar(1, 20, 0.5, 20.0)
    other.histogram(HISTOGRAM).labels("x").set_exemplar(1, 30, 0.5, 30.0)
    assert exemplar() == Exemplar(1, 30, 0.5, 30.0)


def test_other_buckets_replace_the_old_ones() -> None:
    """A reload with other options: what was counted in other buckets cannot be shown beside."""
    old, new = registry_of(), registry_of()
    changed = Family("h", Kind.HISTOGRAM, "H.", ("x",), (5.0,))
    observe(old, "x", 0.5)
    merged = merged_of(old)
    assert page_of(merged) == {"h": {("x",): (0.0, 1.0, 0.0, 0.5)}}
    new.histogram(changed).labels("x").observe(1.0)
    merged.attach(new.store)
    assert page_of(merged) == {"h": {("x",): (1.0, 0.0, 1.0)}}
    # A series that an old process makes afterwards does not bring the old ones back.
    observe(old, "y", 0.5)
    assert page_of(merged) == {"h": {("x",): (1.0, 0.0, 1.0)}}
    merged.fold(old.store)
    assert page_of(merged) == {"h": {("x",): (1.0, 0.0, 1.0)}}


def test_other_labels_stand_beside_the_old_ones() -> None:
    old, new = registry_of(), registry_of()
    count(old, "x", 1.0)
    new.counter(Family("a", Kind.COUNTER, "B.", ("y",))).labels("x").inc()
    text = "".join(render(merged_of(old, new)))
    assert text.count("# TYPE a_total counter\n") == 1
    assert 'a_total{x="x"} 1\n' in text
    assert 'a_total{y="x"} 1\n' in text


def test_order_of_labels_does_not_matter() -> None:
    merged = Merged()
    for names, labels in ((("x", "y"), ("1", "2")), (("y", "x"), ("2", "1"))):
        registry = registry_of()
        samples = registry.samples(Family("a", Kind.COUNTER, "A.", names, in_samples=True))
        samples.labels("_total", *labels).inc()
        registry.counter(Family("b", Kind.COUNTER, "B.", names)).labels(*labels).inc()
        merged.attach(registry.store)
    lines = "".join(render(merged)).splitlines()
    assert [line for line in lines if line[0] != "#"] == ['a_total{x="1",y="2"} 2', 'b_total{x="1",y="2"} 2']


def test_metric_whose_line_has_anothers_name_is_left_out() -> None:
    registry = registry_of()
    count(registry, "x", 1.0)
    for name, kind in (("a_total", Kind.GAUGE), ("b", Kind.COUNTER), ("b_total", Kind.GAUGE)):
        part = "" if kind is Kind.GAUGE else "_total"
        registry.samples(Family(name, kind, "N.", in_samples=True)).labels(part).inc()
    lines = "".join(render(merged_of(registry))).splitlines()
    assert [line for line in lines if line[0] != "#"] == ['a_total{x="x"} 1', "b_total 1"]


def test_headraces_own_goes_before_an_applications_of_the_same_name() -> None:
    one, other = registry_of(), registry_of()
    count(one, "x", 1.0)
    other.samples(Family("a", Kind.COUNTER, "A.", ("x",), in_samples=True)).labels("_total", "x").inc(5)
    assert page_of(merged_of(one, other)) == {"a": {("x",): (1.0,)}}


def test_ended_processes_give_way_at_the_limit() -> None:
    merged = Merged(max_series=5)
    for process in range(4):
        registry = registry_of()
        merged.attach(registry.store)
        for number in range(4):
            count(registry, f"{process}-{number}", 1.0)
        before = page_of(merged)["a"]
        assert before.keys() >= {(f"{process}-{number}",) for number in range(4)}
        merged.fold(registry.store)
        assert page_of(merged)["a"] == before
    page = page_of(merged)
    # One is left of the third, and which of them is not said.
    assert len(page["a"]) == 5
    assert "headrace_series_dropped" not in page


def test_living_processes_beyond_the_limit_are_told_and_shown_when_others_go() -> None:
    merged = Merged(max_series=5)
    first, second = registry_of(), registry_of()
    merged.attach(first.store)
    merged.attach(second.store)
    for number in range(4):
        count(first, f"0-{number}", 1.0)
    assert len(page_of(merged)["a"]) == 4
    for number in range(4):
        count(second, f"1-{number}", 1.0)
    assert len(page_of(merged)["a"]) == 5
    assert page_of(merged)["headrace_series_dropped"] == {("a",): (3.0,)}
    merged.fold(first.store)
    assert page_of(merged)["a"].keys() >= {(f"1-{number}",) for number in range(4)}
    assert page_of(merged)["headrace_series_dropped"] == {("a",): (3.0,)}


def test_living_processes_own_gauges_are_there_after_many_have_ended() -> None:
    family = Family("g", Kind.GAUGE, "G.", ("x",), merge=Merge.ALL)
    merged = Merged(max_series=50)
    for pid in range(1, merge.MAX_ENDED + 20):
        registry = registry_of()
        for number in range(20):
            registry.gauge(family).labels(str(number)).set(pid)
        ascribe(registry, pid)
        merged.attach(registry.store)
        shown = page_of(merged)["g"]
        assert {labels for labels in shown if labels[1] == str(pid)} == {
            (str(number), str(pid)) for number in range(20)
        }
        merged.fold(registry.store)
        assert len(page_of(merged)["g"]) <= 50


def test_removed_series_places_are_used_again() -> None:
    family = Family("g", Kind.GAUGE, "G.", ("x",), merge=Merge.LIVESUM, in_samples=True)
    registry = Registry(Store.local(SIZE_BYTES), max_series=4)
    merged = merged_of(registry)
    samples = registry.samples(family)
    held = [samples.hold("", f"first {number}") for number in range(4)]
    for number, sample in enumerate(held):
        sample.set(number)
    page_of(merged)
    used_bytes = 0
    for number in range(2_000):
        samples.release(held.pop(0))
        held.append(samples.hold("", f"{number:05}"))
        held[-1].set(number)
        if number % 97 == 0:
            expected = {(str(sample.labels[1]),): (sample.get(),) for sample in held}
            assert page_of(merged)["g"] == expected
            assert page_of(merged_of(registry))["g"] == expected
        if number == 10:
            used_bytes = registry.store.used_bytes
    assert registry.store.used_bytes == used_bytes
    assert "headrace_series_dropped" not in page_of(merged)
    merged.fold(registry.store)
    assert "g" not in page_of(merged)


def test_page_under_way_does_not_mix_up_a_place_and_its_heir() -> None:
    family = Family("g", Kind.GAUGE, "G.", ("x",), merge=Merge.MAX, in_samples=True)
    registry = registry_of()
    merged = merged_of(registry)
    samples = registry.samples(family)
    old = samples.hold("", "old")
    old.set(1)
    page_of(merged)
    samples.release(old)
    samples.hold("", "new").set(7)
    # Not looked at since: the old one's numbers are the new one's by now.
    assert [list(found.series()) for found in merged.families()] == [[]]
    assert page_of(merged)["g"] == {("new",): (7.0,)}
    merged.fold(registry.store)
    assert page_of(merged)["g"] == {("new",): (7.0,)}


def test_line_that_is_replaced_while_it_is_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    family = Family("g", Kind.GAUGE, "G.", ("x",), in_samples=True)
    registry = registry_of()
    merged = merged_of(registry)
    samples = registry.samples(family)
    old = samples.hold("", "old")
    old.set(1)
    loads = merge.json.loads

    def replace(line: bytes) -> Any:
        if b"old" in line:
            samples.release(old)
            samples.hold("", "new").set(7)
        return loads(line)

    monkeypatch.setattr(merge.json, "loads", replace)
    merged.look()
    assert page_of(merged)["g"] == {("new",): (7.0,)}


def test_what_stands_behind_a_damaged_entry_of_an_ended_process_is_kept() -> None:
    registry = registry_of()
    merged = merged_of(registry)
    count(registry, "x", 1.0)
    registry.store.words[registry.store.append(b'[1, "z"]', 1) - 1] = 0
    count(registry, "y", 2.0)
    merged.fold(registry.store)
    assert page_of(merged) == {"a": {("x",): (1.0,), ("y",): (2.0,)}}


def test_garbage_in_a_store_is_passed_over() -> None:
    registry = registry_of()
    count(registry, "x", 1.0)
    store = registry.store
    for line in (
        b"x",
        b"5",
        b"[]",
        b"null",
        b'["a"]',
        b"[9]",
        b"[0]",
        b'{"number": 1}',
        b'[{"a": 1}, 2]',
        b'[1, {"a": 1}]',
        b"[1, 5]",
        b"\xff",
    ):
        store.append(line, 1)
    store.append(b'[1, "y"]', 3)
    damaged = store.append(b'[1, "z"]', 1) - 1
    store.words[damaged] = 0
    count(registry, "w", 1.0)
    merged = merged_of(registry)
    for _ in range(merge.PATIENCE_LOOKS + 1):
        assert not merged.look()
    assert page_of(merged) == {"a": {("x",): (1.0,), ("w",): (1.0,)}}


def test_own_figures_are_shown_with_the_rest() -> None:
    merged = Merged()
    merged.registry.gauge(Family("headrace_workers", Kind.GAUGE, "W.")).labels().set(4)
    assert page_of(merged) == {"headrace_workers": {(): (4.0,)}}


def test_page_may_be_left_between_two_pieces() -> None:
    """A process ends and another begins while a page is made: each series is right at its moment."""
    registries = [registry_of() for _ in range(2)]
    merged = merged_of(*registries)
    for number in range(400):
        for registry in registries:
            count(registry, str(number), 1.0)
    text = ""
    for index, piece in enumerate(render(merged, Format.OPENMETRICS)):
        text += piece
        if piece and index % 2 == 0 and registries:
            merged.fold(registries.pop().store)
            late = registry_of()
            count(late, f"late {index}", 1.0)
            merged.attach(late.store)
    assert [line for line in text.splitlines() if " 2" not in line] == [
        "# HELP a A.",
        "# TYPE a counter",
        "# EOF",
    ]
    assert text.count("a_total{") == 400


Write = tuple[int, int, str, int]
WRITE = st.tuples(
    st.integers(0, 3), st.integers(0, len(WRITES) - 1), st.sampled_from("xyz"), st.integers(0, 20)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(WRITE, max_size=40), st.randoms(use_true_random=False), st.sets(st.integers(0, 3)))
def test_order_of_processes_does_not_matter(
    writes: list[Write], order: random.Random, ended: set[int]
) -> None:
    modes = [mode for mode in Merge if mode.how not in (Merge.MOSTRECENT, Merge.ALL)]
    registries = [registry_of() for _ in range(4)]
    ended_ids = {id(registries[number]) for number in ended}
    for process, which, label, amount in writes:
        WRITES[which](registries[process], label, float(amount))
        for mode in modes:
            family = Family(f"g_{mode.value}", Kind.GAUGE, "G.", ("x",), merge=mode)
            registries[process].gauge(family).labels(label).set(amount)
    pages: list[Page] = []
    for _ in range(2):
        order.shuffle(registries)
        merged = merged_of(*registries)
        for registry in registries:
            if id(registry) in ended_ids:
                merged.fold(registry.store)
        pages.append(page_of(merged))
    assert pages[0] == pages[1]
    assert bool(pages[0]) is bool(writes)


STEP = st.one_of(
    WRITE, st.tuples(st.just("end"), st.integers(0, 3)), st.just(("look", 0)), st.just(("page", 0))
)


def lines_of(merged: Merged) -> dict[str, float]:
    """What a scraper sees: name and labels of each line -> its number."""
    lines = "".join(render(merged)).splitlines()
    pairs = [line.rpartition(" ")[::2] for line in lines if not line.startswith("#")]
    assert len(dict(pairs)) == len(pairs)
    return {line: float(value) for line, value in pairs}


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=60))
@example([(0, 3, "y", 0), ("page", 0), (0, 3, "y", 2), ("end", 0)])  # a bucket is made late
def test_counters_never_fall_and_nothing_is_lost(steps: list[Any]) -> None:
    """Whatever is written, and whichever processes end and are replaced in between."""
    merged = Merged()
    registries = [registry_of() for _ in range(4)]
    for registry in registries:
        merged.attach(registry.store)
    seen: dict[str, float] = {}
    counted: dict[str, float] = {}
    for step in [*steps, ("page", 0)]:
        if step[0] == "end":
            merged.fold(registries[step[1]].store)
            registries[step[1]] = registry_of()
            merged.attach(registries[step[1]].store)
        elif step[0] == "look":
            merged.look()
        elif step[0] != "page":
            process, which, label, amount = step
            WRITES[which](registries[process], label, float(amount))
            if WRITES[which] is count:
                counted[label] = counted.get(label, 0.0) + amount
        if step[0] in ("end", "page"):
            now = lines_of(merged)
            fallen = {
                line: (value, now.get(line)) for line, value in seen.items() if now.get(line, -1) < value
            }
            assert fallen == {}
            seen = now
    assert {label: seen[f'a_total{{x="{label}"}}'] for label in counted} == counted
