"""Puts the ids of the request under way on every log record: ``request_id``, ``trace_id``, ``span_id``.

They are set where a record is made, in ``logging.Logger.makeRecord``, behind what the call itself passes as
``extra``. A filter would reach only the handlers and loggers that exist when it is added. A record factory
would run before ``extra`` is looked at, and ``logger.info(..., extra={"request_id": ...})``, which many
applications write, would raise KeyError; it would also keep the access log from its fast way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.telemetry.request_context import request_id_var

CONTEXT_NAMES = ("request_id", "trace_id", "span_id")
NO_VALUE = "-"
"""Outside of requests."""

CurrentIDs = Callable[[], tuple[str, str] | None]
"""Gives the trace id and span id that are current, in hexadecimal."""


class _Attached:
    """Who asked for ids on records, in order."""

    def __init__(self) -> None:
        self.sources: list[CurrentIDs] = []
        self.is_placed = False
        """Ours is in the chain of those who make records, perhaps below somebody's who wrapped it."""
        self.make_record: Callable[..., logging.LogRecord] = logging.Logger.makeRecord
        """What stood there before."""

    def current_ids(self) -> tuple[str, str]:
        """Trace id and span id, or twice ``NO_VALUE``."""
        for source in reversed(self.sources):
            if ids := source():
                return ids
        return NO_VALUE, NO_VALUE


_attached = _Attached()


def attach_context(current_ids: CurrentIDs | None = None) -> Callable[[], None]:
    """From now on every record has the three ids; those a call passes as ``extra`` stand.

    Args:
        current_ids: tells of the span that is current; None where nobody traces. It must not log.

    Returns:
        Takes them away again. Of several calls each must be undone; the last one undoes the whole.
    """
    source = current_ids or _no_ids
    if not _attached.is_placed or logging.Logger.makeRecord is _attached.make_record:
        _attached.is_placed = True
        _attached.make_record = logging.Logger.makeRecord
        _replace_make_record(_make_record_in_context)
    _attached.sources.append(source)

    def detach() -> None:
        if source in _attached.sources:
            _attached.sources.remove(source)
        # Who has put something over it since keeps it; without sources it does nothing.
        if not _attached.sources and logging.Logger.makeRecord is _make_record_in_context:
            _replace_make_record(_attached.make_record)
            _attached.is_placed = False

    return detach


def _replace_make_record(make_record: Callable[..., logging.LogRecord]) -> None:
    # An assignment would do, if the type checker let it.
    setattr(logging.Logger, "makeRecord", make_record)  # noqa: B010


def is_attached() -> bool:
    """Whether records have ids that are the server's doing."""
    return bool(_attached.sources)


def names_ids(configuration: object) -> bool:
    """Whether a string in ``configuration`` (text, or nested mappings and lists) is a format with the ids."""
    if isinstance(configuration, str):
        return any(name in configuration for name in CONTEXT_NAMES)
    if isinstance(configuration, Mapping):
        return any(names_ids(value) for value in configuration.values())
    if isinstance(configuration, Sequence) and not isinstance(configuration, bytes):
        return any(names_ids(value) for value in configuration)
    return False


def add_context(_logger: Any, _method_name: str, event: dict[str, Any]) -> dict[str, Any]:
    """Add the ids that there are to an event of structlog's: a processor.

    Only for events that structlog renders itself; those it hands to ``logging`` have them by ``ExtraAdder``.
    """
    for name, value in zip(CONTEXT_NAMES, _context(), strict=True):
        if value != NO_VALUE:
            event.setdefault(name, value)
    return event


def _make_record_in_context(self: logging.Logger, *args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _attached.make_record(self, *args, **kwargs)
    if not _attached.sources:
        return record
    facts = record.__dict__
    for name, value in zip(CONTEXT_NAMES, _context(), strict=True):
        facts.setdefault(name, value)
    return record


def _context() -> tuple[str, str, str]:
    try:
        return request_id_var.get("") or NO_VALUE, *_attached.current_ids()
    except Exception:
        # The tracer may be of anybody's making; a line without ids is better than none.
        return NO_VALUE, NO_VALUE, NO_VALUE


def _no_ids() -> None:
    return None
