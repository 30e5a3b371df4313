"""Gives each request an id by which its log lines, its trace and its response are found."""

from __future__ import annotations

from collections.abc import Awaitable

from headrace.telemetry.request_context import request_id_var
from headrace.telemetry.sortable_id import sortable_id
from headrace.telemetry.tracing.context import parse_traceparent
from headrace.types import ASGIApplication, Message, Receive, Scope, Send

MAX_ID_BYTES = 128
"""Longest id taken from a client: it goes into every log line of the request."""

_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:/+=@~"
"""What an id from a client is made of: no quotes, spaces or separators of any log format."""

_ANSWERS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))
"""Messages with the fields of a response."""


class RequestID:
    """Puts an id into ``scope["state"]["request_id"]``, ``request_id_var`` and the fields of the response.

    It is what the request's own field says, where that is a single one of 1 to 128 letters, digits and
    ``-_.:/+=@~``; else the trace's id (32 hexadecimal digits), from ``scope["headrace.span"]`` or a valid
    ``traceparent`` field; else a new one, a UUID of version 7, which sort by time. WebSockets have one too,
    in the response to their handshake. A field of that name that the application sets itself stands.

    A response that the server makes, because the application raised before it had answered, has no such
    field: it does not pass here.

    Args:
        app: the application.
        header: the field's name; a token (RFC 9110 §5.6.2).
        answers: put the field into responses; headrace does so itself, with less work.
    """

    def __init__(self, app: ASGIApplication, header: str = "X-Request-ID", *, answers: bool = True) -> None:
        self._app = app
        self._answers = answers
        self._name = header.lower().encode("ascii")
        self._wanted = frozenset((self._name, b"traceparent"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Identify one request or WebSocket, and forget its id behind it."""
        if scope["type"] != "http" and scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        token = request_id_var.set("")
        try:
            await self.enter(scope, receive, send)
        finally:
            try:
                request_id_var.reset(token)
            except ValueError:
                # A coroutine that is thrown away unfinished ends in another context.
                pass

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Do what a call does, without a coroutine, and leave the variable set.

        For a server that gives each request a context of its own, as headrace does: what it logs of an error
        of the application's then has the request's id too.
        """
        if scope["type"] != "http" and scope["type"] != "websocket":
            return self._app(scope, receive, send)
        name = self._name
        wanted = self._wanted
        brought: list[tuple[bytes, bytes]] | None = None
        for pair in scope["headers"]:
            if pair[0] in wanted:
                brought = [pair] if brought is None else [*brought, pair]
        if brought is None and "headrace.span" not in scope:
            value = sortable_id()
        else:
            value = _choose(brought or [], name, scope) or sortable_id()
        state = scope.get("state")
        if state is None:
            state = scope["state"] = {}
        state["request_id"] = value
        request_id_var.set(value)
        if not self._answers:
            return self._app(scope, receive, send)
        return self._app(scope, receive, _with_field(send, name, value) if self._answers else send)


def _with_field(send: Send, name: bytes, value: str) -> Send:
    size = len(name)

    def send_with_id(message: Message) -> Awaitable[None]:
        if message["type"] in _ANSWERS:
            headers = list(message.get("headers", ()))
            for pair in headers:
                # Django sends names as the application wrote them.
                if len(pair[0]) == size and pair[0].lower() == name:
                    break
            else:
                headers.append((name, value.encode("ascii")))
            # Another one, for the application may send this one for every request.
            message = {**message, "headers": headers}
        return send(message)

    return send_with_id


def _choose(brought: list[tuple[bytes, bytes]], name: bytes, scope: Scope) -> str | None:
    """The id among what the request brought along, None when there is none that is valid."""
    given = traceparent = None
    for field, value in brought:
        # Of several nobody knows which one the others mean; the empty one is not valid.
        if field == name:
            given = value if given is None else b""
        else:
            traceparent = value if traceparent is None else b""
    if given and len(given) <= MAX_ID_BYTES and not given.translate(None, _SAFE):
        return str(given, "ascii")
    span = scope.get("headrace.span")
    if span is not None:
        return f"{span.trace_id:032x}"
    parent = parse_traceparent(traceparent) if traceparent else None
    return None if parent is None else f"{parent.trace_id:032x}"
