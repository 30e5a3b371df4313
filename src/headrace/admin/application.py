"""The control surface as an ASGI application."""

from __future__ import annotations

import asyncio
import hmac
from urllib.parse import parse_qsl

from headrace.admin.answer import Answer, error
from headrace.admin.browser_guard import find_objection
from headrace.admin.controls import Controls
from headrace.admin.routes import ROUTES, Request
from headrace.types import Headers, Receive, Scope, Send

MAX_BODY_BYTES = 4_096


class AdminApplication:
    """Answers HTTP and nothing else; it has no lifespan.

    Args:
        controls: what is asked, and told.
        token: every request but probes must carry it (``Authorization: Bearer``); None asks for none, as over
            a Unix socket, whose permissions are its guard.
    """

    def __init__(self, controls: Controls, token: str | None) -> None:
        self._controls = controls
        self._token = None if token is None else token.encode()
        self._background: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http"
        answer = await self._answer(scope, receive)
        headers: Headers = [
            (b"content-type", answer.content_type),
            (b"content-length", b"%d" % len(answer.body)),
            (b"cache-control", b"no-store"),
            *answer.fields,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path = scope["path"]
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        found = next(((route, match) for route in ROUTES if (match := route.path.fullmatch(path))), None)
        if found is None or not found[0].is_open:
            # Before anything else is said: who may not ask does not learn what there is.
            refusal = self._refuse(scope)
            if refusal is not None:
                return refusal
        if found is None:
            return error(404, f"There is no {path[:80]} here.")
        route, match = found
        if route.method != method:
            allowed = b"GET, HEAD" if route.method == "GET" else route.method.encode()
            return error(405, f"{method[:80]} is not possible here.", [(b"allow", allowed)])
        body = b"" if method == "GET" else await _read_body(receive)
        if body is None:
            return error(413, f"The body is longer than {MAX_BODY_BYTES} bytes.")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        arguments, headers = match.groupdict(), _joined(scope["headers"])
        return await route.answer(Request(self._controls, arguments, query, headers, body, self._background))

    def _refuse(self, scope: Scope) -> Answer | None:
        if self._token is None:
            objection = find_objection(scope)
            return None if objection is None else error(403, objection)
        given = dict(scope["headers"]).get(b"authorization")
        challenge = b'Bearer realm="headrace"'
        if given is None:
            return error(
                401, "A token is needed: Authorization: Bearer TOKEN.", [(b"www-authenticate", challenge)]
            )
        scheme, _, token = given.partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            return None
        challenge += b', error="invalid_token"'
        return error(401, "The token is not the one of --admin-token.", [(b"www-authenticate", challenge)])


def _joined(headers: Headers) -> dict[str, str]:
    """Name to value; those of one name joined by commas (RFC 9110 §5.3)."""
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


async def _read_body(receive: Receive) -> bytes | None:
    """The request's body, None when it is too long or its client has left."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return body
