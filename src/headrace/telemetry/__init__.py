"""What the server says of itself: the log and the access log.

In: plain arguments and, for each finished exchange, one tuple of facts (``exchange.py``).
Out: lines on stderr and stdout, or ``logging`` records on uvicorn's loggers.
Called by ``server`` (access log) and ``cli`` (``logs.configure``); imports ``errors`` and ``types`` only.
Standards: the Common Log Format's fields, ISO 8601 times, RFC 8259 for JSON lines.
Tests: ``tests/telemetry/``; the user's page is ``docs/logging.md``.
"""

from headrace.telemetry.access_log import AccessLog
from headrace.telemetry.access_sampling import Sampling
from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.log_formatters import (
    TRACE_LOG_LEVEL,
    AccessFormatter,
    ColourizedFormatter,
    DefaultFormatter,
    JSONFormatter,
)
from headrace.telemetry.logs import LOG_LEVELS, LOGGING_CONFIG, UNSET, Unset, configure, read_log_config
from headrace.telemetry.structured_formatters import ECSFormatter, GCPFormatter, LogfmtFormatter

__all__ = [
    "LOGGING_CONFIG",
    "LOG_LEVELS",
    "TRACE_LOG_LEVEL",
    "UNSET",
    "AccessFormatter",
    "AccessLog",
    "ColourizedFormatter",
    "DefaultFormatter",
    "ECSFormatter",
    "FinishedExchange",
    "GCPFormatter",
    "JSONFormatter",
    "LogfmtFormatter",
    "Sampling",
    "Unset",
    "configure",
    "read_log_config",
]
