"""Figures of the application that have to be asked for."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from prometheus_client import Counter, Enum, Gauge, Info, values
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    StateSetMetricFamily,
    SummaryMetricFamily,
    UnknownMetricFamily,
)

from headrace.telemetry.metrics.collectors import Collectors, application_collectors
from headrace.telemetry.metrics.exposition import render
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.registry import Registry
from live import PATIENCE_S, Records, eventually

Own = Any


class Collector:
    """Says what a test has it say."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect

    def describe(self) -> list[Metric]:
        """It asks nobody when it is registered."""
        return []


@pytest.fixture
def bridged(own: Own) -> Own:
    """With the bridge in place."""
    assert own.bridge.enter(values)
    return own


def ask(own: Own) -> list[str]:
    """Ask all collectors, and give the page."""
    own.bridge._collectors.copy(application_collectors())
    return page_of(own)


def page_of(own: Own) -> list[str]:
    """The page; the process's number is left out."""
    return [line.replace(f'pid="{own.registry.store.pid}"', 'pid="P"') for line in own.page()]


class TestWhatIsShown:
    def test_gauge_of_a_collector_stands_for_its_process(self, bridged: Own) -> None:
        def collect() -> Iterable[Metric]:
            pool = GaugeMetricFamily("pool", "Pool.", labels=["db", "a"])
            pool.add_metric(["x", "1"], 5)
            yield pool
            yield UnknownMetricFamily("odd", "Odd.", value=2)

        bridged.client.register(Collector(collect))
        assert ask(bridged) == ['odd{pid="P"} 2', 'pool{a="1",db="x",pid="P"} 5']

    def test_counter(self, bridged: Own) -> None:
        counts = iter((3, 8))
        bridged.client.register(Collector(lambda: [CounterMetricFamily("jobs", "Jobs.", value=next(counts))]))
        assert ask(bridged) == ['jobs_total{pid="P"} 3']
        assert ask(bridged) == ['jobs_total{pid="P"} 8']

    def test_histogram_and_summary(self, bridged: Own) -> None:
        def collect() -> Iterable[Metric]:
            wait = HistogramMetricFamily("wait", "Wait.", labels=["q"])
            wait.add_metric(["a"], [("0.1", 3), ("1", 5), ("+Inf", 6)], 2.5)
            wait.add_metric(["b"], [("0.1", 0), ("1", 1), ("+Inf", 1)], 0.5)
            yield wait
            yield SummaryMetricFamily("size", "Size.", count_value=2, sum_value=7)

        bridged.client.register(Collector(collect))
        assert ask(bridged) == [
            'size_count{pid="P"} 2',
            'size_sum{pid="P"} 7',
            'wait_bucket{q="a",pid="P",le="0.1"} 3',
            'wait_bucket{q="a",pid="P",le="1.0"} 5',
            'wait_bucket{q="a",pid="P",le="+Inf"} 6',
            'wait_count{q="a",pid="P"} 6',
            'wait_sum{q="a",pid="P"} 2.5',
            'wait_bucket{q="b",pid="P",le="0.1"} 0',
            'wait_bucket{q="b",pid="P",le="1.0"} 1',
            'wait_bucket{q="b",pid="P",le="+Inf"} 1',
            'wait_count{q="b",pid="P"} 1',
            'wait_sum{q="b",pid="P"} 0.5',
        ]

    def test_totals_of_several_processes_are_not_added_up(self, bridged: Own) -> None:
        """All of them may have looked the same number up in one database."""
        bridged.client.register(Collector(lambda: [CounterMetricFamily("jobs", "Jobs.", value=3)]))
        merged = Merged()
        for pid in range(1, 5):
            registry = Registry()
            merged.attach(registry.store)
            Collectors(registry).copy(application_collectors())
            registry.store.words[2] = pid
            lines = "".join(render(merged)).splitlines()
            # As each of them ends another begins.
            assert [line for line in lines if line.startswith("jobs")] == [f'jobs_total{{pid="{pid}"}} 3']
            merged.fold(registry.store)

    def test_info_of_all_processes_is_one(self, bridged: Own) -> None:
        Info("release", "Release.", registry=bridged.client).info({"version": "1.2"})
        other = Registry()
        Collectors(other).copy(application_collectors())
        ask(bridged)
        assert bridged.page(bridged.registry, other) == ['release_info{version="1.2"} 1']

    def test_enum(self, bridged: Own) -> None:
        task = Enum("task", "Task.", states=["idle", "busy"], registry=bridged.client)
        task.state("busy")
        assert ask(bridged) == ['task{task="idle",pid="P"} 0', 'task{task="busy",pid="P"} 1']
        bridged.client.register(Collector(lambda: [StateSetMetricFamily("door", "Door.", {"open": True})]))
        assert 'door{door="open",pid="P"} 1' in ask(bridged)

    def test_function_of_a_gauge_keeps_its_mode(self, bridged: Own) -> None:
        Gauge("one", "One.", registry=bridged.client, multiprocess_mode="livesum").set_function(lambda: 7)
        two = Gauge("two", "Two.", ["n"], registry=bridged.client, multiprocess_mode="livemostrecent")
        two.labels("a").set_function(lambda: 8)
        two.labels("b").set(9)
        assert ask(bridged) == ["one 7", 'two{n="a"} 8', 'two{n="b"} 9']

    def test_what_is_not_said_any_more_is_not_shown(self, bridged: Own) -> None:
        rooms = ["a", "b"]

        def collect() -> Iterable[Metric]:
            found = GaugeMetricFamily("room", "Room.", labels=["n"])
            for room in rooms:
                found.add_metric([room], 1)
            yield found

        bridged.client.register(Collector(collect))
        assert len(ask(bridged)) == 2
        rooms.remove("a")
        assert ask(bridged) == ['room{n="b",pid="P"} 1']
        rooms.append("a")
        assert len(ask(bridged)) == 2


