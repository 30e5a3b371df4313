"""What the middleware for Django does in each of Django's modes; whole requests are in ``test_routes.py``."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction

from headrace.django import RouteMiddleware


def request_of(route: str | None, scope: dict[str, Any] | None = None) -> SimpleNamespace:
    """A request whose route is found while it is answered, as Django finds it."""
    request = SimpleNamespace(resolver_match=None, found=route)
    if scope is not None:
        request.scope = scope
    return request


def resolve(request: Any) -> str:
    if request.found is not None:
        request.resolver_match = SimpleNamespace(route=request.found)
    return "response"


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("items/<int:id>/", {"headrace.route": "/items/<int:id>/"}),
        ("", {"headrace.route": "/"}),
        ("^old/(?P<year>[^/]+)/$", {"headrace.route": "/old/(?P<year>[^/]+)/"}),
        (None, {}),
    ],
)
def test_route_is_noted_in_both_modes(route: str | None, expected: dict[str, str]) -> None:
    async def resolve_async(request: Any) -> str:
        await asyncio.sleep(0)
        return resolve(request)

    for get_response in (resolve, resolve_async):
        scope: dict[str, Any] = {}
        middleware = RouteMiddleware(get_response)
        answer = middleware(request_of(route, scope))
        assert iscoroutinefunction(middleware) == (get_response is resolve_async)
        assert (asyncio.run(answer) if get_response is resolve_async else answer) == "response"
        assert scope == expected


def test_match_without_a_route_is_left_alone() -> None:
    def answer(request: Any) -> str:
        request.resolver_match = SimpleNamespace(route=None)
        return "response"

    scope: dict[str, Any] = {}
    assert RouteMiddleware(answer)(request_of("items/", scope)) == "response"
    assert scope == {}


def test_nothing_happens_under_wsgi() -> None:
    request = request_of("items/")
    assert RouteMiddleware(resolve)(request) == "response"
    assert not hasattr(request, "scope")


def test_route_is_noted_when_the_view_fails_or_is_cancelled() -> None:
    def fail(request: Any) -> None:
        resolve(request)
        raise LookupError("on purpose")

    async def cancelled(request: Any) -> None:
        resolve(request)
        raise asyncio.CancelledError

    async def answer(scope: dict[str, Any]) -> None:
        with pytest.raises(asyncio.CancelledError):
            await RouteMiddleware(cancelled)(request_of("items/", scope))

    scopes: list[dict[str, Any]] = [{}, {}]
    with pytest.raises(LookupError):
        RouteMiddleware(fail)(request_of("items/", scopes[0]))
    asyncio.run(answer(scopes[1]))
    assert scopes == [{"headrace.route": "/items/"}] * 2
