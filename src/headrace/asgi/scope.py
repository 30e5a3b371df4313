"""Build the ``scope`` of a request. ASGI HTTP specification 2.3, WebSocket specification 2.4."""

from __future__ import annotations

from typing import Any

from headrace.protocol.events import RequestReceived
from headrace.types import Address

ASGI_VERSION = "3.0"
HTTP_SPEC_VERSION = "2.3"
"""From 2.4 on Starlette and FastAPI end idle streams only by an error of ``send``, never by
``http.disconnect``; what drains them must then cancel. So 2.3, as uvicorn says."""


WEBSOCKET_SPEC_VERSION = "2.4"

_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}


class ScopeTemplate:
    """What the scopes of all requests of one connection share.

    Args:
        scheme: "http" or "https".
        client, server: see ``headrace.types.Address``.
        root_path: without a trailing slash.
        root_path_mode: "prefix" puts the root path before ``path``, as uvicorn does; "asgi" does not;
            "auto" does unless the path begins with it already.
        state: the lifespan's state; each request gets a shallow copy.
        extensions: the ``extensions`` of each scope.
    """

    __slots__ = ("_common", "_extensions", "_prefix", "_prefix_when_missing", "_raw_prefix", "_state")

    def __init__(
        self,
        *,
        scheme: str,
        client: Address | None,
        server: Address | None,
        root_path: str,
        root_path_mode: str,
        state: dict[str, Any],
        extensions: dict[str, dict[str, Any]],
    ) -> None:
        self._common: dict[str, Any] = {
            "type": "http",
            "asgi": None,
            "http_version": "1.1",
            "server": server,
            "client": client,
            "scheme": scheme,
            "root_path": root_path,
            # Every key is here from the start: a dict that grows while it is filled is made twice. These are
            # the last request's.
            "method": None,
            "path": None,
            "raw_path": None,
            "query_string": None,
            "headers": None,
            "state": None,
            "extensions": None,
        }
        self._state = state
        self._extensions = extensions
        self._prefix = "" if root_path_mode == "asgi" else root_path
        self._raw_prefix = self._prefix.encode("utf-8")
        self._prefix_when_missing = root_path_mode == "auto"

    def build(self, event: RequestReceived) -> dict[str, Any]:
        """Build the scope of one request; nothing in it but the extensions' inner tables is shared."""
        headers = event.headers
        common = self._common
        if headers is not common["headers"]:
            self._take(event)
        scope = common.copy()
        scope["asgi"] = {"version": ASGI_VERSION, "spec_version": HTTP_SPEC_VERSION}
        scope["headers"] = headers.copy()
        scope["state"] = self._state.copy()
        scope["extensions"] = self._extensions.copy()
        return scope

    def forget(self) -> None:
        """Give back what is kept of the last request."""
        for key in ("method", "path", "raw_path", "query_string", "headers"):
            self._common[key] = None

    def build_websocket(self, event: RequestReceived, subprotocols: list[str]) -> dict[str, Any]:
        """Build the scope of a WebSocket from its handshake."""
        scope = self.build(event)
        del scope["method"]
        scope["type"] = "websocket"
        scope["asgi"] = {"version": ASGI_VERSION, "spec_version": WEBSOCKET_SPEC_VERSION}
        scope["scheme"] = _WEBSOCKET_SCHEMES[scope["scheme"]]
        scope["subprotocols"] = subprotocols
        scope["extensions"] = {"websocket.http.response": {}}
        if "tls" in self._extensions:
            scope["extensions"]["tls"] = self._extensions["tls"]
        return scope

    def _take(self, event: RequestReceived) -> None:
        """Keep what is the request's; a request that the engine knows again needs none of this."""
        common = self._common
        _, method, path, raw_path, query, headers, version, _, _, _, _ = event
        common["http_version"] = version
        common["method"] = method
        common["path"] = path
        common["raw_path"] = raw_path
        common["query_string"] = query
        common["headers"] = headers
        prefix = self._prefix
        if prefix and not (self._prefix_when_missing and _is_below(path, prefix)):
            common["path"] = prefix + path
            common["raw_path"] = self._raw_prefix + raw_path


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")
