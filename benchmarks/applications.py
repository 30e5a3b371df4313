"""The raw ASGI applications that every server runs, and the sizes that load and floor share with them.

They import nothing but the standard library, so that a server's memory and time are its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HELLO = b"Hello, world!"
ECHO_BODY = b"x" * 10_240
UPLOAD_BYTES = 256 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
CHUNK = b"x" * CHUNK_BYTES
STREAM_CHUNKS = 160
STREAM_BYTES = STREAM_CHUNKS * CHUNK_BYTES
FLOOD_CHUNKS = 16_384
FLOOD_PATH = "/flood"

TEXT = (b"content-type", b"text/plain")
BINARY = (b"content-type", b"application/octet-stream")
HELLO_HEADERS = [TEXT, (b"content-length", b"13")]


async def hello(scope: Message, receive: Receive, send: Send) -> None:
    """13 bytes, in one message."""
    if scope["type"] != "http":
        await start_and_stop(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": HELLO_HEADERS})
    await send({"type": "http.response.body", "body": HELLO})


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """The request's body, sent back once it is whole."""
    if scope["type"] != "http":
        await start_and_stop(receive, send)
        return
    parts: list[bytes] = []
    more_body = True
    while more_body:
        message = await receive()
        parts.append(message.get("body", b""))
        more_body = message.get("more_body", False)
    await answer(send, b"".join(parts))


async def count(scope: Message, receive: Receive, send: Send) -> None:
    """How many bytes the request's body had."""
    if scope["type"] != "http":
        await start_and_stop(receive, send)
        return
    received_bytes = 0
    more_body = True
    while more_body:
        message = await receive()
        received_bytes += len(message.get("body", b""))
        more_body = message.get("more_body", False)
    await answer(send, b"%d" % received_bytes)


async def stream(scope: Message, receive: Receive, send: Send) -> None:
    """10 MiB in 64 KiB chunks, of a length that the server is not told."""
    if scope["type"] != "http":
        await start_and_stop(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [BINARY]})
    for _ in range(STREAM_CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def flood(scope: Message, receive: Receive, send: Send) -> None:
    """1 GiB on its own path, elsewhere a short answer.

    Every chunk is an object of its own: a server that kept 16,384 references to one and the same chunk
    would look as if it buffered nothing.
    """
    if scope["type"] != "http":
        await start_and_stop(receive, send)
        return
    if scope["path"] != FLOOD_PATH:
        await answer(send, HELLO)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [BINARY]})
    tail = CHUNK[8:]
    for number in range(FLOOD_CHUNKS):
        chunk = number.to_bytes(8, "big") + tail
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def websocket(scope: Message, receive: Receive, send: Send) -> None:
    """Every message of a WebSocket, sent back as it came; over HTTP 13 bytes, for the first look."""
    if scope["type"] != "websocket":
        await hello(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if text is None:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        else:
            await send({"type": "websocket.send", "text": text})


async def answer(send: Send, body: bytes) -> None:
    """A whole response in one body message."""
    headers = [BINARY, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def start_and_stop(receive: Receive, send: Send) -> None:
    """The lifespan of an application that has nothing to prepare."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
