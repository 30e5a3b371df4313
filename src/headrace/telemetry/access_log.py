"""The access log: takes one tuple of facts for each finished exchange, writes the lines in batches.

The server calls ``access_log.add(exchange)`` when an exchange ends, and ``access_log.flush()`` about ten
times a second and at the end.

Two ways lead out, and each flush chooses anew, because applications change loggers at any time:

- As long as ``uvicorn.access`` is as ``logs.configure`` leaves it, ``add`` only appends to a list, and a
  flush, when ``BATCH_ENTRIES`` wait at the latest, formats all of them and makes one write.
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
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from headrace.telemetry.access_lines import LineFormat
from headrace.telemetry.access_lines.ecs_text import ECSText
from headrace.telemetry.access_lines.facts import RECORD_MESSAGE, access_fields, duration_s, record_args
from headrace.telemetry.access_lines.gcp_text import GCPText
from headrace.telemetry.access_lines.json_text import JSONText
from headrace.telemetry.access_lines.logfmt_text import LogfmtText
from headrace.telemetry.access_lines.named_formats import named_format
from headrace.telemetry.access_lines.uvicorn_text import UvicornText
from headrace.telemetry.access_sampling import Sampling
from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.log_context import CONTEXT_NAMES, NO_VALUE
from headrace.telemetry.log_formatters import ACCESS_FMT, ACCESS_LOGGER, AccessFormatter, JSONFormatter
from headrace.telemetry.pretty import PrettyFormatter, PrettyText
from headrace.telemetry.structured_formatters import ECSFormatter, GCPFormatter, LogfmtFormatter

_log = logging.getLogger("uvicorn.error")


STRUCTURED_FORMATS: dict[type[logging.Formatter], Callable[..., LineFormat]] = {
    JSONFormatter: JSONText,
    LogfmtFormatter: LogfmtText,
    ECSFormatter: ECSText,
    GCPFormatter: GCPText,
}
"""What writes the lines of these formatters; each takes level name, logger name, worker and sampling."""

BATCH_ENTRIES = 32
"""Waiting exchanges above which they are written at once. Each holds its request's scope: thousands of them,
as gather in a tenth of a second, push everything else out of the processor's caches (measured: 8 us a request
against 3)."""


class AccessLog:
    """Writes a line for each exchange it is given: a ``Consumer``.

    None of its methods raises into the server: what cannot be written is dropped, with one warning.

    Args:
        access_log_format: ``uvicorn``, ``combined``, ``json``, ``logfmt``, ``ecs``, ``gcp``, or a template
            of gunicorn's %-atoms.
        sampling: which exchanges get a line; None for all.
        worker: which process this is, if there are several; stands in structured lines.
        logger: whose handlers write.
        clock: the clock of the exchanges' times, in seconds.
        wall_clock: Unix time in seconds.

    Raises:
        ConfigError: the template is wrong.
    """

    add: Callable[[FinishedExchange], None]
    """Takes one finished exchange. Look it up for each call; no await, no cost to speak of."""

    def __init__(
        self,
        access_log_format: str = "uvicorn",
        *,
        sampling: Sampling | None = None,
        worker: int | None = None,
        logger: str = ACCESS_LOGGER,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._sampling = sampling or Sampling()
        self._worker = worker
        self._name = access_log_format
        self._logger = logging.getLogger(logger)
        self._format = self._named_format()
        self._clock = clock
        self._wall_clock = wall_clock
        self._exchanges: list[FinishedExchange] = []
        self._formats: dict[tuple[type[logging.Formatter], str, bool], LineFormat] = {}
        self._broken_stream: object = None
        self._has_warned = False
        self._choose_way()
        _open.add(self)
        atexit.register(self.flush)

    def __len__(self) -> int:
        """Entries that wait for a flush."""
        return len(self._exchanges)

    @property
    def enabled(self) -> bool:
        """Whether anybody takes access lines; if not, the server need not call ``add``."""
        return self._logger.isEnabledFor(logging.INFO) and self._logger.hasHandlers()

    def flush(self) -> None:
        """Write what waits, and look again at how ``uvicorn.access`` is set up."""
        exchanges = self._exchanges[:]
        # Cut rather than replaced: ``add`` is bound to this very list, and another thread may append.
        del self._exchanges[: len(exchanges)]
        plain = self._choose_way()
        if not exchanges or not self.enabled:
            return
        if plain is None:
            for exchange in exchanges:
                self._emit(exchange)
        else:
            self._write(self._kept(exchanges), *plain)

    def close(self) -> None:
        """Flush, and let go of the process's exit. Nothing may be added afterwards."""
        self.flush()
        _open.discard(self)
        atexit.unregister(self.flush)

    def begin_in_child(self) -> None:
        """In a forked process: what waits is the parent's to write, and formats may have its number."""
        self._exchanges.clear()
        self._formats.clear()
        self._format = self._named_format()

    def _named_format(self) -> LineFormat | None:
        return named_format(
            self._name, worker=self._worker, sampling=self._sampling, logger_name=self._logger.name
        )

    def _choose_way(self) -> tuple[logging.StreamHandler[Any], LineFormat] | None:
        """The only handler with the format of its lines while the logger is plain, else None."""
        plain = None
        handler = _plain_handler(self._logger)
        if handler is not None:
            line_format = self._format_for(handler.formatter)
            plain = None if line_format is None else (handler, line_format)
        self.add = self._emit if plain is None else self._append
        return plain

    def _append(self, exchange: FinishedExchange) -> None:
        exchanges = self._exchanges
        exchanges.append(exchange)
        if len(exchanges) >= BATCH_ENTRIES:
            self.flush()

    def _format_for(self, formatter: logging.Formatter | None) -> LineFormat | None:
        """What writes the lines ``formatter`` would write, or None when only it can."""
        use_colors = bool(getattr(formatter, "use_colors", False))
        kind = type(formatter)
        if kind in STRUCTURED_FORMATS:
            return self._made(kind, use_colors)
        if kind is PrettyFormatter:
            return self._format or self._made(kind, use_colors)
        if isinstance(formatter, AccessFormatter) and kind is AccessFormatter:
            if not formatter.is_plain:
                return None
            return self._format or self._made(kind, use_colors)
        if self._format is not None or not _is_uvicorns(formatter):
            return None
        return self._made(AccessFormatter, use_colors)

    def _made(self, kind: type[logging.Formatter], use_colors: bool) -> LineFormat:
        """The format of the lines that a formatter of ours writes; made once."""
        level_name = logging.getLevelName(logging.INFO)
        key = (kind, level_name, use_colors)
        if key not in self._formats:
            self._formats[key] = self._make(kind, level_name, use_colors)
        return self._formats[key]

    def _make(self, kind: type[logging.Formatter], level_name: str, use_colors: bool) -> LineFormat:
        make = STRUCTURED_FORMATS.get(kind)
        if make is not None:
            return make(level_name, self._logger.name, worker=self._worker, sampling=self._sampling)
        if kind is PrettyFormatter:
            return PrettyText(use_colors)
        return UvicornText(level_name, logging.INFO, use_colors)

    def _kept(self, exchanges: Sequence[FinishedExchange]) -> Sequence[FinishedExchange]:
        """Those that get a line."""
        try:
            return self._sampling.kept(exchanges)
        except Exception:
            # One of the scopes is broken; who writes its line finds out which, and says so.
            return exchanges

    def _write(
        self,
        exchanges: Sequence[FinishedExchange],
        handler: logging.StreamHandler[Any],
        line_format: LineFormat,
    ) -> None:
        stream = handler.stream
        if stream is self._broken_stream:
            return
        lines = self._lines(exchanges, line_format)
        if not lines:
            return
        lines.append("")
        handler.acquire()  # other threads may write through the same handler
        text = "\n".join(lines)
        try:
            try:
                stream.write(text)
            except UnicodeEncodeError:
                # A format's own text, or an application's: what clients send is escaped before.
                encoding = getattr(stream, "encoding", None) or "ascii"
                stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except (OSError, ValueError) as exc:  # ValueError: the stream is closed
            if not isinstance(exc, OSError) or isinstance(exc, BrokenPipeError):
                self._broken_stream = stream
            self._warn("Access lines are dropped, their stream takes none: %s", exc)
        else:
            self._has_warned = False
        finally:
            handler.release()

    def _lines(self, exchanges: Sequence[FinishedExchange], line_format: LineFormat) -> list[str]:
        wall_offset_s = self._wall_clock() - self._clock()
        try:
            return line_format.lines(exchanges, wall_offset_s)
        except Exception:
            # The application changed one of the scopes into something else; the other lines are good.
            return self._good_lines(exchanges, line_format, wall_offset_s)

    def _good_lines(
        self, exchanges: Sequence[FinishedExchange], line_format: LineFormat, wall_offset_s: float
    ) -> list[str]:
        lines = []
        for exchange in exchanges:
            try:
                lines += line_format.lines([exchange], wall_offset_s)
            except Exception as exc:
                self._warn("An access line is dropped, its scope is broken: %r", exc)
        return lines

    def _emit(self, exchange: FinishedExchange) -> None:
        if not self.enabled or not self._kept((exchange,)):
            return
        try:
            self._logger.handle(self._record(exchange))
        except Exception as exc:  # a filter or handler of the user's own
            self._warn("An access record is dropped, the logger's filters or handlers failed: %r", exc)
        else:
            self._has_warned = False

    def _record(self, exchange: FinishedExchange) -> logging.LogRecord:
        wall_offset_s = self._wall_clock() - self._clock()
        _, status, _, started_s, finished_s, _, _, _ = exchange
        sampled = None
        if self._sampling.draws:
            sampled = self._sampling.share_of(status, duration_s(started_s, finished_s))
        extras = access_fields(exchange, self._worker, sampled)
        extras["body_bytes"] = extras.pop("bytes")
        for name in CONTEXT_NAMES:
            # As in every other record, so that one format fits all.
            extras[name] = extras[name] or NO_VALUE
        if self._format is not None:
            extras["access_line"] = self._format.lines([exchange], wall_offset_s)[0]
        record = self._logger.makeRecord(
            self._logger.name,
            logging.INFO,
            __file__,
            0,
            RECORD_MESSAGE,
            record_args(exchange),
            None,
            extra=extras,
        )
        finished_wall_s = finished_s + wall_offset_s
        record.relativeCreated += (finished_wall_s - record.created) * 1000
        record.created = finished_wall_s
        record.msecs = int(finished_wall_s % 1 * 1000)
        return record

    def _warn(self, message: str, reason: BaseException) -> None:
        """Once, until something is written again."""
        if not self._has_warned:
            self._has_warned = True
            _log.warning(message, reason)


_open: weakref.WeakSet[AccessLog] = weakref.WeakSet()


def _begin_in_child() -> None:
    for access_log in _open:
        access_log.begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


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
