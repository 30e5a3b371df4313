"""Ends the spans of finished exchanges, a few dozen at a time and off their path.

A span waits until its application has returned, because what goes wrong behind the response (Starlette sends
the 500 first and raises then) belongs to it; but not longer than until the flush after the next.
"""

from __future__ import annotations

import logging
import time
from typing import Protocol

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.span import SpanContext, TraceFlags

from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.tracing import facts
from headrace.telemetry.tracing.encoder import SCOPE_NAME, SpanEncoder, our_facts
from headrace.telemetry.tracing.export import EncodedSpan
from headrace.telemetry.tracing.facts import SCHEMA_URL
from headrace.telemetry.tracing.providers import OwnProvider, flush_provider
from headrace.telemetry.tracing.span import ForeignSpan, ServerSpan, exception_facts, span_of
from headrace.version import __version__

BATCH_SPANS = 32
CLOSE_S = 5.0
"""How long the last spans may take. One export has 10 s by the standard, a process at its end has less."""

_SCOPE = InstrumentationScope(SCOPE_NAME, __version__, SCHEMA_URL)
_logger = logging.getLogger("uvicorn.error")


class SpanSink(Protocol):
    """Ends spans in one way."""

    def end(self, span: ServerSpan | ForeignSpan, exchange: FinishedExchange, wall_offset_ns: int) -> None:
        """End one.

        Args:
            span: that of the exchange.
            exchange: as consumed.
            wall_offset_ns: what to add to its times to get Unix time.
        """

    def send(self, deadline_s: float, closes: bool) -> bool:
        """Send what waits, in time if possible.

        Args:
            deadline_s: how long it may take.
            closes: nothing follows.

        Returns:
            Whether it was in time.
        """


class SpanConsumer:
    """A ``telemetry.exchange.Consumer`` for exchanges whose scope holds a recorded span.

    Args:
        sink: ends them.
        close_s: how long ``close`` may take.
    """

    def __init__(self, sink: SpanSink, close_s: float = CLOSE_S) -> None:
        self._sink = sink
        self._close_s = close_s
        self._waiting: list[FinishedExchange] = []
        self._unreturned: list[FinishedExchange] = []
        self._has_complained = False

    def __len__(self) -> int:
        """Spans that have not been ended yet."""
        return len(self._waiting) + len(self._unreturned)

    def add(self, exchange: FinishedExchange, /) -> None:
        """Take one finished exchange."""
        span = exchange[0].get("headrace.span")
        if span is None or not span.is_recorded:
            return
        self._waiting.append(exchange)
        if len(self._waiting) >= BATCH_SPANS:
            self._sort()

    def end_returned(self) -> None:
        """End what waits and is done."""
        self._sort()

    def flush(self) -> None:
        """End what waits; those whose application still runs have this time for it, and no more."""
        overdue, self._unreturned = self._unreturned, []
        self._sort()
        self._end(overdue)

    def drain(self) -> None:
        """End everything, and send it; it blocks for at most ``close_s``."""
        self._send(closes=False)

    def close(self) -> None:
        """The same, and let go of a provider of ours."""
        self._send(closes=True)

    def _send(self, closes: bool) -> None:
        self.flush()
        self.flush()
        if not self._sink.send(self._close_s, closes):
            _logger.warning("Spans were not sent: the collector did not take them in %g s", self._close_s)

    def _sort(self) -> None:
        ready: list[FinishedExchange] = []
        for exchange in self._waiting:
            span = span_of(exchange[0])
            if span is not None:
                (ready if span.has_returned else self._unreturned).append(exchange)
        self._waiting.clear()
        self._end(ready)

    def _end(self, exchanges: list[FinishedExchange]) -> None:
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        for exchange in exchanges:
            span = span_of(exchange[0])
            if span is None:
                continue
            try:
                self._sink.end(span, exchange, wall_offset_ns)
            except Exception:
                # A scope may hold anything; one that cannot be described must not end the others' spans.
                if not self._has_complained:
                    self._has_complained = True
                    _logger.exception("A span cannot be ended; further ones are not mentioned")
            finally:
                span.forget()


