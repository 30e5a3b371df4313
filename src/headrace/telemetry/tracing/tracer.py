"""Begins the span of each request, with the provider there is: the application's, else one of ours."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping
from contextvars import ContextVar, copy_context
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.span import TraceState

from headrace.telemetry.tracing.consumer import CLOSE_S, ForeignSink, OwnSink, SpanConsumer, SpanSink
from headrace.telemetry.tracing.context import TraceParent
from headrace.telemetry.tracing.encoder import SCOPE_NAME
from headrace.telemetry.tracing.environment import has_own_provider
from headrace.telemetry.tracing.facts import SCHEMA_URL, known_methods, method_of, request_facts
from headrace.telemetry.tracing.incoming import Extractor, Incoming, name_of
from headrace.telemetry.tracing.makers import NATIVE_KEY, find_maker, must_quieten_native
from headrace.telemetry.tracing.providers import OwnProvider, make_provider, service_instance
from headrace.telemetry.tracing.span import (
    ForeignSpan,
    RequestSpan,
    ServerSpan,
    UnsampledSpan,
    current_server_span,
    flags_of,
)
from headrace.types import Scope
from headrace.version import __version__

_SPAN_KEY = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
"""The key of a context's span, taken from what the public function makes: to set it here costs less."""

_ROOT_FLAGS = flags_of(True, None, True)
_LOW_64_BITS = (1 << 64) - 1
_LOW_128_BITS = (1 << 128) - 1
_NO_CONTEXT = Context()

_logger = logging.getLogger("uvicorn.error")


class _Last:
    """The provider that a server of this process has set; OpenTelemetry takes one alone."""

    provider: trace.TracerProvider | None = None


_last = _Last()


class RequestTracer:
    """Begins spans.

    Args:
        sink: ends them.
        maker: who makes SERVER spans in our place, None when we do.
        quietens: see ``makers.must_quieten_native``.
        close_s: how long the last spans may take at the end.

    Attributes:
        consumer: to be told of every finished exchange.
        maker: as above.
    """

    current_context = staticmethod(otel_context.get_current)
    restore_context = staticmethod(otel_context.attach)
    current_server_span = staticmethod(current_server_span)
    """The span that somebody else has made for this request, as far as it can be seen from here and now."""

    def __init__(self, sink: SpanSink, maker: str | None, quietens: bool, close_s: float) -> None:
        self.consumer = SpanConsumer(sink, close_s)
        self.maker = maker
        self._quietens = quietens
        self._extractor = Extractor()
        self._has_complained = False

    def begin(self, scope: Scope, base: Context = _NO_CONTEXT) -> RequestSpan:
        """Begin the span of a request or WebSocket, put it into the scope and make it current.

        Args:
            scope: the request's.
            base: the context that what the request brings is put on.
        """
        raise NotImplementedError

    def on_fault(self, scope: Scope) -> RequestSpan:
        """A sampler, a propagator or another part that is not ours has raised: serve without a span."""
        if not self._has_complained:
            self._has_complained = True
            _logger.exception("A request cannot be traced; what is like it is not mentioned again")
        span = scope["headrace.span"] = UnsampledSpan(random.getrandbits(192))
        attach(Context({_SPAN_KEY: span}))
        return span

    def variables(self) -> list[tuple[ContextVar[Any], Any]]:
        """The context variable that ``begin`` sets, and what it is elsewhere; none if spans are not ours."""
        if self.maker is not None:
            return []
        outside = otel_context.get_current()
        variable = getattr(copy_context().run(attach, outside), "var", None)
        return [] if variable is None else [(variable, outside)]

    def drain(self) -> None:
        """Send what is finished, for as long as ``consumer.close`` may take; from any thread."""
        self.consumer.drain()


def open_tracer(
    application: Any,
    *,
    service_name: str = "headrace",
    worker: str | int | None = None,
    environ: Mapping[str, str] = os.environ,
    close_s: float = CLOSE_S,
) -> RequestTracer:
    """Find or make the provider; in the process that serves, when the application has started.

    Args:
        application: to see whether it makes the spans itself; without our own layers.
        service_name: ``service.name`` where OTEL_SERVICE_NAME says none.
        worker: a small id of this process's place, for ``service.instance.id``; its number by default.
        environ: the environment.
        close_s: how long the last spans may take at the end.

    Raises:
        ConfigError: an OTEL_* variable asks for what cannot be had.
    """
    # First, because a provider switches FastAPI's own telemetry on.
    maker = find_maker(application)
    quietens = maker is None and must_quieten_native(application)
    known = known_methods()
    is_closed = _last.provider is not None and trace.get_tracer_provider() is _last.provider
    if has_own_provider() and not is_closed:
        return ForeignTracer(trace.get_tracer_provider(), known, maker, quietens, close_s)
    own = make_provider(service_name, service_instance(worker), environ)
    if is_closed:
        _logger.warning(
            "Spans of the application's own are not sent: their provider ended with the last server"
        )
    else:
        # The application's tracers ask for it when they are used first.
        trace.set_tracer_provider(own.provider)
        _last.provider = own.provider
    return OwnTracer(own, known, maker, quietens, close_s)


