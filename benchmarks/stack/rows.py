"""The rows of the tables: how each is started, and what must have come of its requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.servers import Server

FASTAPI = "benchmarks.fastapi_application:app"
RAW = "benchmarks.applications:hello"
RECIPE = "benchmarks.stack.recipe"

EXPORT_DELAY_S = 0.5
"""Time in which a span leaves at the latest; the default of 5 s would make each sample wait that long."""

Subject = Literal["fastapi", "raw"]


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a row's server sends its spans, and shows its figures."""

    sink: int
    admin: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the requests of a row must leave behind.

    Attributes:
        fields: of each response.
        lines: whether each request is a line of the log.
        metrics: where the count of requests is to be read: on the control surface's page, or on the
            application's own; empty where nowhere.
        sampled: share of requests that are a span; None where there is no tracing.
    """

    fields: tuple[str, ...] = ()
    lines: bool = False
    metrics: Literal["", "admin", "application"] = ""
    sampled: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        name: as on the command line.
        title: as in the table.
        application: module:attribute.
        program: the arguments after "python -m" but for application and port.
        evidence: what it must leave behind.
    """

    name: str
    title: str
    subject: Subject
    application: str
    program: tuple[str, ...]
    evidence: Evidence

    def server(self, ports: Ports) -> Server:
        """How to start it."""

        def command(application: str, port: int) -> list[str]:
            program, *arguments = self.program
            if self.evidence.metrics == "admin":
                arguments += ["--admin", f"127.0.0.1:{ports.admin}"]
            return [
                *("/usr/bin/env", *self._variables(ports)),
                *("python", "-m", program, *arguments, "--port", str(port), application),
            ]

        return Server(self.name, "", command)

    def _variables(self, ports: Ports) -> list[str]:
        """What OpenTelemetry's specification calls them; `env` puts them into the server's environment."""
        if self.evidence.sampled is None:
            return []
        return [
            "OTEL_SERVICE_NAME=benchmark",
            "OTEL_TRACES_EXPORTER=otlp",
            "OTEL_METRICS_EXPORTER=none",
            "OTEL_LOGS_EXPORTER=none",
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
            f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{ports.sink}",
            f"OTEL_BSP_SCHEDULE_DELAY={EXPORT_DELAY_S * 1000:.0f}",
            "OTEL_TRACES_SAMPLER=parentbased_traceidratio",
            f"OTEL_TRACES_SAMPLER_ARG={self.evidence.sampled}",
        ]


# --- uvicorn ---------------------------------------------------------------------------------------------

_UVICORN = ("uvicorn", "--host", "127.0.0.1", "--loop", "uvloop", "--http", "httptools")
_QUIET = "--no-access-log"


def _recipe(name: str, title: str, stage: str, evidence: Evidence) -> Row:
    """A stage of the usual recipe; the log goes where standard output goes, which is a file."""
    options = ["--factory"]
    if not evidence.lines:
        options.append(_QUIET)
    if evidence.sampled is not None:
        # Without it a request that comes while the last one's task still runs starts in that one's context:
        # behind a BaseHTTPMiddleware that is most of them, and their spans are children of a stranger's.
        options.append("--reset-contextvars")
    return Row(name, title, "fastapi", f"{RECIPE}:{stage}", (*_UVICORN, *options), evidence)


def _bare_uvicorn(name: str, subject: Subject, application: str) -> Row:
    return Row(name, "uvicorn, bare", subject, application, (*_UVICORN, _QUIET), Evidence())


# --- headrace --------------------------------------------------------------------------------------------

