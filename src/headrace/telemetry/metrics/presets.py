"""What the metrics of HTTP requests are called: headrace's names, or those that a dashboard expects already.

A preset is a table: each row is one metric, what it measures, and what stands in its labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from http import HTTPMethod

from headrace.errors import ConfigError
from headrace.telemetry.metrics.family import Family, Kind, Merge

METHODS = frozenset(method.value for method in HTTPMethod) | {"QUERY"}
"""RFC 9110 §9, RFC 5789, and QUERY; any other is ``OTHER_METHOD``, for a client may make them up."""

OTHER_METHOD = "_OTHER"
"""OpenTelemetry's word, ``http.request.method``."""

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; OpenTelemetry's advice for ``http.server.request.duration``."""

_SIZE_BUCKETS = tuple(float(2**power) for power in range(7, 25, 2))
"""Bytes, 128 to 8 MiB; OpenTelemetry gives no advice."""

_HIGHR_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0,
    30.0, 60.0,
)  # fmt: skip


class Measure(Enum):
    """What is counted or summed of each request."""

    DURATION = "seconds from the request's head to the end of the response"
    REQUESTS = "one"
    REQUEST_BYTES = "bytes of the request's body"
    RESPONSE_BYTES = "bytes of the response's body"


class Source(Enum):
    """What stands in a label."""

    METHOD = "method"
    ENDPOINT = "route template"
    STATUS = "200"
    STATUS_CLASS = "2xx"


@dataclass(frozen=True)
class Row:
    """One metric.

    Attributes:
        measure: what it takes of a request.
        sources: what stands in each of its labels.
        family: its declaration.
    """

    measure: Measure
    sources: tuple[Source, ...]
    family: Family


@dataclass(frozen=True)
class Preset:
    """The metrics of HTTP requests under one set of names.

    Attributes:
        rows: one for each.
        in_flight: requests that are being worked on.
        duration: name of the histogram whose buckets are an option.
        unmatched: stands for the route of a request that has none.
    """

    rows: tuple[Row, ...]
    in_flight: Family
    duration: str
    unmatched: str


_IN_FLIGHT_HELP = "Requests that are being worked on."

PRESETS = {
    # Counters for bytes: one addition each, and a rate and a mean come of them; what else a summary has is
    # the number of requests, which the duration has already.
    "classic": Preset(
        rows=(
            Row(
                Measure.DURATION,
                (Source.METHOD, Source.ENDPOINT, Source.STATUS),
                Family(
                    "http_request_duration_seconds",
                    Kind.HISTOGRAM,
                    "Time from the request's head to the end of the response.",
                    ("method", "endpoint", "status"),
                    DURATION_BUCKETS,
                    has_exemplars=True,
                ),
            ),
            Row(
                Measure.REQUEST_BYTES,
                (Source.METHOD, Source.ENDPOINT),
                Family(
                    "http_request_bytes",
                    Kind.COUNTER,
                    "Bytes of request bodies.",
                    ("method", "endpoint"),
                ),
            ),
            Row(
                Measure.RESPONSE_BYTES,
                (Source.METHOD, Source.ENDPOINT),
                Family(
                    "http_response_bytes",
                    Kind.COUNTER,
                    "Bytes of response bodies.",
                    ("method", "endpoint"),
                ),
            ),
        ),
        in_flight=Family("http_requests_in_flight", Kind.GAUGE, _IN_FLIGHT_HELP, merge=Merge.LIVESUM),
        duration="http_request_duration_seconds",
        unmatched="unmatched",
    ),
    # OpenTelemetry's HTTP metrics (stable) under the names its Prometheus exporters give them.
    "otel": Preset(
        rows=(
            Row(
                Measure.DURATION,
                (Source.ENDPOINT, Source.METHOD, Source.STATUS),
                Family(
                    "http_server_request_duration_seconds",
                    Kind.HISTOGRAM,
                    "Duration of HTTP server requests.",
                    ("http_route", "http_request_method", "http_response_status_code"),
                    DURATION_BUCKETS,
                    has_exemplars=True,
                ),
            ),
            Row(
                Measure.REQUEST_BYTES,
                (Source.ENDPOINT, Source.METHOD),
                Family(
                    "http_server_request_body_size_bytes",
                    Kind.HISTOGRAM,
                    "Size of HTTP server request bodies.",
                    ("http_route", "http_request_method"),
                    _SIZE_BUCKETS,
                ),
            ),
            Row(
                Measure.RESPONSE_BYTES,
                (Source.ENDPOINT, Source.METHOD),
                Family(
                    "http_server_response_body_size_bytes",
                    Kind.HISTOGRAM,
                    "Size of HTTP server response bodies.",
                    ("http_route", "http_request_method"),
                    _SIZE_BUCKETS,
                ),
            ),
        ),
        in_flight=Family(
            "http_server_active_requests",
            Kind.GAUGE,
            "Number of active HTTP server requests.",
            merge=Merge.LIVESUM,
        ),
        duration="http_server_request_duration_seconds",
        # The convention leaves the attribute out; to Prometheus an empty label is none.
        unmatched="",
    ),
    # The default metrics of prometheus-fastapi-instrumentator 8.
    "instrumentator": Preset(
        rows=(
            Row(
                Measure.REQUESTS,
                (Source.METHOD, Source.STATUS_CLASS, Source.ENDPOINT),
                Family(
                    "http_requests",
                    Kind.COUNTER,
                    "Total number of requests by method, status and handler.",
                    ("method", "status", "handler"),
                ),
            ),
            Row(
                Measure.REQUEST_BYTES,
                (Source.ENDPOINT,),
                Family(
                    "http_request_size_bytes",
                    Kind.SUMMARY,
                    "Bytes of request bodies by handler.",
                    ("handler",),
                ),
            ),
            Row(
                Measure.RESPONSE_BYTES,
                (Source.ENDPOINT,),
                Family(
                    "http_response_size_bytes",
                    Kind.SUMMARY,
                    "Bytes of response bodies by handler.",
                    ("handler",),
                ),
            ),
            Row(
                Measure.DURATION,
                (),
                Family(
                    "http_request_duration_highr_seconds",
                    Kind.HISTOGRAM,
                    "Latency with many buckets but no labels, for percentiles.",
                    (),
                    _HIGHR_BUCKETS,
                ),
            ),
            Row(
                Measure.DURATION,
                (Source.METHOD, Source.ENDPOINT),
                Family(
                    "http_request_duration_seconds",
                    Kind.HISTOGRAM,
                    "Latency with few buckets by handler and method.",
                    ("method", "handler"),
                    (0.1, 0.5, 1.0),
                    has_exemplars=True,
                ),
            ),
        ),
        in_flight=Family("http_requests_inprogress", Kind.GAUGE, _IN_FLIGHT_HELP, merge=Merge.LIVESUM),
        duration="http_request_duration_seconds",
        unmatched="none",
    ),
}
"""Preset by the word that chooses it."""


def choose_preset(name: str, buckets: tuple[float, ...] = ()) -> Preset:
    """A preset, its duration in other buckets if some are given.

    Args:
        name: of ``PRESETS``.
        buckets: upper bounds in seconds, ascending; empty for the preset's own.

    Raises:
        ConfigError: there is no such preset, or the buckets do not ascend.
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise ConfigError(f"no metrics preset is called {name!r:.80}; there are {', '.join(PRESETS)}")
    if not buckets:
        return preset
    try:
        rows = tuple(
            replace(row, family=replace(row.family, buckets=buckets))
            if row.family.name == preset.duration
            else row
            for row in preset.rows
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return replace(preset, rows=rows)