class OwnTracer(RequestTracer):
    """Makes spans of our own for a provider of ours.

    Args:
        own: the provider.
        known: see ``facts.known_methods``.
        maker, quietens, close_s: see ``RequestTracer``.
    """

    def __init__(
        self,
        own: OwnProvider,
        known: frozenset[str],
        maker: str | None = None,
        quietens: bool = False,
        close_s: float = CLOSE_S,
    ) -> None:
        super().__init__(OwnSink(own, known), maker, quietens, close_s)
        self._own = own
        self._known = known
        self._has_nothing = self._extractor.has_none_of
        self._bound = own.sampling.bound
        self._follows_parent = own.sampling.follows_parent
        self._keeps = bool(own.outputs)
        self._is_plain = own.sampling.is_standard and own.makes_ids is None and self._keeps
        self._limits = own.limits
        # Of its own, because an application may seed the generator that all share.
        self._random_bits = random.Random().getrandbits

    def begin(self, scope: Scope, base: Context = _NO_CONTEXT) -> RequestSpan:
        """See ``RequestTracer``. The common case is written out, and a request that is not traced first."""
        headers = scope["headers"]
        if not self._has_nothing(map(name_of, headers)) or not self._is_plain:
            return self._begin_below(scope, self._extractor.extract(headers, base))
        bits = self._random_bits(192)
        span: RequestSpan
        if bits & _LOW_64_BITS >= self._bound:
            span = UnsampledSpan(bits)
        else:
            span = ServerSpan(bits & _LOW_128_BITS, bits >> 128, _ROOT_FLAGS, None, None, self._limits)
        scope["headrace.span"] = span
        if self._quietens:
            scope[NATIVE_KEY] = None
        attach(Context({_SPAN_KEY: span} if not base else {**base, _SPAN_KEY: span}))
        return span

    def _begin_below(self, scope: Scope, incoming: Incoming) -> RequestSpan:
        """The same for a request that brings something, a sampler that must be asked, ids made by others."""
        parent, state = incoming.parent, incoming.trace_state
        makes_ids = self._own.makes_ids
        if parent is not None:
            trace_id = parent.trace_id
        else:
            trace_id = self._random_bits(128) if makes_ids is None else makes_ids.generate_trace_id()
        span_id = self._random_bits(64) if makes_ids is None else makes_ids.generate_span_id()
        sampled: Mapping[str, Any] | None = {}
        if not self._own.sampling.is_standard:
            is_sampled, sampled, state = self._ask(self._own.sampling.sampler, scope, trace_id, incoming)
        elif parent is not None and self._follows_parent:
            is_sampled = parent.is_sampled
        else:
            is_sampled = trace_id & _LOW_64_BITS < self._bound
        flags = flags_of(is_sampled, parent, makes_ids is None)
        span: RequestSpan
        if is_sampled and self._keeps:
            span = ServerSpan(trace_id, span_id, flags, parent, state, self._limits)
            if sampled:
                span.set_attributes(sampled)
        else:
            span = UnsampledSpan(span_id << 128 | trace_id, flags, state)
        scope["headrace.span"] = span
        if self._quietens:
            scope[NATIVE_KEY] = None
        attach(Context({**incoming.context, _SPAN_KEY: span}))
        return span

    def _ask(
        self, sampler: Sampler, scope: Scope, trace_id: int, incoming: Incoming
    ) -> tuple[bool, Mapping[str, Any] | None, TraceState | None]:
        """Ask a sampler of somebody else's: (whether, its attributes, its trace state)."""
        context = remote_context(incoming)
        name = method_of(scope, self._known).name
        facts = request_facts(scope, self._known)
        answer = sampler.should_sample(context, trace_id, name, SpanKind.SERVER, facts, None, None)
        own = {key: value for key, value in (answer.attributes or {}).items() if key not in facts}
        return answer.decision is Decision.RECORD_AND_SAMPLE, own, answer.trace_state


class ForeignTracer(RequestTracer):
    """Makes spans by the provider that the application, or an agent, has set.

    Args:
        provider: that; its sampler, ids and limits hold.
        known: see ``facts.known_methods``.
        maker, quietens, close_s: see ``RequestTracer``.
    """

    def __init__(
        self,
        provider: trace.TracerProvider,
        known: frozenset[str],
        maker: str | None = None,
        quietens: bool = False,
        close_s: float = CLOSE_S,
    ) -> None:
        super().__init__(ForeignSink(provider, known), maker, quietens, close_s)
        self._known = known
        self._tracer = provider.get_tracer(SCOPE_NAME, __version__, schema_url=SCHEMA_URL)

    def begin(self, scope: Scope, base: Context = _NO_CONTEXT) -> RequestSpan:
        """See ``RequestTracer``."""
        headers = scope["headers"]
        context = base
        if not self._extractor.has_none_of(map(name_of, headers)):
            context = remote_context(self._extractor.extract(headers, base))
        name = method_of(scope, self._known).name
        made: Span = self._tracer.start_span(
            name, context, SpanKind.SERVER, request_facts(scope, self._known)
        )
        span = ForeignSpan(made, made.is_recording(), name)
        scope["headrace.span"] = span
        if self._quietens:
            scope[NATIVE_KEY] = None
        attach(trace.set_span_in_context(made, context))
        return span


def remote_context(incoming: Incoming) -> Context:
    """The context of the caller's span, from which a provider begins a child."""
    parent: TraceParent | None = incoming.parent
    if parent is None:
        return incoming.context
    caller = SpanContext(
        parent.trace_id, parent.span_id, True, TraceFlags(parent.flags), incoming.trace_state
    )
    return trace.set_span_in_context(NonRecordingSpan(caller), incoming.context)
