"""Tell headrace the route of a Django request.

Django keeps the route on its request object, where no server sees it. Add to ``settings.py``::

    MIDDLEWARE = ["headrace.django.RouteMiddleware", ...]

Then metrics, spans and the access log name the request ``/items/<int:id>/``; without it, they do not know its
route. Its place among the others does not matter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction


class RouteMiddleware:
    """Puts ``request.resolver_match.route`` into the ASGI scope, as ``headrace.route``.

    Runs in Django's sync and async modes alike, and does nothing under WSGI. Requests whose path no route
    matches get none.

    Args:
        get_response: what Django gives to every middleware.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            # Otherwise Django would call it in a thread.
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Answer the request, and note its route when the view has been chosen."""
        if self._is_async:
            return self._answer(request)
        try:
            return self.get_response(request)
        finally:
            _note(request)

    async def _answer(self, request: Any) -> Any:
        response: Awaitable[Any] = self.get_response(request)
        try:
            return await response
        finally:
            # Also when the client has left and the view is cancelled.
            _note(request)


def _note(request: Any) -> None:
    scope = getattr(request, "scope", None)
    match = getattr(request, "resolver_match", None)
    # A match that somebody has made himself may have no route.
    route = getattr(match, "route", None)
    if scope is not None and isinstance(route, str):
        # A re_path's pattern stands as it is written, without the marks of its ends.
        scope["headrace.route"] = "/" + route.removeprefix("^").removesuffix("$")
