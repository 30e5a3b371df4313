"""What is encoded directly is held against what the library makes of the same span."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState
from traced_scopes import SAMPLED_CALLER, Memory, environment, finish, make_scope

from headrace.telemetry.tracing.encoder import ResourceFrame, SpanEncoder
from headrace.telemetry.tracing.facts import LONGEST_TEXT, known_methods
from otlp import spans_of

OFFSET_NS = 1_700_000_000_000_000_000


class Both:
    """Encodes each span in both ways."""

    def __init__(self, **variables: str) -> None:
        self.memory = Memory(**variables)
        self.encoder = SpanEncoder(self.memory.own.limits, known_methods())
        self.frame = ResourceFrame(self.memory.own.resource)

    def directly(self, exchange: Any) -> Any:
        span = exchange[0]["headrace.span"]
        data = self.frame.around([self.encoder.encode(span, exchange, OFFSET_NS)])
        return ExportTraceServiceRequest.FromString(data)

    def by_the_library(self, exchange: Any) -> Any:
        sink = self.memory.tracer.consumer._sink
        snapshot = sink._snapshot(exchange[0]["headrace.span"], exchange, OFFSET_NS)
        return ExportTraceServiceRequest.FromString(encode_spans([snapshot]).SerializeToString())

    def check(self, exchange: Any) -> Any:
        """The span, the same both ways."""
        ours, theirs = canonical(self.directly(exchange)), canonical(self.by_the_library(exchange))
        assert ours == theirs
        # What has been made once comes from the tables now.
        assert canonical(self.directly(exchange)) == theirs
        return next(spans_of(ours))


def canonical(message: Any) -> Any:
    """Attributes sorted; an empty status, and what the library leaves out (flags, state of links), away."""
    for resource in message.resource_spans:
        resource.resource.attributes.sort(key=lambda pair: pair.key)
        for scope in resource.scope_spans:
            for span in scope.spans:
                span.attributes.sort(key=lambda pair: pair.key)
                span.flags &= ~0xFF
                if span.HasField("status") and not span.status.code:
                    span.ClearField("status")
                for link in span.links:
                    link.flags &= ~0xFF
                    link.trace_state = ""
    return message


@pytest.fixture(scope="module")
def both() -> Both:
    return Both()


@pytest.mark.parametrize(
    "scope",
    [
        make_scope(),
        make_scope(SAMPLED_CALLER),
        make_scope([*SAMPLED_CALLER, (b"tracestate", b"a=1,b=2")]),
        make_scope([(b"user-agent", "Mözilla".encode("latin-1"))], query_string=b"a=1&sig=secret&b=\xff"),
        make_scope(method="BREW"),
        make_scope(method="HEAD", http_version="2", scheme="https"),
        make_scope(client=None, server=None, headers=[]),
        make_scope(client=["192.0.2.8", 5], server=["/run/app.sock", None], headers=[]),
        make_scope(client=("192.0.2.9", 0)),
        make_scope(headers=[(b"host", b"[::1]:8080")]),
        make_scope(headers=[(b"host", b"no host/")]),
        make_scope(raw_path=None, path="/caf\u00e9 1"),
        make_scope(raw_path=b"/" + b"x" * 5000),
        {key: value for key, value in make_scope().items() if key != "headrace.route"},
        {key: value for key, value in make_scope(type="websocket", scheme="ws").items() if key != "method"},
    ],
)
@pytest.mark.parametrize("status", [200, 404, 499, 500])
def test_requests(scope: dict[str, Any], status: int, both: Both) -> None:
    both.memory.begin(scope := {**scope})
    span = both.check(finish(scope, status))
    assert span.finished_ns - span.started_ns == 250_000_000
    assert span.started_ns == OFFSET_NS + 5_000_000_000


def test_errors(both: Both) -> None:
    both.memory.begin(scope := make_scope())
    try:
        raise ValueError("odd")
    except ValueError as raised:
        error = raised
    assert both.check(finish(scope, 500, error)).attributes["error.type"] == "ValueError"
    error.args = ("odd\udc00",)
    made = next(spans_of(both.directly(finish(scope, 500, error))))
    assert made.events[0].attributes["exception.message"] == "odd?"


def test_what_the_application_added(both: Both) -> None:
    span = both.memory.begin(scope := make_scope(SAMPLED_CALLER))
    span.set_attributes({"a": 1, "b": [1.5, 2.5], "c": ("x",), "d": True, "e": -3})
    span.add_event("first", {"n": 1}, 5)
    span.add_event("second", None, 6)
    span.add_link(SpanContext(1, 2, True, TraceFlags(1), TraceState([("k", "v")])), {"l": 1})
    span.add_link(SpanContext(3, 4, False))
    both.check(exchange := finish(scope))
    raw = next(spans_of(both.directly(exchange))).raw
    assert (raw.links[0].trace_state, raw.links[0].flags, raw.links[1].flags) == ("k=v", 0x301, 0x100)


def test_a_sampler_s_state_of_a_root_span_is_sent(both: Both) -> None:
    span = both.memory.begin(scope := make_scope())
    span.trace_state = TraceState([("ot", "th:c")])
    assert next(spans_of(both.directly(finish(scope)))).raw.trace_state == "ot=th:c"


@pytest.mark.parametrize("time_ns", [-5, 1.5, 1 << 70])
def test_an_event_of_any_time_costs_no_span(time_ns: Any, both: Both) -> None:
    span = both.memory.begin(scope := make_scope())
    span.add_event("odd", None, time_ns)
    assert [event.name for event in next(spans_of(both.directly(finish(scope)))).raw.events] == ["odd"]


@pytest.mark.parametrize("status", [200, 500])
def test_where_the_application_contradicts(status: int, both: Both) -> None:
    span = both.memory.begin(scope := make_scope())
    span.set_attribute("url.path", "/hidden")
    span.update_name("mine")
    span.set_status(StatusCode.OK)
    assert both.check(finish(scope, status)).attributes["url.path"] == "/hidden"
    span = both.memory.begin(scope := make_scope())
    span.set_status(StatusCode.ERROR, "why")
    both.check(finish(scope, status))


def test_a_closed_websocket(both: Both) -> None:
    span = both.memory.begin(scope := make_scope(type="websocket", scheme="ws"))
    span.close_code = 1001
    assert both.check(finish(scope, 101)).attributes["headrace.websocket.close_code"] == 1001


def test_a_limit_of_length_holds_for_ours_too() -> None:
    with environment(OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="4"):
        limited = Both(OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="4")
    limited.memory.begin(scope := make_scope())
    made = next(spans_of(limited.directly(finish(scope))))
    assert made.attributes["url.path"] == "/ite"
    assert made.attributes["server.port"] == 80


def test_a_limit_of_length_holds_for_errors_and_for_every_exporter() -> None:
    limited = Both(OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="6")
    limited.memory.begin(scope := make_scope())
    try:
        raise ValueError("a long story")
    except ValueError as raised:
        exchange = finish(scope, 500, raised)
    for made in (limited.directly(exchange), limited.by_the_library(exchange)):
        (span,) = spans_of(made)
        assert span.events[0].attributes == {
            "exception.type": "ValueE",
            "exception.message": "a long",
            "exception.stacktrace": "story\n",
        }
        assert span.attributes["url.path"] == "/items"


def test_what_clients_write_is_bounded(both: Both) -> None:
    headers = [(b"user-agent", b"u" * 60_000), (b"host", b"h" * 60_000)]
    changes = {"raw_path": b"/" + b"p" * 60_000, "query_string": b"q" * 60_000, "method": "M" * 60_000}
    both.memory.begin(scope := make_scope(headers=headers, **changes))
    attributes = both.check(exchange := finish({**scope, "headers": headers})).attributes
    for name in (
        "user_agent.original",
        "url.path",
        "url.query",
        "server.address",
        "http.request.method_original",
    ):
        assert len(attributes[name]) == LONGEST_TEXT
    assert len(both.directly(exchange).SerializeToString()) < 6 * LONGEST_TEXT


def test_host_that_names_nothing_leaves_it_to_the_listener(both: Both) -> None:
    for port in (8000, 8001):
        scope = make_scope(server=("10.0.0.1", port), headers=[(b"host", b"no host/")])
        scope["headers"] = scope["headers"][1:]
        both.memory.begin(scope)
        assert both.check(finish(scope)).attributes["server.port"] == port


def test_what_was_dropped_is_counted() -> None:
    limited = Both(OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="1", OTEL_SPAN_EVENT_COUNT_LIMIT="1")
    span = limited.memory.begin(scope := make_scope())
    for number in range(3):
        span.set_attribute(f"a{number}", number)
        span.add_event(f"e{number}")
    raw = next(spans_of(limited.directly(finish(scope)))).raw
    assert (raw.dropped_attributes_count, raw.dropped_events_count) == (2, 2)


def test_flags_are_those_of_the_context(both: Both) -> None:
    for caller, expected in (([], 0x100), (SAMPLED_CALLER, 0x300)):
        span = both.memory.begin(scope := make_scope(list(caller)))
        raw = next(spans_of(both.directly(finish(scope)))).raw
        assert raw.flags == expected | int(span.get_span_context().trace_flags)


def test_tables_are_bounded(both: Both) -> None:
    for number in range(5000):
        scope = make_scope(raw_path=b"/%d" % number, query_string=b"q=%d" % number, client=("::1", number))
        contextvars.copy_context().run(both.memory.tracer.begin, scope)
        both.encoder.encode(scope["headrace.span"], finish(scope), OFFSET_NS)
    tables = [value for value in vars(both.encoder).values() if isinstance(value, dict)]
    assert len(tables) == 6
    assert all(len(table) <= 2048 for table in tables)


def test_a_clock_that_went_back(both: Both) -> None:
    both.memory.begin(scope := make_scope())
    exchange = (scope, 200, 0, 5.0, 4.0, [], 0, None)
    made = next(spans_of(both.directly(exchange)))
    assert made.finished_ns == made.started_ns
