"""A scan of 100,000 paths makes neither the page nor the memory grow without end."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.telemetry.metrics.http import HTTPMetrics
from headrace.telemetry.metrics.registry import Registry
from scrape import figures_in, total

PATHS = 100_000
NAME = "http_request_duration_seconds_count"


def scanned(max_series: int, **facts: Any) -> tuple[Registry, HTTPMetrics]:
    """Figures of a scan; ``facts`` are put into each scope, ``{path}`` is the path."""
    registry = Registry(max_series=max_series)
    consumer = HTTPMetrics(registry)
    for number in range(PATHS):
        path = f"/{number}"
        told = {key: value.format(path=path) for key, value in facts.items()}
        scope = {"type": "http", "method": "GET", "path": path, "root_path": "", **told}
        consumer.add((scope, 404, 9, 0.0, 0.001, [], 0, None))
    consumer.close()
    return registry, consumer


def test_paths_without_a_route_are_one_series() -> None:
    registry, _ = scanned(50)
    figures = figures_in(registry)
    assert {line: number for line, number in figures.items() if line.startswith(NAME)} == {
        NAME + '{method="GET",endpoint="unmatched",status="404"}': PATHS
    }
    assert total(figures, "headrace_series_dropped_total") == 0


def test_routes_without_end_stop_at_the_limit() -> None:
    """A framework that gives each path as its own route, or an application that adds a route for each."""
    registry, consumer = scanned(50, **{"headrace.route": "{path}"})
    figures = figures_in(registry)
    assert sum(line.startswith(NAME) for line in figures) == 50
    dropped = figures['headrace_series_dropped_total{metric="http_request_duration_seconds"}']
    assert dropped == pytest.approx(PATHS - 50, rel=0.01)
    assert len(consumer._places) <= 50
    assert registry.store.used_bytes < 200_000
