"""Encoded spans on their way out: they wait in the SDK's batch processor, and go through its exporters.

Queue, batches, delays (OTEL_BSP_*), transport, retry, headers, compression and TLS are the library's.
The two ways to hand an OTLP exporter bytes in place of spans are not part of its public interface; where a
version does not have them the spans are encoded by the library, which takes longer and gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from headrace.telemetry.tracing.encoder import ResourceFrame


class EncodedSpan:
    """A sampled span that is bytes already; it passes through a ``BatchSpanProcessor`` like any other.

    Args:
        data: from ``SpanEncoder.encode``.
    """

    __slots__ = ("data",)

    context = SpanContext(1, 1, False, TraceFlags(TraceFlags.SAMPLED))
    """All a batch processor looks at: whether it is sampled."""

    def __init__(self, data: bytes) -> None:
        self.data = data


class DirectExporter(SpanExporter):
    """An OTLP exporter that takes encoded spans among others.

    Args:
        exporter: the library's.
        send: sends one serialised ``ExportTraceServiceRequest``, or None where ``exporter`` turns what it is
            given into messages by ``serialise``.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        resource: Resource,
        encode_others: Callable[[Sequence[ReadableSpan]], bytes],
        send: Callable[[bytes], SpanExportResult] | None,
    ) -> None:
        self._exporter = exporter
        self._frame = ResourceFrame(resource)
        self._encode_others = encode_others
        self._send = send

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; called by the processor's thread."""
        batch: Sequence[Any] = spans
        if self._send is not None and any(type(span) is EncodedSpan for span in batch):
            return self._send(self.serialise(spans))
        return self._exporter.export(spans)

    def serialise(self, spans: Sequence[ReadableSpan]) -> bytes:
        """One ``ExportTraceServiceRequest``; two of them joined are one as well."""
        batch: Sequence[Any] = spans
        encoded = [span.data for span in batch if type(span) is EncodedSpan]
        others = [span for span in batch if type(span) is not EncodedSpan]
        ours = self._frame.around(encoded) if encoded else b""
        return ours + self._encode_others(others) if others else ours

    def shutdown(self) -> None:
        """End what the library's exporter holds."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)


def direct(exporter: SpanExporter, resource: Resource, is_grpc: bool) -> DirectExporter | None:
    """Make an OTLP exporter take encoded spans; None where this version of it cannot."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    def encode_others(spans: Sequence[ReadableSpan]) -> bytes:
        data: bytes = encode_spans(spans).SerializePartialToString()
        return data

    if is_grpc:
        return _direct_grpc(exporter, resource, encode_others)
    client: Any = getattr(exporter, "_client", None)
    export = getattr(client, "export", None)
    if not callable(export):
        return None

    def send(data: bytes) -> SpanExportResult:
        return SpanExportResult.SUCCESS if export(data).success else SpanExportResult.FAILURE

    return DirectExporter(exporter, resource, encode_others, send)


def _direct_grpc(
    exporter: Any, resource: Resource, encode_others: Callable[[Sequence[ReadableSpan]], bytes]
) -> DirectExporter | None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    if not callable(getattr(exporter, "_translate_data", None)):
        return None
    made = DirectExporter(exporter, resource, encode_others, None)
    # The stub serialises a message, so the bytes are read into one: in C, and 2 us a span.
    exporter._translate_data = lambda spans: ExportTraceServiceRequest.FromString(made.serialise(spans))
    return made
