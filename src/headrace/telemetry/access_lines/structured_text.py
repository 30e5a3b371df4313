"""What JSON, logfmt, ECS and Cloud Logging's lines have in common: named values, most of which repeat.

Spelled out, because this costs a third of what a dict and an encoder do. A format says how the parts are
written; the tables remember those of clients, requests, request headers and routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as encode_string
from typing import Any, NamedTuple

from headrace.telemetry.access_lines.facts import client_text, error_type, quote_path
from headrace.telemetry.access_lines.line_format import TextTable
from headrace.telemetry.access_sampling import Sampling
from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.log_text import escape_word, iso_utc_ms
from headrace.telemetry.route import route_template


class Request(NamedTuple):
    """What the request line says. The query is in bytes; the host, the client's own word, may be missing."""

    method: str
    path: str
    query: bytes | None
    http_version: str
    scheme: str
    host: bytes | None


class Keys(NamedTuple):
    """What stands before and behind the values of facts that not every request has, separators included."""

    route: str
    request_id: str
    error_type: str
    before_worker: str
    behind_worker: str
    before_trace: str
    before_span: str
    behind_span: tuple[str, str]
    """The trace is not recorded; it is."""
    before_sampled: str
    behind_sampled: str


class StructuredText:
    """A format of named values.

    Args:
        keys: of the facts that may be missing.
        worker: which process this is, if there are several.
        sampling: of the lines; if it draws, each line says the share it stands for.
        wants_message: the lines hold uvicorn's message.
    """

    def __init__(
        self, keys: Keys, worker: int | None, sampling: Sampling | None, *, wants_message: bool
    ) -> None:
        self._keys = keys
        self._worker_part = "" if worker is None else f"{keys.before_worker}{worker}{keys.behind_worker}"
        self._sampling = sampling if sampling is not None and sampling.draws else None
        self._wants_message = wants_message
        self._clients = TextTable()
        self._requests = TextTable()
        self._headers = TextTable()
        self._routes = TextTable()
        self._messages = TextTable()

    def lines(self, exchanges: Sequence[FinishedExchange], wall_offset_s: float) -> list[str]:
        """See ``LineFormat``."""
        clients, requests, headers = self._clients, self._requests, self._headers
        lines: list[str] = []
        last_ms, time_text, message = -1, "", ""
        for exchange in exchanges:
            scope, status, body_bytes, started_s, finished_s, _, received_bytes, _ = exchange
            wall_ms = int((finished_s + wall_offset_s) * 1000)
            if wall_ms != last_ms:
                last_ms, time_text = wall_ms, iso_utc_ms(wall_ms)
            client = scope.get("client")
            if type(client) is list:  # ASGI allows it, so a middleware may have put one
                client = tuple(client)
            fields = dict(scope["headers"])
            host = fields.get(b"host")
            known = (fields.get(b"user-agent"), fields.get(b"referer"), host)
            request = (
                scope["method"], scope["path"], scope["query_string"], scope["http_version"], scope["scheme"],
                host,
            )  # fmt: skip
            if self._wants_message:
                message = self._message(client, request, status)
            duration_s = finished_s - started_s if finished_s > started_s else 0.0
            lines.append(
                self._line(
                    time_text,
                    clients.get(client) or clients.keep(client, self._client_part(client)),
                    requests.get(request) or requests.keep(request, self._request_part(Request(*request))),
                    message,
                    status,
                    body_bytes,
                    received_bytes,
                    duration_s,
                    headers.get(known) or headers.keep(known, self._header_part(*known)),
                    self._ids(exchange),
                )
            )
        return lines

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
        """One line of its parts.

        Args:
            time: ISO 8601, UTC.
            client, request, headers: as made by the methods below.
            message: of uvicorn's record, the inside of a JSON string; empty where the format wants none.
            status, body_bytes, received_bytes, duration_s: of the exchange.
            ids: everything that ``Keys`` is about.
        """
        raise NotImplementedError

    def _client_part(self, client: tuple[str, int | None] | None) -> str:
        raise NotImplementedError

    def _request_part(self, request: Request) -> str:
        raise NotImplementedError

    def _header_part(self, user_agent: bytes | None, referer: bytes | None, host: bytes | None) -> str:
        raise NotImplementedError

    def _encode(self, value: str) -> str:
        """A value, made safe."""
        return encode_string(value)

    def _ids(self, exchange: FinishedExchange) -> str:
        """Route, request id, trace, error, worker, share; those that are there."""
        scope, keys = exchange[0], self._keys
        text = ""
        route = route_template(scope)
        if route is not None:
            text = self._routes.get(route) or self._routes.keep(route, f"{keys.route}{self._encode(route)}")
        state = scope.get("state")
        request_id = state.get("request_id") if state else None
        if request_id is not None:
            text = f"{text}{keys.request_id}{self._encode(str(request_id))}"
        span = scope.get("headrace.span")
        if span is not None:
            # Half the time of a format's 032x.
            trace_id, span_id = span.trace_id.to_bytes(16, "big").hex(), span.span_id.to_bytes(8, "big").hex()
            behind_span = keys.behind_span[span.is_sampled]
            text = f"{text}{keys.before_trace}{trace_id}{keys.before_span}{span_id}{behind_span}"
        error = exchange[7]
        if error is not None:
            text = f"{text}{keys.error_type}{self._encode(error_type(error))}"
        if self._sampling is not None:
            share = self._sampling.share_of(exchange[1], exchange[4] - exchange[3])
            return f"{text}{self._worker_part}{keys.before_sampled}{share!r}{keys.behind_sampled}"
        return f"{text}{self._worker_part}"

    def _message(self, client: tuple[str, int | None] | None, request: tuple[Any, ...], status: int) -> str:
        # What is escaped for text lines is printable ASCII without quotes; only backslashes are left to JSON.
        client_addr = self._messages.get(client)
        if client_addr is None:
            client_addr = self._messages.keep(client, client_text(client).replace("\\", "\\\\"))
        line = self._messages.get(request)
        if line is None:
            method, path, query, http_version = request[:4]
            target = f"{quote_path(path)}?{escape_word(query)}" if query else quote_path(path)
            line = f"{escape_word(method)} {target} HTTP/{http_version}".replace("\\", "\\\\")
            self._messages.keep(request, line)
        return f'{client_addr} - \\"{line}\\" {status}'


def latin1(value: bytes | None) -> str:
    """A header's value as text, one character a byte; empty for none."""
    return value.decode("latin-1") if value else ""
