"""The access log: takes one tuple of facts for each finished exchange, writes the lines in batches.

The server calls ``access_log.add(entry)`` when an exchange ends, and ``access_log.flush()`` about ten times
a second, when more than a thousand entries wait, and at the end.

Two ways lead out, and each flush chooses anew, because applications change loggers at any time:

- As long as ``uvicorn.access`` is as ``logs.configure`` leaves it, ``add`` only appends to a list, and a
  flush formats all entries and makes one write.
- When someone customised it (other handlers or formatters, filters, propagation, a record factory), ``add``
  makes a real ``logging`` record at once. It is then made where the exchange ends, in the context of the
  application's task, so filters that read context variables (request ids) work as they do on uvicorn.

``add`` is therefore an attribute that changes: look it up for each call.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from headrace.telemetry.access_formats import (
    RECORD_MESSAGE,
    AccessEntry,
    CombinedText,
    JSONText,
    LineFormat,
    UvicornText,
    access_fields,
    record_args,
)
from headrace.telemetry.access_template import TemplateText
from headrace.telemetry.log_formatters import ACCESS_FMT, ACCESS_LOGGER, AccessFormatter, JSONFormatter
from headrace.telemetry.pretty import PrettyFormatter, PrettyText

_log = logging.getLogger("uvicorn.error")


BATCH_ENTRIES = 32
"""Waiting entries above which they are written at once. Each holds its request's scope: thousands of them,
as gather in a tenth of a second, push everything else out of the processor's caches (measured: 8 us a request
against 3)."""


class AccessLog:
    """Writes a line for each exchange it is given.

    None of its methods raises into the server: what cannot be written is dropped, with one warning.

    Args:
        access_log_format: ``uvicorn``, ``combined``, ``json`` or a template of gunicorn's %-atoms.
        clock: the clock of the entries' times, in seconds.
        wall_clock: Unix time in seconds.

    Raises:
        ConfigError: the template is wrong.
    """

    add: Callable[[AccessEntry], None]
    """Takes one finished exchange. Look it up for each call; no await, no cost to speak of."""

    def __init__(
        self,
        access_log_format: str = "uvicorn",
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._format = _line_format(access_log_format)
        self._clock = clock
        self._wall_clock = wall_clock
        self._logger = logging.getLogger(ACCESS_LOGGER)
        self._entries: list[AccessEntry] = []
        self._formats: dict[tuple[str, bool], LineFormat] = {}
        self._broken_stream: object = None
        self._has_warned = False
        self._pid = os.getpid()
        self._choose_way()
        atexit.register(self._flush_at_exit)

    def __len__(self) -> int:
        """Entries that wait for a flush."""
        return len(self._entries)

    @property
    def enabled(self) -> bool:
        """Whether anybody takes access lines; if not, the server need not call ``add``."""
        return self._logger.isEnabledFor(logging.INFO) and self._logger.hasHandlers()

    def flush(self) -> None:
        """Write what waits, and look again at how ``uvicorn.access`` is set up."""
        entries = self._entries[:]
        # Cut rather than replaced: ``add`` is bound to this very list, and another thread may append.
        del self._entries[: len(entries)]
        plain = self._choose_way()
        if not entries or not self.enabled:
            return
        if plain is None:
            for entry in entries:
                self._emit(entry)
        else:
            self._write(entries, *plain)

    def close(self) -> None:
        """Flush, and let go of the process's exit. Nothing may be added afterwards."""
        self.flush()
        atexit.unregister(self._flush_at_exit)

    def _flush_at_exit(self) -> None:
        # A forked child inherits the waiting entries, but its parent writes them.
        if os.getpid() == self._pid:
            self.flush()

    def _choose_way(self) -> tuple[logging.StreamHandler[Any], LineFormat] | None:
        """The only handler with the format of its lines while the logger is plain, else None."""
        plain = None
        handler = _plain_handler(self._logger)
        if handler is not None:
            line_format = self._format_for(handler.formatter)
            plain = None if line_format is None else (handler, line_format)
        self.add = self._emit if plain is None else self._append
        return plain

    def _append(self, entry: AccessEntry) -> None:
        entries = self._entries
        entries.append(entry)
        if len(entries) >= BATCH_ENTRIES:
            self.flush()

    def _format_for(self, formatter: logging.Formatter | None) -> LineFormat | None:
        """What writes the lines ``formatter`` would write, or None when only it can."""
        level_name = logging.getLevelName(logging.INFO)
        if type(formatter) is JSONFormatter:
            key = ("json", False)
            if key not in self._formats:
                self._formats[key] = JSONText(level_name)
            return self._formats[key]
        if type(formatter) is PrettyFormatter:
            key = ("pretty", formatter.use_colors)
            if self._format is None and key not in self._formats:
                self._formats[key] = PrettyText(formatter.use_colors)
            return self._format or self._formats[key]
        if type(formatter) is AccessFormatter:
            if not formatter.is_plain:
                return None
            if self._format is not None:
                return self._format
        elif self._format is not None or not _is_uvicorns(formatter):
            return None
        use_colors = bool(getattr(formatter, "use_colors", False))
        key = (level_name, use_colors)
        if key not in self._formats:
            self._formats[key] = UvicornText(level_name, logging.INFO, use_colors)
        return self._formats[key]

    def _write(
        self, entries: list[AccessEntry], handler: logging.StreamHandler[Any], line_format: LineFormat
    ) -> None:
        stream = handler.stream
        if stream is self._broken_stream:
            return
        lines = self._lines(entries, line_format)
        if not lines:
            return
        lines.append("")
        handler.acquire()  # other threads may write through the same handler
        try:
            stream.write("\n".join(lines))
            stream.flush()
        except (OSError, ValueError) as exc:  # ValueError: the stream is closed
            if not isinstance(exc, OSError) or isinstance(exc, BrokenPipeError):
                self._broken_stream = stream
            self._warn("Access lines are dropped, their stream takes none: %s", exc)
        else:
            self._has_warned = False
        finally:
            handler.release()

    def _lines(self, entries: list[AccessEntry], line_format: LineFormat) -> list[str]:
        wall_offset_s = self._wall_clock() - self._clock()
        try:
            return line_format.lines(entries, wall_offset_s)
        except Exception:
            # The application changed one of the scopes into something else; the other lines are good.
            return self._good_lines(entries, line_format, wall_offset_s)

    def _good_lines(
        self, entries: list[AccessEntry], line_format: LineFormat, wall_offset_s: float
    ) -> list[str]:
        lines = []
        for entry in entries:
            try:
                lines += line_format.lines([entry], wall_offset_s)
            except Exception as exc:
                self._warn("An access line is dropped, its scope is broken: %r", exc)
        return lines

    def _emit(self, entry: AccessEntry) -> None:
        if not self.enabled:
            return
        try:
            self._logger.handle(self._record(entry))
        except Exception as exc:  # a filter or handler of the user's own
            self._warn("An access record is dropped, the logger's filters or handlers failed: %r", exc)
        else:
            self._has_warned = False

    def _record(self, entry: AccessEntry) -> logging.LogRecord:
        wall_offset_s = self._wall_clock() - self._clock()
        extras = access_fields(entry)
        extras["body_bytes"] = extras.pop("bytes")
        if self._format is not None:
            extras["access_line"] = self._format.lines([entry], wall_offset_s)[0]
        record = self._logger.makeRecord(
            ACCESS_LOGGER, logging.INFO, __file__, 0, RECORD_MESSAGE, record_args(entry), None, extra=extras
        )
        finished_wall_s = entry[4] + wall_offset_s
        record.relativeCreated += (finished_wall_s - record.created) * 1000
        record.created = finished_wall_s
        record.msecs = int(finished_wall_s % 1 * 1000)
        return record

    def _warn(self, message: str, reason: BaseException) -> None:
        """Once, until something is written again."""
        if not self._has_warned:
            self._has_warned = True
            _log.warning(message, reason)


def _line_format(access_log_format: str) -> LineFormat | None:
    """None stands for uvicorn's text, whose colours depend on the handler."""
    if access_log_format == "uvicorn":
        return None
    if access_log_format == "combined":
        return CombinedText()
    if access_log_format == "json":
        return JSONText()
    return TemplateText(access_log_format)


def _plain_handler(logger: logging.Logger) -> logging.StreamHandler[Any] | None:
    """The handler of a logger that does nothing but pass each record to that one stream."""
    if (
        len(logger.handlers) != 1
        or logger.filters
        or logger.propagate
        or type(logger) is not logging.Logger
        or logging.getLogRecordFactory() is not logging.LogRecord
    ):
        return None
    handler = logger.handlers[0]
    if type(handler) is not logging.StreamHandler or handler.filters or handler.level > logging.INFO:
        return None
    return handler


def _is_uvicorns(formatter: logging.Formatter | None) -> bool:
    """Uvicorn's own formatter, from a configuration that names it where uvicorn is installed."""
    kind = type(formatter)
    return (
        kind.__module__ == "uvicorn.logging"
        and kind.__qualname__ == "AccessFormatter"
        and formatter is not None
        and formatter._fmt == ACCESS_FMT
    )
