"""Access lines in logfmt: ``key=value`` pairs, as Heroku, Grafana Loki and Go's loggers read them."""

from __future__ import annotations

from headrace.telemetry.access_lines.structured_text import Keys, Request, StructuredText, latin1
from headrace.telemetry.access_sampling import Sampling
from headrace.telemetry.log_text import logfmt_value

_KEYS = Keys(
    route=" route=",
    request_id=" request_id=",
    error_type=" error_type=",
    before_worker=" worker=",
    behind_worker="",
    before_trace=" trace_id=",
    before_span=" span_id=",
    behind_span=("", ""),
    before_sampled=" sampled=",
    behind_sampled="",
)


class LogfmtText(StructuredText):
    """``time=2026-03-01T12:00:00.123Z client=10.0.0.7 ... status=200``: JSON's keys, without the absent.

    Args:
        level_name: with it, level, logger and uvicorn's message stand behind the time, as in the other
            lines of ``--log-format logfmt``.
        logger_name: the logger's.
        worker, sampling: as of ``StructuredText``.
    """

    def __init__(
        self,
        level_name: str | None = None,
        logger_name: str = "uvicorn.access",
        *,
        worker: int | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__(_KEYS, worker, sampling, wants_message=level_name is not None)
        self._envelope = (
            ""
            if level_name is None
            else f'level={logfmt_value(level_name.lower())} logger={logfmt_value(logger_name)} message="'
        )

    def _line(
        self,
        time: str,
        client: str,
        request: str,
        message: str,
        status: int,
        body_bytes: int,
        received_bytes: int,
        duration_s: float,
        headers: str,
        ids: str,
    ) -> str:
        envelope = f'{self._envelope}{message}" ' if message else ""
        return (
            f"time={time} {envelope}{client}{request} status={status} bytes={body_bytes} "
            f"received_bytes={received_bytes} duration_ms={duration_s * 1000:.3f}{headers}{ids}"
        )

    def _client_part(self, client: tuple[str, int | None] | None) -> str:
        host, port = client or (None, None)
        shown_host = "" if host is None else f"client={logfmt_value(host)} "
        return shown_host if port is None else f"{shown_host}client_port={int(port)} "

    def _request_part(self, request: Request) -> str:
        query = f" query={logfmt_value(latin1(request.query))}" if request.query else ""
        return (
            f"method={logfmt_value(request.method)} path={logfmt_value(request.path)}{query} "
            f"http_version={logfmt_value(request.http_version)} scheme={logfmt_value(request.scheme)}"
        )

    def _header_part(self, user_agent: bytes | None, referer: bytes | None, host: bytes | None) -> str:
        named = (("user_agent", user_agent), ("referer", referer), ("host", host))
        return "".join(
            [f" {name}={logfmt_value(latin1(value))}" for name, value in named if value is not None]
        )

    def _encode(self, value: str) -> str:
        return logfmt_value(value)
