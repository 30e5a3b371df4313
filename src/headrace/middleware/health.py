"""Answers health probes for the application."""

from __future__ import annotations

from collections.abc import Callable

from headrace.types import Receive, Scope, Send


class Health:
    """An ASGI application that says whether the server takes requests: 200 ``ok``, or 503 during a drain.

    It stands beside the stack, not in it: the server asks ``is_probe`` where it looks at its limits, which
    must not hold a probe up, and no layer counts or logs one.

    Args:
        path: of the probes, as clients send it.
        root_path: the server's; a scope's path may begin with it, and probes pass by the proxy that cuts it
            off as well as through it.
        is_draining: asked for each probe.
    """

    def __init__(self, path: str, root_path: str, is_draining: Callable[[], bool]) -> None:
        self._paths = (path, root_path + path)
        self._is_draining = is_draining

    def is_probe(self, scope: Scope) -> bool:
        """Whether the scope is a GET or HEAD of exactly the path."""
        return scope["type"] == "http" and scope["path"] in self._paths and scope["method"] in ("GET", "HEAD")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one probe."""
        status, body = (503, b"draining") if self._is_draining() else (200, b"ok")
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
