"""Access lines: what is written of a finished exchange.

In: ``telemetry.exchange``'s tuples, a batch at a time, off the requests' path. Out: one line each.
Called by ``access_log``; imports ``errors`` and ``types`` only.
Standards: uvicorn's line, Apache's combined log format, RFC 8259 (JSON), logfmt, Elastic Common Schema,
Google Cloud Logging's special fields. Tests: ``tests/telemetry/test_access_formats.py``.
"""

from headrace.telemetry.access_lines.facts import access_fields, record_args
from headrace.telemetry.access_lines.line_format import LineFormat

__all__ = ["LineFormat", "access_fields", "record_args"]
