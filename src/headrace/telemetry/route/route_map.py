"""Which endpoint belongs to which template, for one application of Starlette's kind.

Starlette and FastAPI leave in the scope the endpoint they chose, and the outermost router. The router's
routes are walked once; then a request's template is one look into a dict. Only an endpoint with several
routes (one function for two paths, an application mounted twice) is told apart by the route object, or else
by matching the path again against those few. Parameters of mounts need no guess: the template is put together
from the mounts' own, never from the path.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from headrace.telemetry.route.leaf import MOUNTED, Leaf, select
from headrace.telemetry.route.walk import Found, walk
from headrace.types import Scope

_Reference = Callable[[], Any]


class RouteMap:
    """The routes below one router, learned from it when first asked and when it has changed.

    Args:
        router: a reference to the outermost router. The map itself holds no object of the application's.
    """

    __slots__ = ("_count", "_entries", "_frontends", "_misses", "_misses_until_walk", "_mounts", "_router")

    def __init__(self, router: _Reference) -> None:
        self._router = router
        self._misses = 0
        self._misses_until_walk = 1
        self._learn()

    def find(self, scope: Scope) -> str | None:
        """Give the template of a finished request; it may raise whatever the scope's objects raise."""
        endpoint = scope.get("endpoint")
        entry = self._entries.get(id(endpoint))
        if entry is None or entry.endpoint() is not endpoint or len(self._router().routes) != self._count:
            entry = self._look_again(endpoint)
            if entry is None:
                return self._find_unknown(scope, endpoint)
        template = entry.template if entry.is_single else entry.choose(scope)
        if template is None and self._frontends:
            return self._find_frontend(scope)
        return template

    def find_mount(self, scope: Scope) -> str | None:
        """Give the path of the mounted application that shows no routes and had this request."""
        template = self.find(scope)
        entry = self._entries.get(id(scope.get("endpoint")))
        if template is None or entry is None or not entry.is_mount:
            return None
        return template.removesuffix(MOUNTED)

    def _look_again(self, endpoint: Any) -> _Entry | None:
        """Walk again for an endpoint that is new, yet ever more rarely when that finds nothing."""
        self._misses += endpoint is not None
        if self._misses >= self._misses_until_walk or len(self._router().routes) != self._count:
            self._learn()
            self._misses = 0
            self._misses_until_walk *= 2
        entry = self._entries.get(id(endpoint))
        if entry is None or entry.endpoint() is not endpoint:
            return None
        self._misses_until_walk = 1
        return entry

    def _learn(self) -> None:
        router = self._router()
        self._count = len(router.routes)
        self._entries: dict[int, _Entry] = {}
        found = walk(router)
        for item in found:
            if item.endpoint is not None:
                entry = self._entries.setdefault(id(item.endpoint), _Entry(item.endpoint))
                entry.add(item)
        # The longest path first, as FastAPI prefers the most specific.
        frontends = [item.leaf for item in found if item.leaf.is_frontend]
        self._frontends = sorted(frontends, key=lambda leaf: len(leaf.template or ""), reverse=True)
        self._mounts = [item.leaf for item in found if item.leaf.regex is None]

    def _find_frontend(self, scope: Scope) -> str | None:
        if "frontend_path" not in scope.get("fastapi", ()):
            return None
        leaf = select(self._frontends, scope)
        return leaf.template if leaf else None

    def _find_unknown(self, scope: Scope, endpoint: Any) -> str | None:
        """A route the walk cannot see: hidden behind a mount, or of a class of its own."""
        if endpoint is None:
            return self._find_frontend(scope) if self._frontends else None
        mount = select(self._mounts, scope)
        if mount is not None:
            return mount.template
        route = scope.get("route")
        if "app_root_path" in scope or getattr(route, "endpoint", None) is not endpoint:
            return None
        template = getattr(route, "path_format", None)
        return template if type(template) is str else None


class _Entry:
    """What is known of one endpoint."""

    __slots__ = ("_by_owner", "_inside", "_leaves", "endpoint", "is_mount", "is_single", "template")

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = reference(endpoint)
        self.is_single = self.is_mount = True
        self.template: str | None = None
        self._leaves: list[Leaf] = []
        self._by_owner: dict[int, tuple[_Reference, Leaf | None]] = {}
        self._inside: tuple[_Reference, list[Leaf]] | None = None

    def add(self, item: Found) -> None:
        self._leaves.append(item.leaf)
        self.is_mount = self.is_mount and item.leaf.regex is None
        self.template = self._leaves[0].template
        if item.inside is not None:
            self._inside = (reference(item.inside), list(item.hidden))
        for owner in item.owners:
            # An owner met twice is below two mounts and tells nothing.
            known = self._by_owner.get(id(owner))
            self._by_owner[id(owner)] = (reference(owner), item.leaf if known is None else None)
        self.is_single = self._inside is None and all(leaf.template == self.template for leaf in self._leaves)

    def choose(self, scope: Scope) -> str | None:
        """Find which of several routes it was."""
        if self._inside is not None:
            return self._choose_inside(scope, *self._inside)
        route = scope.get("route")
        context = scope["fastapi"].get("effective_route_context") if "fastapi" in scope else None
        # Included routers share the route's object; their context is then what differs.
        owner = context if getattr(context, "original_route", None) is route else route
        if getattr(owner, "endpoint", None) is scope["endpoint"]:
            known = self._by_owner.get(id(owner))
            if known is not None and known[0]() is owner and known[1] is not None:
                return known[1].template
        leaf = select(self._leaves, scope)
        return leaf.template if leaf else None

    def _choose_inside(self, scope: Scope, inside: _Reference, hidden: list[Leaf]) -> str | None:
        """No route inside a mounted application was seen, as none matched or as a layer copied the scope."""
        if scope.get("app") is inside():
            return None
        leaf = select(hidden, scope)
        return leaf.template if leaf else None


def reference(thing: Any) -> _Reference:
    """Refer to an object without holding it, where its class allows that."""
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing
