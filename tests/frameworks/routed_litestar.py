"""Every way to a route in Litestar, and the template that each must have."""

from __future__ import annotations

from typing import Any

from labelled import Case, Labelled
from litestar import Litestar, Router, WebSocket, asgi, get, post, websocket


@get("/items/{item_id:int}")
async def item() -> str:
    return "item"


@post("/items/{item_id:int}")
async def save() -> str:
    return "saved"


@get("/files/{rest:path}")
async def files() -> str:
    return "files"


@get("/fixed")
async def fixed() -> str:
    return "fixed"


@websocket("/ws/{room:str}")
async def echo(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.close()


@asgi("/mounted", is_mount=True)
async def mounted(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"mounted"})


inner = Litestar(
    logging_config=None,
    route_handlers=[
        Router("/v1/{org:str}", route_handlers=[item, save, fixed, echo]),
        Router("/v2", route_handlers=[mounted]),
        files,
        fixed,
    ],
)

CASES: list[Case] = [
    ("GET", "/fixed", "/fixed"),
    ("GET", "/v1/v1/items/7", "/v1/{org}/items/{item_id}"),
    ("POST", "/v1/v1/items/7", "/v1/{org}/items/{item_id}"),
    ("GET", "/v1/items/fixed", "/v1/{org}/fixed"),
    ("GET", "/v1/v1/items/seven", None),
    ("GET", "/files/a/b/c", "/files/{rest}"),
    ("GET", "/v2/mounted/a/b", "/v2/mounted/{path}"),
    ("GET", "/nowhere", None),
    # Litestar refuses the method before it tells the route.
    ("DELETE", "/fixed", None),
    ("WS", "/v1/v1/ws/7", "/v1/{org}/ws/{room}"),
]

app = Labelled(inner, CASES)
