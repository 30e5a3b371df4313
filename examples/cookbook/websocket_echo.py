"""A WebSocket that sends back what it gets, and a page to try it.

The server answers pings, limits sizes (``--ws-max-size``) and slows a client down that sends faster than the
loop below reads. When it stops, it closes with 1012, and ``receive`` says ``websocket.disconnect``.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse

from recipe import Recipe

_PAGE = Path(__file__).with_name("websocket_echo.html").read_text(encoding="utf-8")

router = APIRouter()


@router.get("/echo", response_class=HTMLResponse, include_in_schema=False)
async def show_echo() -> str:
    """The page; its script connects to the WebSocket below."""
    return _PAGE


@router.websocket("/echo/socket")
async def echo(socket: WebSocket) -> None:
    """Send every message back, text as text and bytes as bytes, until the client closes."""
    await socket.accept()
    while (message := await socket.receive())["type"] == "websocket.receive":
        try:
            if (data := message.get("bytes")) is not None:
                await socket.send_bytes(data)
            else:
                await socket.send_text(message["text"])
        except WebSocketDisconnect:
            return  # the client left before it had its echo


RECIPE = Recipe(
    title="WebSocket echo",
    sentence="A WebSocket endpoint sends back what it gets; the page shows both ways and the time between.",
    source="websocket_echo.py",
    links=("/echo",),
    router=router,
)
