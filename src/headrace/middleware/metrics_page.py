"""The page of metrics as an ASGI application, to be mounted in another."""

from __future__ import annotations

from typing import ClassVar

from headrace.telemetry.metrics.exposition import choose_format
from headrace.telemetry.metrics.page import PageKind, process_pages, wants_gzip
from headrace.telemetry.route.mounts import mounted_at
from headrace.types import ASGIApplication, Headers, Receive, Scope, Send

_PLAIN = b"text/plain; charset=utf-8"


class MetricsPage:
    """Answers GET with the figures of all workers; nothing is remembered between two requests.

    In a worker of headrace the supervisor makes the page, elsewhere it is that of the process's own registry.

    Attributes:
        is_any: one has been made in this process.
    """

    is_any: ClassVar[bool] = False

    def __init__(self) -> None:
        MetricsPage.is_any = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever its path."""
        if scope["type"] != "http":
            raise RuntimeError(f"The page of metrics is for HTTP, not for {scope['type']}")
        status, headers, body = await _answer(scope)
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _answer(scope: Scope) -> tuple[int, Headers, bytes]:
    if scope["method"] not in ("GET", "HEAD"):
        return 405, [(b"allow", b"GET, HEAD"), (b"content-type", _PLAIN)], b"GET or HEAD only"
    page_format = choose_format(_joined(scope, b"accept"))
    is_gzipped = wants_gzip(_joined(scope, b"accept-encoding"))
    page = await process_pages().page(PageKind(page_format, is_gzipped))
    if page is None:
        return 503, [(b"content-type", _PLAIN), (b"retry-after", b"5")], b"No metrics are to be had now"
    headers = [
        (b"content-type", page_format.content_type.encode()),
        (b"cache-control", b"no-store"),
        (b"vary", b"accept, accept-encoding"),
    ]
    if is_gzipped:
        headers.append((b"content-encoding", b"gzip"))
    return 200, headers, page


def _joined(scope: Scope, name: bytes) -> str:
    return ", ".join(value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name)


class MountedPage:
    """Lets a page that is mounted at ``/metrics`` answer there, and not only at ``/metrics/``.

    Starlette and FastAPI redirect from the one to the other, which not every scraper follows. The path gets
    its slash before the application, and whatever guards it, sees it.

    Args:
        app: the application.
        paths: where the page is mounted, without the slash.
    """

    def __init__(self, app: ASGIApplication, paths: frozenset[str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on one connection."""
        if scope["type"] == "http":
            path = _path_below_root(scope)
            if path in self._paths:
                scope["headrace.route"] = path
                # A copy: the log shows what was asked.
                raw_path = scope.get("raw_path") or scope["path"].encode()
                scope = {**scope, "path": f"{scope['path']}/", "raw_path": raw_path + b"/"}
        await self._app(scope, receive, send)


def _path_below_root(scope: Scope) -> str:
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    return path[len(root_path) :] if root_path and path.startswith(f"{root_path}/") else path


def expose_pages(app: ASGIApplication) -> ASGIApplication:
    """Put a ``MountedPage`` around an application that has mounted the page; else it stays as it is.

    Args:
        app: after its start-up.
    """
    if not MetricsPage.is_any:
        return app
    paths = frozenset(mounted_at(app, MetricsPage))
    return MountedPage(app, paths) if paths else app
