"""The layer: in process, under other servers, and in real processes against a receiver."""

from __future__ import annotations

import asyncio
import contextvars
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util._once import Once

import headrace
import otlp
from headrace.middleware.tracing import Tracing, start_tracing
from headrace.telemetry.tracing import current_ids
from headrace.telemetry.tracing.facts import known_methods
from headrace.telemetry.tracing.tracer import ForeignTracer
from live import PATIENCE_S, ServerProcess, eventually, respond
from otlp import Receiver, grpc_receiver, http_receiver
from peer_servers import PeerServer
from websocket_client import WebSocketClient, connect, handshake

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLED = f"traceparent: 00-{TRACE}-{CALLER}-01"


@pytest.fixture(autouse=True)
def no_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test sets the process's provider anew, and its threads end with it."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    yield
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with http_receiver() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield made


class Provided:
    """A provider of the application's, its spans in a list."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> dict[str, Any]:
        """By name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}


def make_scope(*headers: tuple[bytes, bytes], **changes: Any) -> dict[str, Any]:
    return {
        "type": "http", "http_version": "1.1", "method": "GET", "path": "/a", "raw_path": b"/a",
        "query_string": b"", "scheme": "http", "client": ("192.0.2.7", 5), "server": ("127.0.0.1", 80),
        "headers": [(b"host", b"a.test"), *headers], **changes,
    }  # fmt: skip


async def sink(message: Any) -> None:
    """Sends nowhere."""


# In process


@pytest.mark.parametrize("way", ["__call__", "enter"])
def test_other_scopes_pass_on(way: str) -> None:
    seen = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    layer = Tracing(application, ForeignTracer(Provided().provider, known_methods()))
    asyncio.run(getattr(layer, way)({"type": "lifespan"}, "receive", "send"))
    assert seen == [({"type": "lifespan"}, "receive", "send")]


def test_a_call_leaves_its_span_behind_and_an_entry_does_not() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert trace.get_current_span().get_span_context().span_id == scope["headrace.span"].span_id

    layer = Tracing(application, ForeignTracer(Provided().provider, known_methods()))

    async def main() -> None:
        await layer(make_scope(), None, sink)  # type: ignore[arg-type]
        assert current_ids() is None
        await layer.enter(make_scope(), None, sink)  # type: ignore[arg-type]
        assert current_ids() is not None

    asyncio.run(main())


@pytest.mark.parametrize("is_sampled", [True, False])
def test_a_provider_of_the_application(is_sampled: bool) -> None:
    provided = Provided(None if is_sampled else ALWAYS_OFF)
    trace.set_tracer_provider(provided.provider)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope["headrace.route"] = "/{letter}"
        trace.get_current_span().set_attribute("mine", 1)
        with trace.get_tracer("application").start_as_current_span("child"):
            await respond(send)

    tracer = start_tracing(application)
    scope = make_scope((b"traceparent", CALLED.partition(" ")[2].encode()), (b"baggage", b"a=1"))
    asyncio.run(Tracing(application, tracer)(scope, None, sink))  # type: ignore[arg-type]
    tracer.consumer.add((scope, 200, 0, 1.0, 2.0, [], 0, None))
    tracer.consumer.close()
    assert scope["headrace.span"].is_sampled is is_sampled
    assert f"{scope['headrace.span'].trace_id:032x}" == TRACE
    if not is_sampled:
        assert not provided.spans
        return
    made = provided.spans["GET /{letter}"]
    assert made.kind is SpanKind.SERVER
    assert f"{made.parent.span_id:016x}" == CALLER
    assert provided.spans["child"].parent.span_id == made.context.span_id
    assert made.attributes["mine"] == 1
    assert made.attributes["http.route"] == "/{letter}"
    assert made.attributes["http.response.status_code"] == 200
    assert made.attributes["url.path"] == "/a"
    # It is the application's to shut down.
    provided.provider.get_tracer("later").start_span("later").end()
    assert "later" in provided.spans


