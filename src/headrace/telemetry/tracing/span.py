"""Our spans: one that is only a context, and one that is recorded.

Both are spans of OpenTelemetry's API, so the application finds them with ``trace.get_current_span()`` and its
own spans are their children. What the SDK keeps in twenty fields, a lock and three bounded lists is made here
when the application asks for it, because it hardly ever does: 1 us a request instead of 12 (CPython 3.11,
2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, SpanLimits
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.trace.span import TraceState

from headrace.telemetry.error_text import error_text, stack_text
from headrace.telemetry.tracing.context import RANDOM, SAMPLED, TraceParent
from headrace.telemetry.tracing.facts import type_name
from headrace.types import Scope

_FLAGS = [TraceFlags(number) for number in range(256)]
_LOW_128_BITS = (1 << 128) - 1

DEFAULT_FLAGS = RANDOM if hasattr(TraceFlags, "RANDOM_TRACE_ID") else 0
"""Of a trace that begins here and is not sampled. Older versions of the API know no flag for randomness."""


class UnsampledSpan(NonRecordingSpan):
    """The place of a request in its trace, for log lines and for what is called from here; nothing is kept.

    Args:
        ids: the span's id in the high 64 bits, the trace's in the low 128; both greater than 0.
        flags: trace flags; random without being sampled is usual.
        trace_state: the caller's, None for none.

    Attributes:
        is_sampled: whether the trace is recorded, by others perhaps.
        is_recorded: whether this span is; its end is told to ``SpanConsumer``.
    """

    is_recorded = False

    def __init__(self, ids: int, flags: int = DEFAULT_FLAGS, trace_state: TraceState | None = None) -> None:
        self._ids = ids
        self._flags = flags
        self._trace_state = trace_state

    @property
    def trace_id(self) -> int:
        """128 bits."""
        return self._ids & _LOW_128_BITS

    @property
    def span_id(self) -> int:
        """64 bits."""
        return self._ids >> 128

    @property
    def is_sampled(self) -> bool:
        """By the flags."""
        return bool(self._flags & SAMPLED)

    def get_span_context(self) -> SpanContext:
        """What children and outgoing requests are told."""
        return SpanContext(self.trace_id, self.span_id, False, _FLAGS[self._flags], self._trace_state)

    def __repr__(self) -> str:
        return f"UnsampledSpan({self.get_span_context()!r})"


class ServerSpan(Span):
    """A request or WebSocket that is recorded.

    It holds what the application adds; everything else stands in the exchange. It ends when the exchange is
    consumed, a moment behind the response.

    Args:
        trace_id, span_id: see ``UnsampledSpan``.
        flags: trace flags, ``SAMPLED`` among them.
        parent: the caller's span, if any.
        trace_state: the caller's, or the sampler's.
        limits: how much of each there may be.

    Attributes:
        error: what the application raised.
        has_returned: the application is done.
        close_code: of a WebSocket, 0 for none.
        own_name, own_status: set by the application, else None.
        own_attributes, events, links: None until the application adds one.
        dropped_events, dropped_links: how many were beyond the limits.
    """

    is_sampled = True
    is_recorded = True

    # Defaults of the class: most requests change none of them.
    error: BaseException | None = None
    has_returned = False
    close_code = 0
    own_name: str | None = None
    own_status: Status | None = None
    own_attributes: BoundedAttributes | None = None
    events: list[Event] | None = None
    links: list[Link] | None = None
    dropped_events = 0
    dropped_links = 0
    _has_ended = False

    def __init__(
        self,
        trace_id: int,
        span_id: int,
        flags: int,
        parent: TraceParent | None,
        trace_state: TraceState | None,
        limits: SpanLimits,
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.parent = parent
        self.trace_state = trace_state
        self._limits = limits

    # The application's side: opentelemetry.trace.Span

    def get_span_context(self) -> SpanContext:
        """What children and outgoing requests are told."""
        return SpanContext(self.trace_id, self.span_id, False, _FLAGS[self.flags], self.trace_state)

    @property
    def context(self) -> SpanContext:
        """The same, by the SDK's name for it."""
        return self.get_span_context()

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Those the application has set; ours are made at the end."""
        return {} if self.own_attributes is None else dict(self.own_attributes)

    def is_recording(self) -> bool:
        """Whether what is set now will be seen."""
        return not self._has_ended

    def set_attribute(self, key: str, value: Any) -> None:
        """Set one; it stands above one of ours of that name."""
        if self._has_ended:
            return
        if self.own_attributes is None:
            self.own_attributes = BoundedAttributes(
                self._limits.max_span_attributes,
                immutable=False,
                max_value_len=self._limits.max_span_attribute_length,
            )
        self.own_attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set several."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        """Note that something happened, now or at ``timestamp`` (ns since the epoch)."""
        if self._has_ended:
            return
        limits = self._limits
        self.events = self.events if self.events is not None else []
        if limits.max_events is not None and len(self.events) >= limits.max_events:
            # As the SDK: the newest are kept.
            self.dropped_events += 1
            del self.events[:1]
            if not limits.max_events:
                return
        kept = BoundedAttributes(
            limits.max_event_attributes, attributes, max_value_len=limits.max_attribute_length
        )
        self.events.append(Event(name, kept, timestamp))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Link to a span of another trace."""
        if self._has_ended or not context.is_valid:
            return
        limits = self._limits
        self.links = self.links if self.links is not None else []
        if limits.max_links is not None and len(self.links) >= limits.max_links:
            self.dropped_links += 1
            del self.links[:1]
            if not limits.max_links:
                return
        kept = BoundedAttributes(
            limits.max_link_attributes, attributes, max_value_len=limits.max_attribute_length
        )
        self.links.append(Link(context, kept))

    def update_name(self, name: str) -> None:
        """Name it otherwise than by method and route."""
        if not self._has_ended:
            self.own_name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went; OK is final, UNSET is ignored."""
        if self._has_ended or (self.own_status and self.own_status.status_code is StatusCode.OK):
            return
        made = status if isinstance(status, Status) else Status(status, description)
        if made.status_code is not StatusCode.UNSET:
            self.own_status = made

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Note an exception as an event."""
        self.add_event("exception", {**exception_facts(exception), **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Does nothing: the response's end is the span's."""

    def __repr__(self) -> str:
        return f"ServerSpan({self.get_span_context()!r})"

    # The consumer's side

    def close(self) -> None:
        """Take nothing more."""
        self._has_ended = True

    def forget(self) -> None:
        """Let go of the error, whose traceback may lead back here."""
        self.error = None


class ForeignSpan:
    """A request's span that the application's provider made, or its own instrumentation.

    Args:
        span: of OpenTelemetry's API.
        is_recorded: its end is ours to tell.
        name: what it was given at its start.

    Attributes:
        trace_id, span_id, is_sampled: as of the other spans.
        error, has_returned, close_code: see ``ServerSpan``.
    """

    __slots__ = (
        "close_code", "error", "has_returned", "is_recorded", "is_sampled", "name", "span", "span_id",
        "trace_id",
    )  # fmt: skip

    def __init__(self, span: Span, is_recorded: bool, name: str = "") -> None:
        context = span.get_span_context()
        self.trace_id = context.trace_id
        self.span_id = context.span_id
        self.is_sampled = context.trace_flags.sampled
        self.span = span
        self.is_recorded = is_recorded
        self.name = name
        self.error: BaseException | None = None
        self.has_returned = False
        self.close_code = 0

    def forget(self) -> None:
        """Let go of the error."""
        self.error = None


RequestSpan = UnsampledSpan | ServerSpan | ForeignSpan
"""What stands in a scope as ``headrace.span``."""


def span_of(scope: Scope) -> ServerSpan | ForeignSpan | None:
    """The span of a scope whose end is to be told, None when there is none."""
    span = scope.get("headrace.span")
    return span if span is not None and span.is_recorded else None


def current_server_span() -> ForeignSpan | None:
    """The SERVER span made by somebody else around here, as far as its children show it; None for none."""
    span = trace.get_current_span()
    parent = getattr(span, "parent", None)
    if parent is not None and not parent.is_remote and getattr(span, "kind", None) is not SpanKind.SERVER:
        # A span for the sending of the response, say.
        span = NonRecordingSpan(parent)
    return ForeignSpan(span, False) if span.get_span_context().is_valid else None


LONGEST_ERROR_TEXT = 16_384
"""Characters of an exception's message, and of the end of its stack trace."""


def exception_facts(error: BaseException, longest: int | None = None) -> dict[str, str]:
    """The attributes of an exception event, by the semantic conventions.

    Args:
        error: that.
        longest: characters of each; None for ``LONGEST_ERROR_TEXT``, which is the most.
    """
    most = LONGEST_ERROR_TEXT if longest is None else min(longest, LONGEST_ERROR_TEXT)
    stack = stack_text(error)
    return {
        "exception.type": type_name(error)[:most],
        "exception.message": error_text(error)[:most],
        "exception.stacktrace": stack[max(len(stack) - most, 0) :],
    }


def flags_of(is_sampled: bool, parent: TraceParent | None, is_random: bool) -> int:
    """Our own trace flags; who began the trace says whether it is random. W3C Trace Context 2, §3.2.3.5."""
    randomness = parent.flags & RANDOM if parent is not None else DEFAULT_FLAGS if is_random else 0
    return (SAMPLED if is_sampled else 0) | randomness
