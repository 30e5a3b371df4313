"""The ids of the span that is current, for log records."""

from __future__ import annotations

import sys


def current_ids() -> tuple[str, str] | None:
    """Give the ids of the innermost span here and now, the application's own ones included.

    Returns:
        (trace id, span id) in lower-case hexadecimal, 32 and 16 digits; None where there is no span.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        # Nobody who makes spans can be here.
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"