class BadSampler(Sampler):
    """Raises."""

    def should_sample(self, *arguments: Any, **more: Any) -> Any:
        raise ValueError("on purpose")

    def get_description(self) -> str:
        return "bad"


@pytest.mark.parametrize("way", ["call", "enter"])
def test_a_sampler_that_raises_costs_no_answer(way: str, caplog: pytest.LogCaptureFixture) -> None:
    answered: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        answered.append(scope["headrace.span"])

    layer = Tracing(application, ForeignTracer(Provided(BadSampler()).provider, known_methods()))
    run = layer if way == "call" else layer.enter

    async def main() -> None:
        for _ in range(3):
            await run(make_scope(), None, sink)  # type: ignore[arg-type]

    asyncio.run(main())
    assert len({span.trace_id for span in answered}) == 3
    assert not any(span.is_recorded for span in answered)
    assert len(caplog.records) == 1


def test_what_the_application_says_of_its_error_stands() -> None:
    provided = Provided()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        trace.get_current_span().set_status(StatusCode.ERROR, "quota exceeded")

    tracer = ForeignTracer(provided.provider, known_methods())
    scope = make_scope()
    asyncio.run(Tracing(application, tracer)(scope, None, sink))  # type: ignore[arg-type]
    tracer.consumer.add((scope, 500, 0, 1.0, 2.0, [], 0, None))
    tracer.consumer.flush()
    (made,) = provided.spans.values()
    assert made.status.description == "quota exceeded"


class Unprintable(Exception):
    """Says nothing."""

    def __str__(self) -> str:
        raise RuntimeError("on purpose")


def test_an_error_that_cannot_be_printed_is_told_all_the_same() -> None:
    provided = Provided()
    tracer = ForeignTracer(provided.provider, known_methods())
    scope = make_scope()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise Unprintable

    with pytest.raises(Unprintable) as raised:
        asyncio.run(Tracing(application, tracer)(scope, None, sink))  # type: ignore[arg-type]
    tracer.consumer.add((scope, 500, 0, 1.0, 2.0, [], 0, raised.value))
    tracer.consumer.flush()
    (made,) = provided.spans.values()
    assert made.events[0].attributes["exception.message"] == "<unprintable Unprintable object>"


def test_errors_with_a_provider_of_the_application() -> None:
    provided = Provided()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        span = trace.get_current_span()
        span.update_name("mine")
        span.set_attribute("error.type", "known")
        raise LookupError("x")

    tracer = ForeignTracer(provided.provider, known_methods())
    scope = make_scope()
    with pytest.raises(LookupError):
        asyncio.run(Tracing(application, tracer)(scope, None, sink))  # type: ignore[arg-type]
    tracer.consumer.add((scope, 500, 0, 1.0, 2.0, [], 0, None))
    tracer.consumer.flush()
    made = provided.spans["mine"]
    assert made.status.status_code is StatusCode.ERROR
    assert made.attributes["error.type"] == "known"
    assert made.events[0].attributes["exception.type"] == "LookupError"


def test_inside_of_another_layers_span() -> None:
    """Somebody further out makes them: none is made here, and the ids are carried."""
    provided = Provided()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)

    layer = Tracing(application, ForeignTracer(provided.provider, known_methods()))
    scope = make_scope()

    async def main() -> None:
        with provided.provider.get_tracer("outer").start_as_current_span("outer", kind=SpanKind.SERVER):
            await layer(scope, None, sink)  # type: ignore[arg-type]

    asyncio.run(main())
    assert list(provided.spans) == ["outer"]
    assert scope["headrace.span"].span_id == provided.spans["outer"].context.span_id
    assert scope["headrace.span"].is_sampled
    assert not scope["headrace.span"].is_recorded


