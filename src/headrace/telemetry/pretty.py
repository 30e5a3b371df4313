"""Lines for eyes, ``--log-format pretty``: what ``headrace dev`` writes.

``12:34:56  Application startup complete.``
``12:34:57  GET /items?x=1                    200    1.2 ms  2.5 kB``
"""

from __future__ import annotations

import copy
import logging
import os
import re
import time
from collections.abc import Sequence
from functools import lru_cache

from headrace.telemetry.access_lines.facts import RECORD_MESSAGE, duration_ms, record_args
from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.log_formatters import DefaultFormatter, shown_request_id
from headrace.telemetry.log_text import bold, colour_level

_SERVER_LOGGER = "uvicorn.error"

_REQUEST_WIDTH = 30
"""Columns of method and target; a longer one pushes what follows it to the right."""

_STATUS_COLOURS = {2: 32, 3: 36, 4: 33, 5: 31}
"""Green, cyan, yellow and red by the status's first digit; others stay plain."""

_PROCESS_NUMBER = re.compile(r"(process|Worker \d+) \[\d+\]")


class PrettyText:
    """Access lines: time, method and target, status, duration, size of the body if there is one.

    Args:
        use_colors: mark the request and colour the status.
    """

    def __init__(self, use_colors: bool) -> None:
        self._use_colors = use_colors

    def lines(self, exchanges: Sequence[FinishedExchange], wall_offset_s: float) -> list[str]:
        """See ``LineFormat``."""
        return [self._exchange_line(exchange, wall_offset_s) for exchange in exchanges]

    def line(
        self, wall_s: float, request: str, status: int, lasted_ms: float | None, body_bytes: int | None
    ) -> str:
        """One line.

        Args:
            wall_s: Unix time.
            request: method and target, escaped.
            status: of the response.
            lasted_ms, body_bytes: None where they are not known.
        """
        use_colors, padding = self._use_colors, " " * (_REQUEST_WIDTH - len(request))
        facts = "" if lasted_ms is None else f" {_duration_text(lasted_ms):>8}"
        if body_bytes:
            facts = f"{facts} {_size_text(body_bytes):>7}"
        shown_status = str(status)
        if use_colors:
            request, facts = bold(request), _dim(facts)
            colour = _STATUS_COLOURS.get(status // 100)
            shown_status = shown_status if colour is None else f"\033[{colour}m{shown_status}\033[0m"
        return f"{_time_text(wall_s, use_colors)}  {request}{padding}  {shown_status}{facts}"

    def _exchange_line(self, exchange: FinishedExchange, wall_offset_s: float) -> str:
        _, status, body_bytes, started_s, finished_s, _, _, _ = exchange
        _, method, full_path, _, _ = record_args(exchange)
        lasted_ms = duration_ms(started_s, finished_s)
        return self.line(finished_s + wall_offset_s, f"{method} {full_path}", status, lasted_ms, body_bytes)


class PrettyFormatter(DefaultFormatter):
    """For every logger: the time, the level where it is not info, the message.

    A record of the access log becomes a line of ``PrettyText``; one with ``access_line`` (another
    ``--access-log-format``) becomes that line. Process numbers in the server's own messages are left out.

    Args:
        use_colors: None means colours on a terminal, unless the variable ``NO_COLOR`` has a value.
    """

    def __init__(self, use_colors: bool | None = None) -> None:
        super().__init__(use_colors=use_colors)
        self._access_text = PrettyText(self.use_colors)

    def should_use_colors(self) -> bool:
        """Whether colours are right when nobody said so."""
        return not os.environ.get("NO_COLOR") and super().should_use_colors()

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without exception and stack."""
        is_access = record.msg == RECORD_MESSAGE
        if is_access and "access_line" in record.__dict__:
            return str(record.__dict__["access_line"])
        if is_access and isinstance(record.args, tuple) and len(record.args) == 5:
            return self._access_line(record, *record.args)
        time_text, level = _time_text(record.created, self.use_colors), ""
        if record.levelno != logging.INFO:
            name = record.levelname
            level = f"{colour_level(name, record.levelno) if self.use_colors else name}  "
        request_id = shown_request_id(record)
        shown_id = f"[{request_id}]  " if request_id else ""
        if self.use_colors:
            shown_id = _dim(shown_id)
        return f"{time_text}  {level}{shown_id}{self._message(record)}"

    def _access_line(self, record: logging.LogRecord, *args: object) -> str:
        _, method, full_path, _, status = args
        facts = record.__dict__
        return self._access_text.line(
            record.created,
            f"{method} {full_path}",
            int(str(status)),
            facts.get("duration_ms"),
            facts.get("body_bytes"),
        )

    def _message(self, record: logging.LogRecord) -> str:
        shown = record
        if self.use_colors and "color_message" in record.__dict__:
            shown = copy.copy(record)  # other handlers see the record as it was
            shown.msg = record.__dict__["color_message"]
        message = shown.getMessage()
        return _PROCESS_NUMBER.sub(r"\1", message) if record.name == _SERVER_LOGGER else message


def _time_text(wall_s: float, use_colors: bool) -> str:
    text = _second_text(int(wall_s))
    return _dim(text) if use_colors else text


@lru_cache(maxsize=4)
def _second_text(second: int) -> str:
    """``12:34:56``, local."""
    return time.strftime("%H:%M:%S", time.localtime(second))


def _dim(text: str) -> str:
    return f"\033[2m{text}\033[0m" if text else ""


def _duration_text(lasted_ms: float) -> str:
    return f"{lasted_ms:.1f} ms" if lasted_ms < 1000 else f"{lasted_ms / 1000:.2f} s"


def _size_text(size_bytes: int) -> str:
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size, unit = size_bytes / 1000, "kB"
    if size >= 1000:
        size, unit = size / 1000, "MB"
    return f"{size:.1f} {unit}"
