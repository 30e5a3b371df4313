"""Route templates, each from a scope that a real framework has worked on.

What each framework's routes are called stands in ``tests/frameworks/routed_*.py``; here is what is left.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import litestar
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from headrace.telemetry.route import learn_routes, route_template, template, walk, wrapped

Application = Callable[[Any, Any, Any], Any]


async def answer(request: Request) -> Response:
    return PlainTextResponse("answer")


async def other(request: Request) -> Response:
    return PlainTextResponse("other")


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("plain")(scope, receive, send)


def served(
    app: Application, path: str, *, method: str = "GET", root_path: str = "", host: bytes = b"a.test"
) -> dict[str, Any]:
    """The scope of one request after the application is done with it."""
    is_websocket = method == "WS"
    scope: dict[str, Any] = {
        "type": "websocket" if is_websocket else "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 50000),
        "root_path": root_path,
        "path": root_path + path,
        "raw_path": (root_path + path).encode(),
        "query_string": b"",
        "headers": [(b"accept", b"*/*"), (b"host", host)],
        "state": {},
        "extensions": {},
        "subprotocols": [],
    }
    if not is_websocket:
        scope["method"] = method
    waiting = [{"type": "websocket.connect"} if is_websocket else {"type": "http.request"}]

    async def receive() -> dict[str, Any]:
        return waiting.pop() if waiting else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        pass

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return scope


def label(app: Application, path: str, **arguments: Any) -> str | None:
    return route_template(served(app, path, **arguments))


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    template._maps.clear()
    yield
    template._maps.clear()


@pytest.mark.parametrize("root_path", ["", "/shop", "/items"])
def test_what_a_proxy_cut_off_is_not_part_of_it(root_path: str) -> None:
    sub = Starlette(routes=[Route("/items/{x}", answer)])
    app = Starlette(routes=[Route("/items/{x}", answer), Mount("/a/{m}", sub), Mount("/b/{n}", sub)])
    assert label(app, "/items/7", root_path=root_path) == "/items/{x}"
    assert label(app, "/a/b/items/7", root_path=root_path) == "/a/{m}/items/{x}"
    assert label(app, "/b/a/items/7", root_path=root_path) == "/b/{n}/items/{x}"


def test_root_path_that_is_not_in_the_path() -> None:
    # As with --root-path-mode asgi: the path begins where the application begins.
    app = Starlette(routes=[Route("/items/{x}", answer), Route("/also/{x}", answer)])
    scope = served(app, "/items/7")
    del scope["route"]
    scope["root_path"] = "/shop"
    assert route_template(scope) == "/items/{x}"


def test_fastapi_with_a_root_path_of_its_own() -> None:
    app, sub = FastAPI(), FastAPI()
    # As the constructor's argument, which warns.
    app.root_path = "/shop"
    for kind in (app, sub):
        kind.add_api_route("/items/{x}", lambda x: x)
    app.mount("/sub/{tenant}", sub)
    assert label(app, "/shop/items/7") == "/items/{x}"
    assert label(app, "/shop/sub/items/items/7") == "/sub/{tenant}/items/{x}"


def test_hosts() -> None:
    one, two = Router([Route("/r/{x}", answer)]), Router([Mount("/m", routes=[Route("/r/{x}", answer)])])
    app = Starlette(
        routes=[
            Host("one.test", one),
            Host("{sub}.two.test", two),
            Host("three.test", plain),
            Mount("/", one),
        ]
    )
    assert label(app, "/r/1", host=b"ONE.test:8000") == "/r/{x}"
    assert label(app, "/m/r/1", host=b"a.two.test") == "/m/r/{x}"
    assert label(app, "/m/r/1", host=b"one.test") is None
    assert label(app, "/anything/at/all", host=b"three.test") == "/{path}"
    assert label(app, "/r/1", host=b"[::1]") == "/r/{x}"
    twice = Starlette(routes=[Host("one.test", one), Mount("/m", one)])
    scope = served(twice, "/m/r/1")
    assert route_template(scope) == "/m/r/{x}"
    scope["headers"] = []
    assert route_template(scope) == "/m/r/{x}"


def test_mounts_at_the_root() -> None:
    app = Starlette(routes=[Mount("/", routes=[Route("/in/{x}", answer)]), Mount("/never", plain)])
    assert label(app, "/in/1") == "/in/{x}"
    assert label(app, "/out/1") is None
    assert label(Starlette(routes=[Mount("/", plain)]), "/a/b") == "/{path}"


def test_router_and_application_without_routes() -> None:
    assert label(Router([Route("/r/{x}", answer)]), "/r/1") == "/r/{x}"
    assert label(Starlette(), "/r/1") is None
    assert label(plain, "/r/1") is None


async def _shut(socket: WebSocket) -> None:
    await socket.close()


def test_one_function_for_several_routes() -> None:
    app = Starlette(
        routes=[
            Route("/a/{x}", answer, methods=["GET"]),
            Route("/a/{y}", answer, methods=["POST"]),
            Route("/b/{x:path}", answer),
            WebSocketRoute("/a/{socket}", _shut),
            WebSocketRoute("/b/{socket}", _shut),
        ]
    )
    for with_route in (True, False):
        for method, path, expected in [
            ("GET", "/a/1", "/a/{x}"),
            ("POST", "/a/1", "/a/{y}"),
            ("PUT", "/a/1", "/a/{x}"),
            ("GET", "/b/a/1", "/b/{x}"),
            ("WS", "/b/1", "/b/{socket}"),
        ]:
            scope = served(app, path, method=method)
            if not with_route:
                # Starlette before 1.8 leaves none.
                del scope["route"]
            assert route_template(scope) == expected


class _Slotted:
    __slots__ = ("__app", "empty", "one")

    def __init__(self, app: Application) -> None:
        self.__app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.__app(scope, receive, send)

    async def method(self, scope: Any, receive: Any, send: Any) -> None:
        await self.__app(scope, receive, send)


class _OneSlot:
    __slots__ = "app"

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def _closure(app: Application) -> Application:
    async def layer(scope: Any, receive: Any, send: Any) -> None:
        if scope is None:
            never()
        await app(scope, receive, send)

    if app is None:

        def never() -> None:
            pass

    return layer


async def _partial(app: Application, scope: Any, receive: Any, send: Any) -> None:
    await app(scope, receive, send)


LAYERS: list[Callable[[Application], Application]] = [
    _Slotted,
    _OneSlot,
    lambda app: _Slotted(app).method,
    _closure,
    lambda app: functools.partial(_partial, app),
    lambda app: _closure(_OneSlot(_Slotted(app))),
]


@pytest.mark.parametrize("layer", LAYERS)
def test_application_behind_layers_inside_a_mount(layer: Callable[[Application], Application]) -> None:
    sub = Starlette(routes=[Route("/r/{x}", answer)])
    app = Starlette(routes=[Mount("/m/{y}", layer(sub))])
    assert label(app, "/m/r/r/r") == "/m/{y}/r/{x}"
    assert label(app, "/m/r/nothing") is None


def test_layer_that_copies_the_scope_inside_a_mount() -> None:
    async def copy(app: Application, scope: Any, receive: Any, send: Any) -> None:
        await app(dict(scope), receive, send)

    sub = Starlette(routes=[Route("/r/{x}", answer), Route("/s/{x}", other, methods=["POST"])])
    app = Starlette(routes=[Mount("/m/{y}", functools.partial(copy, sub))])
    assert label(app, "/m/r/r/r") == "/m/{y}/r/{x}"
    assert label(app, "/m/r/s/r", method="POST") == "/m/{y}/s/{x}"
    assert label(app, "/m/r/nothing") is None


def test_everything_that_fastapi_includes() -> None:
    router, app = APIRouter(), FastAPI()
    router.add_api_route("/api/{x}", lambda x: x)
    router.add_route("/plain/{x}", answer)
    router.mount("/mount/{x}", Starlette(routes=[Route("/r/{z}", answer)]))
    router.routes.append(Host("one.test", Router([Route("/r/{z}", other)])))
    router.add_websocket_route("/ws/{x}", _shut)
    app.include_router(router, prefix="/a/{y}")
    app.include_router(router, prefix="/b")
    for prefix, value in (("/a/{y}", "/a/b"), ("/b", "/b")):
        assert label(app, f"{value}/api/1") == f"{prefix}/api/{{x}}"
        assert label(app, f"{value}/plain/1") == f"{prefix}/plain/{{x}}"
        assert label(app, f"{value}/mount/r/r/1") == f"{prefix}/mount/{{x}}/r/{{z}}"
        assert label(app, f"{value}/ws/1", method="WS") == f"{prefix}/ws/{{x}}"
    assert label(app, "/a/b/r/1", host=b"one.test") == "/a/{y}/r/{z}"


def test_application_that_is_hidden_behind_a_mount() -> None:
    sub = Starlette(routes=[Route("/r/{x}", answer)])

    def hide(app: Application) -> Application:
        boxes = [[app]]

        async def layer(scope: Any, receive: Any, send: Any) -> None:
            await boxes[0][0](scope, receive, send)

        return layer

    app = Starlette(routes=[Mount("/m/{y}", hide(sub)), Route("/r/{x}", other)])
    assert label(app, "/m/r/r/1") == "/m/{y}/{path}"
    assert label(app, "/r/1") == "/r/{x}"


def test_layer_that_refers_to_the_whole_application() -> None:
    app = Starlette()

    async def back(scope: Any, receive: Any, send: Any) -> None:
        assert app.routes
        await plain(scope, receive, send)

    app.mount("/back", back)
    app.mount("/self", app)
    app.router.routes.append(Route("/r/{x}", answer))
    assert label(app, "/back/r/1") == "/back/{path}"
    assert label(app, "/r/1") == "/r/{x}"
    assert label(app, "/self/back/1") in ("/self/{path}", "/back/{path}")


def test_routes_added_while_serving() -> None:
    sub = Starlette()
    app = Starlette(routes=[Mount("/m/{y}", sub)])
    assert label(app, "/m/1/r/1") == "/m/{y}/{path}"
    sub.router.routes.append(Route("/r/{x}", answer))
    assert label(app, "/m/1/r/1") == "/m/{y}/r/{x}"
    app.router.routes.append(Route("/again/{x}", answer))
    assert label(app, "/again/1") == "/again/{x}"
    assert label(app, "/m/1/r/1") == "/m/{y}/r/{x}"


class _Counted(list[BaseRoute]):
    walks = 0

    def __iter__(self) -> Iterator[BaseRoute]:
        self.walks += 1
        return super().__iter__()


class _OwnRoute(BaseRoute):
    """A route of a class that looks at nothing but the path's beginning."""

    def __init__(self, path_format: object) -> None:
        self.path_format = path_format

    def matches(self, scope: Any) -> tuple[Match, dict[str, Any]]:
        if not scope["path"].startswith("/own"):
            return Match.NONE, {}
        self.endpoint = object()
        return Match.FULL, {"endpoint": self.endpoint, "route": self}

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await plain(scope, receive, send)


