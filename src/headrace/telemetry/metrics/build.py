"""The metric that says what runs."""

from __future__ import annotations

import platform

from headrace.telemetry.metrics.family import Family, Kind
from headrace.telemetry.metrics.registry import Registry
from headrace.version import __version__

BUILD = Family("headrace_build_info", Kind.GAUGE, "What runs; always 1.", ("version", "python"))


def declare_build(registry: Registry) -> None:
    """Say it, in a registry of which the page has one and not one for each worker."""
    registry.gauge(BUILD).labels(__version__, platform.python_version()).set(1)
