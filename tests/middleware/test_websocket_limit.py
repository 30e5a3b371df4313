"""Open WebSockets of one address, as any ASGI server would call the layer."""

import asyncio
from typing import Any

import pytest

from headrace.middleware.websocket_limit import WebSocketLimit

DENIAL = {"websocket.http.response": {}}


class Sessions:
    """An application that holds what is open until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.scopes: list[Any] = []
        self.error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await self.go.wait()
        if self.error is not None:
            raise self.error


def scope_of(host: str | None, **more: Any) -> dict[str, Any]:
    client = None if host is None else (host, 5)
    return {"type": "websocket", "client": client, "extensions": DENIAL, **more}


async def call(layer: WebSocketLimit, scope: Any) -> tuple[asyncio.Task[None], list[Any]]:
    """Start one, as far as it goes by itself."""

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    task = asyncio.create_task(layer(scope, receive, send))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return task, sent


def test_above_it_429() -> None:
    async def main() -> None:
        sessions = Sessions()
        layer = WebSocketLimit(sessions, 2)
        tasks = [(await call(layer, scope_of("192.0.2.1")))[0] for _ in range(2)]
        refused, sent = await call(layer, scope_of("192.0.2.1"))
        assert refused.done()
        assert [message["type"] for message in sent] == [
            "websocket.http.response.start",
            "websocket.http.response.body",
        ]
        assert sent[0]["status"] == 429
        fields = dict(sent[0]["headers"])
        assert fields[b"retry-after"] == b"10"
        assert int(fields[b"content-length"]) == len(sent[1]["body"])
        assert len(sessions.scopes) == 2
        other, sent = await call(layer, scope_of("192.0.2.2"))
        assert (other.done(), sent) == (False, [])
        sessions.go.set()
        await asyncio.gather(*tasks, other)

    asyncio.run(main())


@pytest.mark.parametrize("error", [None, ValueError("x")])
def test_place_of_one_that_ends_is_free(error: Exception | None) -> None:
    async def main() -> None:
        sessions = Sessions()
        sessions.error = error
        layer = WebSocketLimit(sessions, 1)
        first, _ = await call(layer, scope_of("192.0.2.1"))
        sessions.go.set()
        await asyncio.wait([first])
        assert first.exception() is error
        sessions.go.clear()
        second, sent = await call(layer, scope_of("192.0.2.1"))
        assert (second.done(), sent) == (False, [])
        second.cancel()
        await asyncio.wait([second])
        third, sent = await call(layer, scope_of("192.0.2.1"))
        assert (third.done(), sent) == (False, [])
        third.cancel()
        await asyncio.wait([third])

    asyncio.run(main())


def test_a_refused_one_takes_no_place() -> None:
    async def main() -> None:
        sessions = Sessions()
        layer = WebSocketLimit(sessions, 1)
        first, _ = await call(layer, scope_of("192.0.2.1"))
        for _ in range(3):
            refused, _ = await call(layer, scope_of("192.0.2.1"))
            await refused
        sessions.go.set()
        await first
        sessions.go.clear()
        second, sent = await call(layer, scope_of("192.0.2.1"))
        assert (second.done(), sent) == (False, [])
        sessions.go.set()
        await second

    asyncio.run(main())


@pytest.mark.parametrize("extensions", [{}, None])
def test_close_where_the_server_knows_no_denial(extensions: Any) -> None:
    async def main() -> None:
        sessions = Sessions()
        layer = WebSocketLimit(sessions, 1)
        first, _ = await call(layer, scope_of("192.0.2.1"))
        refused, sent = await call(layer, scope_of("192.0.2.1", extensions=extensions))
        await refused
        assert sent == [{"type": "websocket.close", "code": 1008, "reason": "Too many WebSockets"}]
        sessions.go.set()
        await first

    asyncio.run(main())


@pytest.mark.parametrize("scope", [scope_of(None), scope_of("192.0.2.1", type="http"), {"type": "lifespan"}])
def test_what_is_not_limited(scope: dict[str, Any]) -> None:
    async def main() -> None:
        sessions = Sessions()
        layer = WebSocketLimit(sessions, 1)
        tasks = [(await call(layer, scope))[0] for _ in range(3)]
        assert sessions.scopes == [scope] * 3
        sessions.go.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
