"""Server-sent events: a clock that ticks once a second, and a page that shows it.

An event stream has no end of its own. When the server stops it says ``http.disconnect`` at once, which ends
the stream below; the browser connects again by itself. FastAPI adds a comment after 15 seconds of silence,
and the fields that keep proxies from collecting the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from recipe import Recipe

RECONNECT_MS = 1_000
"""How long a browser waits before it connects again."""

_PAGE = Path(__file__).with_name("sse_clock.html").read_text(encoding="utf-8")

router = APIRouter()


@router.get("/clock", response_class=HTMLResponse, include_in_schema=False)
async def show_clock() -> str:
    """The page; its script listens to the events below."""
    return _PAGE


@router.get("/clock/events", response_class=EventSourceResponse)
async def tick() -> AsyncIterator[ServerSentEvent]:
    """The server's time in UTC, at once and then on each second."""
    while True:
        now = datetime.now(UTC)
        yield ServerSentEvent(
            event="tick", data={"time": now.isoformat(timespec="milliseconds")}, retry=RECONNECT_MS
        )
        await asyncio.sleep(1 - now.microsecond / 1_000_000)


RECIPE = Recipe(
    title="SSE clock",
    sentence="Server-sent events tick once a second; the stream ends when the server stops, and comes back.",
    source="sse_clock.py",
    links=("/clock",),
    router=router,
)
