"""Declaring metrics, making series, the limits, and going on in another store."""

from __future__ import annotations

import gc
import math
import threading
from typing import Any

import pytest

from headrace.telemetry.metrics.family import Family, Kind, Merge, legal_name, legal_text
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.registry import Registry, process_registry, use_registry
from headrace.telemetry.metrics.store import Store

COUNTER = Family("a", Kind.COUNTER, "A.", ("x",))
GAUGE = Family("g", Kind.GAUGE, "G.")
HISTOGRAM = Family("h", Kind.HISTOGRAM, "H.", (), (0.1, 1.0))
SUMMARY = Family("s", Kind.SUMMARY, "S.")


def page_of(registry: Registry) -> dict[str, dict[tuple[str, ...], list[float]]]:
    """Metric -> labels -> numbers, as another process would find them."""
    merged = Merged()
    merged.attach(registry.store)
    while merged.look():
        pass
    return {
        found.family.name: {series.labels: list(series.values) for series in found.series()}
        for found in merged.families()
    }


def test_what_is_told_to_handles_stands_in_the_store() -> None:
    registry = Registry()
    registry.counter(COUNTER).labels("1").inc()
    registry.counter(COUNTER).labels("1").inc(2.5)
    gauge = registry.gauge(GAUGE).labels()
    gauge.set(5)
    gauge.inc(-7)
    for value in (0.05, 0.1, 0.5, 2.0, math.inf):
        registry.histogram(HISTOGRAM).labels().observe(value)
    for value in (1.0, 3.0):
        registry.summary(SUMMARY).labels().observe(value)
    assert page_of(registry) == {
        "a": {("1",): [3.5]},
        "g": {(): [-2.0]},
        "h": {(): [2.0, 1.0, 2.0, math.inf]},
        "s": {(): [2.0, 4.0]},
    }


def test_counter_does_not_fall() -> None:
    counter = Registry().counter(COUNTER).labels("1")
    counter.set_total(5.0)
    counter.set_total(3.0)
    with pytest.raises(ValueError, match="negative"):
        counter.inc(-1)
    assert counter.get() == 5.0


def test_same_declaration_gives_the_same_series() -> None:
    registry = Registry()
    assert registry.counter(COUNTER) is registry.counter(Family("a", Kind.COUNTER, "Other words.", ("x",)))
    assert registry.counter(COUNTER).labels("1") is registry.counter(COUNTER).labels("1")


@pytest.mark.parametrize(
    "other",
    [
        Family("a", Kind.COUNTER, "A.", ("y",)),
        Family("a", Kind.GAUGE, "A.", ("x",)),
        Family("a", Kind.COUNTER, "A.", ("x",), in_samples=True),
    ],
)
def test_name_stands_for_one_metric(other: Family) -> None:
    registry = Registry()
    registry.counter(COUNTER)
    declare = (
        registry.samples
        if other.in_samples
        else registry.gauge
        if other.kind is Kind.GAUGE
        else registry.counter
    )
    with pytest.raises(ValueError, match="another metric"):
        declare(other)


def test_declaration_must_fit_the_kind() -> None:
    registry = Registry()
    with pytest.raises(ValueError, match="not declared as a gauge"):
        registry.gauge(COUNTER)
    with pytest.raises(ValueError, match="in samples"):
        registry.samples(COUNTER)


@pytest.mark.parametrize("values", [(), ("1", "2")])
def test_labels_must_be_as_many_as_declared(values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="label values"):
        Registry().counter(COUNTER).labels(*values)


def test_limit_of_series_holds_and_what_was_dropped_is_counted() -> None:
    registry = Registry(max_series=10)
    handles = [registry.counter(COUNTER).labels(str(number)) for number in range(1_000)]
    for handle in handles:
        handle.inc()
    assert [handle.is_dropped for handle in handles] == [False] * 10 + [True] * 990
    used = registry.store.used_bytes
    registry.counter(COUNTER).labels("1000").inc()
    page = page_of(registry)
    assert len(page["a"]) == 10
    assert set(map(tuple, page["a"].values())) == {(1.0,)}
    assert page["headrace_series_dropped"] == {("a",): [991.0]}
    assert registry.store.used_bytes == used
    # Another metric is not concerned.
    assert not registry.gauge(GAUGE).labels().is_dropped


