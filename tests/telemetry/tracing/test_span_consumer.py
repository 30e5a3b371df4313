from __future__ import annotations

import asyncio
import gc
import logging
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import SpanLimits
from traced_scopes import SAMPLED_CALLER, Memory, finish, make_scope

from headrace.middleware.tracing import Tracing
from headrace.telemetry.tracing.consumer import BATCH_SPANS, SpanConsumer
from headrace.telemetry.tracing.span import ServerSpan


class Sink:
    """Remembers what was ended."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.offsets: list[int] = []
        self.sent: list[tuple[float, bool]] = []
        self.is_in_time = True

    def end(self, span: Any, exchange: Any, wall_offset_ns: int) -> None:
        if exchange[0]["path"] == "/odd":
            raise LookupError("odd")
        self.paths.append(exchange[0]["path"])
        self.offsets.append(wall_offset_ns)

    def send(self, deadline_s: float, closes: bool) -> bool:
        self.sent.append((deadline_s, closes))
        return self.is_in_time


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def consumer(sink: Sink) -> SpanConsumer:
    return SpanConsumer(sink, 2.0)


def exchange(path: str = "/", has_returned: bool = True) -> Any:
    scope = make_scope(path=path)
    span = ServerSpan(1, 2, 1, None, None, SpanLimits())
    span.has_returned = has_returned
    scope["headrace.span"] = span
    return finish(scope)


def test_batches(consumer: SpanConsumer, sink: Sink) -> None:
    for _ in range(BATCH_SPANS - 1):
        consumer.add(exchange())
    assert not sink.paths
    consumer.add(exchange())
    assert len(sink.paths) == BATCH_SPANS
    consumer.add(exchange())
    assert len(consumer) == 1
    consumer.flush()
    assert len(consumer) == 0


def test_exchanges_without_a_span_of_ours(consumer: SpanConsumer, sink: Sink) -> None:
    consumer.add(finish({"type": "http", "path": "/shed"}))
    scope = make_scope()
    Memory(OTEL_TRACES_SAMPLER="always_off").begin(scope)
    consumer.add(finish(scope))
    consumer.flush()
    assert len(consumer) == 0
    assert not sink.paths


def test_the_application_may_still_run_for_a_while(consumer: SpanConsumer, sink: Sink) -> None:
    running, other = exchange("/running", has_returned=False), exchange("/other")
    consumer.add(running)
    consumer.add(other)
    consumer.flush()
    assert sink.paths == ["/other"]
    running[0]["headrace.span"].error = ValueError("behind the response")
    consumer.flush()
    assert sink.paths == ["/other", "/running"]
    assert running[0]["headrace.span"].error is None


def test_what_is_done_may_be_ended_early(consumer: SpanConsumer, sink: Sink) -> None:
    """As a WebSocket's end asks for, under other servers."""
    consumer.add(exchange("/running", has_returned=False))
    for number in range(3):
        consumer.add(exchange(f"/{number}"))
        consumer.end_returned()
    assert sink.paths == ["/0", "/1", "/2"]
    consumer.flush()
    assert sink.paths[3:] == ["/running"]


def test_but_a_full_batch_does_not_wait_for_it(consumer: SpanConsumer, sink: Sink) -> None:
    consumer.add(exchange("/running", has_returned=False))
    for _ in range(BATCH_SPANS):
        consumer.add(exchange())
    assert len(sink.paths) == BATCH_SPANS - 1
    assert len(consumer) == 2


def test_times_are_of_the_wall_clock(consumer: SpanConsumer, sink: Sink) -> None:
    consumer.add(exchange())
    consumer.flush()
    assert abs(sink.offsets[0] - (time.time_ns() - time.monotonic_ns())) < 10**9


def test_one_that_cannot_be_described_costs_no_other(
    consumer: SpanConsumer, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/a", "/odd", "/odd", "/b"):
        consumer.add(exchange(path))
    with caplog.at_level(logging.ERROR, "uvicorn.error"):
        consumer.flush()
    assert sink.paths == ["/a", "/b"]
    assert len(caplog.records) == 1
    assert len(consumer) == 0


@pytest.mark.parametrize("closes", [False, True])
def test_the_end_waits_for_nobody(closes: bool, consumer: SpanConsumer, sink: Sink) -> None:
    consumer.add(exchange("/running", has_returned=False))
    (consumer.close if closes else consumer.drain)()
    assert sink.paths == ["/running"]
    assert sink.sent == [(2.0, closes)]


def test_what_could_not_be_sent_is_said(
    consumer: SpanConsumer, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.is_in_time = False
    with caplog.at_level(logging.WARNING, "uvicorn.error"):
        consumer.close()
    assert "Spans were not sent" in caplog.text


def living_spans() -> int:
    gc.collect()
    return sum(type(thing) is ServerSpan for thing in gc.get_objects())


def test_ten_thousand_clients_that_leave() -> None:
    """Cancelled in the middle, told of as 499, or never told of at all: no span stays, none is open."""
    memory = Memory()
    before = living_spans()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    layer = Tracing(application, memory.tracer)

    async def leave(number: int) -> None:
        scope = make_scope(SAMPLED_CALLER if number % 2 else None)
        task = asyncio.create_task(layer.enter(scope, None, None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if number % 10:
            memory.tracer.consumer.add(finish(scope, 499))

    async def main() -> None:
        for start in range(0, 10_000, 100):
            await asyncio.gather(*(leave(number) for number in range(start, start + 100)))
            memory.tracer.consumer.flush()
        memory.tracer.consumer.flush()

    asyncio.run(main())
    assert len(memory.tracer.consumer) == 0
    assert len(memory.exporter.get_finished_spans()) == 9_000
    memory.exporter.clear()
    assert living_spans() <= before
