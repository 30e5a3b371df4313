"""The layer ``Metrics``, under headrace and as any ASGI server would call it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from headrace.errors import ConfigError
from headrace.middleware.metrics import Metrics
from headrace.telemetry.metrics.exposition import render
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.registry import Registry, process_registry
from live import LiveServer, eventually


def page_of(registry: Registry) -> list[str]:
    """Lines of the page that are not 0."""
    merged = Merged()
    merged.attach(registry.store)
    lines = "".join(render(merged)).splitlines()
    return [line for line in lines if not line.startswith("#") and not line.endswith(" 0")]


def totals_of(registry: Registry) -> list[str]:
    """Those of WebSockets that are no histogram's."""
    lines = page_of(registry)
    return [line.removeprefix("headrace_websocket_") for line in lines if "duration" not in line]


async def session(websocket: WebSocket) -> None:
    """Answers each message with itself, twice, until it is told how to end."""
    await websocket.accept()
    while True:
        text = await websocket.receive_text()
        if text.startswith("close "):
            await websocket.close(int(text.removeprefix("close ")))
            return
        if text == "raise":
            raise RuntimeError(text)
        if text == "return":
            return
        await websocket.send_text(text)
        await websocket.send_bytes(text.encode())


async def refusal(websocket: WebSocket) -> None:
    await websocket.close(1008)


def application() -> Starlette:
    return Starlette(
        routes=[
            Route("/page/{x}", lambda request: PlainTextResponse("hello")),
            WebSocketRoute("/ws/{room}", session),
            WebSocketRoute("/refused", refusal),
        ]
    )


def open_session(server: LiveServer, path: str) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.server.port}{path}")


def wait_for(registry: Registry, line: str) -> None:
    eventually(lambda: line in totals_of(registry), line)


def test_messages_of_a_session(serve: Callable[..., LiveServer]) -> None:
    registry = Registry()
    server = serve(Metrics(application(), registry, records=False))
    with open_session(server, "/ws/1") as client:
        for text in ("a", "b", "c"):
            client.send(text)
            assert (client.recv(), client.recv()) == (text, text.encode())
        assert totals_of(registry) == [
            'messages_total{direction="received",endpoint="/ws/{room}"} 3',
            'messages_total{direction="sent",endpoint="/ws/{room}"} 6',
            "sessions 1",
        ]
    wait_for(registry, 'closes_total{code="1000",endpoint="/ws/{room}"} 1')
    assert not [line for line in totals_of(registry) if line.startswith("sessions")]
    name = "headrace_websocket_session_duration_seconds"
    assert f'{name}_count{{endpoint="/ws/{{room}}"}} 1' in page_of(registry)


@pytest.mark.parametrize(
    ("last", "sent", "counted"),
    [
        ("raise", 1011, "1011"),
        ("return", 1000, "1000"),
        ("close 1013", 1013, "1013"),
        ("close 4001", 4001, "4001"),
    ],
)
def test_codes_the_application_ends_with(
    serve: Callable[..., LiveServer], error_log: object, last: str, sent: int, counted: str
) -> None:
    registry = Registry()
    server = serve(Metrics(application(), registry, records=False))
    with open_session(server, "/ws/1") as client:
        client.send(last)
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert client.close_code == sent
    wait_for(registry, f'closes_total{{code="{counted}",endpoint="/ws/{{room}}"}} 1')


@pytest.mark.parametrize(("sent", "counted"), [(1001, "1001"), (3999, "3xxx"), (4321, "4xxx")])
def test_codes_the_client_ends_with(
    serve: Callable[..., LiveServer], error_log: object, sent: int, counted: str
) -> None:
    registry = Registry()
    server = serve(Metrics(application(), registry, records=False))
    with open_session(server, "/ws/1") as client:
        client.close(sent)
    wait_for(registry, f'closes_total{{code="{counted}",endpoint="/ws/{{room}}"}} 1')


def test_refused_handshake_is_no_session(serve: Callable[..., LiveServer]) -> None:
    registry = Registry()
    server = serve(Metrics(application(), registry, records=False))
    for path in ("/refused", "/nowhere"):
        with pytest.raises(InvalidStatus), open_session(server, path):
            pass
    assert page_of(registry) == []


# As any ASGI server would call it.


def websocket_scope(path: str = "/x") -> dict[str, Any]:
    return {"type": "websocket", "path": path, "headrace.route": "/r", "headers": []}


