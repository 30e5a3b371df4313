"""Every way to a route in Quart, and the template that each must have."""

from __future__ import annotations

from labelled import Case, Labelled
from quart import Blueprint, Quart, websocket

from headrace.quart import note_routes

inner = note_routes(Quart(__name__))
blueprint = Blueprint("api", __name__, url_prefix="/api/<org>")


@inner.before_request
async def answer_early() -> str | None:
    return None


@inner.get("/items/<int:item_id>")
async def item(item_id: int) -> str:
    return "item"


@inner.get("/sync/<x>")
def in_thread(x: str) -> str:
    return "sync"


@inner.get("/fail/<x>")
async def fail(x: str) -> str:
    raise LookupError("on purpose")


@blueprint.get("/u/<path:rest>")
async def user(org: str, rest: str) -> str:
    return rest


@inner.websocket("/ws/<room>")
async def echo(room: str) -> None:
    await websocket.accept()
    await websocket.close(1000)


inner.register_blueprint(blueprint)

CASES: list[Case] = [
    ("GET", "/items/7", "/items/<int:item_id>"),
    ("GET", "/items/seven", None),
    ("GET", "/sync/x", "/sync/<x>"),
    ("GET", "/fail/x", "/fail/<x>"),
    ("GET", "/api/u/u/u/u", "/api/<org>/u/<path:rest>"),
    ("GET", "/nowhere", None),
    ("DELETE", "/items/7", None),
    ("WS", "/ws/7", "/ws/<room>"),
    ("WS", "/nowhere", None),
]

app = Labelled(inner, CASES)
