"""The page, read back by prometheus_client's parsers and judged by Prometheus' own promtool."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from headrace.telemetry.metrics.exposition import (
    PIECE_CHARS,
    PIECE_LINES,
    Format,
    choose_format,
    number,
    render,
)
from headrace.telemetry.metrics.family import Family, Kind, Merge
from headrace.telemetry.metrics.http import HTTPMetrics
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.presets import PRESETS
from headrace.telemetry.metrics.registry import Registry
from headrace.telemetry.metrics.server import CONNECTIONS, LIMITED, SHED
from headrace.telemetry.metrics.websocket import WebSocketMetrics

COUNTER = Family("things", Kind.COUNTER, 'A \\ of "things"\nand more.', ("x", "y"))
GAUGE = Family("level", Kind.GAUGE, "L.", ("x",))
HISTOGRAM = Family("wait_seconds", Kind.HISTOGRAM, "W.", ("x",), (0.005, 1.0, 2.5), has_exemplars=True)
SUMMARY = Family("size_bytes", Kind.SUMMARY, "S.")

TEXT_PAGE = r"""
# HELP level L.
# TYPE level gauge
level{x=""} -0.5
# HELP size_bytes S.
# TYPE size_bytes summary
size_bytes_count 2
size_bytes_sum 30
# HELP things_total A \\ of "things"\nand more.
# TYPE things_total counter
things_total{x="a\"\\\n",y="é"} 3
# HELP wait_seconds W.
# TYPE wait_seconds histogram
wait_seconds_bucket{x="q",le="0.005"} 1
wait_seconds_bucket{x="q",le="1.0"} 2
wait_seconds_bucket{x="q",le="2.5"} 2
wait_seconds_bucket{x="q",le="+Inf"} 3
wait_seconds_count{x="q"} 3
wait_seconds_sum{x="q"} 3.751
""".lstrip()

OPENMETRICS_PAGE = r"""
# HELP level L.
# TYPE level gauge
level{x=""} -0.5
# HELP size_bytes S.
# TYPE size_bytes summary
size_bytes_count 2
size_bytes_sum 30
# HELP things A \\ of \"things\"\nand more.
# TYPE things counter
things_total{x="a\"\\\n",y="é"} 3
# HELP wait_seconds W.
# TYPE wait_seconds histogram
wait_seconds_bucket{x="q",le="0.005"} 1
wait_seconds_bucket{x="q",le="1.0"} 2 # {trace_id="000000000000000000000000000000ff",span_id="0000000000000010"} 0.75 1.250
wait_seconds_bucket{x="q",le="2.5"} 2
wait_seconds_bucket{x="q",le="+Inf"} 3
wait_seconds_count{x="q"} 3
wait_seconds_sum{x="q"} 3.751
# EOF
""".lstrip()  # noqa: E501


def books() -> tuple[Registry, Merged]:
    registry, merged = Registry(), Merged()
    merged.attach(registry.store)
    return registry, merged


def page_of(merged: Merged, page_format: Format = Format.TEXT) -> str:
    return "".join(render(merged, page_format))


def parsed(merged: Merged, page_format: Format) -> dict[str, list[Any]]:
    """Metric -> samples, by prometheus_client's parser."""
    text = page_of(merged, page_format)
    is_open = page_format is Format.OPENMETRICS
    parse = openmetrics_parser.text_string_to_metric_families if is_open else text_string_to_metric_families
    families = list(parse(text))
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    return {family.name: family.samples for family in families}


def test_the_page_to_the_letter() -> None:
    registry, merged = books()
    registry.counter(COUNTER).labels('a"\\\n', "é").inc(3)
    registry.gauge(GAUGE).labels("").set(-0.5)
    histogram = registry.histogram(HISTOGRAM).labels("q")
    for value in (0.001, 0.75, 3.0):
        histogram.observe(value)
    histogram.set_exemplar(0xFF, 0x10, 0.75, 1.25)
    for size in (10, 20):
        registry.summary(SUMMARY).labels().observe(size)
    assert page_of(merged) == TEXT_PAGE
    assert page_of(merged, Format.OPENMETRICS) == OPENMETRICS_PAGE
    for page_format in Format:
        assert set(parsed(merged, page_format)) == {"level", "size_bytes", "things", "wait_seconds"}


def test_page_can_be_encoded_whatever_an_application_says() -> None:
    registry, merged = books()
    registry.gauge(Family("g", Kind.GAUGE, "caf\udce9", ("x",))).labels("\ud800").set(1)
    assert page_of(merged).encode("utf-8") == b'# HELP g caf?\n# TYPE g gauge\ng{x="?"} 1\n'


def test_empty_page() -> None:
    _, merged = books()
    assert page_of(merged) == ""
    assert page_of(merged, Format.OPENMETRICS) == "# EOF\n"


@pytest.mark.parametrize("value", [0.5, 0.005, 100.0])
def test_exemplar_stands_at_the_bucket_of_its_value(value: float) -> None:
    registry, merged = books()
    series = registry.histogram(HISTOGRAM).labels("q")
    series.observe(value)
    series.set_exemplar(1, 2, value, 1e9)
    marked = [sample for sample in parsed(merged, Format.OPENMETRICS)["wait_seconds"] if sample.exemplar]
    assert [sample.exemplar.value for sample in marked] == [value]
    bound = min(bound for bound in (*HISTOGRAM.buckets, math.inf) if value <= bound)
    assert float(marked[0].labels["le"]) == bound
    assert "# {" not in page_of(merged)