_HEADRACE = ("headrace", "run", "--host", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the stack: its options, and what it leaves behind."""

    options: tuple[str, ...]
    fields: tuple[str, ...] = ()
    lines: bool = False
    metrics: bool = False
    sampled: float | None = None


REQUEST_ID = Layer(("--request-id",), fields=("x-request-id",))
TIMING = Layer(("--timing",), fields=("x-process-time", "server-timing"))
METRICS = Layer(("--metrics",), metrics=True)
LOG = Layer(("--access-log-format", "json"), lines=True)
UNSAMPLED = Layer(("--tracing",), sampled=0.0)
TENTH = Layer(("--tracing",), sampled=0.1)
ALL = Layer(("--tracing",), sampled=1.0)


def _whole(sampled: float) -> Layer:
    """All of them, by the one flag that a user would give."""
    fields = (*REQUEST_ID.fields, *TIMING.fields)
    return Layer(("--stack", *LOG.options), fields, lines=True, metrics=True, sampled=sampled)


EACH = {
    "request-id": ("request id", REQUEST_ID),
    "timing": ("timing", TIMING),
    "metrics": ("metrics", METRICS),
    "log": ("JSON access log", LOG),
    "trace-0": ("tracing, none sampled", UNSAMPLED),
    "trace-10": ("tracing, 10 % sampled", TENTH),
    "trace-100": ("tracing, all sampled", ALL),
}
"""Each layer alone, as named in the rows."""

GROWING = {
    "grow-2": ("request id, timing", (REQUEST_ID, TIMING)),
    "grow-3": ("request id, timing, metrics", (REQUEST_ID, TIMING, METRICS)),
    "grow-4": ("request id, timing, metrics, log", (REQUEST_ID, TIMING, METRICS, LOG)),
    "stack-0": ("whole stack, none sampled", (_whole(0.0),)),
    "stack-10": ("whole stack, 10 % sampled", (_whole(0.1),)),
    "stack-100": ("whole stack, all sampled", (_whole(1.0),)),
}


def _layered(name: str, title: str, subject: Subject, application: str, layers: tuple[Layer, ...]) -> Row:
    """headrace with these layers and no others."""
    has_lines = any(layer.lines for layer in layers)
    sampled = [layer.sampled for layer in layers if layer.sampled is not None]
    options = [option for layer in layers for option in layer.options]
    if not has_lines:
        options.append(_QUIET)
    has_metrics = any(layer.metrics for layer in layers)
    if not has_metrics:
        options += ["--admin", "off"]
    evidence = Evidence(
        fields=tuple(field for layer in layers for field in layer.fields),
        lines=has_lines,
        metrics="admin" if has_metrics else "",
        sampled=sampled[0] if sampled else None,
    )
    return Row(name, title, subject, application, (*_HEADRACE, *options), evidence)


def _all_layered(subject: Subject, application: str, prefix: str = "") -> list[Row]:
    rows = [_layered(f"{prefix}headrace", "headrace, bare", subject, application, ())]
    for name, (title, layer) in EACH.items():
        rows.append(_layered(f"{prefix}{name}", f"+ {title}", subject, application, (layer,)))
    for name, (title, layers) in GROWING.items():
        rows.append(_layered(f"{prefix}{name}", title, subject, application, layers))
    return rows


_TIMED = Evidence(fields=("x-process-time",))
_MEASURED = Evidence(fields=("x-process-time",), metrics="application")
_TRACED_TENTH = Evidence(fields=("x-process-time",), metrics="application", lines=True, sampled=0.1)
_TRACED = Evidence(fields=("x-process-time",), metrics="application", lines=True, sampled=1.0)

ROWS = {
    row.name: row
    for row in (
        _bare_uvicorn("uvicorn", "fastapi", FASTAPI),
        _recipe("recipe-timing", "uvicorn + timing", "timing", _TIMED),
        _recipe("recipe-metrics", "uvicorn + timing, metrics", "metrics", _MEASURED),
        _recipe("recipe-10", "uvicorn, the recipe, 10 % sampled", "whole", _TRACED_TENTH),
        _recipe("recipe", "uvicorn, the recipe", "whole", _TRACED),
        *_all_layered("fastapi", FASTAPI),
        _bare_uvicorn("raw-uvicorn", "raw", RAW),
        *_all_layered("raw", RAW, "raw-"),
    )
}
