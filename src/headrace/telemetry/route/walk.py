"""List the routes of a Starlette or FastAPI application, those of mounted applications included.

Nothing of these packages is imported: what has ``path_regex`` and ``endpoint`` is a route, what has
``path_regex`` and ``app`` is a mount, what has ``host_regex`` is a host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from headrace.telemetry.route.leaf import MOUNTED, Leaf, Step
from headrace.telemetry.route.wrapped import find_routed

MAX_DEPTH = 16
MAX_ROUTES = 50_000


class Found(NamedTuple):
    """One route found.

    Attributes:
        leaf: what it matches and what it is called.
        endpoint: what the framework puts into the scope for it; None for a front end.
        owners: objects that may stand in the scope as the route.
        inside: of a mount, the application with routes found behind other layers, else None.
        hidden: the routes of ``inside``.
    """

    leaf: Leaf
    endpoint: Any
    owners: tuple[Any, ...] = ()
    inside: Any = None
    hidden: tuple[Leaf, ...] = ()


class _Place(NamedTuple):
    """Where in the tree the walk is."""

    prefix: str = ""
    steps: tuple[Step, ...] = ()
    above: tuple[Any, ...] = ()

    def below(self, template: str, step: Step) -> _Place:
        return _Place(self.prefix + template, (*self.steps, step), self.above)

    def inside(self, routes: Any) -> _Place:
        return _Place(self.prefix, self.steps, (*self.above, routes))


def walk(router: Any) -> list[Found]:
    """List the routes below a router in the order in which it tries them."""
    found: list[Found] = []
    try:
        for item in _walk_router(router, _Place()):
            found.append(item)
            if len(found) >= MAX_ROUTES:
                break
    except Exception:
        # A route of a class that is not what it looks like. Raised on, each request would walk again.
        pass
    return found


def _walk_router(router: Any, place: _Place) -> Iterator[Found]:
    if len(place.steps) > MAX_DEPTH:
        return
    place = place.inside(router.routes)
    for route in list(router.routes):
        contexts = getattr(route, "effective_route_contexts", None)
        if callable(contexts):
            frontends = getattr(route, "effective_low_priority_routes", tuple)
            for context in (*contexts(), *frontends()):
                yield from _walk_included(context, place)
        else:
            yield from _walk_route(route, place, (route,))
    # FastAPI keeps its front ends apart from the routes; an application has them on its router.
    for group in getattr(getattr(router, "router", router), "_low_priority_routes", ()):
        yield from _walk_frontends(group, "", place)


def _walk_included(context: Any, place: _Place) -> Iterator[Found]:
    """What ``include_router`` of FastAPI 0.137 and later made of one route: prefixes are in its paths."""
    original = getattr(context, "original_route", None)
    whole = getattr(context, "starlette_route", None)
    if whole is not None:
        yield from _walk_route(whole, place, (whole, context))
    elif hasattr(original, "matches_with_prefix"):
        yield from _walk_frontends(original, getattr(context, "frontend_prefix", ""), place)
    else:
        yield from _walk_route(context, place, (context,))


def _walk_route(route: Any, place: _Place, owners: tuple[Any, ...]) -> Iterator[Found]:
    regex = getattr(route, "path_regex", None)
    if regex is None:
        host_regex = getattr(route, "host_regex", None)
        if host_regex is not None:
            yield from _walk_mounted(route, place.below("", Step(host_regex, is_host=True)), "")
        return
    if hasattr(route, "endpoint"):
        methods = getattr(route, "methods", None)
        leaf = Leaf(
            template=place.prefix + route.path_format,
            steps=place.steps,
            regex=regex,
            methods=frozenset(methods) if methods else None,
            scope_type="http" if hasattr(route, "methods") else "websocket",
        )
        yield Found(leaf, route.endpoint, owners)
    elif hasattr(route, "app"):
        mount = place.below(route.path_format.removesuffix(MOUNTED), Step(regex))
        yield from _walk_mounted(route, mount, MOUNTED)


def _walk_mounted(route: Any, place: _Place, end: str) -> Iterator[Found]:
    """The routes of a mounted application and, behind them, the mount itself."""
    # A Mount knows its application without the layers of its own argument, which pass the scope on.
    inside, is_wrapped = find_routed(getattr(route, "_base_app", route.app), route.app, above=place.above)
    below = list(_walk_router(inside, place)) if inside is not None else []
    yield from below
    if not below:
        yield Found(Leaf(place.prefix + (end or MOUNTED), place.steps), route.app)
        return
    leaf = Leaf(None, place.steps)
    if is_wrapped:
        yield Found(leaf, route.app, (), inside, tuple(item.leaf for item in below))
    else:
        yield Found(leaf, route.app)


def _walk_frontends(group: Any, prefix: str, place: _Place) -> Iterator[Found]:
    for route in getattr(group, "routes", ()):
        whole = (prefix.rstrip("/") + route.path).rstrip("/")
        regex = re.compile(f"^{re.escape(whole)}(?:/.*)?$", re.DOTALL)
        yield Found(Leaf(place.prefix + whole + MOUNTED, place.steps, regex, is_frontend=True), None)