class TestWhoIsAsked:
    def test_nobody_who_keeps_values(self, bridged: Own) -> None:
        Counter("orders", "Orders.", registry=bridged.client)
        Gauge("queue", "Queue.", registry=bridged.client)
        assert list(application_collectors()) == []

    def test_not_the_clients_own(self, own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()  # the real registry, with its collectors of the process, the platform and garbage
        names = {type(collector).__name__ for collector in application_collectors()}
        assert not names & {"ProcessCollector", "PlatformCollector", "GCCollector"}


class TestFaults:
    def test_one_that_raises_does_not_keep_the_others(self, bridged: Own, error_log: Records) -> None:
        def collect() -> Iterable[Metric]:
            raise OSError("the database is gone")

        bridged.client.register(Collector(collect))
        bridged.client.register(Collector(lambda: [CounterMetricFamily("jobs", "Jobs.", value=3)]))
        assert ask(bridged) == ['jobs_total{pid="P"} 3']
        ask(bridged)
        (line,) = error_log.lines()
        assert "OSError: the database is gone" in line

    def test_names_of_headraces_own(self, bridged: Own, error_log: Records) -> None:
        metrics = [
            CounterMetricFamily("http_requests", "R.", value=3),
            GaugeMetricFamily("ok", "O.", value=1),
        ]
        bridged.client.register(Collector(lambda: metrics))
        assert ask(bridged) == ['ok{pid="P"} 1']
        assert len(error_log.lines()) == 1


class TestRefresh:
    def refresh(self, own: Own, timeout_s: float) -> bool:
        return asyncio.run(own.bridge.refresh(timeout_s))

    def test_nothing_to_ask(self, bridged: Own) -> None:
        assert not self.refresh(bridged, PATIENCE_S)

    def test_without_the_bridge(self, own: Own) -> None:
        own.client.register(Collector(lambda: [CounterMetricFamily("jobs", "Jobs.", value=3)]))
        assert not self.refresh(own, PATIENCE_S)

    def test_answer_is_there_when_it_comes_back(self, bridged: Own) -> None:
        threads = []

        def collect() -> Iterable[Metric]:
            threads.append((threading.current_thread().name, sys.getswitchinterval()))
            yield CounterMetricFamily("jobs", "Jobs.", value=3)

        bridged.client.register(Collector(collect))
        switch_s = sys.getswitchinterval()
        assert self.refresh(bridged, PATIENCE_S)
        assert page_of(bridged) == ['jobs_total{pid="P"} 3']
        ((name, during_s),) = threads
        assert name == "headrace-collectors"
        assert during_s < switch_s == sys.getswitchinterval()

    def test_one_that_takes_its_time_is_asked_once(self, bridged: Own) -> None:
        go = threading.Event()
        asked = []

        def collect() -> Iterable[Metric]:
            asked.append(1)
            go.wait(PATIENCE_S)
            yield CounterMetricFamily("jobs", "Jobs.", value=3)

        bridged.client.register(Collector(collect))
        for _ in range(3):
            assert self.refresh(bridged, 0.01)
        assert (asked, bridged.page()) == ([1], [])
        go.set()
        eventually(bridged.page)
        assert page_of(bridged) == ['jobs_total{pid="P"} 3']

    def test_one_that_hangs_holds_up_no_other(self, bridged: Own, error_log: Records) -> None:
        go = threading.Event()
        numbers = iter(range(1, 100))
        switch_s = sys.getswitchinterval()

        def collect() -> Iterable[Metric]:
            yield CounterMetricFamily("hung", "H.", value=7)
            go.wait(PATIENCE_S)

        bridged.client.register(Collector(lambda: [GaugeMetricFamily("first", "F.", value=1)]))
        bridged.client.register(Collector(collect))
        bridged.client.register(Collector(lambda: [CounterMetricFamily("jobs", "J.", value=next(numbers))]))
        collectors = bridged.bridge._collectors = Collectors(bridged.registry, hung_s=0)
        go.set()
        assert self.refresh(bridged, PATIENCE_S)
        assert 'hung_total{pid="P"} 7' in page_of(bridged)
        go.clear()
        # The first time it keeps the others of its walk; then another goes on with them.
        self.refresh(bridged, 0.05)
        before = threading.active_count()
        for _ in range(3):
            assert self.refresh(bridged, PATIENCE_S)
        assert 'first{pid="P"} 1' in page_of(bridged)
        assert 'jobs_total{pid="P"} 4' in page_of(bridged)
        assert not any(line.startswith("hung") for line in page_of(bridged))
        assert sys.getswitchinterval() == switch_s
        eventually(lambda: threading.active_count() <= before)
        (line,) = error_log.lines()
        assert "Collector has not answered for" in line
        go.set()
        eventually(lambda: not collectors._asked)
        assert 'hung_total{pid="P"} 7' in page_of(bridged)

    def test_function_that_hangs_is_left_out(self, bridged: Own) -> None:
        go = threading.Event()
        level = Gauge("level", "L.", registry=bridged.client, multiprocess_mode="livesum")
        level.set_function(lambda: 3.0 if go.wait(PATIENCE_S) else 0.0)
        collectors = bridged.bridge._collectors = Collectors(bridged.registry, hung_s=0)
        go.set()
        self.refresh(bridged, PATIENCE_S)
        assert bridged.page() == ["level 3"]
        go.clear()
        for _ in range(2):
            self.refresh(bridged, 0.05)
        assert bridged.page() == []
        go.set()
        eventually(lambda: not collectors._asked)
        assert bridged.page() == ["level 3"]

    def test_collector_that_is_taken_away_takes_its_figures_along(self, bridged: Own) -> None:
        collector = Collector(lambda: [GaugeMetricFamily("first", "F.", value=1)])
        bridged.client.register(collector)
        self.refresh(bridged, PATIENCE_S)
        assert page_of(bridged) == ['first{pid="P"} 1']
        bridged.client.unregister(collector)
        self.refresh(bridged, PATIENCE_S)
        assert page_of(bridged) == []

    def test_labels_that_come_and_go_without_end(self, own: Own) -> None:
        own.bridge.use(Registry(max_series=3), ())
        assert own.bridge.enter(values)
        numbers = iter(range(1_000))

        def collect() -> Iterable[Metric]:
            found = GaugeMetricFamily("room", "Room.", labels=["n"])
            found.add_metric([str(next(numbers))], 1)
            yield found

        own.client.register(Collector(collect))
        for number in range(50):
            own.bridge._collectors.copy(application_collectors())
            (line,) = own.page(own.bridge._registry)
            assert line.startswith(f'room{{n="{number}"')
