"""Limits how many WebSockets one client address may have open at a time."""

from __future__ import annotations

from headrace.types import ASGIApplication, Message, Receive, Scope, Send


class WebSocketLimit:
    """Answers a handshake with 429 when its client has as many WebSockets as it may.

    A client is its address in the scope, so this belongs behind ``ProxyHeaders``. Clients without an address
    (Unix sockets) are not limited.

    Args:
        app: the application.
        max_per_client: open WebSockets of one address, 1 or more.

    Attributes:
        refused: handshakes answered with 429 so far.
    """

    def __init__(self, app: ASGIApplication, max_per_client: int) -> None:
        self._app = app
        self._max_per_client = max_per_client
        self._open: dict[str, int] = {}
        self.refused = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count one WebSocket for as long as its application runs."""
        client = scope.get("client")
        if scope["type"] != "websocket" or not client:
            await self._app(scope, receive, send)
            return
        address = client[0]
        count = self._open.get(address, 0)
        if count >= self._max_per_client:
            self.refused += 1
            await _refuse(scope, receive, send)
            return
        self._open[address] = count + 1
        try:
            await self._app(scope, receive, send)
        finally:
            if self._open[address] == 1:
                del self._open[address]
            else:
                self._open[address] -= 1


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """429 where the server can say it, else the close that every server turns into 403."""
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": "Too many WebSockets"})
        return
    body = b"Too many WebSockets of this client"
    start: Message = {
        "type": "websocket.http.response.start",
        "status": 429,
        "headers": [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"10"),
        ],
    }
    await send(start)
    await send({"type": "websocket.http.response.body", "body": body})
