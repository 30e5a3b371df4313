"""Finished exchanges become figures."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI

from headrace.errors import ConfigError
from headrace.middleware.recording import Recorded
from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.metrics.exposition import Format, render
from headrace.telemetry.metrics.http import BATCH_EXCHANGES, HTTPMetrics
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.presets import PRESETS
from headrace.telemetry.metrics.registry import Registry


class Span(NamedTuple):
    trace_id: int
    span_id: int
    is_sampled: bool


def exchange(
    route: str | None = "/a/{x}",
    status: int = 200,
    method: str = "GET",
    seconds: float = 0.02,
    *,
    sent: int = 0,
    received: int = 0,
    span: Span | None = None,
) -> FinishedExchange:
    scope: dict[str, Any] = {"type": "http", "method": method, "path": "/never/shown", "root_path": ""}
    if route is not None:
        scope["headrace.route"] = route
    if span is not None:
        scope["headrace.span"] = span
    return scope, status, sent, 100.0, 100.0 + seconds, [], received, None


def page_of(registry: Registry, page_format: Format = Format.TEXT) -> list[str]:
    merged = Merged()
    merged.attach(registry.store)
    lines = "".join(render(merged, page_format)).splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_classic_figures() -> None:
    registry = Registry()
    consumer = HTTPMetrics(registry)
    consumer.in_flight.set(3)
    for one in (
        exchange(sent=10),
        exchange(sent=20, received=5, seconds=0.3),
        exchange(status=404, sent=7),
        exchange(None, 400, seconds=100.0),
        exchange("/b", method="POST", received=9),
    ):
        consumer.add(one)
    assert page_of(registry) == ["http_requests_in_flight 3"]
    consumer.flush()
    lines = page_of(registry)
    counts = [line for line in lines if "_count" in line]
    assert counts == [
        'http_request_duration_seconds_count{method="GET",endpoint="/a/{x}",status="200"} 2',
        'http_request_duration_seconds_count{method="GET",endpoint="/a/{x}",status="404"} 1',
        'http_request_duration_seconds_count{method="GET",endpoint="unmatched",status="400"} 1',
        'http_request_duration_seconds_count{method="POST",endpoint="/b",status="200"} 1',
    ]
    first = 'http_request_duration_seconds_bucket{method="GET",endpoint="/a/{x}",status="200",le='
    assert [line.removeprefix(first) for line in lines if line.startswith(first)] == [
        '"0.005"} 0', '"0.01"} 0', '"0.025"} 1', '"0.05"} 1', '"0.075"} 1', '"0.1"} 1', '"0.25"} 1',
        '"0.5"} 2', '"0.75"} 2', '"1.0"} 2', '"2.5"} 2', '"5.0"} 2', '"7.5"} 2', '"10.0"} 2', '"+Inf"} 2',
    ]  # fmt: skip
    assert [line for line in lines if "bytes" in line] == [
        'http_request_bytes_total{method="GET",endpoint="/a/{x}"} 5',
        'http_request_bytes_total{method="GET",endpoint="unmatched"} 0',
        'http_request_bytes_total{method="POST",endpoint="/b"} 9',
        'http_response_bytes_total{method="GET",endpoint="/a/{x}"} 37',
        'http_response_bytes_total{method="GET",endpoint="unmatched"} 0',
        'http_response_bytes_total{method="POST",endpoint="/b"} 0',
    ]


def test_otel_figures() -> None:
    registry = Registry()
    consumer = HTTPMetrics(registry, preset="otel")
    consumer.in_flight.set(1)
    consumer.add(exchange(sent=200, received=1))
    consumer.add(exchange(None, 404))
    consumer.close()
    lines = page_of(registry)
    for line in (
        "http_server_active_requests 1",
        'http_server_request_duration_seconds_bucket{http_route="/a/{x}",http_request_method="GET",'
        'http_response_status_code="200",le="0.025"} 1',
        'http_server_request_duration_seconds_count{http_route="",http_request_method="GET",'
        'http_response_status_code="404"} 1',
        'http_server_response_body_size_bytes_bucket{http_route="/a/{x}",http_request_method="GET",'
        'le="128.0"} 0',
        'http_server_response_body_size_bytes_sum{http_route="/a/{x}",http_request_method="GET"} 200',
        'http_server_request_body_size_bytes_sum{http_route="/a/{x}",http_request_method="GET"} 1',
    ):
        assert line in lines


def test_instrumentator_figures() -> None:
    """The names, labels and buckets of prometheus-fastapi-instrumentator's default metrics."""
    registry = Registry()
    consumer = HTTPMetrics(registry, preset="instrumentator")
    for status in (200, 201, 404):
        consumer.add(exchange(status=status, sent=10, received=2))
    consumer.add(exchange(None, 404, seconds=2.0))
    consumer.close()
    lines = page_of(registry)
    for line in (
        'http_requests_total{method="GET",status="2xx",handler="/a/{x}"} 2',
        'http_requests_total{method="GET",status="4xx",handler="/a/{x}"} 1',
        'http_requests_total{method="GET",status="4xx",handler="none"} 1',
        'http_request_size_bytes_count{handler="/a/{x}"} 3',
        'http_request_size_bytes_sum{handler="/a/{x}"} 6',
        'http_response_size_bytes_sum{handler="/a/{x}"} 30',
        'http_request_duration_highr_seconds_bucket{le="0.025"} 3',
        'http_request_duration_highr_seconds_bucket{le="2.0"} 4',
        "http_request_duration_highr_seconds_count 4",
        'http_request_duration_seconds_bucket{method="GET",handler="/a/{x}",le="0.1"} 3',
        'http_request_duration_seconds_bucket{method="GET",handler="none",le="1.0"} 0',
        'http_request_duration_seconds_count{method="GET",handler="none"} 1',
        "http_requests_inprogress 0",
    ):
        assert line in lines
    assert len([line for line in lines if "highr" in line]) == 21 + 3