def test_route_of_a_class_of_its_own() -> None:
    assert label(Starlette(routes=[_OwnRoute("/own/{x}")]), "/own/1") == "/own/{x}"
    assert label(Starlette(routes=[_OwnRoute(7)]), "/own/1") is None
    looks_known = _OwnRoute("/own/{x}")
    looks_known.path_regex = re.compile("/")  # type: ignore[attr-defined]
    assert label(Starlette(routes=[looks_known, Route("/r", answer)]), "/r") == "/r"
    mounted = Starlette(routes=[Mount("/m", routes=[_OwnRoute("/own/{x}"), Route("/r", answer)])])
    scope = served(mounted, "/m/r")
    assert route_template(scope) == "/m/r"
    del scope["route"]
    scope["endpoint"] = object()
    assert route_template(scope) is None


def test_unknown_endpoints_are_not_looked_for_again_and_again() -> None:
    app = Starlette(routes=[_OwnRoute("/own/{x}")])
    routes = app.router.routes = _Counted(app.routes)
    scope = served(app, "/own/1")
    routes.walks = 0
    for _ in range(1000):
        scope["route"].endpoint = scope["endpoint"] = object()
        assert route_template(scope) == "/own/{x}"
    assert routes.walks < 20
    # One that the walk finds is still found.
    routes[:] = [Route("/r/{x}", answer)]
    assert label(app, "/r/1") == "/r/{x}"


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": None},
        {"endpoint": object(), "route": None},
        {"route": object()},
        {"route": None, "path": 7},
        {"route": None, "headers": None},
        {"router": object()},
        {"router": 7},
        {"fastapi": 7},
        {"headrace.route": 7},
        {"headrace.route": ""},
        {"path_template": ""},
        {"path_template": "", "route_handler": object()},
        {"path_template": "", "route_handler": SimpleNamespace(is_mount=True), "litestar_app": Starlette()},
    ],
)
def test_whatever_stands_in_the_scope_it_does_not_raise(changes: dict[str, Any]) -> None:
    app = Starlette(routes=[Route("/a/{x}", answer), Route("/b/{x}", answer), Mount("/m", plain)])
    scope = served(app, "/a/1")
    scope.update(changes)
    assert route_template(scope) in (None, "/a/{x}")
    assert route_template({}) is None
    assert route_template(changes) is None


