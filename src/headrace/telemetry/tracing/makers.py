"""Whether the application makes the SERVER span of each request itself, so that there must be no second.

Nothing of these packages is imported. What is looked at is the application and the layers around it, once,
when it has started; what is mounted in it is not, because only some requests go there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

MAX_LAYERS = 64
_INNER_NAMES = (
    "app",
    "_app",
    "application",
    "_application",
    "asgi_app",
    "inner",
    "__wrapped__",
)
NATIVE_KEY = "fastapi.telemetry"
"""FastAPI from 0.142 on leaves a request alone whose scope has this key; its module has the same name."""


def find_maker(application: Any) -> str | None:
    """Tell who makes SERVER spans for every request of this application.

    Ask before a provider of ours is set: FastAPI's own telemetry is on wherever there is a provider.

    Args:
        application: an ASGI application, started.

    Returns:
        The name of what makes them, None when nobody does.
    """
    for layer in _layers(application):
        if _is_contrib(layer):
            return "opentelemetry-instrumentation"
        if _is_fastapi_native(layer):
            return "FastAPI's telemetry"
    return None


def must_quieten_native(application: Any) -> bool:
    """Whether FastAPI's own telemetry would make SERVER spans beside ours, now that there is a provider.

    False for an application that has turned its spans off: it may want the rest of its telemetry. One that is
    mounted in another is not seen, and counts as one that would.

    Args:
        application: for which ``find_maker`` has found nobody.
    """
    if NATIVE_KEY not in sys.modules:
        return False
    configs = [
        getattr(getattr(layer, "_native_telemetry", None), "config", None) for layer in _layers(application)
    ]
    return all(config.get("tracing") for config in configs if isinstance(config, dict))


def _is_contrib(layer: Any) -> bool:
    """OpenTelemetryMiddleware itself, or an application that has it among its layers."""
    if _is_contrib_class(type(layer)):
        return True
    stack = getattr(layer, "middleware_stack", None)
    if stack is not None:
        # Built: what was added afterwards is not in it, whatever its list says.
        return any(_is_contrib_class(type(inner)) for inner in _layers(stack))
    if getattr(layer, "_is_instrumented_by_opentelemetry", False) is True:
        return True
    added = getattr(layer, "user_middleware", ())
    return isinstance(added, list) and any(_is_contrib_class(getattr(item, "cls", None)) for item in added)


def _is_contrib_class(kind: Any) -> bool:
    """That of contrib, a subclass, or Litestar's, which wraps it."""
    return any(
        base.__name__ in ("OpenTelemetryMiddleware", "OpenTelemetryInstrumentationMiddleware")
        for base in getattr(kind, "__mro__", ())
    )


def _is_fastapi_native(layer: Any) -> bool:
    """FastAPI's own telemetry is there, makes spans, and is on by something the application has set."""
    native = getattr(layer, "_native_telemetry", None)
    config = getattr(native, "config", None)
    if native is None or not isinstance(config, dict) or not config.get("tracing"):
        return False
    try:
        return bool(native.enabled())
    except Exception:
        # Its inner interface has changed. With a provider of its own the application has it on.
        return config.get("tracer_provider") is not None


def _layers(application: Any) -> Iterator[Any]:
    """The application, and what it wraps, outermost first."""
    waiting, seen = [application], set[int]()
    while waiting and len(seen) < MAX_LAYERS:
        layer = waiting.pop(0)
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        waiting.extend(_inside(layer))


def _inside(layer: Any) -> Iterator[Any]:
    if isinstance(layer, MethodType):
        yield layer.__self__
    elif isinstance(layer, functools.partial):
        yield from (layer.func, *layer.args, *layer.keywords.values())
    elif isinstance(layer, FunctionType):
        for cell in layer.__closure__ or ():
            try:
                inner = cell.cell_contents
            except ValueError:
                continue
            if callable(inner):
                yield inner
    if hasattr(layer, "routes"):
        # A framework's application: further in stand its routes, not layers around all of them. Litestar's
        # layers are what it calls its handler.
        yield getattr(layer, "asgi_handler", None)
        return
    for name in _INNER_NAMES:
        inner = getattr(layer, name, None)
        if callable(inner) and not isinstance(inner, type):
            yield inner
