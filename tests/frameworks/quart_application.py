"""The contract on Quart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

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
from quart import Quart, Response, redirect, request, send_file, url_for, websocket

from headrace.quart import note_routes

books = Books()
app = note_routes(Quart(__name__))
app.config["MAX_CONTENT_LENGTH"] = None


@app.before_serving
async def start() -> None:
    books.startups += 1


@app.get("/json")
async def greet() -> dict[str, str]:
    return GREETING


@app.post("/json")
async def echo() -> Any:
    return await request.get_json()


@app.post("/form")
async def form() -> dict[str, str]:
    return (await request.form).to_dict()


@app.post("/upload")
async def upload() -> dict[str, Any]:
    file = (await request.files)["file"]
    return {"name": file.filename, "note": (await request.form)["note"], **facts_of(file.read())}


@app.get("/stream")
async def stream() -> AsyncIterator[str]:
    async def lines() -> AsyncIterator[str]:
        for line in LINES:
            yield line
            await asyncio.sleep(0)

    return lines()


@app.get("/events")
async def events() -> Response:
    async def numbers() -> AsyncIterator[str]:
        for number in range(3):
            yield f"data: {number}\n\n"

    return Response(numbers(), content_type="text/event-stream")


@app.get("/endless")
async def endless() -> Response:
    async def lines() -> AsyncIterator[str]:
        try:
            while True:
                yield "again\n"
                await asyncio.sleep(ENDLESS_PAUSE_S)
        finally:
            books.left += 1

    response = Response(lines())
    response.timeout = None
    return response


async def work() -> None:
    books.background_runs += 1


@app.get("/background")
async def background() -> dict[str, bool]:
    app.add_background_task(work)
    return {"queued": True}


@app.get("/books")
async def show_books() -> dict[str, int]:
    return books.as_dict()


@app.get("/file")
async def file() -> Response:
    return await send_file(file_path())


@app.get("/redirect")
async def go_on() -> Any:
    return redirect(url_for("greet"))


@app.get("/error")
async def fail() -> None:
    raise LookupError("on purpose")


@app.get("/path/<path:rest>")
async def path(rest: str) -> dict[str, str]:
    return paths_of(request.scope)


@app.post("/body")
async def body() -> dict[str, Any]:
    return facts_of(await request.get_data())


@app.get("/large")
async def large() -> Response:
    return Response(b"x" * LARGE_BYTES)


@app.websocket("/socket")
async def socket() -> None:
    await websocket.accept()
    while (text := await websocket.receive()) != "bye":
        await websocket.send(text)
    await websocket.close(CLOSE_CODE)
