"""A response that leaves piece by piece: the client has the first line long before the last is made.

Each piece goes out at once. ``send`` waits for a client that reads slowly, so the generator runs no faster
than its reader; when the client leaves, it is cancelled where it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from recipe import Recipe

router = APIRouter()


async def numbered_lines(count: int, pause_s: float) -> AsyncIterator[str]:
    """Lines 1 to ``count``, with ``pause_s`` seconds between two."""
    for number in range(1, count + 1):
        yield f"line {number} of {count}\n"
        if number < count:
            await asyncio.sleep(pause_s)


@router.get("/lines", response_class=StreamingResponse)
async def stream_lines(
    count: Annotated[int, Query(ge=1, le=1000)] = 10,
    pause_s: Annotated[float, Query(ge=0, le=60)] = 0.3,
) -> StreamingResponse:
    """Send numbered lines, slowly."""
    return StreamingResponse(numbered_lines(count, pause_s), media_type="text/plain")


RECIPE = Recipe(
    title="Streamed response",
    sentence="Numbered lines leave one by one while they are made; curl -N shows each as it comes.",
    source="streamed_response.py",
    links=("/lines?count=5",),
    router=router,
)
