"""Spans of requests and WebSockets, by OpenTelemetry's API, SDK and exporters (extra ``tracing``).

In: the trace context of a request's fields and, when it is finished, ``telemetry.exchange``'s tuple.
Out: one SERVER span each, to the provider that the application has set or that OTEL_* variables describe.
Called by ``middleware.tracing`` and the server. What is imported here does without OpenTelemetry; all modules
but ``environment`` and ``context`` need it, and are imported when tracing begins.
Standards: W3C Trace Context and Baggage, OpenTelemetry's HTTP semantic conventions, OTLP 1.
Tests: ``tests/telemetry/tracing``, ``tests/middleware/test_tracing.py``; the user's page is
``docs/tracing.md``.
"""

from headrace.telemetry.tracing.current import current_ids
from headrace.telemetry.tracing.environment import MISSING, missing_sentence, wants_tracing

__all__ = ["MISSING", "current_ids", "missing_sentence", "wants_tracing"]
