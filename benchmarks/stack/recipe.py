"""The usual recipe for a FastAPI application in production, as people copy it; each function makes one stage.

Its parts come from their own packages with their defaults: a `BaseHTTPMiddleware` for the time, a second one
for a `prometheus_client` histogram, and contrib's instrumentation with the SDK's batch processor and OTLP.
"""

from __future__ import annotations

import time

from fastapi import FastAPI, Request, Response
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

DURATION = Histogram("http_request_duration_seconds", "Duration of requests.", ["method", "path"])


class ProcessTime(BaseHTTPMiddleware):
    """Says how long the response took."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        started_s = time.perf_counter()
        response = await call_next(request)
        response.headers["X-Process-Time"] = str(time.perf_counter() - started_s)
        return response


class RequestMetrics(BaseHTTPMiddleware):
    """Counts requests and their durations by method and path."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        with DURATION.labels(request.method, request.url.path).time():
            return await call_next(request)


def timing() -> FastAPI:
    """The application with the first middleware."""
    app = FastAPI()

    @app.get("/")
    async def read_root() -> dict[str, str]:
        return {"message": "Hello, world!"}

    app.add_middleware(ProcessTime)
    return app


def metrics() -> FastAPI:
    """The same with the second middleware, and the page of it."""
    app = timing()

    @app.get("/metrics")
    def read_metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    app.add_middleware(RequestMetrics)
    return app


def whole() -> FastAPI:
    """The same with spans, sampled and sent as the OTEL_* variables say."""
    app = metrics()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    FastAPIInstrumentor.instrument_app(app)
    return app
