"""The contract on Starlette, behind a ``BaseHTTPMiddleware``, its events by sse-starlette."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from contract import (
    CLOSE_CODE,
    ENDLESS_PAUSE_S,
    GREETING,
    LARGE_BYTES,
    LINES,
    Books,
    facts_of,
    file_path,
    paths_of,
)
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

books = Books()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Books]]:
    books.startups += 1
    yield {"books": books}


class Marker(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-marked"] = "yes"
        return response


async def greet(request: Request) -> Response:
    return JSONResponse(GREETING)


async def echo(request: Request) -> Response:
    return JSONResponse(await request.json())


async def form(request: Request) -> Response:
    return JSONResponse(dict(await request.form()))


async def upload(request: Request) -> Response:
    async with request.form() as fields:
        file = fields["file"]
        assert isinstance(file, UploadFile)
        return JSONResponse({"name": file.filename, "note": fields["note"], **facts_of(await file.read())})


async def stream(request: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        for line in LINES:
            yield line
            await asyncio.sleep(0)

    return StreamingResponse(lines())


async def events(request: Request) -> Response:
    async def numbers() -> AsyncIterator[dict[str, int]]:
        for number in range(3):
            yield {"data": number}

    return EventSourceResponse(numbers(), sep="\n")


async def endless(request: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        try:
            while True:
                yield "again\n"
                await asyncio.sleep(ENDLESS_PAUSE_S)
        finally:
            books.left += 1

    return StreamingResponse(lines())


def work() -> None:
    books.background_runs += 1


async def background(request: Request) -> Response:
    return JSONResponse({"queued": True}, background=BackgroundTask(work))


async def show_books(request: Request) -> Response:
    return JSONResponse(request.state.books.as_dict())


async def file(request: Request) -> Response:
    return FileResponse(file_path())


async def redirect(request: Request) -> Response:
    return RedirectResponse(request.url_for("greet"))


async def fail(request: Request) -> Response:
    raise LookupError("on purpose")


async def path(request: Request) -> Response:
    return JSONResponse(paths_of(request.scope))


async def body(request: Request) -> Response:
    return JSONResponse(facts_of(await request.body()))


async def large(request: Request) -> Response:
    return Response(b"x" * LARGE_BYTES)


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    while (text := await websocket.receive_text()) != "bye":
        await websocket.send_text(text)
    await websocket.close(CLOSE_CODE)


app = Starlette(
    lifespan=lifespan,
    middleware=[Middleware(Marker)],
    routes=[
        Route("/json", greet, methods=["GET"], name="greet"),
        Route("/json", echo, methods=["POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/events", events),
        Route("/endless", endless),
        Route("/background", background),
        Route("/books", show_books),
        Route("/file", file),
        Route("/redirect", redirect),
        Route("/error", fail),
        Route("/path/{rest:path}", path),
        Route("/body", body, methods=["POST"]),
        Route("/large", large),
        WebSocketRoute("/socket", socket),
        Mount("/static", StaticFiles(directory=Path(os.environ["FRAMEWORK_TEST_FILE"]).parent)),
    ],
)
