"""Formatters of the log's handlers: uvicorn's two text formatters, and JSON lines."""

from __future__ import annotations

import copy
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, Literal

from headrace.telemetry.access_lines.facts import RECORD_MESSAGE, SOMETIMES
from headrace.telemetry.log_context import CONTEXT_NAMES, NO_VALUE, is_attached
from headrace.telemetry.log_text import bold, colour_level, escape_text, iso_utc, status_text

TRACE_LOG_LEVEL = 5
DEFAULT_FMT = "%(levelprefix)s %(message)s"
ACCESS_FMT = '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'
ACCESS_LOGGER = "uvicorn.access"

_STANDARD_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {
    "asctime",
    "message",
    "taskName",
    "color_message",
    "access_line",
}
_encode = json.JSONEncoder(default=str, skipkeys=True, allow_nan=False).encode


def level_prefix(level_name: str, level: int, use_colors: bool) -> str:
    """``INFO:    ``, nine characters wide without colours."""
    shown = colour_level(level_name, level) if use_colors else level_name
    return f"{shown}:{' ' * (8 - len(level_name))}"


def _is_terminal(stream: Any) -> bool:
    # Without a console (pythonw, some daemons) the streams are None.
    return stream is not None and not stream.closed and stream.isatty()


class ColourizedFormatter(logging.Formatter):
    """Adds ``%(levelprefix)s`` and, in colour, takes ``extra={"color_message": ...}`` for the message.

    Args:
        fmt, datefmt, style: as for ``logging.Formatter``.
        use_colors: None means colours on a terminal only.
        defaults: values of attributes that a record lacks, as for ``logging.Formatter``.
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(fmt=fmt, datefmt=datefmt, style=style, defaults=defaults)
        self.use_colors = self.should_use_colors() if use_colors is None else bool(use_colors)

    def should_use_colors(self) -> bool:
        """Whether colours are right when nobody said so."""
        return _is_terminal(sys.stdout)

    def level_prefix(self, record: logging.LogRecord) -> str:
        """What ``%(levelprefix)s`` says."""
        return level_prefix(record.levelname, record.levelno, self.use_colors)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without exception and stack."""
        shown = copy.copy(record)  # other handlers must not see our attributes
        shown.levelprefix = self.level_prefix(record)
        if self.use_colors and "color_message" in shown.__dict__:
            shown.msg = shown.__dict__["color_message"]
            shown.message = shown.getMessage()
        return super().formatMessage(shown)


class DefaultFormatter(ColourizedFormatter):
    """For every logger but the access log's.

    A record made inside a request that has an id shows it before the message, ``INFO:     [id] message``, if
    the server puts ids on records and the format is uvicorn's default.
    """

    def should_use_colors(self) -> bool:
        """Only when neither stream goes to a file, because this formatter stands on either of them."""
        return _is_terminal(sys.stdout) and _is_terminal(sys.stderr)

    def level_prefix(self, record: logging.LogRecord) -> str:
        """With the request id, if it has one."""
        prefix = super().level_prefix(record)
        request_id = shown_request_id(record) if self._fmt == DEFAULT_FMT else ""
        return f"{prefix} [{request_id}]" if request_id else prefix


class AccessFormatter(ColourizedFormatter):
    """Adds ``%(client_addr)s``, ``%(request_line)s`` and ``%(status_code)s`` from the access record's args.

    A record with ``access_line`` (another ``--access-log-format``) is written as that line, unless the
    formatter has a format of the user's own. A record that is no access record keeps its message.
    """

    @property
    def is_plain(self) -> bool:
        """The format is uvicorn's default."""
        return self._fmt == ACCESS_FMT

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without exception and stack."""
        if self.is_plain and "access_line" in record.__dict__:
            return str(record.__dict__["access_line"])
        if not isinstance(record.args, tuple) or len(record.args) != 5:
            prefix = level_prefix(record.levelname, record.levelno, self.use_colors)
            return f"{prefix} {record.getMessage()}"
        client_addr, method, full_path, http_version, status = record.args
        request_line = f"{method} {full_path} HTTP/{http_version}"
        shown = copy.copy(record)
        shown.client_addr = client_addr
        shown.request_line = bold(request_line) if self.use_colors else request_line
        shown.status_code = status_text(int(str(status)), self.use_colors)
        return super().formatMessage(shown)


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, exception, stack, then the record's extras.

    ``time`` is ISO 8601 in UTC with milliseconds. An extra whose name is taken is written as
    ``extra_<name>``. A value that JSON does not know is written as its ``str``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return encode_json(record_fields(self, record))


def record_fields(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, Any]:
    """The values of a record by the names and in the order of JSON lines; what is absent is left out.

    Args:
        formatter: formats exceptions and stacks.
        record: of any logger.
    """
    fields: dict[str, Any] = {
        "time": iso_utc(record.created),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
    }
    if record.exc_info:
        fields["exception"] = formatter.formatException(record.exc_info)
    elif record.exc_text:
        fields["exception"] = record.exc_text
    if record.stack_info:
        fields["stack"] = formatter.formatStack(record.stack_info)
    is_access = is_access_record(record)
    for name, value in record.__dict__.items():
        if name in _STANDARD_ATTRIBUTES or (name in CONTEXT_NAMES and value == NO_VALUE):
            continue
        if is_access and name in SOMETIMES and value is None:
            continue
        shown = "bytes" if is_access and name == "body_bytes" else name
        fields[f"extra_{shown}" if shown in fields else shown] = value
    return fields


def is_access_record(record: logging.LogRecord) -> bool:
    """Whether the access log made it, with the facts of the exchange, whatever the logger's name."""
    return record.msg == RECORD_MESSAGE and "body_bytes" in record.__dict__


def shown_request_id(record: logging.LogRecord) -> str:
    """The request id for a text line; empty if there is none, or none of the server's doing."""
    request_id = record.__dict__.get("request_id", NO_VALUE) if is_attached() else NO_VALUE
    return "" if request_id == NO_VALUE else escape_text(str(request_id))


def encode_json(fields: dict[str, Any]) -> str:
    """One line of ASCII; NaN and circular values are written as their ``str``."""
    try:
        return _encode(fields)
    except ValueError:
        plain = (str, int, bool, type(None))
        return _encode(
            {name: value if isinstance(value, plain) else str(value) for name, value in fields.items()}
        )
