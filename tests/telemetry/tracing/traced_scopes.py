"""Scopes, providers and calls of the layer for the tests of tracing."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.tracing.facts import known_methods
from headrace.telemetry.tracing.providers import Output, OwnProvider, make_provider
from headrace.telemetry.tracing.tracer import OwnTracer
from headrace.types import Scope

TRACE, CALLER = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
SAMPLED_CALLER = [(b"traceparent", b"00-%032x-%016x-01" % (TRACE, CALLER))]
UNSAMPLED_CALLER = [(b"traceparent", b"00-%032x-%016x-00" % (TRACE, CALLER))]


def make_scope(headers: list[tuple[bytes, bytes]] | None = None, **changes: Any) -> Scope:
    """A GET of /items/1, as headrace's connection makes it."""
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "server": ("10.0.0.1", 8000),
        "client": ("192.0.2.7", 51234),
        "scheme": "http",
        "root_path": "",
        "method": "GET",
        "path": "/items/1",
        "raw_path": b"/items/1",
        "query_string": b"",
        "headers": [(b"host", b"shop.test"), *(headers or [])],
        "state": {},
        "headrace.route": "/items/{id}",
    }
    return {**scope, **changes}


def finish(
    scope: Scope, status: int = 200, error: BaseException | None = None, started_s: float = 5.0
) -> FinishedExchange:
    """The exchange of a scope at its end, after a quarter of a second."""
    return scope, status, 10, started_s, started_s + 0.25, [], 0, error


@contextmanager
def environment(**variables: str) -> Iterator[dict[str, str]]:
    """Only these OTEL_* variables, for the SDK too."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield dict(os.environ)
    finally:
        os.environ.clear()
        os.environ.update(before)


class Memory:
    """A provider of ours whose spans go into a list.

    Attributes:
        tracer: begins them.
        exporter: of the SDK.
    """

    def __init__(self, **variables: str) -> None:
        with environment(OTEL_TRACES_EXPORTER="none", **variables) as environ:
            made = make_provider("shop", "node/1", environ)
            self.exporter = InMemorySpanExporter()
            processor = SimpleSpanProcessor(self.exporter)
            made.provider.add_span_processor(processor)
            self.own: OwnProvider = made._replace(outputs=(Output(processor, takes_encoded=False),))
            self.tracer = OwnTracer(self.own, known_methods())

    def begin(self, scope: Scope) -> Any:
        """Begin a span in a context of its own; nothing is current afterwards."""
        return contextvars.copy_context().run(self.tracer.begin, scope)

    def end(self, exchange: FinishedExchange) -> Any:
        """The span of a finished exchange as exporters see it."""
        span = exchange[0]["headrace.span"]
        span.has_returned = True
        self.tracer.consumer.add(exchange)
        self.tracer.consumer.flush()
        return self.exporter.get_finished_spans()[-1]
