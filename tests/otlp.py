"""Receivers of OTLP traces for tests, over HTTP and gRPC; the generated classes decode what comes."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from live import PATIENCE_S

SERVER, INTERNAL = 2, 1
"""Kinds of spans."""
UNSET, OK, ERROR = 0, 1, 2
"""Codes of their status."""

_UNCOMPRESS: dict[str | None, Callable[[bytes], bytes]] = {
    None: bytes,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


@dataclass
class Event:
    """What happened in a span."""

    name: str
    attributes: dict[str, Any]


@dataclass
class Span:
    """One span as it came; ids in hexadecimal, empty for none."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    events: list[Event]
    status: int
    scope: str
    resource: dict[str, Any]
    started_ns: int
    finished_ns: int
    raw: Any


class Receiver:
    """Spans that have come."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._spans: list[Span] = []
        self.requests: list[dict[str, str]] = []
        """Header fields of each, names lower-case."""
        self.answers: list[int] = []
        """Statuses for the next requests, 200 for all further ones; what is not 200 is not taken."""
        self.endpoint = ""
        self.gate = threading.Event()
        """While it is not set requests come, and are neither taken nor answered."""
        self.gate.set()

    def take(self, data: bytes, headers: dict[str, str]) -> int:
        """Decode one request; give the status that answers it."""
        message = ExportTraceServiceRequest()
        message.ParseFromString(data)
        self.requests.append(headers)
        self.gate.wait(PATIENCE_S)
        with self._news:
            status = self.answers.pop(0) if self.answers else 200
            if status == 200:
                self._spans += spans_of(message)
            self._news.notify_all()
        return status

    @property
    def spans(self) -> list[Span]:
        """All so far."""
        with self._news:
            return list(self._spans)

    @property
    def servers(self) -> list[Span]:
        """Those of kind SERVER."""
        return [span for span in self.spans if span.kind == SERVER]

    def wait(self, count: int) -> list[Span]:
        """Wait until there are so many spans."""
        with self._news:
            self._news.wait_for(lambda: len(self._spans) >= count, PATIENCE_S)
        spans = self.spans
        assert len(spans) >= count, f"{len(spans)} spans: {[span.name for span in spans]}"
        return spans

    def one(self, name: str) -> Span:
        """The only span of that name; waits for it."""
        with self._news:
            self._news.wait_for(lambda: any(span.name == name for span in self._spans), PATIENCE_S)
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, f"{name}: {len(found)} of {[span.name for span in self.spans]}"
        return found[0]


def spans_of(message: Any) -> Iterator[Span]:
    """The spans of an ``ExportTraceServiceRequest``."""
    for of_resource in message.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Span(
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    _attributes(span.attributes),
                    [Event(event.name, _attributes(event.attributes)) for event in span.events],
                    span.status.code,
                    of_scope.scope.name,
                    resource,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span,
                )


@contextmanager
def http_receiver() -> Iterator[Receiver]:
    """Listen for OTLP over HTTP; ``endpoint`` is what OTEL_EXPORTER_OTLP_ENDPOINT wants."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            data = _UNCOMPRESS[headers.get("content-encoding")](
                self.rfile.read(int(headers["content-length"]))
            )
            status = receiver.take(data, headers) if self.path == "/v1/traces" else 404
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        # The exporter's connection outlives the server's loop.
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def grpc_receiver() -> Iterator[Receiver]:
    """The same for gRPC; needs grpcio."""
    import grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

    receiver = Receiver()

    class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            receiver.take(request.SerializeToString(), dict(context.invocation_metadata()))
            return ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), server)
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(0).wait()


def _attributes(pairs: Any) -> dict[str, Any]:
    names = [pair.key for pair in pairs]
    assert len(names) == len(set(names)), f"an attribute twice: {names}"
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(value: Any) -> Any:
    """What an ``AnyValue`` holds."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: value_of(item.value) for item in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)
