"""Access lines: uvicorn's text, Apache's combined, JSON. Templates are in ``access_template.py``.

Everything a client chose is escaped as ``log_text.py`` says.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Sequence
from json.encoder import encode_basestring_ascii as encode_string
from typing import Any, Protocol

from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.log_formatters import ACCESS_LOGGER, level_prefix
from headrace.telemetry.log_text import bold, clf_time, escape_text, escape_word, iso_utc, status_text
from headrace.types import Scope

AccessEntry = FinishedExchange

RecordArgs = tuple[str, str, str, str, int]
"""(client_addr, method, full_path, http_version, status), the args of uvicorn's access record."""

EMPTY_STRING = '""'
RECORD_MESSAGE = '%s - "%s %s HTTP/%s" %d'

_MOST_TEXTS = 2048
_LONGEST_TEXT = 400
"""Bounds of each table of texts, about a megabyte, because clients choose what goes in."""


class LineFormat(Protocol):
    """Turns entries into lines."""

    def lines(self, entries: Sequence[AccessEntry], wall_offset_s: float) -> list[str]:
        """One line for each entry, without line ends.

        Args:
            entries: finished exchanges.
            wall_offset_s: what to add to an entry's times to get Unix time.
        """


class TextTable(dict[Any, str]):
    """Short texts already made, by what they were made from; emptied when full."""

    def keep(self, key: Any, text: str) -> str:
        """Return ``text``, and remember it if it is short."""
        if len(text) <= _LONGEST_TEXT:
            if len(self) >= _MOST_TEXTS:
                self.clear()
            self[key] = text
        return text


class UvicornText:
    """``INFO:     127.0.0.1:1234 - "GET /path?x=1 HTTP/1.1" 200 OK``, byte for byte as uvicorn prints it."""

    def __init__(self, level_name: str, level: int, use_colors: bool) -> None:
        self._prefix = level_prefix(level_name, level, use_colors)
        self._use_colors = use_colors
        self._clients = TextTable()
        self._paths = TextTable()
        self._statuses = TextTable()
        self._methods = TextTable()

    def lines(self, entries: Sequence[AccessEntry], wall_offset_s: float) -> list[str]:
        """See ``LineFormat``. The tables save half the time: most requests repeat client, path and status."""
        prefix, use_colors = self._prefix, self._use_colors
        clients, paths, statuses, methods = self._clients, self._paths, self._statuses, self._methods
        lines: list[str] = []
        for scope, status, *_ in entries:
            client, path, query = scope.get("client"), scope["path"], scope["query_string"]
            method = scope["method"]
            if type(client) is list:  # ASGI allows it, so a middleware may have put one
                client = tuple(client)
            client_addr = clients.get(client)
            if client_addr is None:
                client_addr = clients.keep(client, client_text(client))
            target = paths.get(path)
            if target is None:
                target = paths.keep(path, quote_path(path))
            if query:
                target = f"{target}?{escape_word(query)}"
            shown_method = methods.get(method) or methods.keep(method, escape_word(method))
            shown_status = statuses.get(status) or statuses.keep(status, status_text(status, use_colors))
            request_line = f"{shown_method} {target} HTTP/{scope['http_version']}"
            if use_colors:
                request_line = bold(request_line)
            lines.append(f'{prefix} {client_addr} - "{request_line}" {shown_status}')
        return lines


class CombinedText:
    """Apache's combined log format; the user is always ``-`` and the time local."""

    def __init__(self) -> None:
        self._values = TextTable()

    def lines(self, entries: Sequence[AccessEntry], wall_offset_s: float) -> list[str]:
        """See ``LineFormat``."""
        return [self._line(entry, wall_offset_s) for entry in entries]

    def _line(self, entry: AccessEntry, wall_offset_s: float) -> str:
        scope, status, body_bytes, _, finished_s, _, _, _ = entry
        headers, values = dict(scope["headers"]), self._values
        referer = headers.get(b"referer") or b"-"
        shown_referer = values.get(referer) or values.keep(referer, escape_text(referer))
        agent = headers.get(b"user-agent") or b"-"
        shown_agent = values.get(agent) or values.keep(agent, escape_text(agent))
        return (
            f"{client_host(scope)} - - {clf_time(finished_s + wall_offset_s)} "
            f'"{wire_request_line(scope)}" {status} {body_bytes or "-"} "{shown_referer}" "{shown_agent}"'
        )


