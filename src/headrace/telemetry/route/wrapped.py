"""Find the application with routes behind the layers that were put around it."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from types import FunctionType, MethodType
from typing import Any

MAX_LOOKED_AT = 64
"""Objects; a layer refers to the application it wraps directly, so a few are enough."""


def find_routed(*apps: Any, above: Sequence[Any] = ()) -> tuple[Any, bool]:
    """Find what has routes in an application or the layers around it.

    Args:
        apps: where to begin: the application itself, as far as it is known, then it in its layers.
        above: lists of routes that are above it; a layer may refer to the whole application.

    Returns:
        (the application or router, whether there were layers in between); (None, False) when there is none.
    """
    direct = apps[0]
    if has_routes(direct):
        return (None if any(direct.routes is routes for routes in above) else direct), False
    waiting, seen = deque(apps), set[int]()
    while waiting and len(seen) < MAX_LOOKED_AT:
        thing = waiting.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if has_routes(thing):
            if all(thing.routes is not routes for routes in above):
                return thing, True
            continue
        waiting.extend(inner for inner in _inner(thing) if callable(inner) and not isinstance(inner, type))
    return None, False


def has_routes(thing: Any) -> bool:
    """Whether this has routes as Starlette has them; Litestar's ``routes`` are others."""
    routes = getattr(thing, "routes", None)
    return isinstance(routes, (list, tuple)) and any(
        hasattr(route, name)
        for route in routes
        for name in ("path_regex", "host_regex", "effective_route_contexts")
    )


def _inner(thing: Any) -> Iterator[Any]:
    """What a layer refers to: attributes, the variables of a closure, the parts of a partial."""
    if isinstance(thing, MethodType):
        yield thing.__self__
    elif isinstance(thing, functools.partial):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, FunctionType):
        for cell in thing.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:
                continue
    yield from list(getattr(thing, "__dict__", {}).values())
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            hidden = name.startswith("__") and not name.endswith("__")
            yield getattr(thing, f"_{kind.__name__.lstrip('_')}{name}" if hidden else name, None)