def test_a_request_that_cannot_be_traced_has_no_other_requests_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    tracer = start_tracing(anything)
    scope = make_scope()

    def check() -> None:
        tracer.begin(make_scope())
        span = tracer.on_fault(scope)
        assert trace.get_current_span() is span is scope["headrace.span"]

    contextvars.copy_context().run(check)


def test_a_wrong_variable_is_an_error_of_each_request_and_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp,carrier_pigeon")
    layer = Tracing(anything)
    before = threading.active_count()
    for _ in range(5):
        with pytest.raises(headrace.ConfigError, match="carrier_pigeon"):
            asyncio.run(layer(make_scope(), anything, sink))
    eventually(lambda: threading.active_count() <= before)


def test_lines_of_opentelemetrys_own_look_as_all_do(spawn: Callable[..., ServerProcess]) -> None:
    source = """
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
    """
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "20"}
    server = spawn(source, "--tracing", "--lifespan", "off", "--log-format", "json", env=variables)
    assert server.connect().request("/").status == 204
    server.wait_line("opentelemetry")
    server.signal()
    server.wait_exit()
    lines = [json.loads(line) for line in server.err]
    assert any(line["logger"].startswith("opentelemetry.") for line in lines)


def test_without_opentelemetry() -> None:
    code = """if True:
        import sys
        sys.modules["opentelemetry"] = None
        from headrace.errors import ConfigError
        from headrace.middleware.tracing import start_tracing
        from headrace.telemetry.tracing import current_ids, missing_sentence, wants_tracing
        assert current_ids() is None
        assert "pip install" in missing_sentence({})
        assert not wants_tracing(None, True, {})
        try:
            start_tracing(print)
        except ConfigError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Tracing needs OpenTelemetry's SDK and exporter: pip install 'headrace[tracing]'\n"


# Under other servers


async def anything(scope: Any, receive: Any, send: Any) -> None:
    """What it does is in the path."""
    tracer = trace.get_tracer("application")
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        if scope["path"] == "/refused":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        with tracer.start_as_current_span("hello"):
            await send({"type": "websocket.send", "text": "hello"})
        if scope["path"] == "/broken":
            raise LookupError("x")
        if scope["path"] == "/closing":
            await send({"type": "websocket.close", "code": 4001})
            return
        while (await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": "more"})
    else:
        scope["headrace.route"] = scope["path"]
        with tracer.start_as_current_span("child"):
            if scope["path"] == "/broken":
                raise LookupError("x")
            await respond(send)


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn"])
def test_under_another_server(name: str, receiver: Receiver) -> None:
    with PeerServer(name, Tracing(anything, service_name="peer", worker=3)) as server:
        assert server.connect().request("/a", headers=[CALLED]).status == 200
        assert server.get("/broken").status == 500
        session = WebSocketClient(server.connect(), "/socket")
        assert session.read_message() == "hello"
        session.send_close(1000)
        session.read_close()
    # The lifespan's end has sent them.
    spans = receiver.spans
    assert sorted(span.name for span in spans) == [
        "GET", "GET /a", "GET /broken", "child", "child", "hello",
    ]  # fmt: skip
    called = receiver.one("GET /a")
    assert (called.trace_id, called.parent_id, called.status) == (TRACE, CALLER, otlp.UNSET)
    assert called.resource["service.name"] == "peer"
    assert called.resource["service.instance.id"].endswith("/3")
    broken = receiver.one("GET /broken")
    assert (broken.status, broken.attributes["error.type"]) == (otlp.ERROR, "LookupError")
    session_span = receiver.one("GET")
    # hypercorn says 1006 of clean ends too.
    assert (
        session_span.attributes["headrace.websocket.close_code"] == {"uvicorn": 1000, "hypercorn": 1006}[name]
    )
    assert receiver.one("hello").parent_id == session_span.span_id


# WebSockets under headrace


def test_a_second_server_of_the_process_sends_its_spans(receiver: Receiver) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)

    async def serve_once() -> None:
        async with headrace.serve(application, port=0, tracing=True, lifespan="off") as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()

    for count in (1, 2):
        asyncio.run(serve_once())
        assert len(receiver.spans) == count


def test_the_last_spans_need_none_of_the_applications_threads(receiver: Receiver) -> None:
    go = threading.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        work: list[Any] = []
        try:
            async with (
                asyncio.timeout(PATIENCE_S),
                headrace.serve(application, port=0, tracing=True, lifespan="off") as server,
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
                writer.close()
                # More than there are threads.
                work = [loop.run_in_executor(None, go.wait) for _ in range(64)]
        finally:
            go.set()
        await asyncio.gather(*work)

    asyncio.run(main())
    assert len(receiver.spans) == 1


def test_one_span_for_a_websocket(serve: Callable[..., Any], receiver: Receiver) -> None:
    tracer = start_tracing(anything)
    server = serve(Tracing(anything, tracer).enter)
    session = connect(server, "/chat", CALLED)
    for _ in range(20):
        session.read_message()
        session.send_text("x")
    assert session.read_message() == "more"
    assert not receiver.servers
    session.send_close(1001)
    session.read_close()
    closing = connect(server, "/closing")
    closing.read_message()
    assert closing.read_close()[0] == 4001
    broken = connect(server, "/broken")
    broken.read_message()
    assert broken.read_close()[0] == 1011
    gone = connect(server, "/gone")
    gone.read_message()
    gone.close()
    refused = server.connect()
    refused.send(handshake("/refused"))
    assert refused.read_response().status == 403
    eventually(lambda: len(tracer.consumer) == 5, "the spans of five sessions")
    tracer.consumer.close()
    spans = {span.attributes["url.path"]: span for span in receiver.servers}
    assert len(receiver.servers) == len(spans) == 5
    chat = spans["/chat"]
    assert (chat.trace_id, chat.parent_id, chat.name) == (TRACE, CALLER, "GET")
    assert chat.attributes["http.response.status_code"] == 101
    assert chat.attributes["network.protocol.name"] == "websocket"
    assert chat.attributes["url.scheme"] == "ws"
    assert chat.attributes["headrace.websocket.close_code"] == 1001
    assert spans["/closing"].attributes["headrace.websocket.close_code"] == 4001
    assert spans["/refused"].attributes["http.response.status_code"] == 403
    assert "headrace.websocket.close_code" not in spans["/refused"].attributes
    assert spans["/broken"].status == otlp.ERROR
    assert spans["/broken"].events[0].attributes["exception.type"] == "LookupError"
    assert [spans[path].status for path in ("/chat", "/closing", "/gone")] == [otlp.UNSET] * 3


# In processes of their own

APPLICATION = """
    import threading
    from fastapi import Depends, FastAPI, WebSocket
    from opentelemetry import baggage, propagate, trace
    from headrace.telemetry.tracing import current_ids

    tracer = trace.get_tracer("application")
    app = FastAPI()

    def dependency():
        with tracer.start_as_current_span("dependency"):
            pass

    @app.get("/items/{item}")
    async def item(item: int):
        with tracer.start_as_current_span("load") as span:
            with tracer.start_as_current_span("query"):
                ids = current_ids()
            carrier = {}
            propagate.inject(carrier)
        return {"ids": ids, "outgoing": carrier, "baggage": baggage.get_all()}

    @app.get("/threaded", dependencies=[Depends(dependency)])
    def threaded():
        with tracer.start_as_current_span("in a thread"):
            return threading.current_thread() is not threading.main_thread()

    @app.get("/fails")
    async def fails():
        trace.get_current_span().add_event("about to fail", {"n": 1})
        raise LookupError("x")

    @app.websocket("/rooms/{room}")
    async def room(socket: WebSocket, room: str):
        await socket.accept()
        with tracer.start_as_current_span("greet"):
            await socket.send_text(room)
        async for _ in socket.iter_text():
            pass