async def call(layer: Metrics, scope: Any, *messages: Any, send: Any = None) -> list[Any]:
    """Call the layer with these messages; gives what was sent."""
    waiting = list(messages)
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0) if waiting else await asyncio.get_running_loop().create_future()

    async def keep(message: Any) -> None:
        sent.append(message)

    await layer(scope, receive, send or keep)
    return sent


ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.send", "text": "x"}


def layer_over(app: Any) -> tuple[Metrics, Registry]:
    registry = Registry()
    return Metrics(app, registry, records=False), registry


def test_send_to_a_client_that_is_gone_is_an_abnormal_end() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await send(TEXT)

    async def send(message: Any) -> None:
        if message is TEXT:
            raise OSError("gone")

    layer, registry = layer_over(app)
    with pytest.raises(OSError, match="gone"):
        asyncio.run(call(layer, websocket_scope(), send=send))
    assert 'closes_total{code="1006",endpoint="/r"} 1' in totals_of(registry)


def test_cancelled_session_ends() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await receive()

    async def main() -> None:
        task = asyncio.create_task(call(layer, websocket_scope()))
        while not totals_of(registry):
            await asyncio.sleep(0)
        assert totals_of(registry) == ["sessions 1"]
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    layer, registry = layer_over(app)
    asyncio.run(main())
    assert totals_of(registry) == ['closes_total{code="1001",endpoint="/r"} 1']


@pytest.mark.parametrize(
    "end", [{"type": "websocket.disconnect"}, {"type": "websocket.disconnect", "code": None}]
)
def test_end_without_a_code_and_ends_that_follow(end: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await send(ACCEPT)
        await receive()
        await send({"type": "websocket.close", "code": 1000})

    layer, registry = layer_over(app)
    asyncio.run(call(layer, websocket_scope(), end))
    assert totals_of(registry) == ['closes_total{code="1005",endpoint="/r"} 1']


def test_what_the_server_gives_to_await_is_passed_on() -> None:
    class Finished:
        def __await__(self) -> Any:
            return iter(())

    finished = Finished()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert send(ACCEPT) is finished
        assert send(TEXT) is finished

    layer, registry = layer_over(app)
    asyncio.run(call(layer, websocket_scope(), send=lambda message: finished))
    assert 'messages_total{direction="sent",endpoint="/r"} 1' in totals_of(registry)


@pytest.mark.parametrize("kind", ["lifespan", "http", "other"])
def test_other_scopes_pass_on_untouched(kind: str) -> None:
    async def app(*arguments: Any) -> None:
        seen.extend(arguments)

    async def main() -> None:
        await layer(*given)

    async def receive() -> Any: ...

    async def send(message: Any) -> None: ...

    seen: list[Any] = []
    layer, registry = layer_over(app)
    given: Any = ({"type": kind}, receive, send)
    asyncio.run(main())
    assert all(one is other for one, other in zip(given, seen, strict=True))
    assert page_of(registry) == []


def test_requests_are_recorded_where_the_server_does_not(serve: Callable[..., LiveServer]) -> None:
    in_flight = []

    async def page(request: Any) -> PlainTextResponse:
        in_flight.extend(line for line in page_of(registry) if "flight" in line)
        return PlainTextResponse("hello")

    registry = Registry()
    inner = Starlette(routes=[Route("/page/{x}", page)])
    server = serve(Metrics(inner, registry, buckets=(0.5, 60.0)))
    assert server.get("/page/1").body == b"hello"
    assert server.get("/none").status == 404
    assert in_flight == ["http_requests_in_flight 1"]
    count = 'http_request_duration_seconds_count{method="GET",endpoint="unmatched",status="404"} 1'
    eventually(lambda: count in page_of(registry), count)
    lines = page_of(registry)
    assert not [line for line in lines if "flight" in line]
    assert 'http_request_duration_seconds_count{method="GET",endpoint="/page/{x}",status="200"} 1' in lines
    assert 'http_response_bytes_total{method="GET",endpoint="/page/{x}"} 5' in lines
    assert 'le="0.5"} 1' in "".join(lines)
    assert 'le="0.25"' not in "".join(lines)


def test_it_counts_for_the_process_unless_told_otherwise() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)

    Metrics(app)
    assert "headrace_websocket_sessions 0" in "".join(_page_with_zeros(process_registry()))
    with pytest.raises(ConfigError):
        Metrics(app, Registry(), preset="x")


def _page_with_zeros(registry: Registry) -> str:
    merged = Merged()
    merged.attach(registry.store)
    return "".join(render(merged))
