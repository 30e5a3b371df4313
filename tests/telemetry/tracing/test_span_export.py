from __future__ import annotations

import contextvars
import io
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
from traced_scopes import environment, finish, make_scope

from headrace.errors import ConfigError
from headrace.telemetry.tracing import export, providers
from headrace.telemetry.tracing.facts import known_methods
from headrace.telemetry.tracing.providers import flush_provider, make_provider
from headrace.telemetry.tracing.tracer import OwnTracer
from live import eventually
from otlp import INTERNAL, SERVER, Receiver, grpc_receiver, http_receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with http_receiver() as made:
        yield made


def make(receiver: Receiver | None = None, **variables: str) -> OwnTracer:
    if receiver is not None:
        variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
    with environment(**variables) as environ:
        return OwnTracer(make_provider("shop", "node/1", environ), known_methods(), close_s=10.0)


def run(tracer: OwnTracer, count: int = 1, has_child: bool = True) -> None:
    """Finish so many requests, each with a span of the application's own."""
    application = tracer._own.provider.get_tracer("application")

    def request() -> None:
        scope = make_scope()
        span: Any = tracer.begin(scope)
        if has_child:
            application.start_span("child").end()
        span.has_returned = True
        tracer.consumer.add(finish(scope))

    for _ in range(count):
        contextvars.copy_context().run(request)


def check_pair(spans: list[Any]) -> None:
    parent = next(span for span in spans if span.kind == SERVER)
    child = next(span for span in spans if span.kind == INTERNAL)
    assert (parent.name, parent.scope) == ("GET /items/{id}", "headrace")
    assert (child.name, child.scope) == ("child", "application")
    assert (child.trace_id, child.parent_id) == (parent.trace_id, parent.span_id)
    assert parent.resource == child.resource
    assert parent.resource["service.name"] == "shop"
    assert parent.resource["service.instance.id"] == "node/1"