def test_routes_that_cannot_be_walked() -> None:
    class Bad(Route):
        @property
        def path_format(self) -> str:
            raise LookupError("on purpose")

        @path_format.setter
        def path_format(self, value: str) -> None:
            pass

    app = Starlette(routes=[Bad("/a/{x}", answer)])
    assert label(app, "/a/1") is None


def test_labels_are_few_whatever_is_asked_for() -> None:
    sub = Starlette(routes=[Route("/r/{x}", answer)])
    app = Starlette(routes=[Route("/a/{x}", answer), Mount("/m/{y}", sub), Mount("/static/{z}", plain)])
    tops = ("/", "/a/", "/m/", "/m/r/r/", "/static/", "/static/x/")
    found = {label(app, f"{top}{number}") for top in tops for number in range(20)}
    assert found == {None, "/a/{x}", "/m/{y}/r/{x}", "/static/{z}/{path}"}


def test_applications_are_let_go() -> None:
    def serve() -> weakref.ref[Any]:
        async def whole(request: Request) -> Response:
            return PlainTextResponse(str(app))

        app = Starlette(routes=[Route("/a/{x}", whole)])
        assert label(app, "/a/1") == "/a/{x}"
        assert len(template._maps) == 1
        return weakref.ref(app.router)

    router = serve()
    gc.collect()
    assert router() is None
    assert not template._maps


