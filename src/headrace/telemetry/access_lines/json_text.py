"""Access lines in JSON, RFC 8259."""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as encode_string

from headrace.telemetry.access_lines.structured_text import Keys, Request, StructuredText, latin1
from headrace.telemetry.access_sampling import Sampling

_KEYS = Keys(
    route=', "route": ',
    request_id=', "request_id": ',
    error_type=', "error_type": ',
    before_worker=', "worker": ',
    behind_worker="",
    before_trace=', "trace_id": "',
    before_span='", "span_id": "',
    behind_span=('"', '"'),
    before_sampled=', "sampled": ',
    behind_sampled="",
)


class JSONText(StructuredText):
    """One JSON object a line, in ASCII; the keys are those of ``access_fields``, behind the time.

    Args:
        level_name: with it, level, logger and uvicorn's message stand behind the time, as in the other
            lines of ``--log-format json``.
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
            else f'"level": {encode_string(level_name)}, "logger": {encode_string(logger_name)}, "message": "'
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
        envelope = f'{self._envelope}{message}", ' if message else ""
        return (
            f'{{"time": "{time}", {envelope}{client}{request}"status": {status}, "bytes": {body_bytes}, '
            f'"received_bytes": {received_bytes}, "duration_ms": {duration_s * 1000:.3f}, {headers}{ids}}}'
        )

    def _client_part(self, client: tuple[str, int | None] | None) -> str:
        host, port = client or (None, None)
        return (
            f'"client": {"null" if host is None else encode_string(host)}, '
            f'"client_port": {"null" if port is None else int(port)}, '
        )

    def _request_part(self, request: Request) -> str:
        return (
            f'"method": {encode_string(request.method)}, "path": {encode_string(request.path)}, '
            f'"query": {encode_string(latin1(request.query))}, '
            f'"http_version": {encode_string(request.http_version)}, '
            f'"scheme": {encode_string(request.scheme)}, '
        )

    def _header_part(self, user_agent: bytes | None, referer: bytes | None, host: bytes | None) -> str:
        shown = [
            "null" if value is None else encode_string(latin1(value)) for value in (user_agent, referer, host)
        ]
        return f'"user_agent": {shown[0]}, "referer": {shown[1]}, "host": {shown[2]}'
