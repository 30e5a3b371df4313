"""What can be seen of a WebSocket between the server and the application."""

from __future__ import annotations

from collections.abc import Awaitable
from time import monotonic

from headrace.telemetry.exchange import FinishedExchange
from headrace.types import Message, Receive, Scope, Send


class WatchedSession:
    """Passes a WebSocket's messages on, and notes how it begins and ends.

    Args:
        scope, receive, send: the server's.

    Attributes:
        close_code: that of whichever side closed first, 0 for none.
    """

    __slots__ = ("_has_left", "_receive", "_scope", "_send", "_started_s", "_status", "close_code")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started_s = monotonic()
        self._status = 0
        self._has_left = False
        self.close_code = 0

    async def receive(self) -> Message:
        """The next message for the application."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._has_left = True
            self.close_code = self.close_code or message.get("code") or 0
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the application's on; a plain method, so that it adds no coroutine."""
        kind = message["type"]
        if kind != "websocket.send":
            if kind == "websocket.accept":
                self._status = 101 if self._scope.get("http_version", "1.1").startswith("1") else 200
            elif kind == "websocket.close":
                if self._status:
                    self.close_code = self.close_code or message.get("code", 1000)
                else:
                    self._status = 403
            elif kind == "websocket.http.response.start":
                self._status = message["status"]
        return self._send(message)

    def finished(self, error: BaseException | None) -> FinishedExchange:
        """The session in the shape of a finished exchange.

        Args:
            error: what the application raised, None for nothing; what it raises because the client has left
                is nothing of its own.
        """
        if self._has_left and error is not None and _says_client_left(error):
            error = None
        status = self._status or (499 if self._has_left else 500)
        return self._scope, status, 0, self._started_s, monotonic(), None, 0, error


def _says_client_left(error: BaseException) -> bool:
    return isinstance(error, OSError) or type(error).__name__ == "WebSocketDisconnect"
