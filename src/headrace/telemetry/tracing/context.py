"""``traceparent``: where in whose trace a request belongs. W3C Trace Context, level 2."""

from __future__ import annotations

import re
from typing import NamedTuple

SAMPLED = 0x01
RANDOM = 0x02
"""Trace flags: the caller records; the last seven bytes of the trace id are random."""

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_LONGEST_BYTES = 512
"""Versions to come may be longer than the 55 bytes of today's, not without end."""


class TraceParent(NamedTuple):
    """The caller's span.

    Attributes:
        trace_id, span_id: greater than 0, 128 and 64 bits.
        flags: 0 to 255; those that have no meaning yet included.
    """

    trace_id: int
    span_id: int
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether the caller records its span."""
        return bool(self.flags & SAMPLED)


def parse_traceparent(value: bytes) -> TraceParent | None:
    """Read a ``traceparent`` field; None for one that is not valid, which counts as none.

    A later version than 00 may have more behind the flags, §3.2.4; version ff is never valid.
    """
    match = _TRACEPARENT.fullmatch(value.strip(b" \t")) if len(value) <= _LONGEST_BYTES else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    parent = TraceParent(int(trace_id, 16), int(span_id, 16), int(flags, 16))
    return parent if parent.trace_id and parent.span_id else None


def format_traceparent(trace_id: int, span_id: int, flags: int) -> str:
    """Write a ``traceparent`` field of version 00."""
    return f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"