"""


def otel(receiver: Receiver, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50", **more}


def test_a_whole_application(spawn: Callable[..., ServerProcess], receiver: Receiver) -> None:
    server = spawn(APPLICATION, "--tracing", env=otel(receiver, OTEL_SERVICE_NAME="shop"))
    client = server.connect()
    response = client.request("/items/7?sig=secret", headers=[CALLED, "tracestate: a=1", "baggage: user=ann"])
    assert response.status == 200
    assert client.request("/threaded").body == b"true"
    assert client.request("/nowhere").status == 404
    assert server.connect().request("/fails").status == 500
    session = WebSocketClient(server.connect(), "/rooms/blue")
    assert session.read_message() == "blue"
    session.send_close(1000)
    session.read_close()
    receiver.wait(10)
    server.signal()
    server.wait_exit()

    spans = receiver.spans
    assert sorted(span.name for span in spans) == [
        "GET", "GET /fails", "GET /items/{item}", "GET /rooms/{room}", "GET /threaded", "dependency", "greet",
        "in a thread", "load", "query",
    ]  # fmt: skip
    item = receiver.one("GET /items/{item}")
    assert (item.trace_id, item.parent_id) == (TRACE, CALLER)
    assert item.raw.trace_state == "a=1"
    assert item.attributes["url.query"] == "sig=REDACTED"
    assert item.resource["service.name"] == "shop"
    load, query = receiver.one("load"), receiver.one("query")
    assert (load.parent_id, query.parent_id) == (item.span_id, load.span_id)
    assert query.trace_id == TRACE
    text = response.body.decode()
    assert f'"ids":["{TRACE}","{query.span_id}"]' in text
    assert f'"traceparent":"00-{TRACE}-{load.span_id}-01","tracestate":"a=1","baggage":"user=ann"' in text
    assert '"baggage":{"user":"ann"}' in text
    threaded = receiver.one("GET /threaded")
    for name in ("in a thread", "dependency"):
        assert receiver.one(name).parent_id == threaded.span_id
    fails = receiver.one("GET /fails")
    assert (fails.status, fails.attributes["error.type"]) == (otlp.ERROR, "LookupError")
    assert [event.name for event in fails.events] == ["about to fail", "exception"]
    room = receiver.one("GET /rooms/{room}")
    assert receiver.one("greet").parent_id == room.span_id
    assert all(span.started_ns <= item.finished_ns for span in (load, query))
    assert item.started_ns <= load.started_ns <= load.finished_ns


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_nothing_is_lost_at_the_end(
    preload: tuple[str, ...], spawn: Callable[..., ServerProcess], receiver: Receiver
) -> None:
    """Two workers, spans that wait for an hour, and SIGTERM."""
    source = """
        async def app(scope, receive, send):
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b""})
    """
    env = otel(
        receiver, OTEL_BSP_SCHEDULE_DELAY="3600000", OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0",
    )  # fmt: skip
    server = spawn(source, "--tracing", "--workers", "2", "--lifespan", "off", *preload, env=env)
    clients = [server.connect() for _ in range(8)]
    for client in clients:
        for number in range(100):
            called = [CALLED] if number % 2 else []
            assert client.request(f"/{number}", headers=called).status == 204
    server.signal()
    server.wait_exit()
    assert len(receiver.servers) == len(receiver.spans) == 400
    assert {span.parent_id for span in receiver.spans} == {CALLER}
    assert 1 <= len({span.resource["service.instance.id"] for span in receiver.spans}) <= 2


def test_over_grpc(spawn: Callable[..., ServerProcess]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    with grpc_receiver() as receiver:
        server = spawn(APPLICATION, "--tracing", env=otel(receiver, OTEL_EXPORTER_OTLP_PROTOCOL="grpc"))
        assert server.connect().request("/items/7").status == 200
        server.signal()
        server.wait_exit()
        receiver.wait(3)
        assert receiver.one("load").parent_id == receiver.one("GET /items/{item}").span_id


WITH_PROVIDER = """
    import os
    from fastapi import FastAPI
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    {setup}

    @app.get("/items/{{item}}")
    async def item(item: int):
        with trace.get_tracer("application").start_as_current_span("load"):
            return item

    {wrap}
