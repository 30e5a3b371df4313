"""The facts of a finished exchange as log lines show them.

Everything a client chose is escaped as ``log_text.py`` says, but in ``access_fields``.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any

from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.log_text import escape_text, escape_word
from headrace.telemetry.route import route_template
from headrace.types import Scope

RecordArgs = tuple[str, str, str, str, int]
"""(client_addr, method, full_path, http_version, status), the args of uvicorn's access record."""

RECORD_MESSAGE = '%s - "%s %s HTTP/%s" %d'

SOMETIMES = ("route", "request_id", "trace_id", "span_id", "error_type", "worker", "sampled")
"""Names of facts that not every exchange has; structured lines leave out the absent ones."""


def access_fields(
    exchange: FinishedExchange, worker: int | None = None, sampled: float | None = None
) -> dict[str, Any]:
    """The facts of an exchange by the names and in the order of JSON lines; what is absent is None.

    Args:
        exchange: any.
        worker: which process this is, if there are several.
        sampled: share of the lines like this one that is written; None where all are.
    """
    scope, status, body_bytes, started_s, finished_s, _, received_bytes, error = exchange
    headers = dict(scope["headers"])
    client = scope.get("client")
    trace_id, span_id = trace_ids(scope)
    return {
        "client": client[0] if client else None,
        "client_port": client[1] if client else None,
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "http_version": scope["http_version"],
        "scheme": scope["scheme"],
        "status": status,
        "bytes": body_bytes,
        "received_bytes": received_bytes,
        "duration_ms": duration_ms(started_s, finished_s),
        "user_agent": _latin1_or_none(headers.get(b"user-agent")),
        "referer": _latin1_or_none(headers.get(b"referer")),
        "host": _latin1_or_none(headers.get(b"host")),
        "route": route_template(scope),
        "request_id": request_id(scope),
        "trace_id": trace_id,
        "span_id": span_id,
        "error_type": None if error is None else error_type(error),
        "worker": worker,
        "sampled": sampled,
    }


def record_args(exchange: FinishedExchange) -> RecordArgs:
    """The args of uvicorn's access record, escaped."""
    scope = exchange[0]
    full_path = quote_path(scope["path"])
    if scope["query_string"]:
        full_path = f"{full_path}?{escape_word(scope['query_string'])}"
    return (
        client_text(scope.get("client")),
        escape_word(scope["method"]),
        full_path,
        scope["http_version"],
        exchange[1],
    )


def request_id(scope: Scope) -> str | None:
    """What the request-id layer, or the application, put into the scope's state."""
    state = scope.get("state")
    value = state.get("request_id") if state else None
    return None if value is None else str(value)


def trace_ids(scope: Scope) -> tuple[str, str] | tuple[None, None]:
    """Trace id and span id in hexadecimal, 32 and 16 digits, or twice None."""
    span = scope.get("headrace.span")
    return (None, None) if span is None else (f"{span.trace_id:032x}", f"{span.span_id:016x}")


def error_type(error: BaseException) -> str:
    """The class of an error, with its module unless it is built in, as OpenTelemetry's ``error.type``."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def quote_path(path: str) -> str:
    """The path percent-encoded, as uvicorn logs it."""
    return urllib.parse.quote(path, errors="backslashreplace")


def record_url(scheme: str, host: str | None, path: str, query: str) -> str:
    """The whole URL, percent-encoded and escaped; without a host only path and query."""
    target = f"{quote_path(path)}?{escape_word(query)}" if query else quote_path(path)
    return f"{scheme}://{escape_word(host)}{target}" if host else target


def client_text(client: Sequence[Any] | None) -> str:
    """``host:port``; only the host without a port; empty for an unknown client (Unix sockets)."""
    if not client:
        return ""
    host, port = client[0], client[1]
    return escape_word(str(host)) if port is None else f"{escape_word(str(host))}:{port}"


def client_host(scope: Scope) -> str:
    """The client's address alone, or ``-``."""
    client = scope.get("client")
    return (escape_word(str(client[0])) if client else "") or "-"


def wire_request_line(scope: Scope) -> str:
    """``GET /caf%C3%A9?x=1 HTTP/1.1``: the target as the client sent it."""
    target = escape_word(scope.get("raw_path") or quote_path(scope["path"]))
    if scope["query_string"]:
        target = f"{target}?{escape_word(scope['query_string'])}"
    return f"{escape_word(scope['method'])} {target} HTTP/{scope['http_version']}"


def duration_s(started_s: float, finished_s: float) -> float:
    """Never negative, whatever the clock's resolution."""
    return max(0.0, finished_s - started_s)


def duration_ms(started_s: float, finished_s: float) -> float:
    """To the microsecond."""
    return round((finished_s - started_s) * 1000, 3) if finished_s > started_s else 0.0


def header_text(headers: Iterable[tuple[bytes, bytes]] | None, name: bytes) -> str:
    """The values of a header, joined by comma and space, escaped; ``-`` when there is none.

    Args:
        headers: (name, value) pairs, names in any case.
        name: lower-case.
    """
    values = [value for key, value in headers or () if key.lower() == name]
    return escape_text(b", ".join(values)) if values else "-"


def _latin1_or_none(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
