"""``--health-path``: the answer by itself, and in a server at its limits and in its drain."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from headrace.middleware.health import Health
from http2_client import connect, drain, headers_frame, request_fields
from live import LiveServer, Records, eventually, respond

Serve = Callable[..., LiveServer]

SCOPE = {"type": "http", "method": "GET", "path": "/healthz"}


class Held:
    """An application that answers when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        if scope["path"] == "/held":
            await self.go.wait()
        await respond(send, b"application")


@pytest.fixture
def held() -> Held:
    return Held()


def answer(health: Health) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body is nobody's business")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(health(dict(SCOPE), receive, send))
    assert dict(sent[0]["headers"])[b"content-length"] == b"%d" % len(sent[1]["body"])
    return sent[0]["status"], sent[1]["body"]


def test_answer() -> None:
    assert answer(Health("/healthz", "", lambda: False)) == (200, b"ok")
    assert answer(Health("/healthz", "", lambda: True)) == (503, b"draining")


@pytest.mark.parametrize(
    ("change", "is_probe"),
    [
        ({}, True),
        ({"method": "HEAD"}, True),
        ({"path": "/api/healthz"}, True),
        ({"method": "POST"}, False),
        ({"path": "/healthz/"}, False),
        ({"path": "/healthzz"}, False),
        ({"path": "/other/healthz"}, False),
        ({"type": "websocket"}, False),
    ],
)
def test_what_is_a_probe(change: dict[str, str], is_probe: bool) -> None:
    assert Health("/healthz", "/api", lambda: False).is_probe({**SCOPE, **change}) is is_probe


def test_without_the_application(serve: Serve, held: Held) -> None:
    client = serve(held, health_path="/healthz").connect()
    response = client.request("/healthz?from=k8s")
    assert (response.status, response.body) == (200, b"ok")
    assert response.get("cache-control") == "no-store"
    assert client.request("/healthz", "HEAD").get("content-length") == "2"
    assert held.paths == []
    assert client.request("/healthz", "POST", b"x").body == b"application"
    assert client.request("/healthz/").body == b"application"
    assert held.paths == ["/healthz", "/healthz/"]


def test_off_by_default(serve: Serve, held: Held) -> None:
    assert serve(held).get("/healthz").body == b"application"


@pytest.mark.parametrize("mode", ["prefix", "asgi", "auto"])
def test_below_a_root_path(serve: Serve, held: Held, mode: str) -> None:
    server = serve(held, health_path="/healthz", root_path="/api", root_path_mode=mode)
    assert server.get("/healthz").body == b"ok"


def test_a_body_behind_it_is_dropped(serve: Serve, held: Held) -> None:
    client = serve(held, health_path="/healthz").connect()
    client.send(
        b"GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\nhost: a\r\n\r\n"
    )
    assert [client.read_response().body for _ in range(2)] == [b"ok", b"application"]


def hold(server: LiveServer) -> Any:
    client = server.connect()
    client.send(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n")
    eventually(lambda: server.server.runtime.running)
    return client


def test_above_limit_concurrency(serve: Serve, held: Held) -> None:
    server = serve(held, health_path="/healthz", limit_concurrency=1)
    running = hold(server)
    client = server.connect()
    assert [client.request("/healthz").status for _ in range(3)] == [200] * 3
    assert server.get("/").status == 503
    server.in_loop(held.go.set)
    assert running.read_response().status == 200


def test_above_limit_concurrency_over_http2(serve: Serve, held: Held) -> None:
    server = serve(held, health_path="/healthz", limit_concurrency=1)
    running = hold(server)
    client = connect(server)
    assert client.get(b"/healthz").status == 200
    assert client.get(b"/").status == 503
    server.in_loop(held.go.set)
    assert running.read_response().status == 200


def test_takes_nobody_s_place(serve: Serve, held: Held) -> None:
    # All are read in one turn, before any of them is answered.
    server = serve(held, health_path="/healthz", limit_concurrency=1)
    client = connect(server)
    paths = [*[b"/healthz"] * 5, b"/"]
    client.send(*(headers_frame(2 * n + 1, request_fields(path)) for n, path in enumerate(paths)))
    assert [client.response(2 * n + 1).status for n in range(6)] == [200] * 6


def test_no_access_line(serve: Serve, held: Held, access_records: Records) -> None:
    server = serve(held, health_path="/healthz")
    assert server.get("/healthz").status == 200
    assert connect(server).get(b"/healthz").status == 200
    assert server.get("/other").status == 200
    eventually(access_records.lines)
    assert ["/other" in line for line in access_records.lines()] == [True]


def test_503_during_a_drain(serve: Serve, held: Held) -> None:
    server = serve(held, health_path="/healthz", drain_delay=60.0)
    idle = server.connect()
    assert idle.request("/healthz").status == 200
    drain(server)
    response = idle.request("/healthz")
    assert (response.status, response.body, response.get("connection")) == (503, b"draining", "close")
    assert server.get("/healthz").status == 503
    assert server.get("/").status == 200
    # As a second signal does.
    server.in_loop(server.server._forced.set)


def test_200_from_one_that_another_replaces(serve: Serve, held: Held) -> None:
    # A load balancer's connection to the old worker must not tell it that the service has gone.
    server = serve(held, health_path="/healthz")
    running = hold(server)
    idle = server.connect()
    idle.send(b"GET /healthz HTTP/1.1\r\n")
    server.server._is_replaced = True
    drain(server)
    idle.send(b"host: a\r\n\r\n")
    response = idle.read_response()
    assert (response.status, response.get("connection")) == (200, "close")
    server.in_loop(held.go.set)
    assert running.read_response().status == 200