"""
SET = "trace.set_tracer_provider(provider)"
CONTRIB = "from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor"


@pytest.mark.parametrize(
    ("setup", "scope"),
    [
        pytest.param(f"{SET}; app = FastAPI(telemetry={{'tracing': False}})", "headrace", id="none"),
        pytest.param("app = FastAPI(telemetry={'tracer_provider': provider})", "fastapi", id="native"),
        pytest.param(f"{SET}; app = FastAPI()", "fastapi", id="native-by-global-provider"),
        pytest.param("app = FastAPI()", "headrace", id="native-quiet"),
        pytest.param(
            f"{CONTRIB}; app = FastAPI(); FastAPIInstrumentor.instrument_app(app)",
            "opentelemetry.instrumentation.fastapi",
            id="instrumentor",
        ),
        pytest.param(
            "from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware; "
            "app = FastAPI(telemetry={'tracing': False}); app.add_middleware(OpenTelemetryMiddleware)",
            "opentelemetry.instrumentation.asgi",
            id="asgi-middleware",
        ),
    ],
)
def test_a_single_server_span(
    setup: str, scope: str, spawn: Callable[..., ServerProcess], receiver: Receiver
) -> None:
    """Whoever makes it: the caller's child, and its ids in the access line."""
    server = spawn(WITH_PROVIDER.format(setup=setup, wrap=""), "--tracing", env=otel(receiver))
    assert server.connect().request("/items/7", headers=[CALLED]).status == 200
    eventually(lambda: {"load"} < {span.name for span in receiver.spans} and receiver.servers, "both spans")
    server.signal()
    server.wait_exit()
    (made,) = receiver.servers
    assert made.scope == scope
    assert (made.trace_id, made.parent_id) == (TRACE, CALLER)
    assert receiver.one("load").trace_id == TRACE
    if scope == "headrace":
        assert receiver.one("load").parent_id == made.span_id
        assert made.attributes["http.route"] == "/items/{item}"
    else:
        assert "none are added" in server.text