def test_applications_remembered_are_bounded() -> None:
    kept = [Starlette(routes=[Route(f"/a{number}", answer)]) for number in range(template.MAX_MAPS + 3)]
    for number, app in enumerate(kept):
        assert label(app, f"/a{number}") == f"/a{number}"
        assert len(template._maps) <= template.MAX_MAPS


def test_routes_are_learned_before_the_first_request() -> None:
    starlette, router, fastapi = Starlette(), Router([Route("/r/{x}", answer)]), FastAPI()
    for app, layer in ((starlette, _OneSlot), (router, _closure), (fastapi, _Slotted)):
        app.routes.append(Route("/a/{x}", other))
        learn_routes(layer(app))
    assert len(template._maps) == 3
    assert label(router, "/r/1") == "/r/{x}"
    assert label(fastapi, "/a/1") == "/a/{x}"
    assert len(template._maps) == 3


def test_nothing_is_learned_where_there_are_no_routes() -> None:
    learn_routes(plain)
    learn_routes(SimpleNamespace(routes=[SimpleNamespace(path_regex=None)], router=7))
    assert not template._maps


def test_walk_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Mount("/m", routes=[Route("/r/{x}", answer)])
    for _ in range(walk.MAX_DEPTH + 2):
        inner = Mount("/m", routes=[inner])
    assert label(Starlette(routes=[inner, Route("/r/{x}", other)]), "/r/1") == "/r/{x}"
    monkeypatch.setattr(walk, "MAX_ROUTES", 2)
    app = Starlette(routes=[Route("/a", answer), Route("/b", answer), Route("/c", other)])
    assert label(app, "/b") == "/b"
    monkeypatch.setattr(wrapped, "MAX_LOOKED_AT", 2)
    sub = _OneSlot(_OneSlot(_OneSlot(Starlette(routes=[Route("/r/{x}", answer)]))))
    assert label(Starlette(routes=[Mount("/m", sub)]), "/m/r/1") == "/m/{path}"


