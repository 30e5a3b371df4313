"""An ASGI layer that tells over the wire which route template each request had."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from headrace.telemetry.route import route_template

Scope = MutableMapping[str, Any]
Case = tuple[str, str, str | None]
"""(method or "WS", path, template)."""

LABELS_PATH = "/_labels"


class Labelled:
    """Answers ``LABELS_PATH`` with what was asked for so far, and with what is to be asked for.

    The answer is ``{"noted": [[method, path, template], ...], "expected": [[...], ...]}``. What is expected
    comes over the wire too, as it depends on the version of the framework.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], cases: list[Case]) -> None:
        self.app = app
        self.cases = cases
        self.labels: list[Case] = []

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["path"] == LABELS_PATH:
            answer = {"noted": self.labels, "expected": self.cases}
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
        else:
            # The application may change its path.
            method, path = scope.get("method", "WS"), scope["path"]
            try:
                await self.app(scope, receive, send)
            finally:
                self.labels.append((method, path, route_template(scope)))
