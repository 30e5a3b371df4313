"""uvicorn's access line."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.telemetry.access_lines.facts import client_text, quote_path
from headrace.telemetry.access_lines.line_format import TextTable
from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.log_formatters import level_prefix
from headrace.telemetry.log_text import bold, escape_word, status_text


class UvicornText:
    """``INFO:     127.0.0.1:1234 - "GET /path?x=1 HTTP/1.1" 200 OK``, byte for byte as uvicorn prints it."""

    def __init__(self, level_name: str, level: int, use_colors: bool) -> None:
        self._prefix = level_prefix(level_name, level, use_colors)
        self._use_colors = use_colors
        self._clients = TextTable()
        self._paths = TextTable()
        self._statuses = TextTable()
        self._methods = TextTable()

    def lines(self, exchanges: Sequence[FinishedExchange], wall_offset_s: float) -> list[str]:
        """See ``LineFormat``. The tables save half the time: most requests repeat client, path and status."""
        prefix, use_colors = self._prefix, self._use_colors
        clients, paths, statuses, methods = self._clients, self._paths, self._statuses, self._methods
        lines: list[str] = []
        for scope, status, *_ in exchanges:
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
