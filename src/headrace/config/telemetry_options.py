"""Options of the stack and of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from headrace.config.option import option


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """The production stack: its layers, each on by ``--stack`` or by its own flag."""

    stack: bool = option(
        False,
        "Switch every layer of the stack on: request id, tracing (where OTEL_* variables say where to), "
        "metrics, timing; a layer's own flag has the last word",
    )
    request_id: bool | None = option(
        None, "Give each request an id: in the response, in log lines, in scope['state']", pair=True
    )
    request_id_header: str = option(
        "X-Request-ID", "Field the request id is taken from and answered in", metavar="NAME"
    )
    timing: bool | None = option(
        None, "Say in X-Process-Time and Server-Timing how long each response took", pair=True
    )
    metrics: bool | None = option(
        None,
        "Keep figures for Prometheus, of all workers in one page: /metrics of the control surface",
        pair=True,
    )
    metrics_preset: Literal["classic", "otel", "instrumentator"] = option(
        "classic",
        "Names of HTTP's metrics: headrace's own, OpenTelemetry's, or those of "
        "prometheus-fastapi-instrumentator",
    )
    metrics_buckets: str = option(
        "0.005,0.01,0.025,0.05,0.075,0.1,0.25,0.5,0.75,1,2.5,5,7.5,10",
        "Upper bounds of the request durations' buckets, in seconds, rising",
        metavar="SECONDS,...",
        joined_by=",",
    )
    metrics_max_series: int = option(
        2_000,
        "Series of one metric in one worker; what would be more is counted in headrace_series_dropped_total",
        minimum=1,
        maximum=100_000,
        unit="series",
    )
    tracing: bool | None = option(
        None,
        "Make a span of each request, as the OTEL_* variables say (extra tracing)",
        pair=True,
    )

    def has(self, layer: str) -> bool:
        """Whether a layer is on: by its own flag, else by ``--stack``.

        Args:
            layer: the field's name.
        """
        own: bool | None = getattr(self, layer)
        return self.stack if own is None else own


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is written, where and how."""

    log_level: str | None = option(
        None, "Level of the log; info without it", uvicorn=True,
        choices=("critical", "error", "warning", "info", "debug", "trace"),
    )  # fmt: skip
    log_config: Any = option(
        None,
        "Logging configuration: .ini, .json or .yaml (extra yaml)",
        uvicorn=True,
        exists=True,
        metavar="FILE",
    )
    log_format: Literal["text", "json", "pretty", "logfmt", "ecs", "gcp"] = option(
        "text", "Shape of log lines, the access log's too; pretty is for eyes, and what dev writes"
    )
    access_log: bool = option(True, "Write a line for each request", uvicorn=True, pair=True)
    access_log_format: str = option(
        "uvicorn",
        "uvicorn, combined, json, logfmt, ecs, gcp, or a template of gunicorn's %-atoms such as "
        "'%(h)s %(r)s %(s)s %(L)s'",
        metavar="FORMAT",
    )
    access_log_sample: float = option(
        1.0,
        "Share of the lines of 2xx and 3xx responses that is written; slow ones and errors always are",
        minimum=0,
        maximum=1,
    )
    access_log_slow: float = option(
        1.0, "Duration above which a line is written whatever the sampling says", unit="s", minimum=0
    )
    access_log_skip: tuple[str, ...] = option(
        (),
        "Path that gets no access line, such as a health check's; a * at its end stands for the rest; "
        "repeatable",
        metavar="PATH",
    )
    use_colors: bool | None = option(None, "Colours; by default on a terminal only", uvicorn=True, pair=True)
