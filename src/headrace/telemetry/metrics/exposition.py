"""The page a scraper reads: Prometheus' text format 0.0.4, or OpenMetrics 1.0, which has exemplars.

It is made in pieces of at most a millisecond or so, because the loop that makes it has other work as well.
Between two pieces it may be left for as long as one likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import lru_cache

from headrace.telemetry.metrics.family import Family, Kind, legal_text
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.merged_family import SeriesValue
from headrace.telemetry.metrics.series import bucket_of
from headrace.telemetry.metrics.store import Exemplar

PIECE_LINES = 300
"""Lines after which a piece ends: half a millisecond, with the figures of four processes to be added
(2026-11-25)."""

PIECE_CHARS = 65_536
"""The same for long lines, roughly."""

_EXACT = 2.0**53


class Format(Enum):
    """How the page is written; the value is its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    @property
    def content_type(self) -> str:
        """The response's ``content-type``."""
        return self.value


def choose_format(accept: str) -> Format:
    """The format for an ``Accept`` field (RFC 9110 §12.5.1): OpenMetrics for who prefers it, else text.

    Args:
        accept: the field's value, several joined by commas; empty when there is none.
    """
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0, "*/*": 0.0, "text/*": 0.0}
    for item in accept.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        fields = dict(part.partition("=")[::2] for part in parameters)
        is_readable = fields.get("version", "1.0.0").strip('"') in ("0.0.1", "1.0.0", "0.0.4")
        if name in weights and is_readable:
            weights[name] = max(weights[name], _weight(fields.get("q", "1")))
    openmetrics = weights.pop("application/openmetrics-text")
    return Format.OPENMETRICS if openmetrics > 0 and openmetrics >= max(weights.values()) else Format.TEXT


def render(merged: Merged, page_format: Format = Format.TEXT) -> Iterator[str]:
    """The page in pieces, some of them empty; joined they are the whole.

    Args:
        merged: the books; they are looked at first.
        page_format: how it is written.
    """
    while merged.look():
        yield ""
    is_open = page_format is Format.OPENMETRICS
    lines: list[str] = []
    size = 0
    name = ""
    for merged_family in merged.families():
        if merged_family.family.name != name:
            name = merged_family.family.name
            lines += _head(merged_family.family, is_open)
        write = _WRITERS[merged_family.family.kind]
        for series in merged_family.series():
            before = len(lines)
            write(lines, merged_family.family, series, is_open)
            size += (len(lines) - before) * len(lines[-1])
            if len(lines) >= PIECE_LINES or size >= PIECE_CHARS:
                yield "".join(lines)
                lines.clear()
                size = 0
    if is_open:
        lines.append("# EOF\n")
    yield "".join(lines)


def _head(family: Family, is_open: bool) -> list[str]:
    """What stands once above a metric's lines."""
    text = legal_text(family.help).replace("\\", "\\\\").replace("\n", "\\n")
    name = family.name
    if is_open:
        text = text.replace('"', '\\"')
    elif family.kind is Kind.COUNTER:
        # OpenMetrics names the metric, the older format the line.
        name += "_total"
    return [f"# HELP {name} {text}\n", f"# TYPE {name} {family.kind.value}\n"]


def _write_counter(lines: list[str], family: Family, series: SeriesValue, is_open: bool) -> None:
    labels = _labels(family.page_labels, series.labels)
    end = _exemplar(series.exemplar) if is_open and series.exemplar else ""
    lines.append(f"{family.name}_total{_braced(labels)} {number(series.values[0])}{end}\n")


def _write_gauge(lines: list[str], family: Family, series: SeriesValue, is_open: bool) -> None:
    labels = _labels(family.page_labels, series.labels)
    lines.append(f"{family.name}{_braced(labels)} {number(series.values[0])}\n")


def _write_summary(lines: list[str], family: Family, series: SeriesValue, is_open: bool) -> None:
    labels = _braced(_labels(family.page_labels, series.labels))
    count, total = series.values
    lines.append(f"{family.name}_count{labels} {number(count)}\n")
    lines.append(f"{family.name}_sum{labels} {number(total)}\n")


def _write_histogram(lines: list[str], family: Family, series: SeriesValue, is_open: bool) -> None:
    labels = _labels(family.page_labels, series.labels)
    exemplar = series.exemplar if is_open else None
    at = bucket_of(series.buckets, exemplar.value) if exemplar else -1
    start = f"{family.name}_bucket{{{labels}{',' if labels else ''}"
    total = 0.0
    for index, (bound, count) in enumerate(zip(_bounds(series.buckets), series.values, strict=False)):
        total += count
        end = _exemplar(exemplar) if exemplar and index == at else ""
        # An inlined ``number`` for whole ones: nine tenths of a page are these lines.
        shown = int(total) if total < _EXACT and total == total // 1 else number(total)
        lines.append(f"{start}{bound} {shown}{end}\n")
    if is_open and series.buckets and series.buckets[0] < 0:
        # With negative values the sum may fall; OpenMetrics then has neither sum nor count.
        return
    braced = _braced(labels)
    lines.append(f"{family.name}_count{braced} {number(total)}\n")
    lines.append(f"{family.name}_sum{braced} {number(series.values[-1])}\n")


_WRITERS = {
    Kind.COUNTER: _write_counter,
    Kind.GAUGE: _write_gauge,
    Kind.SUMMARY: _write_summary,
    Kind.HISTOGRAM: _write_histogram,
}


def number(value: float) -> str:
    """A number as both formats read it: the shortest text that is exactly it."""
    if value - value != 0:  # infinite, or none
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)


@lru_cache(maxsize=256)
def _bounds(buckets: tuple[float, ...]) -> tuple[str, ...]:
    """The end of each bucket's labels. Bounds are written as floats (``1.0``), the canonical form."""
    return (*(f'le="{bound!r}"}}' for bound in buckets), 'le="+Inf"}')


@lru_cache(maxsize=4_096)
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    """Names and values without braces."""
    return ",".join(f'{name}="{escaped(value)}"' for name, value in zip(names, values, strict=True))


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def escaped(value: str) -> str:
    """A label's value between its quotes."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _exemplar(exemplar: Exemplar) -> str:
    """What stands behind the value; names as Grafana and the OpenTelemetry collector know them."""
    ids = f'trace_id="{exemplar.trace_id:032x}",span_id="{exemplar.span_id:016x}"'
    return f" # {{{ids}}} {number(exemplar.value)} {exemplar.time_s:.3f}"


def _weight(text: str) -> float:
    """A q value; what is none counts as 1."""
    try:
        return float(text)
    except ValueError:
        return 1.0