@pytest.mark.parametrize(
    "setup",
    [
        pytest.param("app = FastAPI(telemetry={'tracer_provider': provider})", id="native"),
        pytest.param(f"{SET}; app = FastAPI()", id="native-by-global-provider"),
        pytest.param(
            f"{CONTRIB}; {SET}; app = FastAPI(); FastAPIInstrumentor.instrument_app(app)", id="instrumentor"
        ),
    ],
)
def test_what_is_mounted_makes_no_second(
    setup: str, spawn: Callable[..., ServerProcess], receiver: Receiver
) -> None:
    wrap = (
        "from starlette.applications import Starlette; from starlette.routing import Mount; "
        "app = Starlette(routes=[Mount('/in', app)])"
    )
    server = spawn(WITH_PROVIDER.format(setup=setup, wrap=wrap), "--tracing", env=otel(receiver))
    assert server.connect().request("/in/items/7", headers=[CALLED]).status == 200
    server.signal()
    server.wait_exit()
    (made,) = receiver.servers
    assert (made.name, made.scope, made.parent_id) == ("GET /in/items/{item}", "headrace", CALLER)
    assert receiver.one("load").trace_id == TRACE


def test_what_is_missing_is_one_sentence(spawn: Callable[..., ServerProcess]) -> None:
    server = spawn(APPLICATION, "--tracing", env={"OTEL_TRACES_EXPORTER": "carrier_pigeon"})
    assert server.wait_exit() != 0
    assert "carrier_pigeon" in server.text
    assert "Traceback" not in server.text