def test_full_store_drops_and_counts() -> None:
    registry = Registry(Store.local(131_072), max_series=100_000)
    handles = [registry.counter(COUNTER).labels(str(number)) for number in range(5_000)]
    for handle in handles:
        handle.inc()
    page = page_of(registry)
    dropped = sum(handle.is_dropped for handle in handles)
    assert 0 < dropped < 5_000
    assert len(page["a"]) == 5_000 - dropped
    assert page["headrace_series_dropped"][("a",)] == [float(dropped)]
    late = registry.gauge(Family("late", Kind.GAUGE, "x" * 1_000)).labels()
    late.set(1.0)
    assert late.get() == 1.0


def test_limit_is_of_sets_of_labels_and_not_of_samples() -> None:
    family = Family("p", Kind.HISTOGRAM, "P.", ("x",), in_samples=True)
    registry = Registry(max_series=10)
    samples = registry.samples(family)
    for number in range(12):
        for part in ("_sum", "le=0.1", "le=1.0", "le=+Inf"):
            samples.labels(part, str(number)).inc()
    assert page_of(registry)["p"] == {(str(number),): [1.0, 1.0, 1.0, 1.0] for number in range(10)}


def test_no_histogram_is_cut_in_half_by_a_full_store() -> None:
    family = Family("p", Kind.HISTOGRAM, "P.", ("x",), in_samples=True)
    registry = Registry(Store.local(262_144), max_series=100_000)
    samples = registry.samples(family)
    parts = ["_sum", *(f"le={bound}" for bound in range(20)), "le=+Inf"]
    for number in range(1_000):
        for part in parts:
            samples.labels(part, str(number)).inc()
    shown = page_of(registry)["p"]
    assert 10 < len(shown) < 1_000
    assert {len(values) for values in shown.values()} == {len(parts)}


def test_long_values_of_labels_are_cut() -> None:
    registry = Registry()
    counter = registry.counter(COUNTER)
    counter.labels("ö" * 1_024).inc()
    counter.labels("ö" * 1_025).inc()
    counter.labels("ö" * 1_000_000).inc()
    page = page_of(registry)["a"]
    assert page == {("ö" * 1_024,): [1.0], ("ö" * 1_023 + "…",): [2.0]}
    assert registry.store.used_bytes < 10_000


@pytest.mark.parametrize("threshold", [1, 7, 700])
def test_finaliser_that_counts_may_run_anywhere(threshold: int) -> None:
    """The collector of garbage runs it in the middle of whatever allocates."""
    registry = Registry()
    family = Family("h", Kind.HISTOGRAM, "H.", ("x",), (1.0,), has_exemplars=True)
    ends = registry.counter(COUNTER)
    count = 0

    class Pooled:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            nonlocal count
            count += 1
            ends.labels(str(count % 1_500)).inc()

    before = gc.get_threshold()
    gc.set_threshold(threshold)
    try:
        for number in range(1_500):
            Pooled()
            series = registry.histogram(family).labels(str(number))
            series.observe(0.5)
            series.set_exemplar(1, 2, 3.0, 4.0)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert count >= 1_500
    page = page_of(registry)
    assert sum(value for (value,) in page["a"].values()) == count
    assert page["h"] == {(str(number),): [1.0, 0.0, 0.5] for number in range(1_500)}


def test_threads_lose_nothing() -> None:
    registry = Registry()
    threads = 8
    start = threading.Barrier(threads)

    def work() -> None:
        start.wait()
        for number in range(500):
            registry.counter(COUNTER).labels(str(number % 50)).inc()
            registry.histogram(HISTOGRAM).labels().observe(0.5)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    page = page_of(registry)
    assert page["a"] == {(str(number),): [threads * 10.0] for number in range(50)}
    assert page["h"] == {(): [0.0, threads * 500.0, 0.0, threads * 250.0]}