# "\r" alone ends a line for prometheus_client's parser of OpenMetrics, though neither format says so.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=30)


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS, st.sampled_from(Format))
@example('a"b\\', "\\n\n\\\\n", Format.TEXT)
@example('{},="} 5 # {', "\x0b\x1c\u2028\x85", Format.OPENMETRICS)
@example("", '"', Format.OPENMETRICS)
def test_any_label_survives(one: str, other: str, page_format: Format) -> None:
    registry, merged = books()
    registry.counter(COUNTER).labels(one, other).inc()
    [sample] = parsed(merged, page_format)["things"]
    assert sample.labels == {"x": one, "y": other}
    assert page_of(merged, page_format).encode("utf-8")


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=30))
@example('\\n "\n')
def test_any_help_is_one_line(text: str) -> None:
    registry, merged = books()
    registry.gauge(Family("g", Kind.GAUGE, text)).labels().set(1)
    for page_format in Format:
        page = page_of(merged, page_format)
        assert page.count("\n") == 3 + (page_format is Format.OPENMETRICS)
        parsed(merged, page_format)
    [family] = openmetrics_parser.text_string_to_metric_families(page)
    assert family.documentation.strip() == text.strip()  # its parser strips


@given(st.floats(allow_nan=False))
@example(0.1 + 0.2)
@example(1e300)
@example(5e-324)
@example(-0.0)
@example(2.0**53)
@example(123456789012345.0)
def test_any_number_survives(value: float) -> None:
    assert float(number(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.0, "3"),
        (0.25, "0.25"),
        (-2.0, "-2"),
        (1e22, "1e+22"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_as_text(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format.TEXT),
        ("application/openmetrics-text", Format.OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format.OPENMETRICS),
        ("text/plain;q=1,application/openmetrics-text;q=0.5", Format.TEXT),
        ("application/openmetrics-text;q=0", Format.TEXT),
        ("application/openmetrics-text;version=9.0.0,text/plain;q=0.1", Format.TEXT),
        ("APPLICATION/OpenMetrics-Text", Format.OPENMETRICS),
        ("application/openmetrics-text;q=x", Format.OPENMETRICS),
        (";;,,=", Format.TEXT),
        # Prometheus 2.42 and 3 as they ask.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format.OPENMETRICS,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Format.OPENMETRICS,
        ),
    ],
)
def test_format_by_accept(accept: str, expected: Format) -> None:
    assert choose_format(accept) is expected


def test_content_types() -> None:
    assert Format.TEXT.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert Format.OPENMETRICS.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"


def test_page_comes_in_small_pieces() -> None:
    registry, merged = books()
    for label in range(1_000):
        registry.histogram(HISTOGRAM).labels(str(label)).observe(1.0)
    pieces = list(render(merged))
    assert max(piece.count("\n") for piece in pieces) < PIECE_LINES + 10
    assert "".join(pieces).count("\n") == 2 + 1_000 * 6


def test_pieces_of_long_lines_are_small_too() -> None:
    registry, merged = books()
    things = registry.counter(COUNTER)
    for label in range(500):
        things.labels("x" * 1_000, f"{label:01000}").inc()
    pieces = list(render(merged))
    assert max(map(len, pieces)) < PIECE_CHARS + 4_000
    assert "".join(pieces).count("\nthings_total{") == 500


def test_sum_of_negative_values_is_left_out_of_openmetrics() -> None:
    registry, merged = books()
    registry.histogram(Family("t", Kind.HISTOGRAM, "T.", (), (-1.0, 1.0))).labels().observe(-5.0)
    assert "t_sum -5\n" in page_of(merged)
    assert "t_sum" not in page_of(merged, Format.OPENMETRICS)
    parsed(merged, Format.OPENMETRICS)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("page_format", Format)
def test_everything_passes_promtool(preset: str, page_format: Format) -> None:
    """Every metric of headrace, under each set of names."""
    registry, merged = books()
    consumer = HTTPMetrics(registry, preset=preset)
    consumer.in_flight.set(2)
    for path, status in (("/a", 200), ('/b"\\', 500)):
        scope = {"type": "http", "method": "GET", "path": path, "headrace.route": path}
        consumer.add((scope, status, 10, 0.0, 0.5, None, 4, None))
    consumer.close()
    websockets = WebSocketMetrics(registry)
    websockets.sessions.set(1)
    websockets.messages("/ws")[0][0] += 1.0
    websockets.end("/ws", 5.0, 1000)
    registry.gauge(CONNECTIONS).labels().set(5)
    registry.counter(SHED).labels("x").inc()
    registry.counter(LIMITED).labels("x").inc()
    registry.gauge(Family("own", Kind.GAUGE, "O.", merge=Merge.ALL)).labels().set(1)
    assert len(parsed(merged, page_format)) >= 12
    if page_format is Format.OPENMETRICS:
        return  # promtool reads the older format only
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not os.environ.get("CI"), "promtool is missing: apt-get install prometheus"
        pytest.skip("promtool is missing: apt-get install prometheus")
    found = subprocess.run(
        [promtool, "check", "metrics"], input=page_of(merged), capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
