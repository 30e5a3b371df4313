"""The contract's paths that need no parser of forms, on ASGI alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from contract import CLOSE_CODE, ENDLESS_PAUSE_S, GREETING, LARGE_BYTES, LINES, Books, file_path, paths_of

books = Books()
_tasks: set[asyncio.Task[None]] = set()

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if scope["type"] == "websocket":
        await _talk(receive, send)
        return
    path = scope["path"].removeprefix(scope["root_path"])
    handler = _HANDLERS.get((scope["method"].replace("HEAD", "GET"), "/path" if "/path/" in path else path))
    if handler is None:
        await _answer(send, b"not found", status=404)
    else:
        await handler(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    books.startups += 1
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


async def _talk(receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (text := (await receive())["text"]) != "bye":
        await send({"type": "websocket.send", "text": text})
    await send({"type": "websocket.close", "code": CLOSE_CODE})


async def _answer(
    send: Send, body: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _answer_json(send: Send, document: Any) -> None:
    body = json.dumps(document).encode()
    headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    await _answer(send, body, headers=headers)


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        more = message["more_body"]
    return body


async def _greet(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await _answer_json(send, GREETING)


async def _echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await _answer_json(send, json.loads(await _read(receive)))


async def _stream(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    for line in LINES:
        await send({"type": "http.response.body", "body": line.encode(), "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})


async def _events(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(3):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
    await send({"type": "http.response.body"})


async def _endless(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})

    async def write() -> None:
        while True:
            await send({"type": "http.response.body", "body": b"again\n", "more_body": True})
            await asyncio.sleep(ENDLESS_PAUSE_S)

    writing = asyncio.ensure_future(write())
    while (await receive())["type"] != "http.disconnect":
        pass
    books.left += 1
    writing.cancel()


async def _background(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        books.background_runs += 1

    await _answer_json(send, {"queued": True})
    task = asyncio.ensure_future(work())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _books(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await _answer_json(send, books.as_dict())


async def _file(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    assert "http.response.pathsend" in scope["extensions"]
    headers = [(b"content-length", b"%d" % os.stat(file_path()).st_size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.pathsend", "path": file_path()})


async def _redirect(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    location = scope["root_path"].encode() + b"/json"
    await _answer(send, b"", status=307, headers=((b"location", location),))


async def _raise(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    raise LookupError("on purpose")


async def _path(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await _answer_json(send, paths_of(scope))


async def _body(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    size, digest, more = 0, hashlib.sha256(), True
    while more:
        message = await receive()
        size += len(message["body"])
        digest.update(message["body"])
        more = message["more_body"]
    await _answer_json(send, {"size": size, "sha256": digest.hexdigest()})


async def _large(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    await _answer(send, b"x" * LARGE_BYTES)


_HANDLERS = {
    ("GET", "/json"): _greet,
    ("POST", "/json"): _echo,
    ("GET", "/stream"): _stream,
    ("GET", "/events"): _events,
    ("GET", "/endless"): _endless,
    ("GET", "/background"): _background,
    ("GET", "/books"): _books,
    ("GET", "/file"): _file,
    ("GET", "/redirect"): _redirect,
    ("GET", "/error"): _raise,
    ("GET", "/path"): _path,
    ("POST", "/body"): _body,
    ("GET", "/large"): _large,
}
