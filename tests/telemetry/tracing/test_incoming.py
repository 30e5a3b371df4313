from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from traced_scopes import CALLER, SAMPLED_CALLER, TRACE, Memory, make_scope

from headrace.telemetry.tracing.context import TraceParent
from headrace.telemetry.tracing.incoming import Extractor, name_of

PARENT = TraceParent(TRACE, CALLER, 1)


@pytest.fixture(autouse=True)
def propagators() -> Iterator[None]:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(
        CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    )
    yield
    propagate.set_global_textmap(before)


def extract(*headers: tuple[bytes, bytes]) -> Any:
    extractor = Extractor()
    if extractor.has_none_of(map(name_of, headers)):
        return None
    return extractor.extract(list(headers), Context())


def test_nothing_to_look_at() -> None:
    assert extract((b"host", b"a.test"), (b"tracestate", b"a=1")) is None


def test_parent_and_state() -> None:
    found = extract(*SAMPLED_CALLER, (b"tracestate", b"a=1 ,b=2"), (b"tracestate", b"c=3"))
    assert found.parent == PARENT
    assert found.trace_state == {"a": "1", "b": "2", "c": "3"}
    assert list(found.trace_state) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "state", [b"", b"no", b"a=1,a=2", b"A=1", b",".join(b"k%d=v" % n for n in range(33)), b"a=" + b"x" * 9000]
)
def test_a_state_that_is_not_valid_does_not_cost_the_parent(state: bytes) -> None:
    found = extract(*SAMPLED_CALLER, (b"tracestate", state))
    assert found.parent == PARENT
    assert found.trace_state is None


def test_two_parents_are_none() -> None:
    assert extract(*SAMPLED_CALLER, *SAMPLED_CALLER).parent is None


def test_state_without_a_valid_parent_is_nothing() -> None:
    found = extract((b"traceparent", b"00-nonsense"), (b"tracestate", b"a=1"))
    assert found.parent is None
    assert found.trace_state is None


def test_baggage_of_several_fields_without_a_parent() -> None:
    found = extract((b"baggage", b"user=ann%20b, tier=gold;p=1"), (b"baggage", b"x=1"))
    assert found.parent is None
    assert baggage.get_all(found.context) == {"user": "ann b", "tier": "gold;p=1", "x": "1"}


def test_baggage_that_is_not_valid_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert baggage.get_all(extract((b"baggage", b"a=1,,nothing,b=2")).context) == {"a": "1", "b": "2"}
    extract((b"baggage", b"a," * 100 + b"\xff" * 9000), *SAMPLED_CALLER, (b"tracestate", b"\x85=\xff,,="))
    # One request would write hundreds of lines, with what the client sent as it came.
    assert not caplog.records


def test_the_application_sees_baggage_and_span() -> None:
    memory = Memory()
    scope = make_scope([*SAMPLED_CALLER, (b"baggage", b"user=ann")])

    def call() -> tuple[Any, Any]:
        memory.tracer.begin(scope)
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier, trace.get_current_span()

    carrier, current = contextvars.copy_context().run(call)
    assert current is scope["headrace.span"]
    assert carrier["baggage"] == "user=ann"
    assert carrier["traceparent"] == f"00-{TRACE:032x}-{current.span_id:016x}-01"


def test_only_trace_context() -> None:
    propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator()]))
    assert extract((b"baggage", b"a=1")) is None
    found = extract(*SAMPLED_CALLER, (b"baggage", b"a=1"))
    assert found.parent == PARENT
    assert not baggage.get_all(found.context)


def test_only_baggage() -> None:
    propagate.set_global_textmap(CompositePropagator([W3CBaggagePropagator()]))
    assert extract(*SAMPLED_CALLER) is None
    found = extract(*SAMPLED_CALLER, (b"baggage", b"a=1"))
    assert found.parent is None
    assert baggage.get_all(found.context) == {"a": "1"}


def test_no_propagators() -> None:
    propagate.set_global_textmap(CompositePropagator([]))
    assert extract(*SAMPLED_CALLER, (b"baggage", b"a=1")) is None


class Upper(TextMapPropagator):
    """One of somebody else's: x-caller is "trace/span" in hexadecimal."""

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Context:
        assert "x-caller" in getter.keys(carrier)
        trace_id, _, span_id = getter.get(carrier, "X-Caller")[0].partition("/")
        parent = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(1))
        return trace.set_span_in_context(trace.NonRecordingSpan(parent), context)

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        raise NotImplementedError

    @property
    def fields(self) -> set[str]:
        return {"x-caller"}


def test_another_propagator_is_asked() -> None:
    propagate.set_global_textmap(Upper())
    found = extract(*SAMPLED_CALLER, (b"x-caller", b"a1/b2"))
    assert found.parent == TraceParent(0xA1, 0xB2, 1)


def test_b3() -> None:
    b3 = pytest.importorskip("opentelemetry.propagators.b3")
    propagate.set_global_textmap(b3.B3MultiFormat())
    found = extract(
        (b"x-b3-traceid", b"%032x" % TRACE), (b"x-b3-spanid", b"%016x" % CALLER), (b"x-b3-sampled", b"1")
    )
    assert found.parent == PARENT
    found = extract((b"b3", b"%032x-%016x-0" % (TRACE, CALLER)))
    assert found.parent == PARENT._replace(flags=0)
    memory = Memory()
    memory.tracer._extractor = Extractor()
    memory.tracer._has_nothing = memory.tracer._extractor.has_none_of
    assert not memory.begin(make_scope([(b"b3", b"%032x-%016x-0" % (TRACE, CALLER))])).is_recorded


def test_a_propagator_derived_of_w3cs_is_asked() -> None:
    class Distrustful(TraceContextTextMapPropagator):
        def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
            return context

    propagate.set_global_textmap(CompositePropagator([Distrustful(), W3CBaggagePropagator()]))
    assert extract(*SAMPLED_CALLER).parent is None
