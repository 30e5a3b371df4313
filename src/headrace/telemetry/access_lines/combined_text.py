"""Apache's combined log format."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.telemetry.access_lines.facts import client_host, wire_request_line
from headrace.telemetry.access_lines.line_format import TextTable
from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.log_text import clf_time, escape_text


class CombinedText:
    """Apache's combined log format; the user is always ``-`` and the time local."""

    def __init__(self) -> None:
        self._values = TextTable()

    def lines(self, exchanges: Sequence[FinishedExchange], wall_offset_s: float) -> list[str]:
        """See ``LineFormat``."""
        return [self._line(exchange, wall_offset_s) for exchange in exchanges]

    def _line(self, exchange: FinishedExchange, wall_offset_s: float) -> str:
        scope, status, body_bytes, _, finished_s, _, _, _ = exchange
        headers, values = dict(scope["headers"]), self._values
        referer = headers.get(b"referer") or b"-"
        shown_referer = values.get(referer) or values.keep(referer, escape_text(referer))
        agent = headers.get(b"user-agent") or b"-"
        shown_agent = values.get(agent) or values.keep(agent, escape_text(agent))
        return (
            f"{client_host(scope)} - - {clf_time(finished_s + wall_offset_s)} "
            f'"{wire_request_line(scope)}" {status} {body_bytes or "-"} "{shown_referer}" "{shown_agent}"'
        )
