"""Loggers as they were, around each test, and entries to feed the access log with."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.telemetry import AccessFormatter, AccessLog, FinishedExchange
from headrace.telemetry.log_formatters import ACCESS_FMT

NAMES = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


@pytest.fixture(autouse=True)
def _untouched_loggers() -> Iterator[None]:
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, NAMES)]
    before = [(log, log.level, log.handlers[:], log.filters[:], log.propagate) for log in loggers]
    factory = logging.getLogRecordFactory()
    for log in loggers[1:]:
        log.handlers, log.filters, log.propagate, log.disabled = [], [], True, False
        log.setLevel(logging.NOTSET)
    yield
    logging.setLogRecordFactory(factory)
    for log, level, handlers, filters, propagate in before:
        log.setLevel(level)
        log.handlers, log.filters, log.propagate, log.disabled = handlers, filters, propagate, False


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(stream: io.StringIO) -> logging.Logger:
    """``uvicorn.access`` as ``configure`` leaves it, on ``stream``."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(AccessFormatter(ACCESS_FMT, use_colors=False))
    access = logging.getLogger("uvicorn.access")
    access.handlers = [handler]
    access.propagate = False
    access.setLevel(logging.INFO)
    return access


@pytest.fixture
def make_log() -> Iterator[Callable[..., AccessLog]]:
    """Access logs whose clock stands at 100 s and 2026-03-01T12:00:00.250Z."""
    made: list[AccessLog] = []

    def make(access_log_format: str = "uvicorn", **arguments: Any) -> AccessLog:
        clocks = {"clock": lambda: 100.0, "wall_clock": lambda: 1772366400.25, **arguments}
        # pytest puts handlers on loggers that do not propagate.
        access = logging.getLogger("uvicorn.access")
        access.handlers = [h for h in access.handlers if type(h).__module__ != "_pytest.logging"]
        made.append(AccessLog(access_log_format, **clocks))
        return made[-1]

    yield make
    for log in made:
        log.close()


@pytest.fixture
def make_entry() -> Callable[..., FinishedExchange]:
    return finished_exchange


def finished_exchange(
    path: str = "/",
    query: bytes = b"",
    status: int = 200,
    headers: list[tuple[bytes, bytes]] | None = None,
    body_bytes: int = 12,
    response_headers: list[tuple[bytes, bytes]] | None = None,
    duration_s: float = 0.0125,
    received_bytes: int = 0,
    error: BaseException | None = None,
    **scope: Any,
) -> FinishedExchange:
    """A finished exchange, at 99.5 s of the clock."""
    facts = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": query,
        "http_version": "1.1",
        "client": ("127.0.0.1", 1234),
        "headers": headers or [],
        "scheme": "http",
        **scope,
    }
    return (facts, status, body_bytes, 99.5 - duration_s, 99.5, response_headers, received_bytes, error)
