"""What ``benchmarks.scrape`` serves: 200 routes, and each worker's own word on how late its loop was.

``/lag`` answers with the process's number and the longest lag in ms since it was last asked; a task looks at
the clock every millisecond. ``/r/N`` for N below 200 answers at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

ROUTES = 200
LOOK_S = 0.001

worst_s = 0.0


async def _watch() -> None:
    global worst_s
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + LOOK_S
        await asyncio.sleep(LOOK_S)
        worst_s = max(worst_s, loop.time() - due_s)


@contextlib.asynccontextmanager
async def _lifespan(_: Starlette) -> AsyncIterator[None]:
    watching = asyncio.ensure_future(_watch())
    yield
    watching.cancel()


async def _lag(_: Request) -> PlainTextResponse:
    global worst_s
    found_s, worst_s = worst_s, 0.0
    return PlainTextResponse(f"{os.getpid()} {found_s * 1000:.3f}")


async def _hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse(str(os.getpid()))


app = Starlette(
    routes=[Route("/lag", _lag), *(Route(f"/r/{number}", _hello) for number in range(ROUTES))],
    lifespan=_lifespan,
)
