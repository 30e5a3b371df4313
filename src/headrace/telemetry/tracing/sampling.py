"""Whether a request is traced, known before anything is made for it.

``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG`` of the OpenTelemetry specification. The standard
samplers need the trace id and the caller's decision only; others are asked, with what is known of a request.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import NamedTuple

from opentelemetry.sdk.trace import sampling

ALL = 1 << 64
"""The bound below which the low 64 bits of every trace id are."""

_ENTRY_POINTS = "opentelemetry_traces_sampler"
_logger = logging.getLogger("uvicorn.error")


class Sampling(NamedTuple):
    """What is sampled.

    Attributes:
        sampler: the same for the SDK, which asks it about the application's own spans.
        bound: a trace is recorded when the low 64 bits of its id are below; 0 for none, ``ALL`` for all.
        follows_parent: the caller's decision comes first.
        is_standard: ``bound`` and ``follows_parent`` say it all; else ``sampler`` must be asked.
    """

    sampler: sampling.Sampler
    bound: int
    follows_parent: bool
    is_standard: bool


def read_sampling(environ: Mapping[str, str]) -> Sampling:
    """What the environment says; every sampled caller, and all that have none, by default.

    A value that is not understood is said in the log once, and the default holds, as the specification asks.
    """
    name = (environ.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on").strip()
    root = name.lower().removeprefix("parentbased_")
    follows_parent = root != name.lower()
    if root == "always_on":
        return _standard(sampling.ALWAYS_ON, ALL, follows_parent)
    if root == "always_off":
        return _standard(sampling.ALWAYS_OFF, 0, follows_parent)
    if root == "traceidratio":
        ratio = sampling.TraceIdRatioBased(_ratio(environ.get("OTEL_TRACES_SAMPLER_ARG")))
        return _standard(ratio, ratio.bound, follows_parent)
    found = _installed_sampler(name, environ.get("OTEL_TRACES_SAMPLER_ARG"))
    return found or _standard(sampling.ALWAYS_ON, ALL, True)


def _standard(root: sampling.Sampler, bound: int, follows_parent: bool) -> Sampling:
    sampler = sampling.ParentBased(root) if follows_parent else root
    return Sampling(sampler, bound, follows_parent, True)


def _ratio(value: str | None) -> float:
    try:
        ratio = float(value or "")
        if 0.0 <= ratio <= 1.0:
            return ratio
    except ValueError:
        pass
    _logger.warning("OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1: %r. Everything is traced", value)
    return 1.0


def _installed_sampler(name: str, argument: str | None) -> Sampling | None:
    """A sampler that another package brings."""
    try:
        for entry in entry_points(group=_ENTRY_POINTS, name=name):
            sampler = entry.load()(argument)
            if isinstance(sampler, sampling.Sampler):
                return Sampling(sampler, 0, False, False)
    except Exception:
        _logger.warning("The sampler %r cannot be made, everything is traced", name, exc_info=True)
        return None
    _logger.warning("OTEL_TRACES_SAMPLER names no sampler that is installed: %r. Everything is traced", name)
    return None
