"""What the OTEL_* variables ask for, read without OpenTelemetry's packages.

OpenTelemetry specification, "SDK environment variables" and "OTLP exporter configuration".
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

MISSING = "Tracing needs OpenTelemetry's SDK and exporter: pip install 'headrace[tracing]'"
MISSING_GRPC = (
    "OTEL_EXPORTER_OTLP_PROTOCOL=grpc needs one package more: "
    "pip install opentelemetry-exporter-otlp-proto-grpc"
)

_WHERE_TO = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
"""Any of these says that, and where to, spans are to be sent."""


def wants_tracing(asked: bool | None, is_stack_on: bool, environ: Mapping[str, str]) -> bool:
    """Whether requests are traced.

    Ask when the application has been started: one that has set a tracer provider wants spans as well.

    Args:
        asked: ``--tracing`` or ``--no-tracing``; None when neither was given.
        is_stack_on: ``--stack``, which traces only where something says where to.
        environ: the environment.
    """
    if is_sdk_disabled(environ) or asked is False:
        return False
    if asked:
        return True
    return is_stack_on and (says_where_to(environ) or has_own_provider())


def missing_sentence(environ: Mapping[str, str]) -> str | None:
    """What has to be installed before requests can be traced; None when everything is there."""
    if not _is_installed("opentelemetry.sdk"):
        return MISSING
    if has_own_provider() or "otlp" not in exporter_names(environ):
        return None
    if otlp_protocol(environ) == "grpc":
        return None if _is_installed("opentelemetry.exporter.otlp.proto.grpc") else MISSING_GRPC
    return None if _is_installed("opentelemetry.exporter.otlp.proto.http") else MISSING


def is_sdk_disabled(environ: Mapping[str, str]) -> bool:
    """``OTEL_SDK_DISABLED``."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def says_where_to(environ: Mapping[str, str]) -> bool:
    """Whether a variable names an exporter or its endpoint, and none says "none"."""
    return any(environ.get(name) for name in _WHERE_TO) and exporter_names(environ) != []


def has_own_provider() -> bool:
    """Whether the application, or an agent before it, has set a tracer provider in this process."""
    trace = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def exporter_names(environ: Mapping[str, str]) -> list[str]:
    """``OTEL_TRACES_EXPORTER``, which is otlp by default; empty for none."""
    names = [name.strip() for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(",")]
    return [name for name in names if name and name.lower() != "none"]


def otlp_protocol(environ: Mapping[str, str]) -> str:
    """``OTEL_EXPORTER_OTLP_TRACES_PROTOCOL``, ``OTEL_EXPORTER_OTLP_PROTOCOL``; http/protobuf by default."""
    own = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return (own or "http/protobuf").strip().lower()


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):
        # Not even what it lies in is there; or it stands for a module that was taken out.
        return False