def test_over_http(receiver: Receiver) -> None:
    tracer = make(receiver)
    assert tracer._own.outputs[0].takes_encoded
    run(tracer)
    tracer.consumer.close()
    check_pair(receiver.wait(2))
    # One request for both kinds.
    assert len(receiver.requests) == 1
    assert receiver.requests[0]["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_variables_of_the_exporter_hold(compression: str, receiver: Receiver) -> None:
    tracer = make(
        receiver,
        OTEL_EXPORTER_OTLP_COMPRESSION=compression,
        OTEL_EXPORTER_OTLP_HEADERS="api-key=secret",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.name=other",
    )
    run(tracer, has_child=False)
    tracer.consumer.close()
    (span,) = receiver.wait(1)
    assert receiver.requests[0]["content-encoding"] == compression
    assert receiver.requests[0]["api-key"] == "secret"
    assert span.resource["deployment.environment.name"] == "test"
    assert span.resource["service.name"] == "other"


def test_names_of_the_environment_hold(receiver: Receiver) -> None:
    tracer = make(receiver, OTEL_SERVICE_NAME="named", OTEL_RESOURCE_ATTRIBUTES="service.instance.id=chosen")
    run(tracer, has_child=False)
    tracer.consumer.close()
    (span,) = receiver.wait(1)
    assert span.resource["service.name"] == "named"
    assert span.resource["service.instance.id"] == "chosen"


def test_tried_again(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answers = [503]
    tracer = make(receiver)
    run(tracer, has_child=False)
    tracer.consumer.drain()
    assert len(receiver.wait(1)) == 1
    assert len(receiver.requests) == 2
    tracer.consumer.close()


def test_refused_for_good(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answers = [400]
    tracer = make(receiver)
    run(tracer, has_child=False)
    tracer.consumer.close()
    assert not receiver.spans
    assert "Failed to export" in caplog.text


def test_batches_go_without_being_asked(receiver: Receiver) -> None:
    tracer = make(receiver, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="64", OTEL_BSP_SCHEDULE_DELAY="3600000")
    run(tracer, 64, has_child=False)
    receiver.wait(64)
    tracer.consumer.close()


def test_a_full_queue_drops_and_goes_on(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    tracer = make(
        receiver,
        OTEL_BSP_MAX_QUEUE_SIZE="8",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8",
        OTEL_BSP_SCHEDULE_DELAY="3600000",
    )
    receiver.gate.clear()
    run(tracer, 8, has_child=False)
    tracer.consumer.flush()
    eventually(lambda: receiver.requests)
    # One batch is under way, and one fits into the queue.
    run(tracer, 500, has_child=False)
    receiver.gate.set()
    tracer.consumer.close()
    assert len(receiver.spans) == 16
    assert "Queue full" in caplog.text


def test_over_grpc() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    with grpc_receiver() as receiver:
        tracer = make(
            receiver, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_HEADERS="api-key=secret"
        )
        assert tracer._own.outputs[0].takes_encoded
        run(tracer)
        tracer.consumer.close()
        check_pair(receiver.wait(2))
        assert receiver.requests[0]["api-key"] == "secret"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_version_that_takes_no_bytes(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if protocol == "grpc":
        pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    monkeypatch.setattr(providers, "direct", lambda *_: None)
    with (grpc_receiver if protocol == "grpc" else http_receiver)() as receiver:
        tracer = make(receiver, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
        assert not tracer._own.outputs[0].takes_encoded
        run(tracer)
        tracer.consumer.close()
        check_pair(receiver.wait(2))


def test_such_a_version_is_recognised(receiver: Receiver) -> None:
    with environment(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint):
        exporter = OTLPSpanExporter()
    resource = providers.Resource({})
    assert export.direct(exporter, resource, is_grpc=False) is not None
    del exporter._client
    assert export.direct(exporter, resource, is_grpc=False) is None
    assert export.direct(exporter, resource, is_grpc=True) is None


def test_console_beside_otlp(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(providers, "ConsoleSpanExporter", lambda: ConsoleSpanExporter(out=out))
    tracer = make(receiver, OTEL_TRACES_EXPORTER="console,otlp")
    assert [output.takes_encoded for output in tracer._own.outputs] == [False, True]
    run(tracer)
    tracer.consumer.close()
    check_pair(receiver.wait(2))
    written = out.getvalue()
    assert '"name": "GET /items/{id}"' in written
    assert '"http.response.status_code": 200' in written


def test_no_exporter() -> None:
    tracer = make(OTEL_TRACES_EXPORTER="none")
    assert tracer._own.outputs == ()
    run(tracer)
    assert len(tracer.consumer) == 0
    tracer.consumer.close()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "carrier_pigeon"}, "carrier_pigeon"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/json"),
        ({"OTEL_PYTHON_ID_GENERATOR": "dice"}, "dice"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_COMPRESSION": "br"}, "cannot be made"),
        (
            {"OTEL_BSP_MAX_QUEUE_SIZE": "1", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"},
            "max_export_batch_size",
        ),
    ],
)
def test_what_cannot_be_made_is_one_sentence(variables: dict[str, str], words: str) -> None:
    if variables.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc":
        pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    with pytest.raises(ConfigError, match=words):
        make(**variables)


def test_what_was_made_before_a_fault_is_ended(receiver: Receiver) -> None:
    before = threading.active_count()
    with pytest.raises(ConfigError, match="carrier_pigeon"):
        make(receiver, OTEL_TRACES_EXPORTER="otlp,carrier_pigeon")
    eventually(lambda: threading.active_count() <= before)


@pytest.mark.parametrize(
    ("package", "variables"),
    [
        ("opentelemetry.exporter.otlp.proto.http.trace_exporter", {}),
        (
            "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        ),
    ],
)
def test_a_missing_package_is_one_sentence(
    package: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match="pip install"):
        make(**variables)


def test_ids_of_another_generator(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(providers.IdGenerator):
        def generate_span_id(self) -> int:
            return 0xB

        def generate_trace_id(self) -> int:
            return 0xA

    class Entry:
        def load(self) -> Any:
            return Counting

    def entry_points(*, group: str, name: str) -> list[Entry]:
        return [Entry()] if group == "opentelemetry_id_generator" else []

    monkeypatch.setattr(providers, "entry_points", entry_points)
    tracer = make(receiver, OTEL_PYTHON_ID_GENERATOR="counting")
    run(tracer, has_child=False)
    tracer.consumer.close()
    (span,) = receiver.wait(1)
    assert (span.trace_id, span.span_id) == (f"{0xA:032x}", f"{0xB:016x}")


def test_a_collector_that_is_not_there_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with environment(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as environ:
        tracer = OwnTracer(make_provider("shop", "node/1", environ), known_methods(), close_s=0.05)
    run(tracer, has_child=False)
    with caplog.at_level(logging.WARNING, "uvicorn.error"):
        tracer.consumer.close()
    assert "Spans were not sent" in caplog.text
    # What still tries is told to give up, so that no thread outlives the test.
    tracer._own.outputs[0].processor.span_exporter.shutdown()  # type: ignore[attr-defined]


def test_a_collector_that_hangs_does_not_hold_up_the_end(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with environment(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as environ:
        tracer = OwnTracer(make_provider("shop", "node/1", environ), known_methods(), close_s=0.05)
    receiver.gate.clear()
    run(tracer, has_child=False)
    with caplog.at_level(logging.WARNING, "uvicorn.error"):
        tracer.consumer.close()
    assert "Spans were not sent" in caplog.text
    assert receiver.spans == []
    receiver.gate.set()
    receiver.wait(1)


def test_a_provider_that_has_nothing_to_flush() -> None:
    assert flush_provider(trace.NoOpTracerProvider(), 1.0, closes=False)