@pytest.mark.parametrize("preset", PRESETS)
def test_buckets_are_an_option_of_the_duration(preset: str) -> None:
    registry = Registry()
    consumer = HTTPMetrics(registry, preset=preset, buckets=(0.1, 0.3))
    consumer.add(exchange(seconds=0.2))
    consumer.close()
    name = PRESETS[preset].duration
    found = [line for line in page_of(registry) if line.startswith(f"{name}_bucket")]
    assert [line.rpartition(" ")[2] for line in found] == ["0", "1", "1"]


@pytest.mark.parametrize("wrong", [{"preset": "x"}, {"buckets": (2.0, 1.0)}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HTTPMetrics(Registry(), **wrong)


def test_a_batch_is_processed_by_itself() -> None:
    registry = Registry()
    consumer = HTTPMetrics(registry)
    for _ in range(BATCH_EXCHANGES + 1):
        consumer.add(exchange())
    count = 'http_request_duration_seconds_count{method="GET",endpoint="/a/{x}",status="200"}'
    assert f"{count} {BATCH_EXCHANGES}" in page_of(registry)
    consumer.flush()
    consumer.flush()
    assert f"{count} {BATCH_EXCHANGES + 1}" in page_of(registry)


def test_made_up_methods_are_one() -> None:
    registry = Registry()
    consumer = HTTPMetrics(registry)
    for number in range(1_000):
        consumer.add(exchange(method=f"M{number}"))
    consumer.add(exchange(method="PATCH"))
    consumer.close()
    counts = [line for line in page_of(registry) if "_count" in line]
    assert counts == [
        'http_request_duration_seconds_count{method="_OTHER",endpoint="/a/{x}",status="200"} 1000',
        'http_request_duration_seconds_count{method="PATCH",endpoint="/a/{x}",status="200"} 1',
    ]


def test_limit_of_series_holds_whatever_comes() -> None:
    registry = Registry(max_series=50)
    consumer = HTTPMetrics(registry)
    for number in range(20_000):
        consumer.add(exchange(f"/{number}"))
    used = registry.store.used_bytes
    for number in range(100):
        consumer.add(exchange("/0" if number % 2 else f"/x{number}"))
    consumer.close()
    assert registry.store.used_bytes == used
    lines = page_of(registry)
    assert len([line for line in lines if "duration_seconds_count" in line]) == 50
    assert 'http_request_duration_seconds_count{method="GET",endpoint="/0",status="200"} 51' in lines
    assert f'headrace_series_dropped_total{{metric="http_request_duration_seconds"}} {20_000}' in lines


def test_latest_sampled_trace_is_the_exemplar() -> None:
    registry = Registry()
    consumer = HTTPMetrics(registry)
    consumer.add(exchange(span=Span(1, 2, True)))
    consumer.add(exchange(seconds=0.375, span=Span(3, 4, True)))
    consumer.add(exchange(span=Span(5, 6, False)))
    consumer.add(exchange())
    consumer.close()
    [marked] = [line for line in page_of(registry, Format.OPENMETRICS) if "# {" in line]
    bucket, _, rest = marked.partition(" # ")
    assert 'le="0.5"' in bucket
    assert rest.startswith(f'{{trace_id="{3:032x}",span_id="{4:016x}"}} 0.375 ')


def test_what_cannot_be_processed_is_told_once_and_loses_only_its_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = Registry()
    consumer = HTTPMetrics(registry)
    broken: Any = ({}, 200, 0, 0.0, 1.0, None, 0, None)
    with caplog.at_level(logging.ERROR, "uvicorn.error"):
        for _ in range(2):
            consumer.add(broken)
            consumer.flush()
    assert [record.message for record in caplog.records] == ["Metrics of some requests are lost"]
    consumer.add(exchange())
    consumer.flush()
    assert any("_count" in line for line in page_of(registry))


def test_path_scan_of_an_application_makes_one_series() -> None:
    application = FastAPI(openapi_url=None)

    @application.get("/items/{item}")
    async def item(item: str) -> str:
        return item

    async def call(path: str) -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None: ...

        scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
        await recorded({**scope, "query_string": b"", "raw_path": path.encode()}, receive, send)

    async def main() -> None:
        for number in range(200):
            await call(f"/items/{number}")
            await call(f"/{number}.php")

    registry = Registry()
    consumer = HTTPMetrics(registry)
    recorded = Recorded(application, consumer)
    asyncio.run(main())
    consumer.close()
    counts = [line for line in page_of(registry) if "_count" in line]
    assert counts == [
        'http_request_duration_seconds_count{method="GET",endpoint="/items/{item}",status="200"} 200',
        'http_request_duration_seconds_count{method="GET",endpoint="unmatched",status="404"} 200',
    ]
