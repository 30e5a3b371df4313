"""The caller's span and baggage, from a request's fields to OpenTelemetry's context."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import NamedTuple

from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter, TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.span import TraceState

from headrace.telemetry.tracing.context import TraceParent, parse_traceparent
from headrace.types import Headers

_LONGEST_STATE_BYTES = 8192
_W3C = {"traceparent", "tracestate"}
_W3C_AND_BAGGAGE = _W3C | {"baggage"}
_TRACEPARENT, _TRACESTATE, _BAGGAGE = b"traceparent", b"tracestate", b"baggage"
name_of = itemgetter(0)
"""``map(name_of, headers)`` gives a request's field names without a loop in Python."""


class Incoming(NamedTuple):
    """What a request brought.

    Attributes:
        parent: the caller's span, None without a valid one.
        trace_state: the caller's, None for none.
        context: with its baggage and whatever else the propagators found; without a span of ours.
    """

    parent: TraceParent | None
    trace_state: TraceState | None
    context: Context


class FieldGetter(Getter[Headers]):
    """How a propagator of OpenTelemetry's looks into header fields; several baggage fields are one."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        """All values of one field."""
        name = key.lower().encode("latin-1")
        values = [value.decode("latin-1") for field, value in carrier if field == name]
        if name == _BAGGAGE and len(values) > 1:
            return [",".join(values)]
        return values or None

    def keys(self, carrier: Headers) -> list[str]:
        """The names there are."""
        return [name.decode("latin-1") for name, _ in carrier]


_GETTER = FieldGetter()


_WARNS_OF_CLIENTS = ("opentelemetry.baggage.propagation", "opentelemetry.trace.span")
"""Loggers that warn of each wrong member of a client's field, with the client's bytes as they came."""


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING


def _is_standard(propagator: TextMapPropagator) -> bool:
    """Whether nothing but the two of W3C reads the fields; one derived of them may read them otherwise."""
    parts = getattr(propagator, "_propagators", None)
    return (
        type(propagator) is CompositePropagator
        and parts is not None
        and all(type(part) in (TraceContextTextMapPropagator, W3CBaggagePropagator) for part in parts)
    )


class Extractor:
    """Reads trace context and baggage by the propagators that are set: ``OTEL_PROPAGATORS``.

    Attributes:
        has_none_of: whether none of these field names is one to look at; True means that there is nothing to
            extract.
    """

    def __init__(self) -> None:
        for name in _WARNS_OF_CLIENTS:
            logging.getLogger(name).addFilter(_is_error)
        propagator = propagate.get_global_textmap()
        fields = set(propagator.fields)
        self._takes_baggage = "baggage" in fields
        is_ours_to_read = _is_standard(propagator) and fields in (
            set(), _W3C, _W3C_AND_BAGGAGE, {"baggage"},
        )  # fmt: skip
        self._propagator = None if is_ours_to_read else propagator
        self._baggage = W3CBaggagePropagator()
        names = frozenset(
            name.encode() for name in fields if name in ("traceparent", "baggage") and is_ours_to_read
        )
        self.has_none_of: Callable[[Iterable[bytes]], bool] = names.isdisjoint if is_ours_to_read else _never
        self._takes_parent = _TRACEPARENT in names

    def extract(self, headers: Headers, base: Context) -> Incoming:
        """Read them.

        Args:
            headers: the request's fields.
            base: what the context found is put on.
        """
        if self._propagator is not None:
            return self._ask(self._propagator, headers, base)
        values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            if name == _TRACEPARENT or name == _TRACESTATE or name == _BAGGAGE:
                values.setdefault(name, []).append(value)
        if self._takes_baggage and _BAGGAGE in values:
            joined = b",".join(values[_BAGGAGE]).decode("latin-1")
            base = self._baggage.extract({"baggage": joined}, base)
        parents = values.get(_TRACEPARENT, ()) if self._takes_parent else ()
        # Several are as none: §3.2 knows one, and nobody can tell which is right.
        parent = parse_traceparent(parents[0]) if len(parents) == 1 else None
        if parent is None or _TRACESTATE not in values:
            return Incoming(parent, None, base)
        return Incoming(parent, _state_of(values[_TRACESTATE]), base)

    def _ask(self, propagator: TextMapPropagator, headers: Headers, base: Context) -> Incoming:
        context = propagator.extract(headers, base, _GETTER)
        found = trace.get_current_span(context).get_span_context()
        if not found.is_valid:
            return Incoming(None, None, context)
        parent = TraceParent(found.trace_id, found.span_id, int(found.trace_flags))
        return Incoming(parent, found.trace_state or None, context)


def _never(names: Iterable[bytes]) -> bool:
    return False


def _state_of(values: list[bytes]) -> TraceState | None:
    if sum(map(len, values)) > _LONGEST_STATE_BYTES:
        return None
    return TraceState.from_header([value.decode("latin-1") for value in values]) or None