class JSONText:
    """One JSON object a line; the keys are those of ``access_fields``, behind the time.

    Args:
        level_name: with it, level, logger and uvicorn's message stand behind the time, as in the other
            lines of ``--log-format json``.
    """

    def __init__(self, level_name: str | None = None) -> None:
        self._level_name = level_name
        self._header_parts = TextTable()

    def lines(self, entries: Sequence[AccessEntry], wall_offset_s: float) -> list[str]:
        """See ``LineFormat``."""
        return [self._line(entry, wall_offset_s) for entry in entries]

    def _line(self, entry: AccessEntry, wall_offset_s: float) -> str:
        # Spelled out, because this costs a third of what a dict and json.dumps do.
        scope, status, body_bytes, started_s, finished_s, _, _, _ = entry
        host, port = scope.get("client") or (None, None)
        query = scope["query_string"]
        headers = dict(scope["headers"])
        known = (headers.get(b"user-agent"), headers.get(b"referer"), headers.get(b"host"))
        envelope = self._envelope(entry) if self._level_name is not None else ""
        return (
            f'{{"time": "{iso_utc(finished_s + wall_offset_s)}", {envelope}'
            f'"client": {"null" if host is None else encode_string(host)}, '
            f'"client_port": {"null" if port is None else int(port)}, '
            f'"method": {encode_string(scope["method"])}, "path": {encode_string(scope["path"])}, '
            f'"query": {encode_string(query.decode("latin-1")) if query else EMPTY_STRING}, '
            f'"http_version": {encode_string(scope["http_version"])}, "status": {status}, '
            f'"bytes": {body_bytes}, "duration_ms": {duration_ms(started_s, finished_s)}, '
            f"{self._header_parts.get(known) or self._header_part(known)}, "
            f'"scheme": {encode_string(scope["scheme"])}}}'
        )

    def _envelope(self, entry: AccessEntry) -> str:
        message = encode_string(RECORD_MESSAGE % record_args(entry))
        level_name = encode_string(str(self._level_name))
        return f'"level": {level_name}, "logger": "{ACCESS_LOGGER}", "message": {message}, '

    def _header_part(self, known: tuple[bytes | None, ...]) -> str:
        user_agent, referer, host = [
            "null" if value is None else encode_string(value.decode("latin-1")) for value in known
        ]
        text = f'"user_agent": {user_agent}, "referer": {referer}, "host": {host}'
        return self._header_parts.keep(known, text)


def access_fields(entry: AccessEntry) -> dict[str, Any]:
    """The facts of an exchange by the names of JSON lines; what is absent is None."""
    scope, status, body_bytes, started_s, finished_s, _, _, _ = entry
    headers = dict(scope["headers"])
    client = scope.get("client")
    return {
        "client": client[0] if client else None,
        "client_port": client[1] if client else None,
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "http_version": scope["http_version"],
        "status": status,
        "bytes": body_bytes,
        "duration_ms": duration_ms(started_s, finished_s),
        "user_agent": _latin1_or_none(headers.get(b"user-agent")),
        "referer": _latin1_or_none(headers.get(b"referer")),
        "host": _latin1_or_none(headers.get(b"host")),
        "scheme": scope["scheme"],
    }


def record_args(entry: AccessEntry) -> RecordArgs:
    """The args of uvicorn's access record, escaped."""
    scope = entry[0]
    full_path = quote_path(scope["path"])
    if scope["query_string"]:
        full_path = f"{full_path}?{escape_word(scope['query_string'])}"
    return (
        client_text(scope.get("client")),
        escape_word(scope["method"]),
        full_path,
        scope["http_version"],
        entry[1],
    )


def quote_path(path: str) -> str:
    """The path percent-encoded, as uvicorn logs it."""
    return urllib.parse.quote(path, errors="backslashreplace")


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
