"""The application's ``prometheus_client`` metrics in a registry of ours."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest, values
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from headrace.telemetry.metrics.bridge import headrace_names
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.registry import Registry
from headrace.telemetry.metrics.store import Store
from live import Records

Own = Any


@pytest.fixture
def bridged(own: Own) -> Own:
    """With the bridge in place."""
    assert own.bridge.enter(values)
    return own


class TestKinds:
    def test_counter(self, bridged: Own) -> None:
        counter = Counter("orders", "Orders.", ["kind"], registry=bridged.client)
        counter.labels("a").inc()
        counter.labels(kind="b").inc(2.5)
        assert bridged.page() == ['orders_total{kind="a"} 1', 'orders_total{kind="b"} 2.5']

    def test_gauge(self, bridged: Own) -> None:
        gauge = Gauge("queue", "Waiting.", registry=bridged.client, multiprocess_mode="livesum")
        gauge.set(5)
        gauge.inc()
        gauge.dec(4)
        assert bridged.page() == ["queue 2"]

    def test_histogram(self, bridged: Own) -> None:
        histogram = Histogram("wait", "Waited.", registry=bridged.client, buckets=(0.5, 1, 2))
        for seconds in (0.25, 0.5, 1.5, 9):
            histogram.observe(seconds)
        assert bridged.page() == [
            'wait_bucket{le="0.5"} 2',
            'wait_bucket{le="1.0"} 2',
            'wait_bucket{le="2.0"} 3',
            'wait_bucket{le="+Inf"} 4',
            "wait_count 4",
            "wait_sum 11.25",
        ]

    def test_summary(self, bridged: Own) -> None:
        summary = Summary("size", "Sizes.", ["of"], registry=bridged.client)
        summary.labels("x").observe(2)
        summary.labels("x").observe(3)
        assert bridged.page() == ['size_count{of="x"} 2', 'size_sum{of="x"} 5']

    def test_names_that_only_newer_clients_allow(self, bridged: Own) -> None:
        Counter("order.päckchen", "Orders.", ["art:ä"], registry=bridged.client).labels("ö").inc()
        assert bridged.page() == ['order_p_ckchen_total{art__="ö"} 1']


class TestMerging:
    @pytest.mark.parametrize(
        ("mode", "number"),
        [
            ("sum", 8), ("livesum", 8), ("min", 3), ("livemin", 3), ("max", 5), ("livemax", 5),
            ("mostrecent", 5), ("livemostrecent", 5),
        ],
    )  # fmt: skip
    def test_modes_of_gauges(self, bridged: Own, mode: str, number: int) -> None:
        gauges, registries = [], []
        for level in (3, 5):
            registries.append(Registry())
            bridged.bridge.use(registries[-1], ())
            gauges.append(Gauge("level", "Level.", registry=None, multiprocess_mode=mode))
            gauges[-1].set(level)
        assert bridged.page(*registries) == [f"level {number}"]

    def test_by_default_each_process_stands_for_itself(self, bridged: Own) -> None:
        Gauge("level", "Level.", registry=bridged.client).set(3)
        (line,) = bridged.page()
        assert line == f'level{{pid="{bridged.registry.store.pid}"}} 3'

    def test_ended_process(self, bridged: Own) -> None:
        counter = Counter("orders", "Orders.", registry=bridged.client)
        live = Gauge("live", "Live.", registry=bridged.client, multiprocess_mode="livesum")
        high = Gauge("high", "High.", registry=bridged.client, multiprocess_mode="max")
        for metric in (counter, live, high):
            metric.inc(4)
        merged = Merged()
        merged.attach(bridged.registry.store)
        merged.fold(bridged.registry.store)
        names = [family.family.name for family in merged.families()]
        assert {"orders", "high"} <= set(names)
        assert "live" not in names


class TestInsideTheApplication:
    def test_generate_latest(self, bridged: Own) -> None:
        Counter("orders", "Orders.", registry=bridged.client).inc(3)
        Histogram("wait", "Waited.", registry=bridged.client, buckets=(1,)).observe(0.5)
        lines = generate_latest(bridged.client).decode().splitlines()
        assert {"orders_total 3.0", 'wait_bucket{le="1.0"} 1.0', "wait_count 1.0", "wait_sum 0.5"} <= set(
            lines
        )

    def test_exemplars_stay_there(self, bridged: Own) -> None:
        Counter("orders", "Orders.", registry=bridged.client).inc(3, {"trace_id": "abc"})
        assert '# {trace_id="abc"} 3.0' in generate_openmetrics(bridged.client).decode()
        assert bridged.page() == ["orders_total 3"]

    def test_reset_of_a_counter(self, bridged: Own) -> None:
        counter = Counter("orders", "Orders.", registry=bridged.client)
        counter.inc(3)
        counter.reset()
        counter.inc()
        assert bridged.page() == ["orders_total 1"]

    def test_threads(self, bridged: Own) -> None:
        counter = Counter("orders", "Orders.", ["kind"], registry=bridged.client)

        def count() -> None:
            for number in range(2_000):
                counter.labels(str(number % 5)).inc()

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bridged.page() == [f'orders_total{{kind="{kind}"}} 1600' for kind in range(5)]

    def test_removed_gauge_goes_and_comes_back_from_0(self, bridged: Own) -> None:
        gauge = Gauge("room", "Room.", ["n"], registry=bridged.client, multiprocess_mode="livesum")
        gauge.labels("1").set(3)
        gauge.labels("2").set(4)
        gauge.remove("1")
        gc.collect()
        assert bridged.page() == ['room{n="2"} 4']
        gauge.labels("1").inc()
        assert bridged.page() == ['room{n="1"} 1', 'room{n="2"} 4']
        gauge.clear()
        gc.collect()
        assert bridged.page() == []

    def test_removed_gauges_leave_their_places_to_others(self, own: Own) -> None:
        registry = Registry(max_series=4)
        own.bridge.use(registry, ())
        assert own.bridge.enter(values)
        gauge = Gauge("job", "Job.", ["n"], registry=own.client, multiprocess_mode="livesum")
        for number in range(100):
            gauge.labels(str(number)).set(1)
            if number >= 3:
                gauge.remove(str(number - 3))
        assert own.page(registry) == [f'job{{n="{number}"}} 1' for number in (97, 98, 99)]

    def test_gauge_that_is_held_still_does_not_take_its_successor_along(self, bridged: Own) -> None:
        gauge = Gauge("room", "Room.", ["n"], registry=bridged.client, multiprocess_mode="livesum")
        old = gauge.labels("1")
        old.set(3)
        gauge.remove("1")
        gauge.labels("1").inc()
        del old
        gc.collect()
        gauge.labels("1").inc()
        assert bridged.page() == ['room{n="1"} 2']
        assert 'room{n="1"} 2.0' in generate_latest(bridged.client).decode()

    def test_metric_in_two_registries_of_the_client(self, bridged: Own) -> None:
        one, other = CollectorRegistry(), CollectorRegistry()
        Counter("jobs", "Jobs.", registry=one).inc(5)
        Counter("jobs", "Jobs.", registry=other).inc(7)
        level = Gauge("level", "Level.", registry=one, multiprocess_mode="livesum")
        level.set(3)

        def run_a_job() -> None:
            Gauge("level", "Level.", registry=CollectorRegistry(), multiprocess_mode="livesum").set(9)

        run_a_job()
        gc.collect()
        assert [one.get_sample_value("jobs_total"), other.get_sample_value("jobs_total")] == [5, 7]
        assert one.get_sample_value("level") == 3
        level.inc()
        assert bridged.page() == ["jobs_total 12", "level 4"]

    def test_removed_counter_stays(self, bridged: Own) -> None:
        counter = Counter("orders", "Orders.", ["kind"], registry=bridged.client)
        counter.labels("a").inc(3)
        counter.remove("a")
        assert bridged.page() == ['orders_total{kind="a"} 3']


class TestWhatDoesNotFit:
    def test_headraces_own_name(self, bridged: Own, error_log: Records) -> None:
        counter = Counter("http_requests", "Requests.", registry=bridged.client)
        counter.inc(2)
        Counter("http_requests", "Requests.", registry=None).inc()
        assert bridged.page() == []
        assert "http_requests_total 2.0" in generate_latest(bridged.client).decode()
        (line,) = error_log.lines()
        assert "http_requests is not on headrace's page" in line

    def test_name_of_a_line_of_headraces_own(self, own: Own, error_log: Records) -> None:
        own.bridge.use(Registry(), headrace_names("classic"))
        assert own.bridge.enter(values)
        Gauge("http_request_duration_seconds_count", "Requests.", registry=own.client).set(3)
        assert own.page(own.bridge._registry) == []
        assert "http_request_duration_seconds_count is not on headrace's page" in error_log.lines()[0]

    def test_one_name_for_two_things(self, bridged: Own, error_log: Records) -> None:
        Counter("orders", "Orders.", registry=bridged.client).inc(2)
        other = Gauge("orders", "Others.", registry=None)
        other.set(7)
        assert bridged.page() == ["orders_total 2"]
        assert other._value.get() == 7
        assert len(error_log.lines()) == 1

    def test_more_series_than_the_limit(self, own: Own) -> None:
        registry = Registry(max_series=3)
        own.bridge.use(registry, ())
        assert own.bridge.enter(values)
        counter = Counter("orders", "Orders.", ["kind"], registry=own.client)
        for kind in range(9):
            counter.labels(str(kind)).inc()
        assert own.page(registry) == [f'orders_total{{kind="{kind}"}} 1' for kind in range(3)]
        # In the application they are all there.
        assert counter.labels("8")._value.get() == 1

    def test_names_of_presets(self) -> None:
        assert "http_requests" in headrace_names("instrumentator")
        assert "http_requests" not in headrace_names("classic")
        assert {"process_cpu_seconds", "headrace_connections"} <= headrace_names("otel")


class TestComingAndGoing:
    def test_metrics_that_are_there_already(self, own: Own) -> None:
        counter = Counter("orders", "Orders.", ["kind"], registry=own.client)
        counter.labels("a").inc(3)
        gauge = Gauge("queue", "Waiting.", registry=own.client, multiprocess_mode="livesum")
        gauge.set(4)
        histogram = Histogram("wait", "Waited.", registry=own.client, buckets=(1,))
        histogram.observe(0.5)
        created = histogram._created
        own.bridge.install()
        counter.labels("a").inc()
        gauge.inc()
        histogram.observe(2)
        assert own.page() == [
            'orders_total{kind="a"} 4',
            "queue 5",
            'wait_bucket{le="1.0"} 1',
            'wait_bucket{le="+Inf"} 2',
            "wait_count 2",
            "wait_sum 2.5",
        ]
        assert histogram._created == created

    def test_another_registry(self, bridged: Own) -> None:
        counter = Counter("orders", "Orders.", registry=bridged.client)
        counter.inc(3)
        registry = Registry()
        bridged.bridge.use(registry, ())
        counter.inc()
        assert bridged.page(registry) == ["orders_total 4"]

    def test_fork(self, bridged: Own) -> None:
        """What a worker does that was forked from a template."""
        counter = Counter("orders", "Orders.", registry=bridged.client)
        counter.inc(3)
        before = bridged.registry.store
        bridged.registry.move(Store.local())
        counter.inc()
        assert bridged.page() == ["orders_total 4"]
        assert before is not bridged.registry.store


SCRIPT = """
import logging, sys
logging.basicConfig()
from headrace.telemetry.metrics.bridge import install_bridge
from headrace.telemetry.metrics.registry import Registry
registry = Registry()
install_bridge(registry, "classic")
print(any(name.startswith("prometheus_client") for name in sys.modules))
import prometheus_client
from prometheus_client import values
print(type(values.__loader__).__name__, values.__loader__ is values.__spec__.loader)
print([finder for finder in sys.meta_path if type(finder).__module__.startswith("headrace")])
counter = prometheus_client.Counter("orders", "Orders.")
counter.inc()
print(registry.samples.__self__._sets.keys() >= {"orders"}, type(counter._value).__name__)
"""


def run(**variables: str) -> tuple[list[str], str]:
    """Standard output and error of a process in which ``prometheus_client`` is imported behind the bridge."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=variables, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines(), done.stderr


class TestImport:
    def test_is_heard_of_and_not_caused(self) -> None:
        lines, errors = run()
        assert lines == ["False", "SourceFileLoader True", "[]", "True Value"]
        assert errors == ""

    def test_its_own_mode_is_left_alone(self, tmp_path: Any) -> None:
        lines, errors = run(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
        assert lines[-1] == "False MmapedValue"
        assert errors.count("PROMETHEUS_MULTIPROC_DIR is set") == 1
        assert list(tmp_path.glob("counter_*.db"))


def test_nan_is_no_number_of_a_gauge(bridged: Own) -> None:
    Gauge("level", "Level.", registry=bridged.client, multiprocess_mode="sum").set(math.nan)
    assert bridged.page() == []
