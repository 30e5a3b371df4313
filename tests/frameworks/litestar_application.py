"""The contract on Litestar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
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
from litestar import Litestar, Request, Response, WebSocket, get, head, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import File, Redirect, ServerSentEvent, Stream

books = Books()


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    books.startups += 1
    yield


@get("/json")
async def greet() -> dict[str, str]:
    return GREETING


@head("/json")
async def greet_head() -> None:
    pass


@post("/json", status_code=200)
async def echo(data: dict[str, Any]) -> dict[str, Any]:
    return data


@post("/form", status_code=200)
async def form(
    data: Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> dict[str, str]:
    return data


@post("/upload", status_code=200)
async def upload(
    data: Annotated[dict[str, Any], Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    file: UploadFile = data["file"]
    return {"name": file.filename, "note": data["note"], **facts_of(await file.read())}


@get("/stream")
async def stream() -> Stream:
    async def lines() -> AsyncIterator[str]:
        for line in LINES:
            yield line
            await asyncio.sleep(0)

    return Stream(lines())


@get("/events")
async def events() -> ServerSentEvent:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    return ServerSentEvent(numbers())


@get("/endless")
async def endless() -> Stream:
    async def lines() -> AsyncIterator[str]:
        try:
            while True:
                yield "again\n"
                await asyncio.sleep(ENDLESS_PAUSE_S)
        finally:
            books.left += 1

    return Stream(lines())


async def work() -> None:
    books.background_runs += 1


@get("/background")
async def background() -> Response[dict[str, bool]]:
    return Response({"queued": True}, background=BackgroundTask(work))


@get("/books")
async def show_books() -> dict[str, int]:
    return books.as_dict()


@get("/file")
async def file() -> File:
    return File(path=Path(file_path()))


@get("/redirect")
async def redirect(request: Request[Any, Any, Any]) -> Redirect:
    return Redirect(path=request.scope["root_path"] + "/json")


@get("/error")
async def fail() -> None:
    raise LookupError("on purpose")


@get("/path/{rest:path}")
async def path(request: Request[Any, Any, Any], rest: str) -> dict[str, str]:
    return paths_of(request.scope)


@post("/body", status_code=200, request_max_body_size=None)
async def body(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return facts_of(await request.body())


@get("/large", media_type="application/octet-stream")
async def large() -> bytes:
    return b"x" * LARGE_BYTES


@websocket("/socket")
async def talk(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    while (text := await socket.receive_text()) != "bye":
        await socket.send_text(text)
    await socket.close(CLOSE_CODE)


app = Litestar(
    lifespan=[lifespan],
    logging_config=None,
    openapi_config=None,
    route_handlers=[
        greet, greet_head, echo, form, upload, stream, events, endless, background, show_books, file,
        redirect, fail, path, body, large, talk,
    ],
)  # fmt: skip
