"""Every way to a route in Starlette, and the template that each must have."""

from __future__ import annotations

import tempfile
from typing import Any

from labelled import Case, Labelled
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


class Wrapping:
    """A layer that hands the scope on."""

    def __init__(self, app: Any) -> None:
        self.inner = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.inner(scope, receive, send)


def copying(app: Any) -> Any:
    """A layer that hands a copy on, so that nobody outside sees what is chosen inside."""

    async def copy_scope(scope: Any, receive: Any, send: Any) -> None:
        await app(dict(scope), receive, send)

    return copy_scope


async def home(request: Request) -> Response:
    return PlainTextResponse("home")


async def item(request: Request) -> Response:
    return PlainTextResponse("item")


async def shared(request: Request) -> Response:
    return PlainTextResponse("shared")


async def save(request: Request) -> Response:
    return PlainTextResponse("saved")


async def fail(request: Request) -> Response:
    raise LookupError("on purpose")


class Thing(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("thing")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


async def mounted(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("mounted")(scope, receive, send)


def in_factory() -> Starlette:
    """An application in which a layer refers to the whole, as factories make them."""
    whole = Starlette()

    async def back(scope: Any, receive: Any, send: Any) -> None:
        assert whole is not None
        await mounted(scope, receive, send)

    whole.router.routes.extend([Mount("/back", back), Route("/front/{x}", home)])
    return whole


twice = Starlette(routes=[Route("/z/{k}", item), Route("/", home)])
wrapped = Starlette(routes=[Route("/in/{x}", item)])
copied = Starlette(routes=[Route("/a/{x}", home), Route("/b/{x}", shared, methods=["POST"])])
deep = Starlette(
    routes=[
        Mount("/deep/{t}", Router([Route("/z/{k}", item), Route("/deep", save, methods=["POST"])])),
        Route("/{rest:path}", home),
    ]
)

inner = Starlette(
    middleware=[Middleware(Passing)],
    routes=[
        Route("/", home),
        Route("/items/{item_id:int}", item),
        Route("/items/special", shared),
        Route("/shared/{x}", shared),
        Route("/save", save, methods=["POST"]),
        Route("/save", item, methods=["PUT"]),
        Route("/thing/{x}", Thing),
        Route("/fail/{x}", fail),
        Route("/files/{rest:path}", item),
        WebSocketRoute("/ws/{room}", echo),
        Mount("/static", StaticFiles(directory=tempfile.gettempdir())),
        Mount("/plain/{p}", mounted),
        Mount("/one/{tenant}", twice),
        Mount("/two/{tenant}/{more}", twice),
        Mount("/two/{rest:path}", twice),
        Mount("/api", deep),
        Mount("/wrapped/{w}", Wrapping(Wrapping(wrapped))),
        Mount("/partly", routes=[Route("/in/{x}", home)], middleware=[Middleware(Passing)]),
        Mount("/copied/{c}", copying(Wrapping(copied))),
        Mount("/factory", in_factory()),
        Host("{sub}.example.org", Router([Route("/hosted/{x}", home)])),
    ],
)

CASES: list[Case] = [
    ("GET", "/", "/"),
    ("GET", "/items/7", "/items/{item_id}"),
    ("HEAD", "/items/7", "/items/{item_id}"),
    ("GET", "/items/special", "/items/special"),
    ("GET", "/shared/special", "/shared/{x}"),
    ("GET", "/items/none", None),
    ("GET", "/nowhere", None),
    ("POST", "/save", "/save"),
    ("PUT", "/save", "/save"),
    ("DELETE", "/save", "/save"),
    ("DELETE", "/items/7", "/items/{item_id}"),
    ("GET", "/thing/7", "/thing/{x}"),
    ("GET", "/fail/7", "/fail/{x}"),
    ("GET", "/files/a/b/c", "/files/{rest}"),
    ("GET", "/static/nothing-here", "/static/{path}"),
    ("GET", "/plain/acme/x/y", "/plain/{p}/{path}"),
    # The values equal the static parts.
    ("GET", "/one/one/z/one", "/one/{tenant}/z/{k}"),
    ("GET", "/one/z/z/z", "/one/{tenant}/z/{k}"),
    ("GET", "/one/z/nothing", None),
    ("GET", "/one/z/", "/one/{tenant}/"),
    ("GET", "/two/two/z/z/two", "/two/{tenant}/{more}/z/{k}"),
    ("GET", "/two/z/z/z", None),
    ("GET", "/api/deep/z/z/deep", "/api/deep/{t}/z/{k}"),
    ("POST", "/api/deep/deep/deep", "/api/deep/{t}/deep"),
    ("GET", "/api/deep/deep/deep", "/api/deep/{t}/deep"),
    ("GET", "/api/other/z/1", "/api/{rest}"),
    ("GET", "/wrapped/in/in/in", "/wrapped/{w}/in/{x}"),
    ("GET", "/wrapped/in/nothing", None),
    ("GET", "/partly/in/1", "/partly/in/{x}"),
    ("GET", "/copied/a/a/a", "/copied/{c}/a/{x}"),
    ("POST", "/copied/a/b/a", "/copied/{c}/b/{x}"),
    ("GET", "/copied/a/nothing", None),
    ("GET", "/factory/back/1", "/factory/back/{path}"),
    ("GET", "/factory/front/1", "/factory/front/{x}"),
    ("WS", "/ws/7", "/ws/{room}"),
    ("WS", "/nowhere", None),
]

app = Labelled(inner, CASES)
