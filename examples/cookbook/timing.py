"""Timing by pure ASGI middleware: no task, no queue, no copy of the body; a few microseconds a request.

``X-Process-Time`` says how many seconds passed before the response began. Under ``/api`` the client's kind,
from ``X-Client-Type``, is in ``request.state.client_type``.

The first is here to show how such a layer is written: ``headrace run main:app --timing`` sets the field too,
from the moment at which the request had been read, and ``Server-Timing`` beside it. What the application
itself measured it says in a ``Server-Timing`` of its own, and the browser's developer tools show both.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from fastapi import APIRouter, Request, Response
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recipe import Recipe

DEFAULT_CLIENT_TYPE = "web"


class Timing:
    """Adds the ``X-Process-Time`` header to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Time one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = perf_counter()

        async def send_with_time(message: Message) -> None:
            if message["type"] == "http.response.start":
                duration_s = perf_counter() - started_s
                headers = [*message.get("headers", ()), (b"x-process-time", b"%.6f" % duration_s)]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_time)


class ClientType:
    """Puts the client's kind into ``request.state`` of every request under ``/api``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at one request."""
        if scope["type"] == "http" and _is_under_api(scope):
            # The state is this request's own: the server gives each request a copy.
            scope.setdefault("state", {})["client_type"] = _client_type(scope)
        await self._app(scope, receive, send)


def _is_under_api(scope: Scope) -> bool:
    # The path begins with the prefix that a proxy in front has for us, if there is one.
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return bool(path == "/api" or path.startswith("/api/"))


def _client_type(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-client-type":
            return str(value, "latin-1")
    return DEFAULT_CLIENT_TYPE


router = APIRouter()


@router.get("/api/client")
async def show_client(request: Request) -> dict[str, str]:
    """Show what the middleware found out; the time is in the response's headers."""
    return {"client_type": request.state.client_type}


@router.get("/report")
async def make_report(response: Response) -> dict[str, int]:
    """Say in the response how long the database took."""
    started_s = perf_counter()
    await asyncio.sleep(0.02)  # as if one were asked
    duration_ms = (perf_counter() - started_s) * 1000
    response.headers["server-timing"] = f'db;desc="orders of the week";dur={duration_ms:.2f}'
    return {"orders": 3}


RECIPE = Recipe(
    title="Timing middleware",
    sentence="Pure ASGI middleware measures each request and tells endpoints under /api who asks.",
    source="timing.py",
    links=("/api/client", "/report"),
    router=router,
    middleware=(Middleware(Timing), Middleware(ClientType)),
)
