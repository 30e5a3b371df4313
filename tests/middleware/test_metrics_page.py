"""The page of metrics inside an application, and where it answers."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import headrace.metrics
from headrace.middleware.metrics_page import MetricsPage, expose_pages
from headrace.telemetry.metrics.page import PageKind, process_pages, use_pages
from headrace.types import Receive, Scope, Send
from live import LiveServer

Serve = Callable[..., LiveServer]

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def starlette() -> Starlette:
    return Starlette(routes=[Route("/a", lambda request: PlainTextResponse("a"))])


def fastapi() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/a", lambda: "a")
    return app


def is_page(body: bytes) -> bool:
    return b"\n# TYPE http_requests_in_flight gauge\n" in body


@pytest.mark.parametrize("make", [starlette, fastapi])
class TestWhereItAnswers:
    @pytest.mark.parametrize("target", ["/metrics", "/metrics/"])
    def test_mounted(self, serve: Serve, make: Callable[[], Any], target: str) -> None:
        app = make()
        app.mount("/metrics", headrace.metrics.asgi_app())
        server = serve(app, metrics=True)
        response = server.get(target)
        assert response.status == 200
        assert is_page(response.body)
        assert response.get("content-type") == "text/plain; version=0.0.4; charset=utf-8"
        assert server.get("/a").status == 200
        assert server.get("/metricsx").status == 404

    def test_routed(self, serve: Serve, make: Callable[[], Any]) -> None:
        app = make()
        app.add_route("/metrics", headrace.metrics.asgi_app())
        response = serve(app, metrics=True).get("/metrics")
        assert response.status == 200
        assert is_page(response.body)

    def test_behind_a_root_path(self, serve: Serve, make: Callable[[], Any]) -> None:
        app = make()
        app.mount("/metrics", headrace.metrics.asgi_app())
        server = serve(app, metrics=True, root_path="/api")
        assert is_page(server.get("/metrics").body)
        server = serve(app, metrics=True, root_path="/api", root_path_mode="asgi")
        assert is_page(server.get("/metrics").body)

    def test_in_a_mounted_application(self, serve: Serve, make: Callable[[], Any]) -> None:
        inner = make()
        inner.mount("/metrics", headrace.metrics.asgi_app())
        outer = make()
        outer.mount("/inner", inner)
        assert is_page(serve(outer, metrics=True).get("/inner/metrics").body)

    def test_guards_of_the_application_stand_before_it(self, serve: Serve, make: Callable[[], Any]) -> None:
        seen = []

        class Guard:
            def __init__(self, app: Any) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] == "http":
                    seen.append(scope["path"])
                    await PlainTextResponse("no", 403)(scope, receive, send)
                else:
                    await self.app(scope, receive, send)

        app = make()
        app.mount("/metrics", headrace.metrics.asgi_app())
        app.add_middleware(Guard)
        assert serve(app, metrics=True).get("/metrics").status == 403
        assert seen == ["/metrics/"]

    def test_application_without_one_stays_as_it_is(self, make: Callable[[], Any]) -> None:
        app = make()
        app.add_route("/metrics", headrace.metrics.asgi_app())
        assert expose_pages(app) is app


def test_in_a_router_of_fastapi(serve: Serve) -> None:
    router = APIRouter()
    router.mount("/metrics", headrace.metrics.asgi_app())
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    server = serve(app, metrics=True)
    # FastAPI before 0.137 passes mounts of a router over.
    assert server.get("/v1/metrics").status == server.get("/v1/metrics/").status


class TestAnswers:
    @pytest.fixture
    def server(self, serve: Serve) -> LiveServer:
        return serve(Starlette(routes=[Mount("/metrics", headrace.metrics.asgi_app())]), metrics=True)

    def test_formats_and_codings(self, server: LiveServer) -> None:
        fields = ["accept: application/openmetrics-text", "accept-encoding: gzip"]
        response = server.connect().request("/metrics", headers=fields)
        assert response.get("content-type") == OPENMETRICS
        assert response.get("vary") == "accept, accept-encoding"
        assert response.get("content-encoding") == "gzip"
        assert zlib.decompress(response.body, 31).endswith(b"# EOF\n")

    def test_methods(self, server: LiveServer) -> None:
        client = server.connect()
        head = client.request("/metrics", "HEAD")
        assert head.status == 200
        assert int(head.get("content-length") or 0) > 0
        post = client.request("/metrics", "POST", b"x")
        assert (post.status, post.get("allow")) == (405, "GET, HEAD")

    def test_figures_are_those_of_requests(self, server: LiveServer) -> None:
        client = server.connect()
        for _ in range(3):
            client.request("/metrics")
        lines = []
        while not lines:  # they are written a moment later
            page = client.request("/metrics").body.decode().splitlines()
            lines = [line for line in page if line.startswith("http_request_duration_seconds_count")]
        (line,) = lines
        assert 'endpoint="/metrics"' in line

    def test_none_to_be_had(self, server: LiveServer) -> None:
        class Silent:
            async def page(self, kind: PageKind) -> bytes | None:
                return None

        before = process_pages()
        use_pages(Silent())
        try:
            response = server.get("/metrics")
        finally:
            use_pages(before)
        assert (response.status, response.get("retry-after")) == (503, "5")


class TestOtherServers:
    """As Starlette's test client and every other server call it."""

    def test_page(self) -> None:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            raise AssertionError

        scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": [(b"Accept", b"text/plain")]}
        asyncio.run(MetricsPage()(scope, receive, send))
        start, body = sent
        assert start["status"] == 200
        assert body["body"].startswith(b"# HELP headrace_build_info")

    @pytest.mark.parametrize("kind", ["lifespan", "websocket"])
    def test_nothing_but_http(self, kind: str) -> None:
        async def nothing(*_: Any) -> Any:
            raise AssertionError

        with pytest.raises(RuntimeError, match=kind):
            asyncio.run(MetricsPage()({"type": kind}, nothing, nothing))


def test_middleware_in_between_is_looked_through(serve: Serve) -> None:
    """Starlette keeps it beside its routes, not around them."""

    class Passing:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    app = Starlette(routes=[Mount("/metrics", headrace.metrics.asgi_app())], middleware=[Middleware(Passing)])
    assert is_page(serve(app, metrics=True).get("/metrics").body)
    assert is_page(serve(Passing(app), metrics=True).get("/metrics").body)
