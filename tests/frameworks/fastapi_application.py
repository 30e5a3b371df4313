"""The contract on FastAPI, its events by FastAPI's own ``EventSourceResponse``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

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
from fastapi import BackgroundTasks, FastAPI, Form, Request, UploadFile, WebSocket
from fastapi.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from fastapi.sse import EventSourceResponse

books = Books()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Books]]:
    books.startups += 1
    yield {"books": books}


app = FastAPI(lifespan=lifespan)


@app.api_route("/json", methods=["GET", "HEAD"])
async def greet() -> dict[str, str]:
    return GREETING


@app.post("/json")
async def echo(document: dict[str, Any]) -> dict[str, Any]:
    return document


@app.post("/form")
async def form(name: Annotated[str, Form()], word: Annotated[str, Form()]) -> dict[str, str]:
    return {"name": name, "word": word}


@app.post("/upload")
async def upload(file: UploadFile, note: Annotated[str, Form()]) -> dict[str, Any]:
    return {"name": file.filename, "note": note, **facts_of(await file.read())}


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for line in LINES:
            yield line
            await asyncio.sleep(0)

    return StreamingResponse(lines())


@app.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[int]:
    for number in range(3):
        yield number


@app.get("/endless")
async def endless() -> StreamingResponse:
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


@app.get("/background")
async def background(tasks: BackgroundTasks) -> dict[str, bool]:
    tasks.add_task(work)
    return {"queued": True}


@app.get("/books")
def show_books(request: Request) -> dict[str, int]:
    # Not async: FastAPI runs it in a thread.
    return request.state.books.as_dict()


@app.get("/file")
async def file() -> FileResponse:
    return FileResponse(file_path())


@app.get("/redirect")
async def redirect(request: Request) -> RedirectResponse:
    return RedirectResponse(request.url_for("greet"))


@app.get("/error")
async def fail() -> None:
    raise LookupError("on purpose")


@app.get("/path/{rest:path}")
async def path(request: Request) -> dict[str, str]:
    return paths_of(request.scope)


@app.post("/body")
async def body(request: Request) -> dict[str, Any]:
    return facts_of(await request.body())


@app.get("/large")
async def large() -> Response:
    return Response(b"x" * LARGE_BYTES)


@app.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    while (text := await websocket.receive_text()) != "bye":
        await websocket.send_text(text)
    await websocket.close(CLOSE_CODE)