def test_front_ends_of_fastapi(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("front")
    sub, router, app = FastAPI(openapi_url=None), APIRouter(), FastAPI()
    for kind, path in ((app, "/"), (app, "/shop"), (router, "/ui"), (sub, "/ui")):
        kind.frontend(path, directory=tmp_path)
    sub.add_api_route("/r/{x}", lambda x: x)
    app.include_router(router, prefix="/included")
    app.mount("/sub/{tenant}", sub)
    assert label(app, "/any/thing") == "/{path}"
    assert label(app, "/shop/any/thing") == "/shop/{path}"
    assert label(app, "/included/ui/index.html") == "/included/ui/{path}"
    assert label(app, "/sub/ui/ui/index.html") == "/sub/{tenant}/ui/{path}"
    assert label(app, "/sub/ui/r/ui") == "/sub/{tenant}/r/{x}"
    assert label(app, "/sub/ui/nowhere") is None
    assert label(app, "/docs") == "/docs"


def test_what_an_application_says_itself() -> None:
    async def tell(scope: Any, receive: Any, send: Any) -> None:
        scope["headrace.route"] = "/told/<x>"
        await plain(scope, receive, send)

    async def telling(request: Request) -> Response:
        request.scope["headrace.route"] = "/told/<x>"
        return PlainTextResponse("told")

    app = Starlette(routes=[Mount("/m/{y}", tell), Route("/{path:path}", telling)])
    assert label(tell, "/told/1") == "/told/<x>"
    # A mounted application of another framework knows only its own part.
    assert label(app, "/m/1/told/1") == "/m/{y}/told/<x>"
    assert label(app, "/told/1") == "/told/<x>"


@litestar.get("/r/{x:str}")
async def in_litestar() -> str:
    return "in Litestar"


def test_litestar_in_a_mount() -> None:
    inside = litestar.Litestar([in_litestar], openapi_config=None, logging_config=None)
    app = Starlette(routes=[Mount("/m/{y}", inside), Route("/r/{x}", answer)])
    assert label(app, "/m/r/r/1") == "/m/{y}/r/{x}"
    assert label(app, "/r/1") == "/r/{x}"


def test_applications_in_mounts_of_litestar() -> None:
    starlette = Starlette(routes=[Route("/r/{x}", answer)])

    @litestar.asgi("/star", is_mount=True, copy_scope=False)
    async def star(scope: Any, receive: Any, send: Any) -> None:
        await starlette(scope, receive, send)

    @litestar.asgi("/plain", is_mount=True, copy_scope=False)
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await plain(scope, receive, send)

    router = litestar.Router("/v1", route_handlers=[star, mounted])
    app = litestar.Litestar([router, in_litestar], openapi_config=None, logging_config=None)
    assert label(app, "/v1/star/r/1") in ("/v1/star/r/{x}", "/v1/star/{path}")
    assert label(app, "/v1/plain/r/1") == "/v1/plain/{path}"
    assert label(app, "/r/1") == "/r/{x}"
