"""The tracer provider that the OTEL_* variables describe, made in the process that serves.

Never before a fork: the SDK's threads do not live on in the child. The variables are those of the
OpenTelemetry specification, "SDK environment variables"; what stands in them for a resource, a batch or an
exporter's transport is read by the SDK.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import NamedTuple

from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator

from headrace.errors import ConfigError
from headrace.telemetry.tracing.environment import MISSING, MISSING_GRPC, exporter_names, otlp_protocol
from headrace.telemetry.tracing.export import direct
from headrace.telemetry.tracing.sampling import Sampling, read_sampling

_EXPORTERS = "opentelemetry_traces_exporter"
_ID_GENERATORS = "opentelemetry_id_generator"


class Output(NamedTuple):
    """Where finished spans go.

    Attributes:
        processor: the SDK's, with its queue and thread.
        takes_encoded: whether it can be given ``EncodedSpan``.
    """

    processor: SpanProcessor
    takes_encoded: bool


class OwnProvider(NamedTuple):
    """A provider of ours.

    Attributes:
        provider: the SDK's, for the application's own spans too.
        sampling: what is sampled.
        outputs: one for each exporter; empty with OTEL_TRACES_EXPORTER=none.
        limits: of a span's parts.
        makes_ids: the application's id generator, None for random ids.
    """

    provider: TracerProvider
    sampling: Sampling
    outputs: tuple[Output, ...]
    limits: SpanLimits
    makes_ids: IdGenerator | None

    @property
    def resource(self) -> Resource:
        """Who sends the spans."""
        return self.provider.resource


def make_provider(service_name: str, instance_id: str, environ: Mapping[str, str]) -> OwnProvider:
    """Make the provider.

    Args:
        service_name: ``service.name`` where the environment has none.
        instance_id: ``service.instance.id``, likewise.
        environ: the environment; the SDK itself reads ``os.environ``.

    Raises:
        ConfigError: a variable names what is not installed or cannot be made.
    """
    sampling = read_sampling(environ)
    resource = _resource(service_name, instance_id, environ)
    makes_ids = _id_generator(environ)
    provider = TracerProvider(sampling.sampler, resource, shutdown_on_exit=False, id_generator=makes_ids)
    outputs: list[Output] = []
    try:
        for name in exporter_names(environ):
            outputs.append(_output(name, resource, environ))
            provider.add_span_processor(outputs[-1].processor)
    except ConfigError:
        # The processors of those before it have threads.
        provider.shutdown()
        raise
    own_ids = None if isinstance(makes_ids, RandomIdGenerator) else makes_ids
    return OwnProvider(provider, sampling, tuple(outputs), SpanLimits(), own_ids)


def flush_provider(provider: object, deadline_s: float, closes: bool) -> bool:
    """Send what waits, for at most ``deadline_s`` seconds.

    In a thread of its own: an exporter whose collector does not answer tries again for longer than a process
    that is to end has time, and cannot be stopped.

    Args:
        provider: any of OpenTelemetry's; one without ``force_flush`` has nothing that waits.
        deadline_s: how long this may take, 0 or more.
        closes: shut it down as well.

    Returns:
        Whether everything was tried in time.
    """
    end = getattr(provider, "shutdown" if closes else "force_flush", None)
    if end is None:
        return True
    thread = threading.Thread(target=end, name="headrace-tracing-end", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        # At the interpreter's end there are no new threads, from Python 3.12 on.
        end()
        return True
    thread.join(deadline_s)
    return not thread.is_alive()


def _resource(service_name: str, instance_id: str, environ: Mapping[str, str]) -> Resource:
    resource = Resource.create({})
    ours: dict[str, str] = {}
    if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        ours[SERVICE_NAME] = service_name
    # The SDK makes one up where the variable says none, but it cannot tell workers by a name.
    if SERVICE_INSTANCE_ID not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        ours[SERVICE_INSTANCE_ID] = instance_id
    return resource.merge(Resource(ours))


def _output(name: str, resource: Resource, environ: Mapping[str, str]) -> Output:
    try:
        if name == "otlp":
            is_grpc = _is_grpc(environ)
            exporter = _grpc_exporter() if is_grpc else _http_exporter()
            fast = direct(exporter, resource, is_grpc)
            return Output(BatchSpanProcessor(fast or exporter), fast is not None)
        exporter = ConsoleSpanExporter() if name == "console" else _installed_exporter(name)
        return Output(BatchSpanProcessor(exporter), False)
    except ConfigError:
        raise
    except Exception as error:  # each exporter has errors of its own
        raise ConfigError(f"The exporter {name!r} of OTEL_TRACES_EXPORTER cannot be made: {error}") from error


def _is_grpc(environ: Mapping[str, str]) -> bool:
    protocol = otlp_protocol(environ)
    if protocol not in ("grpc", "http/protobuf"):
        raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL is http/protobuf or grpc here, not {protocol!r:.80}")
    return protocol == "grpc"


def _http_exporter() -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigError(MISSING) from None
    return OTLPSpanExporter()


def _grpc_exporter() -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigError(MISSING_GRPC) from None
    return OTLPSpanExporter()


def _installed_exporter(name: str) -> SpanExporter:
    """An exporter that another package brings."""
    for entry in entry_points(group=_EXPORTERS, name=name):
        exporter = entry.load()()
        if isinstance(exporter, SpanExporter):
            return exporter
    raise ConfigError(f"OTEL_TRACES_EXPORTER names no exporter that is installed: {name!r:.80}")


def _id_generator(environ: Mapping[str, str]) -> IdGenerator:
    """``OTEL_PYTHON_ID_GENERATOR``."""
    name = environ.get("OTEL_PYTHON_ID_GENERATOR", "random").strip()
    if name != "random":
        for entry in entry_points(group=_ID_GENERATORS, name=name):
            made = entry.load()()
            if isinstance(made, IdGenerator):
                return made
        raise ConfigError(f"OTEL_PYTHON_ID_GENERATOR names nothing that is installed: {name!r:.80}")
    return RandomIdGenerator()


def service_instance(worker: str | int | None) -> str:
    """An id of this process among all that run the service: host and worker."""
    node = os.uname().nodename if hasattr(os, "uname") else "localhost"
    return f"{node}/{os.getpid() if worker is None else worker}"
