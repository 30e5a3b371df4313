"""Where in an application others are mounted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.telemetry.route.leaf import MOUNTED
from headrace.telemetry.route.walk import walk
from headrace.telemetry.route.wrapped import find_routed


def mounted_at(app: Any, kind: type) -> Iterator[str]:
    """The paths at which applications of one class are mounted, without a slash at the end.

    A mount below a path with parameters has no such path. Starlette and FastAPI, their routers and what is
    mounted in them are looked into; for other applications there is none.

    Args:
        app: the ASGI application as it is served, after its start-up.
        kind: the class.
    """
    try:
        inside, _ = find_routed(app)
    except Exception:
        # It is not what it looks like.
        return
    for found in [] if inside is None else walk(getattr(inside, "router", inside)):
        template = found.leaf.template or ""
        path = template.removesuffix(MOUNTED)
        if isinstance(found.endpoint, kind) and template != path and "{" not in path:
            yield path
