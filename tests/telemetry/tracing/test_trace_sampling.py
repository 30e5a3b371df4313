from __future__ import annotations

import contextvars
import logging
import random
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.span import TraceState
from traced_scopes import CALLER, SAMPLED_CALLER, TRACE, UNSAMPLED_CALLER, Memory, make_scope

from headrace.telemetry.tracing import sampling as our_sampling
from headrace.telemetry.tracing.facts import known_methods
from headrace.telemetry.tracing.sampling import ALL, read_sampling
from headrace.telemetry.tracing.tracer import OwnTracer

NONE: list[tuple[bytes, bytes]] = []


def test_everything_by_default_and_as_the_caller_decided() -> None:
    read = read_sampling({})
    assert (read.bound, read.follows_parent, read.is_standard) == (ALL, True, True)
    assert read.sampler.get_description() == sampling.DEFAULT_ON.get_description()


@pytest.mark.parametrize(
    ("name", "argument", "without", "sampled", "unsampled"),
    [
        ("always_on", "", True, True, True),
        ("always_off", "", False, False, False),
        ("traceidratio", "1", True, True, True),
        ("traceidratio", "0", False, False, False),
        ("parentbased_always_on", "", True, True, False),
        ("parentbased_always_off", "", False, True, False),
        ("parentbased_traceidratio", "0", False, True, False),
        ("parentbased_traceidratio", "1.0", True, True, False),
        ("PARENTBASED_ALWAYS_OFF", "", False, True, False),
    ],
)
def test_standard_samplers(name: str, argument: str, without: bool, sampled: bool, unsampled: bool) -> None:
    memory = Memory(OTEL_TRACES_SAMPLER=name, OTEL_TRACES_SAMPLER_ARG=argument)
    decided = [
        memory.begin(make_scope(caller)).is_recorded for caller in (NONE, SAMPLED_CALLER, UNSAMPLED_CALLER)
    ]
    assert decided == [without, sampled, unsampled]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.937])
@pytest.mark.parametrize("name", ["traceidratio", "parentbased_traceidratio"])
def test_a_ratio_decides_by_the_trace_as_the_sdk_does(name: str, ratio: float) -> None:
    memory = Memory(OTEL_TRACES_SAMPLER=name, OTEL_TRACES_SAMPLER_ARG=str(ratio))
    memory.tracer._random_bits = random.Random(7).getrandbits  # so that the shares are always the same
    sampler, count = memory.own.provider.sampler, 0
    for _ in range(2000):
        span = memory.begin(make_scope())
        result = sampler.should_sample(None, span.trace_id, "GET", SpanKind.SERVER)
        assert span.is_recorded is span.is_sampled is result.decision.is_sampled()
        count += span.is_recorded
    assert abs(count / 2000 - ratio) < 0.05