def test_move_takes_everything_along_and_leaves_the_old_store() -> None:
    registry = Registry()
    before = registry.store
    counter = registry.counter(COUNTER).labels("1")
    gauge = registry.gauge(GAUGE).labels()
    counter.inc(3)
    gauge.set(4)
    registry.move(Store.local())
    counter.inc()
    gauge.set(9)
    registry.counter(COUNTER).labels("2").inc(7)
    assert page_of(registry) == {"a": {("1",): [4.0], ("2",): [7.0]}, "g": {(): [9.0]}}
    old = Merged()
    old.attach(before)
    assert not old.look()
    values = {found.family.name: [s.values for s in found.series()] for found in old.families()}
    assert values == {"a": [(3.0,)], "g": [(4.0,)]}


def test_move_into_a_store_without_room_writes_nothing_into_the_old_one() -> None:
    registry = Registry()
    before = registry.store
    counter = registry.counter(COUNTER).labels("1")
    counter.inc()
    registry.move(Store.local(4_096))
    counter.inc()
    assert counter.is_dropped
    assert counter.get() == 2.0
    merged = Merged()
    merged.attach(before)
    merged.look()
    assert [series.values for found in merged.families() for series in found.series()] == [(1.0,)]


def test_exemplar_needs_a_family_that_keeps_them() -> None:
    registry = Registry()
    series = registry.histogram(HISTOGRAM).labels()
    series.set_exemplar(1, 2, 3.0, 4.0)
    assert page_of(registry)["h"] == {(): [0.0] * 4}


def test_text_that_utf_8_cannot_say_is_replaced() -> None:
    registry = Registry()
    registry.counter(COUNTER).labels("caf\udce9").inc()
    registry.counter(COUNTER).labels("café").inc()
    assert page_of(registry)["a"] == {("caf?",): [1.0], ("café",): [1.0]}
    assert legal_text("\ud800a") == "?a"


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "1a"},
        {"name": "a.b"},
        {"name": "a_total"},
        {"name": "a\n"},
        {"labels": ("1",)},
        {"labels": ("__x",)},
        {"labels": ("a:b",)},
        {"labels": ("x", "x")},
        {"merge": Merge.MAX},
        {"kind": Kind.HISTOGRAM},
        {"kind": Kind.HISTOGRAM, "buckets": (1.0, 0.5)},
        {"kind": Kind.HISTOGRAM, "buckets": (1.0, 1.0)},
        {"kind": Kind.HISTOGRAM, "buckets": (math.nan,)},
        {"kind": Kind.HISTOGRAM, "buckets": (1.0,), "labels": ("le",)},
        {"kind": Kind.SUMMARY, "labels": ("quantile",)},
    ],
)
def test_wrong_declaration_is_refused(fields: dict[str, Any]) -> None:
    Family("a", Kind.COUNTER, "A.")
    with pytest.raises(ValueError):
        Family(**{"name": "a", "kind": Kind.COUNTER, "help": "A.", **fields})


def test_declaration_survives_json() -> None:
    family = Family("h", Kind.HISTOGRAM, 'H "\n', ("x",), (0.1, 2.0, math.inf), has_exemplars=True)
    assert Family.from_json(family.to_json()) == family
    assert family.buckets == (0.1, 2.0)


@pytest.mark.parametrize(("text", "name"), [("a.b", "a_b"), ("1a", "_1a"), ("", "_"), ("a:b", "a:b")])
def test_legal_name(text: str, name: str) -> None:
    assert legal_name(text) == name
    Family(legal_name(text), Kind.GAUGE, "")


def test_process_has_one_registry_until_it_is_given_another() -> None:
    before = process_registry()
    assert process_registry() is before
    try:
        other = Registry()
        use_registry(other)
        assert process_registry() is other
    finally:
        use_registry(before)
