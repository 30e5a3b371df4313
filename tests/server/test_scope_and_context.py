"""The scope to the letter, and context variables that stay where they were set."""

import contextvars
from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import pytest

from live import LiveServer, numbered, read_body, respond

Serve = Callable[..., LiveServer]

EXTENSIONS = {"http.response.early_hint": {}, "http.response.pathsend": {}, "http.response.trailers": {}}


class Keeper:
    """Keeps the scopes it was called with."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await respond(send)


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


def test_whole(serve: Serve, keeper: Keeper) -> None:
    server = serve(keeper)
    client = server.connect()
    client.send(b"POST /caf%C3%A9%2Fx?q=%31&r HTTP/1.1\r\nHost: a\r\nX_y: 1\r\nx-Z: \r\nX_Y: 2\r\n\r\n")
    assert client.read_response().status == 200
    assert keeper.scopes == [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", server.server.port),
            "client": client.sock.getsockname(),
            "scheme": "http",
            "root_path": "",
            "method": "POST",
            "path": "/café/x",
            "raw_path": b"/caf%C3%A9%2Fx",
            "query_string": b"q=%31&r",
            "headers": [(b"host", b"a"), (b"x_y", b"1"), (b"x-z", b""), (b"x_y", b"2")],
            "state": {"headrace.leader": ANY},
            "extensions": EXTENSIONS,
        }
    ]
    scope = keeper.scopes[0]
    assert isinstance(scope["client"], tuple)
    assert isinstance(scope["client"][1], int)
    assert isinstance(scope["server"], tuple)


def test_http_1_0(serve: Serve, keeper: Keeper) -> None:
    serve(keeper).exchange(b"GET / HTTP/1.0\r\n\r\n")
    assert keeper.scopes[0]["http_version"] == "1.0"
    assert keeper.scopes[0]["headers"] == []


def test_undecodable_path(serve: Serve, keeper: Keeper) -> None:
    serve(keeper).get("/%FF")
    assert (keeper.scopes[0]["path"], keeper.scopes[0]["raw_path"]) == ("/\ufffd", b"/%FF")


@pytest.mark.parametrize(
    ("mode", "target", "path", "raw_path"),
    [
        ("prefix", "/x%20y", "/api/x y", b"/api/x%20y"),
        ("prefix", "/api/x", "/api/api/x", b"/api/api/x"),
        ("asgi", "/x", "/x", b"/x"),
        ("asgi", "/api/x", "/api/x", b"/api/x"),
        ("auto", "/x", "/api/x", b"/api/x"),
        ("auto", "/api/x", "/api/x", b"/api/x"),
        ("auto", "/api", "/api", b"/api"),
        ("auto", "/apiary", "/api/apiary", b"/api/apiary"),
    ],
)
def test_root_path(serve: Serve, keeper: Keeper, mode: str, target: str, path: str, raw_path: bytes) -> None:
    serve(keeper, root_path="/api/", root_path_mode=mode).get(target)
    scope = keeper.scopes[0]
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", path, raw_path)


def test_each_request_has_its_own(serve: Serve, keeper: Keeper) -> None:
    client = serve(keeper).connect()
    # Byte for byte the same request: what the first one changed must not be in the second.
    client.request()
    first = keeper.scopes[0]
    for key in ("asgi", "headers", "state", "extensions"):
        first[key].clear()
    client.request()
    second = keeper.scopes[1]
    assert second["asgi"] == {"version": "3.0", "spec_version": "2.3"}
    assert second["headers"] == [(b"host", b"a.test")]
    assert second["extensions"] == EXTENSIONS


def test_state_is_a_shallow_copy(serve: Serve) -> None:
    scopes: list[Any] = []
    shared: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
            await receive()
            scope["state"]["shared"] = shared
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        scopes.append(scope["state"])
        scope["state"]["own"] = scope["path"]
        await respond(send)

    server = serve(application, lifespan="on")
    server.get("/a")
    server.get("/b")
    assert [state["own"] for state in scopes] == ["/a", "/b"]
    assert all(state["shared"] is shared for state in scopes)
    assert scopes[0] is not scopes[1]


SEEN = contextvars.ContextVar("SEEN", default="nothing")


class TestContextVariables:
    """What one request, or the lifespan, sets is not seen by another."""

    @staticmethod
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            SEEN.set("lifespan")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen = SEEN.get()
        SEEN.set(scope["path"])
        await read_body(receive)
        await respond(send, seen.encode())

    def test_keep_alive(self, serve: Serve) -> None:
        client = serve(self.application, lifespan="on").connect()
        assert [client.request(f"/{number}").body for number in range(3)] == [b"nothing"] * 3

    def test_pipelined(self, serve: Serve) -> None:
        client = serve(self.application, lifespan="on").connect()
        client.send(b"".join(numbered("/", 5)))
        assert [client.read_response().body for _ in range(5)] == [b"nothing"] * 5

    def test_behind_a_large_body(self, serve: Serve) -> None:
        # Reading pauses and resumes in the application's context here.
        client = serve(self.application, lifespan="on").connect()
        for _ in range(2):
            assert client.request(method="POST", body=b"x" * 1_000_000).body == b"nothing"
        assert client.request().body == b"nothing"

    def test_behind_a_slow_reader(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen = SEEN.get()
            SEEN.set(scope["path"])
            await respond(send, seen.encode() + b"x" * 5_000_000)

        client = serve(application).connect()
        client.send(b"".join(numbered("/", 3)))
        assert [client.read_response().body[:8] for _ in range(3)] == [b"nothingx"] * 3