def test_children_are_decided_as_their_request() -> None:
    memory = Memory(OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.5")
    tracer = memory.own.provider.get_tracer("application")
    seen = set()
    for _ in range(50):
        span = memory.begin(make_scope())
        child = tracer.start_span("child", trace.set_span_in_context(span))
        assert child.is_recording() is span.is_recorded
        assert child.get_span_context().trace_id == span.trace_id
        seen.add(span.is_recorded)
    assert seen == {True, False}


@pytest.mark.parametrize("argument", [None, "", "much", "1.5", "-0.1", "nan"])
def test_a_ratio_that_is_none_traces_everything(
    argument: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"OTEL_TRACES_SAMPLER": "traceidratio"}
    if argument is not None:
        environ["OTEL_TRACES_SAMPLER_ARG"] = argument
    with caplog.at_level(logging.WARNING, "uvicorn.error"):
        assert read_sampling(environ).bound == ALL
    assert "OTEL_TRACES_SAMPLER_ARG" in caplog.text


def test_a_sampler_nobody_has_traces_everything(caplog: pytest.LogCaptureFixture) -> None:
    read = read_sampling({"OTEL_TRACES_SAMPLER": "jaeger_remote"})
    assert (read.bound, read.follows_parent) == (ALL, True)
    assert "jaeger_remote" in caplog.text


class Paths(sampling.Sampler):
    """Samples by what is known of the request, as an installed one may."""

    asked: list[Any] = []

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> sampling.SamplingResult:
        self.asked.append((trace.get_current_span(parent_context).get_span_context(), trace_id, name, kind))
        chosen = attributes["url.path"] == "/items/1"
        decision = sampling.Decision.RECORD_AND_SAMPLE if chosen else sampling.Decision.DROP
        return sampling.SamplingResult(decision, {"sampler.rule": "path"}, TraceState([("s", "1")]))

    def get_description(self) -> str:
        return "Paths"


class Entry:
    def load(self) -> Any:
        return lambda argument: Paths()


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Memory:
    def entry_points(*, group: str, name: str) -> list[Entry]:
        return [Entry()] if (group, name) == ("opentelemetry_traces_sampler", "paths") else []

    monkeypatch.setattr(our_sampling, "entry_points", entry_points)
    Paths.asked = []
    return Memory(OTEL_TRACES_SAMPLER="paths")


def test_an_installed_sampler_is_asked(paths: Memory) -> None:
    span = paths.begin(scope := make_scope(SAMPLED_CALLER))
    assert not paths.begin(make_scope(path="/other", raw_path=b"/other")).is_recorded
    parent, trace_id, name, kind = Paths.asked[0]
    assert (parent.trace_id, parent.span_id, parent.is_remote) == (TRACE, CALLER, True)
    assert (trace_id, name, kind) == (TRACE, "GET", SpanKind.SERVER)
    assert span.get_span_context().trace_state == {"s": "1"}
    made = paths.end((scope, 200, 0, 1.0, 2.0, [], 0, None))
    assert made.attributes["sampler.rule"] == "path"


def test_flags_say_whether_the_trace_is_random() -> None:
    on, off = Memory(), Memory(OTEL_TRACES_SAMPLER="always_off")
    random_flag = getattr(TraceFlags, "RANDOM_TRACE_ID", 0)
    assert on.begin(make_scope()).get_span_context().trace_flags == 1 | random_flag
    assert off.begin(make_scope()).get_span_context().trace_flags == random_flag
    assert on.begin(make_scope(SAMPLED_CALLER)).get_span_context().trace_flags == 1
    random_caller = [(b"traceparent", b"00-%032x-%016x-03" % (TRACE, CALLER))]
    assert on.begin(make_scope(random_caller)).get_span_context().trace_flags == 3
    assert off.begin(make_scope(random_caller)).get_span_context().trace_flags == 2


def test_with_no_exporter_nothing_is_kept_but_the_trace_goes_on() -> None:
    tracer = OwnTracer(Memory().own._replace(outputs=()), known_methods())
    for caller in (NONE, SAMPLED_CALLER):
        span: Any = contextvars.copy_context().run(tracer.begin, make_scope(caller))
        assert span.is_sampled
        assert not span.is_recorded


def test_parent_of_the_sdk_sampler_matches_ours() -> None:
    """The SDK's own sampler, asked for a remote parent, decides as we do without asking it."""
    for name in ("always_on", "always_off", "parentbased_always_on", "parentbased_always_off"):
        memory = Memory(OTEL_TRACES_SAMPLER=name)
        for caller, flags in ((SAMPLED_CALLER, 1), (UNSAMPLED_CALLER, 0)):
            parent = NonRecordingSpan(SpanContext(TRACE, CALLER, True, TraceFlags(flags)))
            result = memory.own.provider.sampler.should_sample(
                trace.set_span_in_context(parent), TRACE, "GET", SpanKind.SERVER
            )
            assert memory.begin(make_scope(caller)).is_sampled is result.decision.is_sampled()
