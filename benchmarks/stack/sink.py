"""Where the spans go: an OTLP/HTTP receiver in a process of its own, which counts what it decodes.

``python -m benchmarks.stack.sink`` prints its port. `POST /v1/traces` takes an export, `GET /counts` tells.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SERVER_KIND = 2
"""``Span.SPAN_KIND_SERVER`` of OTLP."""


@dataclass(frozen=True, slots=True)
class SpanCounts:
    """What has come so far.

    Attributes:
        server: spans of kind SERVER.
        other: all the rest.
        makers: name of the instrumentation that made spans, to how many.
    """

    server: int
    other: int
    makers: dict[str, int]


class SpanCounter:
    """Adds up exports; used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server = self._other = 0
        self._makers: Counter[str] = Counter()

    def take(self, body: bytes) -> None:
        """Count the spans of one export.

        Raises:
            google.protobuf.message.DecodeError: it is none.
        """
        # Imported here: the harness, which only asks, needs no protobuf.
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                server = sum(span.kind == SERVER_KIND for span in scope.spans)
                with self._lock:
                    self._server += server
                    self._other += len(scope.spans) - server
                    self._makers[scope.scope.name] += len(scope.spans)

    def counts(self) -> SpanCounts:
        """What has come so far."""
        with self._lock:
            return SpanCounts(self._server, self._other, dict(self._makers))


class SinkServer(ThreadingHTTPServer):
    """The receiver, on a free port."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SinkHandler)
        self.counter = SpanCounter()


class SinkHandler(BaseHTTPRequestHandler):
    """One connection of an exporter, or of the harness."""

    protocol_version = "HTTP/1.1"
    # Head and body are two writes; without it the second waits for the exporter's delayed acknowledgement.
    disable_nagle_algorithm = True
    server: SinkServer

    def do_POST(self) -> None:
        """An export."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        self.server.counter.take(body)
        self._answer("application/x-protobuf", b"")

    def do_GET(self) -> None:
        """What has come so far."""
        counts = self.server.counter.counts()
        self._answer("application/json", json.dumps([counts.server, counts.other, counts.makers]).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each export would cost the load its core."""

    def _answer(self, content_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass(frozen=True, slots=True)
class Sink:
    """A receiver that runs; made by `running_sink`."""

    port: int

    def counts(self) -> SpanCounts:
        """What has come so far."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/counts")
            server, other, makers = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return SpanCounts(server, other, makers)


@contextmanager
def running_sink(programs: Path) -> Iterator[Sink]:
    """Starts a receiver on the harness's core, and ends it.

    Args:
        programs: the folder of programs of an environment with opentelemetry-proto.
    """
    command = [str(programs / "python"), "-m", "benchmarks.stack.sink"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Sink(int(process.stdout.readline()))
        finally:
            process.terminate()


def main() -> None:
    """Serve until the end."""
    server = SinkServer()
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
