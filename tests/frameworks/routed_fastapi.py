"""Every way to a route in FastAPI, and the template that each must have."""

from __future__ import annotations

import tempfile
from typing import Any

import fastapi
from fastapi import APIRouter, FastAPI, WebSocket
from labelled import Case, Labelled
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

# Before, include_router left out the mounts of the router.
KEEPS_INCLUDED_MOUNTS = tuple(map(int, fastapi.__version__.split(".")[:2])) >= (0, 137)

inner = FastAPI()


@inner.get("/items/{item_id}")
@inner.get("/also/{item_id}")
async def item(item_id: int) -> int:
    return item_id


@inner.post("/items/{item_id}")
async def save(item_id: int) -> int:
    return item_id


@inner.websocket("/ws/{room}")
async def echo(socket: WebSocket, room: str) -> None:
    await socket.accept()
    await socket.close()


async def plain(request: Request) -> Response:
    return PlainTextResponse("plain")


innermost = APIRouter(prefix="/t")


@innermost.get("/{tid}")
async def task(tid: str, w: str = "") -> str:
    return tid


@innermost.websocket("/ws/{room}")
async def echo_included(socket: WebSocket, room: str) -> None:
    await socket.accept()
    await socket.close()


middle = APIRouter(prefix="/w/{org}")
middle.include_router(innermost)


@middle.get("")
async def organisation(org: str) -> str:
    return org


inner.include_router(middle, prefix="/v1")
inner.include_router(middle, prefix="/v2/{version}")
without_prefix = APIRouter()
without_prefix.add_route("/plain/{x}", plain)
without_prefix.mount("/mount/{m}", Starlette(routes=[Route("/r/{x}", plain)]))
inner.include_router(without_prefix, prefix="/v3/{version}")

sub = FastAPI()


@sub.get("/s/{x}")
async def inside(tenant: str, x: str) -> str:
    return x


sub.include_router(innermost, prefix="/in")
starlette = Starlette(routes=[Route("/r/{x}", plain), Mount("/m/{y}", routes=[Route("/r/{x}", plain)])])

inner.mount("/sub/{tenant}", sub)
inner.mount("/star/{s}", starlette)
inner.mount("/static", StaticFiles(directory=tempfile.gettempdir()))


async def mounted(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("mounted")(scope, receive, send)


inner.mount("/plain", mounted)

CASES: list[Case] = [
    ("GET", "/items/7", "/items/{item_id}"),
    ("GET", "/also/7", "/also/{item_id}"),
    ("POST", "/items/7", "/items/{item_id}"),
    ("DELETE", "/items/7", "/items/{item_id}"),
    # Refused with 422: the route is the same.
    ("GET", "/items/seven", "/items/{item_id}"),
    ("GET", "/", None),
    ("GET", "/nowhere", None),
    ("GET", "/docs", "/docs"),
    ("GET", "/openapi.json", "/openapi.json"),
    ("GET", "/v1/w/t/t/w", "/v1/w/{org}/t/{tid}"),
    ("GET", "/v2/v1/w/t/t/w", "/v2/{version}/w/{org}/t/{tid}"),
    ("GET", "/v1/w/t", "/v1/w/{org}"),
    ("POST", "/v1/w/t", "/v1/w/{org}"),
    ("GET", "/v2/2/w/t", "/v2/{version}/w/{org}"),
    ("GET", "/v3/plain/plain/1", "/v3/{version}/plain/{x}"),
    ("GET", "/v3/r/mount/r/r/1", "/v3/{version}/mount/{m}/r/{x}" if KEEPS_INCLUDED_MOUNTS else None),
    ("GET", "/v1/w/t/nothing", None),
    ("GET", "/sub/s/s/s", "/sub/{tenant}/s/{x}"),
    ("GET", "/sub/s/in/t/t", "/sub/{tenant}/in/t/{tid}"),
    ("GET", "/sub/s/docs", "/sub/{tenant}/docs"),
    ("GET", "/sub/s/nothing", None),
    ("GET", "/star/r/r/r", "/star/{s}/r/{x}"),
    ("GET", "/star/r/m/r/r/m", "/star/{s}/m/{y}/r/{x}"),
    ("GET", "/static/nothing-here", "/static/{path}"),
    ("GET", "/plain/x/y", "/plain/{path}"),
    ("WS", "/ws/7", "/ws/{room}"),
    ("WS", "/v1/w/t/t/ws/7", "/v1/w/{org}/t/ws/{room}"),
    ("WS", "/v2/v1/w/t/t/ws/7", "/v2/{version}/w/{org}/t/ws/{room}"),
]

app = Labelled(inner, CASES)
