"""Formatters of log records for collectors: logfmt, Elastic Common Schema, Google Cloud Logging.

Records of the access log become the lines that the access log's fast way writes.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from headrace.telemetry.access_lines.ecs_text import DATASET, ECS_VERSION, host_name, is_ip
from headrace.telemetry.access_lines.facts import record_url
from headrace.telemetry.access_lines.gcp_text import severity_of, trace_prefix
from headrace.telemetry.error_text import error_text
from headrace.telemetry.log_context import CONTEXT_NAMES
from headrace.telemetry.log_formatters import encode_json, is_access_record, record_fields
from headrace.telemetry.log_text import logfmt_value

_FIRST_SERVER_ERROR = 500

_ECS_NAMES = {
    "time": "@timestamp",
    "client": "client.address",
    "client_port": "client.port",
    "method": "http.request.method",
    "path": "url.path",
    "query": "url.query",
    "http_version": "http.version",
    "scheme": "url.scheme",
    "status": "http.response.status_code",
    "bytes": "http.response.body.bytes",
    "received_bytes": "http.request.body.bytes",
    "user_agent": "user_agent.original",
    "referer": "http.request.referrer",
    "route": "labels.route",
    "worker": "labels.worker",
    "sampled": "labels.sampled",
    "error_type": "error.type",
}
"""Facts of an exchange, and what ECS calls them."""

_ECS_IDS = {"request_id": "http.request.id", "trace_id": "trace.id", "span_id": "span.id"}
"""Facts of every record inside a request."""


class LogfmtFormatter(logging.Formatter):
    """``time=... level=info logger=... message="..."``, then the record's extras, one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = record_fields(self, record)
        fields["level"] = record.levelname.lower()
        if is_access_record(record):
            fields = {name: value for name, value in fields.items() if value != "" or name == "host"}
            fields["duration_ms"] = f"{fields['duration_ms']:.3f}"
        pairs = [(name, value) for name, value in fields.items() if value is not None]
        return " ".join([f"{_logfmt_key(name)}={logfmt_value(_logfmt_text(value))}" for name, value in pairs])


class ECSFormatter(logging.Formatter):
    """One JSON object a line by the Elastic Common Schema; extras keep their names."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = record_fields(self, record)
        line: dict[str, Any] = {
            "@timestamp": fields.pop("time"),
            "log.level": fields.pop("level").lower(),
            "message": fields.pop("message"),
            "ecs.version": ECS_VERSION,
            "log.logger": fields.pop("logger"),
        }
        if is_access_record(record):
            line["event.dataset"] = DATASET
            line |= _ecs_exchange(fields)
        else:
            line |= _ecs_error(fields, record)
        ids = {_ECS_IDS[name]: fields.pop(name) for name in CONTEXT_NAMES if name in fields}
        return encode_json(_beside({**line, "process.pid": record.process, **ids}, fields))


class GCPFormatter(logging.Formatter):
    """One JSON object a line for Google Cloud Logging; extras keep their names."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = record_fields(self, record)
        is_access = is_access_record(record)
        line = {
            "severity": severity_of(fields["status"]) if is_access else _severity(record.levelno),
            "time": fields.pop("time"),
            "message": fields.pop("message"),
            "logger": fields.pop("logger"),
        }
        del fields["level"]
        if is_access:
            line["httpRequest"] = _gcp_exchange(fields)
        else:
            line["logging.googleapis.com/sourceLocation"] = {
                "file": record.pathname,
                "line": str(record.lineno),
                "function": record.funcName,
            }
            if "exception" in fields:
                # Error Reporting finds it by this name.
                line["stack_trace"] = fields.pop("exception")
        if "trace_id" in fields:
            line["logging.googleapis.com/trace"] = f"{trace_prefix()}{fields.pop('trace_id')}"
        if "span_id" in fields:
            line["logging.googleapis.com/spanId"] = fields.pop("span_id")
        return encode_json(_beside(line, fields))


def _beside(line: dict[str, Any], extras: dict[str, Any]) -> dict[str, Any]:
    """The line with the extras, which replace nothing of it."""
    return {**line, **{f"extra_{name}" if name in line else name: value for name, value in extras.items()}}


_NO_KEY = re.compile(r"[^A-Za-z0-9_.-]")


def _logfmt_key(name: str) -> str:
    return _NO_KEY.sub("_", name)


def _logfmt_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ecs_exchange(fields: dict[str, Any]) -> dict[str, Any]:
    """Take the facts of an exchange out of ``fields``."""
    client, status, host = fields.get("client"), fields["status"], fields.pop("host", None)
    line: dict[str, Any] = {"event.duration": round(fields.pop("duration_ms") * 1e6)}
    line["event.outcome"] = "success" if status < _FIRST_SERVER_ERROR else "failure"
    if client is not None and is_ip(client):
        line["client.ip"] = client
    if host is not None:
        line["url.domain"] = host_name(host)
    for label in ("sampled", "worker"):
        if label in fields:
            fields[label] = str(fields[label])
    for name, ecs_name in _ECS_NAMES.items():
        value = fields.pop(name, None)
        if value is not None and (value != "" or name != "query"):
            line[ecs_name] = value
    return line


def _ecs_error(fields: dict[str, Any], record: logging.LogRecord) -> dict[str, Any]:
    line = {}
    if "exception" in fields:
        line["error.stack_trace"] = fields.pop("exception")
    if record.exc_info and record.exc_info[0] is not None:
        line["error.type"] = record.exc_info[0].__qualname__
        line["error.message"] = error_text(record.exc_info[1])
    return line


def _gcp_exchange(fields: dict[str, Any]) -> dict[str, Any]:
    """Take the facts of an exchange out of ``fields``."""
    request = {
        "requestMethod": fields.pop("method"),
        "requestUrl": record_url(
            fields.pop("scheme"), fields.pop("host"), fields.pop("path"), fields.pop("query")
        ),
        "protocol": f"HTTP/{fields.pop('http_version')}",
        "status": fields.pop("status"),
        "responseSize": str(fields.pop("bytes")),
        "requestSize": str(fields.pop("received_bytes")),
        "latency": f"{fields.pop('duration_ms') / 1000:.6f}s",
    }
    del fields["client_port"]
    others = {"remoteIp": "client", "userAgent": "user_agent", "referer": "referer"}
    for gcp_name, name in others.items():
        value = fields.pop(name)
        if value is not None:
            request[gcp_name] = value
    return request


def _severity(level: int) -> str:
    """Cloud Logging's name for the highest of its levels that is not above ``level``."""
    names = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"))
    return next((name for least, name in names if level >= least), "DEBUG")