class OwnSink:
    """Ends spans of ours into a provider of ours.

    Args:
        own: that.
        known: see ``facts.known_methods``.
    """

    def __init__(self, own: OwnProvider, known: frozenset[str]) -> None:
        self._own = own
        self._known = known
        self._encoder = SpanEncoder(own.limits, known)
        self._encoded = [output.processor for output in own.outputs if output.takes_encoded]
        self._readable = [output.processor for output in own.outputs if not output.takes_encoded]

    def end(self, span: ServerSpan | ForeignSpan, exchange: FinishedExchange, wall_offset_ns: int) -> None:
        """See ``SpanSink``."""
        assert isinstance(span, ServerSpan)
        span.close()
        if self._encoded:
            encoded = EncodedSpan(self._encoder.encode(span, exchange, wall_offset_ns))
            for processor in self._encoded:
                processor.on_end(encoded)  # type: ignore[arg-type]
        if self._readable:
            readable = self._snapshot(span, exchange, wall_offset_ns)
            for processor in self._readable:
                processor.on_end(readable)

    def send(self, deadline_s: float, closes: bool) -> bool:
        """See ``SpanSink``."""
        return flush_provider(self._own.provider, deadline_s, closes)

    def _snapshot(self, span: ServerSpan, exchange: FinishedExchange, wall_offset_ns: int) -> ReadableSpan:
        """The span as any exporter knows it."""
        outcome = facts.outcome_of(exchange, self._known, span.error)
        started_ns = int(exchange[3] * 1e9) + wall_offset_ns
        finished_ns = max(int(exchange[4] * 1e9) + wall_offset_ns, started_ns)
        events = list(span.events or ())
        if outcome.error is not None:
            told = exception_facts(outcome.error, self._own.limits.max_attribute_length)
            events.append(Event("exception", told, finished_ns))
        status = span.own_status or Status(StatusCode.ERROR if outcome.error_type else StatusCode.UNSET)
        parent = span.parent
        return ReadableSpan(
            name=span.own_name or outcome.name,
            context=span.get_span_context(),
            parent=None
            if parent is None
            else SpanContext(
                parent.trace_id, parent.span_id, True, TraceFlags(parent.flags), span.trace_state
            ),
            resource=self._own.resource,
            attributes={
                **our_facts(span, exchange, outcome, self._known, self._own.limits),
                **span.attributes,
            },
            events=events,
            links=tuple(span.links or ()),
            kind=SpanKind.SERVER,
            status=status,
            start_time=started_ns,
            end_time=finished_ns,
            instrumentation_scope=_SCOPE,
        )


class ForeignSink:
    """Ends spans that the application's provider made.

    Args:
        provider: that.
        known: see ``facts.known_methods``.
    """

    def __init__(self, provider: object, known: frozenset[str]) -> None:
        self._provider = provider
        self._known = known

    def end(self, span: ServerSpan | ForeignSpan, exchange: FinishedExchange, wall_offset_ns: int) -> None:
        """See ``SpanSink``."""
        assert isinstance(span, ForeignSpan)
        made = span.span
        outcome = facts.outcome_of(exchange, self._known, span.error)
        finished_ns = int(exchange[4] * 1e9) + wall_offset_ns
        values = facts.outcome_facts(outcome)
        if span.close_code:
            values["headrace.websocket.close_code"] = span.close_code
        own = getattr(made, "attributes", None) or {}
        made.set_attributes({key: value for key, value in values.items() if key not in own})
        if getattr(made, "name", span.name) == span.name:
            made.update_name(outcome.name)
        if outcome.error is not None:
            made.add_event("exception", exception_facts(outcome.error), finished_ns)
        status = getattr(made, "status", None)
        if outcome.error_type is not None and (status is None or status.status_code is StatusCode.UNSET):
            # What the application has said of it stands.
            made.set_status(StatusCode.ERROR)
        made.end(finished_ns)

    def send(self, deadline_s: float, closes: bool) -> bool:
        """See ``SpanSink``. It is the application's to close."""
        return flush_provider(self._provider, deadline_s, closes=False)
