"""One route of an application, with the mounts above it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from re import Pattern

from headrace.types import Scope

MOUNTED = "/{path}"
"""Ends the template of a mounted application that shows no routes of its own."""


@dataclass(frozen=True, slots=True)
class Step:
    """A mount or host above a route.

    Attributes:
        regex: Starlette's own; of a mount it has the group ``path`` for what is below.
        is_host: it looks at the Host field, not at the path.
    """

    regex: Pattern[str]
    is_host: bool = False


@dataclass(frozen=True, slots=True)
class Leaf:
    """One route.

    Attributes:
        template: the whole of it, mounts included; None for a mount that has routes inside.
        steps: mounts and hosts above, outermost first, and a mount's own.
        regex: the route's own; None for a mount.
        methods: it answers; None for all.
        scope_type: "http", "websocket", or None for both.
        is_frontend: FastAPI's static front end, which leaves no endpoint in the scope.
    """

    template: str | None
    steps: tuple[Step, ...] = ()
    regex: Pattern[str] | None = None
    methods: frozenset[str] | None = None
    scope_type: str | None = None
    is_frontend: bool = False


def select(leaves: Iterable[Leaf], scope: Scope) -> Leaf | None:
    """Find the leaf the router chose: the first that matches, else the first that lacks only the method."""
    path, host, partial = _path_below_root(scope), _host(scope), None
    scope_type, method = scope["type"], scope.get("method")
    for leaf in leaves:
        if leaf.scope_type not in (None, scope_type) or not _matches(leaf, path, host):
            continue
        if leaf.methods is None or method in leaf.methods:
            return leaf
        if partial is None:
            partial = leaf
    return partial


def _matches(leaf: Leaf, path: str, host: str) -> bool:
    for step in leaf.steps:
        match = step.regex.match(host if step.is_host else path)
        if match is None:
            return False
        if not step.is_host:
            path = "/" + match["path"]
    return leaf.regex is None or leaf.regex.match(path) is not None


def _path_below_root(scope: Scope) -> str:
    """The path as the outermost router saw it: mounts have lengthened ``root_path`` since."""
    path: str = scope["path"]
    root_path: str = scope.get("app_root_path", scope.get("root_path", ""))
    if root_path and (path == root_path or path.startswith(root_path + "/")):
        return path[len(root_path) :]
    return path


def _host(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            host: str = value.decode("latin-1").lower()
            return host if host.endswith("]") else host.rsplit(":", 1)[0]
    return ""
