from __future__ import annotations

import contextvars
import gc
import random
import weakref
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
from traced_scopes import CALLER, SAMPLED_CALLER, TRACE, Memory, environment, finish, make_scope

from headrace.telemetry.tracing import current_ids
from headrace.telemetry.tracing.span import ServerSpan, UnsampledSpan


@pytest.fixture
def memory() -> Memory:
    return Memory()


def test_of_a_plain_request(memory: Memory) -> None:
    memory.begin(scope := make_scope([(b"user-agent", b"curl/8.5")], query_string=b"q=1"))
    made = memory.end(finish(scope))
    assert made.name == "GET /items/{id}"
    assert made.kind is trace.SpanKind.SERVER
    assert made.parent is None
    assert made.status.status_code is StatusCode.UNSET
    assert made.end_time - made.start_time == 250_000_000
    assert made.attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/items/1",
        "url.query": "q=1",
        "network.protocol.version": "1.1",
        "server.address": "shop.test",
        "server.port": 80,
        "client.address": "192.0.2.7",
        "network.peer.address": "192.0.2.7",
        "network.peer.port": 51234,
        "user_agent.original": "curl/8.5",
        "http.route": "/items/{id}",
        "http.response.status_code": 200,
    }
    assert made.resource.attributes["service.name"] == "shop"
    assert made.resource.attributes["service.instance.id"] == "node/1"
    assert made.instrumentation_scope.name == "headrace"


def test_below_a_caller(memory: Memory) -> None:
    span = memory.begin(scope := make_scope([*SAMPLED_CALLER, (b"tracestate", b"a=1")]))
    made = memory.end(finish(scope))
    assert (made.parent.trace_id, made.parent.span_id, made.parent.is_remote) == (TRACE, CALLER, True)
    assert (made.context.trace_id, made.context.span_id) == (TRACE, span.span_id)
    assert made.context.trace_state == {"a": "1"}


def test_ids_are_new_each_time(memory: Memory) -> None:
    spans = [memory.begin(make_scope()) for _ in range(100)]
    assert len({span.trace_id for span in spans}) == len({span.span_id for span in spans}) == 100
    assert all(0 < span.trace_id < 2**128 and 0 < span.span_id < 2**64 for span in spans)


def test_a_seed_of_the_application_does_not_repeat_ids(memory: Memory) -> None:
    random.seed(1)
    first = memory.begin(make_scope())
    random.seed(1)
    assert memory.begin(make_scope()).trace_id != first.trace_id


def test_what_the_application_adds(memory: Memory) -> None:
    span = memory.begin(scope := make_scope())
    assert isinstance(span, trace.Span)
    assert span.is_recording()
    span.set_attribute("order.id", 7)
    span.set_attributes({"tags": ["a", "b"], "http.route": "/mine"})
    span.add_event("paid", {"amount": 1.5}, 123)
    other = SpanContext(5, 6, True, TraceFlags(1))
    span.add_link(other, {"why": "retry"})
    span.update_name("checkout")
    assert span.attributes["order.id"] == 7
    made = memory.end(finish(scope))
    assert made.name == "checkout"
    assert made.attributes["order.id"] == 7
    assert made.attributes["tags"] == ("a", "b")
    assert made.attributes["http.route"] == "/mine"
    assert [(event.name, event.timestamp, event.attributes) for event in made.events] == [
        ("paid", 123, {"amount": 1.5})
    ]
    assert [(link.context, link.attributes) for link in made.links] == [(other, {"why": "retry"})]


def test_what_comes_behind_the_end_is_not_taken(memory: Memory) -> None:
    span = memory.begin(scope := make_scope())
    memory.end(finish(scope))
    assert not span.is_recording()
    span.set_attribute("late", 1)
    span.add_event("late")
    span.add_link(SpanContext(5, 6, True))
    span.update_name("late")
    span.set_status(StatusCode.ERROR)
    span.end()
    assert not span.attributes
    assert (span.events, span.links, span.own_name, span.own_status) == (None, None, None, None)


def test_end_by_the_application_is_not_the_end(memory: Memory) -> None:
    span = memory.begin(scope := make_scope())
    with span:
        pass
    span.end()
    span.set_attribute("a", 1)
    assert memory.end(finish(scope)).attributes["a"] == 1


@pytest.mark.parametrize(
    ("said", "status", "code", "description"),
    [
        ([], 200, StatusCode.UNSET, None),
        ([], 404, StatusCode.UNSET, None),
        ([], 500, StatusCode.ERROR, None),
        ([], 503, StatusCode.ERROR, None),
        ([(StatusCode.ERROR, "no stock")], 200, StatusCode.ERROR, "no stock"),
        ([(Status(StatusCode.ERROR, "no stock"), None)], 200, StatusCode.ERROR, "no stock"),
        ([(StatusCode.OK, None)], 500, StatusCode.OK, None),
        ([(StatusCode.OK, None), (StatusCode.ERROR, "x")], 200, StatusCode.OK, None),
        ([(StatusCode.ERROR, "x"), (StatusCode.UNSET, None)], 200, StatusCode.ERROR, "x"),
        ([(StatusCode.ERROR, "x"), (StatusCode.ERROR, "y")], 200, StatusCode.ERROR, "y"),
    ],
)
def test_status(
    said: list[Any], status: int, code: StatusCode, description: str | None, memory: Memory
) -> None:
    span = memory.begin(scope := make_scope())
    for each in said:
        span.set_status(*each)
    made = memory.end(finish(scope, status))
    assert (made.status.status_code, made.status.description) == (code, description)
    assert made.attributes.get("error.type") == (str(status) if status >= 500 else None)


def test_an_unhandled_error(memory: Memory) -> None:
    span = memory.begin(scope := make_scope())
    try:
        raise LookupError("gone")
    except LookupError as error:
        raised = error
    made = memory.end(finish(scope, 500, raised))
    assert made.attributes["error.type"] == "LookupError"
    assert made.status.status_code is StatusCode.ERROR
    (event,) = made.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "LookupError"
    assert event.attributes["exception.message"] == "gone"
    assert "test_an_unhandled_error" in event.attributes["exception.stacktrace"]
    assert span.error is None


class Broken(Exception):
    pass


def test_an_error_that_the_application_records(memory: Memory) -> None:
    span = memory.begin(scope := make_scope())
    span.record_exception(Broken("x"), {"try": 2})
    (event,) = memory.end(finish(scope, 502)).events
    assert event.attributes["exception.type"] == "test_server_span.Broken"
    assert event.attributes["try"] == 2


def test_a_client_that_left(memory: Memory) -> None:
    memory.begin(scope := make_scope())
    made = memory.end(finish(scope, 499, ConnectionResetError()))
    assert "http.response.status_code" not in made.attributes
    assert made.attributes["headrace.client_left"] is True
    assert made.status.status_code is StatusCode.UNSET
    assert not made.events


def test_limits() -> None:
    variables = {
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2",
        "OTEL_SPAN_EVENT_COUNT_LIMIT": "2",
        "OTEL_SPAN_LINK_COUNT_LIMIT": "1",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "5",
    }
    with environment(**variables):
        limits = SpanLimits()
    span = ServerSpan(1, 2, 1, None, None, limits)
    for number in range(5):
        span.set_attribute(f"a{number}", "x" * 9)
        span.add_event(f"e{number}")
        span.add_link(SpanContext(1, 10 + number, False))
    assert dict(span.attributes) == {"a3": "xxxxx", "a4": "xxxxx"}
    assert [event.name for event in span.events or ()] == ["e3", "e4"]
    assert [link.context.span_id for link in span.links or ()] == [14]
    assert (span.dropped_events, span.dropped_links) == (3, 4)


def test_unsampled_takes_everything_and_keeps_nothing() -> None:
    span = UnsampledSpan(7 << 128 | 9)
    assert (span.trace_id, span.span_id, span.is_sampled, span.is_recorded) == (9, 7, False, False)
    assert not span.is_recording()
    span.set_attribute("a", 1)
    span.record_exception(ValueError())
    span.end()
    context = span.get_span_context()
    assert (context.trace_id, context.span_id, context.is_valid, context.is_remote) == (9, 7, True, False)
    assert "UnsampledSpan" in repr(span)
    assert "0x" in repr(ServerSpan(1, 2, 1, None, None, SpanLimits()))


def test_ids_for_logs(memory: Memory) -> None:
    assert current_ids() is None
    tracer = memory.own.provider.get_tracer("application")

    def call() -> None:
        span = memory.tracer.begin(make_scope())
        assert current_ids() == (f"{span.trace_id:032x}", f"{span.span_id:016x}")
        with tracer.start_as_current_span("child") as child:
            ids = child.get_span_context()
            assert current_ids() == (f"{span.trace_id:032x}", f"{ids.span_id:016x}")

    contextvars.copy_context().run(call)
    assert current_ids() is None


def test_nothing_is_left_when_a_request_is_over(memory: Memory) -> None:
    """No cycle: what the request held goes with it, without the collector."""
    gc.disable()
    try:
        span = memory.begin(scope := make_scope())
        try:
            raise ValueError
        except ValueError as error:
            span.error = error
        memory.end(finish(scope, 500))
        memory.exporter.clear()
        gone = weakref.ref(span)
        del span, scope
        assert gone() is None
    finally:
        gc.enable()
