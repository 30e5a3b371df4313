"""The ASGI specification's scopes, messages and callables, as types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Literal, NotRequired, TypedDict

Headers = list[tuple[bytes, bytes]]
"""(name, value) byte pairs in wire order, names lower-case, duplicates kept."""

Address = tuple[str, int | None]
"""(host, port); (path, None) for a Unix socket."""


class ASGIVersions(TypedDict):
    """The ``asgi`` key of every scope."""

    version: Literal["3.0"]
    spec_version: str


class HTTPScope(TypedDict):
    """One request, as the ASGI HTTP specification 2.3 names its parts."""

    type: Literal["http"]
    asgi: ASGIVersions
    http_version: Literal["1.0", "1.1", "2"]
    method: str
    scheme: str
    path: str
    raw_path: bytes
    query_string: bytes
    root_path: str
    headers: Headers
    client: Address | None
    server: Address | None
    state: NotRequired[dict[str, Any]]
    extensions: NotRequired[dict[str, dict[str, Any]]]


class LifespanScope(TypedDict):
    """The scope of the application's start and stop."""

    type: Literal["lifespan"]
    asgi: ASGIVersions
    state: dict[str, Any]


class HTTPRequestMessage(TypedDict):
    """A piece of the request's body."""

    type: Literal["http.request"]
    body: bytes
    more_body: bool


class HTTPDisconnectMessage(TypedDict):
    """The client is gone, or the response is complete."""

    type: Literal["http.disconnect"]


class HTTPResponseStartMessage(TypedDict):
    """Status and headers of the response."""

    type: Literal["http.response.start"]
    status: int
    headers: NotRequired[Iterable[tuple[bytes, bytes]]]
    trailers: NotRequired[bool]


class HTTPResponseBodyMessage(TypedDict):
    """A piece of the response's body."""

    type: Literal["http.response.body"]
    body: NotRequired[bytes]
    more_body: NotRequired[bool]


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]
