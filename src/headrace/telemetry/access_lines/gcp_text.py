"""Access lines for Google Cloud Logging, which takes them from stdout on Cloud Run, GKE and App Engine.

``severity``, ``time``, ``httpRequest`` and the ``logging.googleapis.com/`` keys are moved out of the payload:
https://cloud.google.com/logging/docs/structured-logging#special-payload-fields
"""

from __future__ import annotations

import os
from json.encoder import encode_basestring_ascii as encode_string

from headrace.telemetry.access_lines.facts import record_url
from headrace.telemetry.access_lines.structured_text import Keys, Request, StructuredText, latin1
from headrace.telemetry.access_sampling import Sampling

_PROJECT_VARIABLES = ("GOOGLE_CLOUD_PROJECT", "GCP_PROJECT", "GCLOUD_PROJECT")
_SEVERITIES = ("INFO", "INFO", "INFO", "INFO", "WARNING", "ERROR")
"""By the status's first digit."""


class GCPText(StructuredText):
    """One JSON object a line, in ASCII. Severity is WARNING for 4xx and ERROR for 5xx.

    Args:
        level_name: without meaning, the status says more.
        logger_name: the logger's.
        worker, sampling: as of ``StructuredText``.
    """

    def __init__(
        self,
        level_name: str = "INFO",
        logger_name: str = "uvicorn.access",
        *,
        worker: int | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__(_keys(), worker, sampling, wants_message=True)
        self._logger = encode_string(logger_name)

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
        # Sizes are of type int64, which JSON writes as strings there.
        return (
            f'{{"severity": "{severity_of(status)}", "time": "{time}", "message": "{message}", '
            f'"logger": {self._logger}, "httpRequest": {{{request}, "status": {status}, '
            f'"responseSize": "{body_bytes}", "requestSize": "{received_bytes}", '
            f'"latency": "{duration_s:.6f}s"{client}{headers}}}{ids}}}'
        )

    def _client_part(self, client: tuple[str, int | None] | None) -> str:
        return "" if client is None else f', "remoteIp": {encode_string(client[0])}'

    def _request_part(self, request: Request) -> str:
        url = record_url(request.scheme, latin1(request.host), request.path, latin1(request.query))
        return (
            f'"requestMethod": {encode_string(request.method)}, "requestUrl": {encode_string(url)}, '
            f'"protocol": {encode_string(f"HTTP/{request.http_version}")}'
        )

    def _header_part(self, user_agent: bytes | None, referer: bytes | None, host: bytes | None) -> str:
        named = (("userAgent", user_agent), ("referer", referer))
        return "".join(
            [f', "{name}": {encode_string(latin1(value))}' for name, value in named if value is not None]
        )


def severity_of(status: int) -> str:
    """The severity of a response's line."""
    return _SEVERITIES[min(status // 100, 5)]


def trace_prefix() -> str:
    """What stands before a trace id in Cloud Logging: ``projects/<project>/traces/`` if the project is known.

    Without it the id alone is written, which the agents of Cloud Run and GKE complete.
    """
    project = next((value for name in _PROJECT_VARIABLES if (value := os.environ.get(name))), None)
    return "" if project is None else f"projects/{project}/traces/"


def _keys() -> Keys:
    return Keys(
        route=', "route": ',
        request_id=', "request_id": ',
        error_type=', "error_type": ',
        before_worker=', "worker": ',
        behind_worker="",
        before_trace=f', "logging.googleapis.com/trace": {encode_string(trace_prefix())[:-1]}',
        before_span='", "logging.googleapis.com/spanId": "',
        behind_span=(
            '", "logging.googleapis.com/trace_sampled": false',
            '", "logging.googleapis.com/trace_sampled": true',
        ),
        before_sampled=', "sampled": ',
        behind_sampled="",
    )
