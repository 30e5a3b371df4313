"""Read the route template out of a scope, whatever framework left it there."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from headrace.telemetry.route.leaf import MOUNTED
from headrace.telemetry.route.route_map import RouteMap
from headrace.telemetry.route.wrapped import find_routed
from headrace.types import Scope

MAX_MAPS = 64
"""Applications whose routes are remembered at once; a server has one, a test suite has many."""

_maps: dict[int, tuple[Callable[[], Any], RouteMap]] = {}
"""id of the outermost router -> (a reference to it, its routes). The ids are those of living routers."""


def route_template(scope: Scope) -> str | None:
    """Give the route of a request as the application wrote it, such as ``/users/{id}``.

    Never the path the client sent: there are as many templates as the application has routes. What a proxy or
    ``--root-path`` puts before the path is not part of it; the paths of mounts are, with their parameters. A
    mounted application that shows no routes (static files, WSGI) has one template, ``/static/{path}``.

    Args:
        scope: an http or websocket scope, after the application is done with it.

    Returns:
        The template with a leading slash, in the framework's own notation; None when no route matched or the
        framework tells nothing. It does not raise.
    """
    try:
        # Set by our hooks for Django and Quart, or by the application; Litestar sets the other.
        told = scope.get("headrace.route")
        if told is None:
            told = scope.get("path_template")
        router = scope.get("router")
        if router is None:
            return told if told and type(told) is str else _litestar_mount(scope)
        routes = _map_of(router)
        return routes.find(scope) if told is None else _join(scope, told, routes)
    except Exception:
        # A scope may hold anything; what the application put there must not end the batch of requests.
        return None


def learn_routes(app: Any) -> None:
    """Walk an application's routes before its first request, which would else do it.

    It is worth it for FastAPI, which makes the routes of ``include_router`` when they are first asked for:
    0.25 ms a route. For other applications it does nothing, and it does not raise.

    Args:
        app: the ASGI application as it is served, after its start-up.
    """
    try:
        inside, _ = find_routed(app)
        if inside is not None:
            _map_of(getattr(inside, "router", inside))
    except Exception:
        # As above: what is not as it looks is learned from its requests, if at all.
        return


def _map_of(router: Any) -> RouteMap:
    key = id(router)
    known = _maps.get(key)
    if known is not None and known[0]() is router:
        return known[1]
    if len(_maps) >= MAX_MAPS:
        _maps.clear()
    made = RouteMap(weakref.ref(router))
    _maps[key] = (weakref.ref(router, lambda _: _maps.pop(key, None)), made)
    return made


def _join(scope: Scope, told: Any, routes: RouteMap) -> str | None:
    """Put two frameworks together of which one is mounted in the other."""
    if type(told) is not str:
        return routes.find(scope)
    if told:
        return (routes.find_mount(scope) or "") + told
    # Litestar, and in its mount an application of Starlette's kind.
    outer, found = _litestar_mount(scope), routes.find(scope)
    return outer.removesuffix(MOUNTED) + found if outer and found else outer


def _litestar_mount(scope: Scope) -> str | None:
    """The template of an application in Litestar's mount, for which its ``path_template`` is empty."""
    handler = scope.get("route_handler")
    if not getattr(handler, "is_mount", False):
        return None
    routes = scope["litestar_app"].routes
    route = next((route for route in routes if getattr(route, "route_handler", None) is handler), None)
    return str(route.path_format).rstrip("/") + MOUNTED if route else None
