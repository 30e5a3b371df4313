"""Access lines by the Elastic Common Schema, as Filebeat and Elastic Agent take them unparsed.

The first four keys are those of the ECS logging specification, in its order; the others of ECS
https://www.elastic.co/docs/reference/ecs. Names are written with dots, which Elasticsearch takes for objects.
"""

from __future__ import annotations

import ipaddress
import os
import re
from json.encoder import encode_basestring_ascii as encode_string

from headrace.telemetry.access_lines.structured_text import Keys, Request, StructuredText, latin1
from headrace.telemetry.access_sampling import Sampling

ECS_VERSION = "8.11.0"
DATASET = "headrace.access"

_FIRST_SERVER_ERROR = 500
_PORT = re.compile(r"(?<!:):\d*$")
_KEYS = Keys(
    # What ECS has no field for is a label; labels are strings.
    route=', "labels.route": ',
    request_id=', "http.request.id": ',
    error_type=', "error.type": ',
    before_worker=', "labels.worker": "',
    behind_worker='"',
    before_trace=', "trace.id": "',
    before_span='", "span.id": "',
    behind_span=('"', '"'),
    before_sampled=', "labels.sampled": "',
    behind_sampled='"',
)


class ECSText(StructuredText):
    """One JSON object a line, in ASCII, with the names of ECS.

    Args:
        level_name: ``log.level``, in lower case.
        logger_name: ``log.logger``.
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
        super().__init__(_KEYS, worker, sampling, wants_message=True)
        self._level = encode_string(level_name.lower())
        self._constant = (
            f'"ecs.version": "{ECS_VERSION}", "log.logger": {encode_string(logger_name)}, '
            f'"event.dataset": "{DATASET}", "process.pid": {os.getpid()}'
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
        outcome = "success" if status < _FIRST_SERVER_ERROR else "failure"
        return (
            f'{{"@timestamp": "{time}", "log.level": {self._level}, "message": "{message}", {self._constant}'
            f'{client}{request}, "http.response.status_code": {status}, '
            f'"http.response.body.bytes": {body_bytes}, "http.request.body.bytes": {received_bytes}, '
            f'"event.duration": {round(duration_s * 1e9)}, '
            f'"event.outcome": "{outcome}"{headers}{ids}}}'
        )

    def _client_part(self, client: tuple[str, int | None] | None) -> str:
        if client is None:
            return ""
        host, port = client
        part = f', "client.address": {encode_string(host)}'
        if is_ip(host):
            # A field of type ip: Elasticsearch refuses the whole line for one that is none.
            part += f', "client.ip": {encode_string(host)}'
        return part if port is None else f'{part}, "client.port": {int(port)}'

    def _request_part(self, request: Request) -> str:
        query = f', "url.query": {encode_string(latin1(request.query))}' if request.query else ""
        return (
            f', "http.request.method": {encode_string(request.method)}, '
            f'"http.version": {encode_string(request.http_version)}, '
            f'"url.path": {encode_string(request.path)}{query}, "url.scheme": {encode_string(request.scheme)}'
        )

    def _header_part(self, user_agent: bytes | None, referer: bytes | None, host: bytes | None) -> str:
        named = (
            ("user_agent.original", user_agent),
            ("http.request.referrer", referer),
            ("url.domain", None if host is None else host_name(latin1(host)).encode("latin-1")),
        )
        return "".join(
            [f', "{name}": {encode_string(latin1(value))}' for name, value in named if value is not None]
        )


def host_name(host: str) -> str:
    """A Host field without its port; an IPv6 address keeps its brackets, as ``url.domain`` asks."""
    return _PORT.sub("", host)


def is_ip(text: str) -> bool:
    """Whether Elasticsearch takes it for an address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # a scoped address is none to Elasticsearch
