"""What trusted proxies say of the client: address, scheme, host, port and prefix.

The rules, each tested:

- Only a peer on the list is believed; the fields of others stay in ``headers`` and do nothing.
- One family of fields counts for a request: X-Forwarded-* when X-Forwarded-For or -Proto is there, else
  ``Forwarded``. A proxy passes on the family it does not know as the client wrote it, so two families
  together mean that one may be forged; uvicorn's users have proxies that write the first. ``prefer=
  "forwarded"`` turns the order round for proxies that write RFC 7239.
- The chain is walked from the right past trusted proxies; the first other node is the client. Nodes left
  of it, which the client may have made up, are not looked at. All trusted: the leftmost is the client.
- With ``*`` the leftmost is taken, as uvicorn does, though anybody can forge it; ``warnings`` says so.
- Of ``Forwarded``, ``proto`` and ``host`` count only beside the node that is the client.
- Of X-Forwarded-Proto, -Host and -Port the last value counts: the nearest proxy's.
- A value that is malformed, unknown or obfuscated is ignored, and the rest of the fields still count.
  Nothing raises.
- X-Forwarded-Host replaces the ``host`` header. X-Forwarded-Port is the port of ``server``, and is added to
  an X-Forwarded-Host that has none unless it is 80 or 443.
- X-Forwarded-Prefix, which names what the proxy cut off, goes in front of ``root_path``, ``path`` and
  ``raw_path``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Collection, Sequence
from operator import itemgetter
from typing import Any, Literal

from headrace.middleware.forwarded import parse_forwarded, parse_node
from headrace.middleware.trusted_proxies import TrustedProxies, warnings
from headrace.types import Address, ASGIApplication, Headers, Receive, Scope, Send

__all__ = ["ProxyHeaders", "warnings"]

Field = Literal["for", "proto", "host", "port", "prefix"]

_ALL_FIELDS: tuple[Field, ...] = ("for", "proto", "host", "port", "prefix")
_FORWARDED = b"forwarded"
_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"
_PORT, _PREFIX = b"x-forwarded-port", b"x-forwarded-prefix"

_FAMILY = frozenset((_FORWARDED, _FOR, _PROTO))

_HTTP_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_WS_SCHEMES = {b"http": "ws", b"https": "wss", b"ws": "ws", b"wss": "wss"}

_HOST_VALUE = re.compile(
    r"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?P<port>:[0-9]{1,5})?", re.ASCII
)
_PREFIX_VALUE = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+=:@-]{1,255}){1,16}/?", re.ASCII)
_PORT_VALUE = re.compile(rb"[0-9]{1,5}")

_MAX_REMEMBERED = 4096
_MAX_REMEMBERED_BYTES = 256
"""A longer value is read anew each time."""

_name_of = itemgetter(0)


_Said = tuple[Address | None, bytes, str]
"""Client, scheme as written, host; None or empty where the fields say nothing that can be used."""


class ProxyHeaders:
    """ASGI layer that puts the client a trusted proxy speaks for into the scope.

    Args:
        app: the application inside.
        trusted: see ``TrustedProxies``.
        prefer: the family that counts when a request has both.
        fields: what is taken; leave out what your proxy neither sets nor removes.
    """

    __slots__ = (
        "_app",
        "_clients",
        "_fields",
        "_forwarded",
        "_has_none_of",
        "_names",
        "_prefers_forwarded",
        "_trusted",
        "_verdict_on",
    )

    def __init__(
        self,
        app: ASGIApplication,
        trusted: str | Sequence[str] = "127.0.0.1,::1",
        *,
        prefer: Literal["x-forwarded", "forwarded"] = "x-forwarded",
        fields: Collection[Field] = _ALL_FIELDS,
    ) -> None:
        self._app = app
        self._trusted = TrustedProxies(trusted)
        self._verdict_on = self._trusted.verdicts.get
        self._prefers_forwarded = prefer == "forwarded"
        self._fields = frozenset(fields)
        # Forwarded, X-Forwarded-For and -Proto decide on the family even where they are not taken themselves.
        self._names = frozenset(f"x-forwarded-{field}".encode() for field in fields) | _FAMILY
        self._has_none_of = self._names.isdisjoint
        self._clients: dict[bytes, Address | None] = {}
        self._forwarded: dict[bytes, _Said] = {}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Correct the scope of a request and pass it on; a plain method, so that it adds no coroutine."""
        if scope["type"] not in ("http", "websocket"):
            return self._app(scope, receive, send)
        client = scope.get("client")
        trusted = self._verdict_on(client[0]) if client else None
        if trusted is None:
            trusted = self._trusted.trusts_peer(client, scope.get("server"))
        # In C and without building a dict: a loop or dict(headers) takes longer for a browser's 12 headers.
        if trusted and not self._has_none_of(map(_name_of, scope["headers"])):
            self._correct(scope)
        return self._app(scope, receive, send)

    def _correct(self, scope: Scope) -> None:
        values: dict[bytes, bytes] = {}
        names = self._names
        for name, value in scope["headers"]:
            if name in names:
                values[name] = values[name] + b", " + value if name in values else value
        if _FORWARDED in values and self._takes_forwarded(values):
            client, scheme, host = self._read_forwarded(values[_FORWARDED])
        else:
            client, scheme, host = self._read_x_forwarded(values)
            if _PORT in values:
                host = _correct_port(scope, host, _sane_port(_last(values[_PORT])))
        if client is not None:
            scope["client"] = client
        if scheme:
            schemes = _WS_SCHEMES if scope["type"] == "websocket" else _HTTP_SCHEMES
            scope["scheme"] = schemes.get(scheme) or schemes.get(_last(scheme).lower(), scope["scheme"])
        if host:
            scope["headers"] = _with_host(scope["headers"], host.encode("ascii"))
        if _PREFIX in values:
            _add_prefix(scope, values[_PREFIX].decode("latin-1"))

    def _takes_forwarded(self, values: dict[bytes, bytes]) -> bool:
        return self._prefers_forwarded or (_FOR not in values and _PROTO not in values)

    def _read_x_forwarded(self, values: dict[bytes, bytes]) -> _Said:
        fields = self._fields
        return (
            self._client_of_chain(values[_FOR]) if _FOR in values and "for" in fields else None,
            values[_PROTO] if _PROTO in values and "proto" in fields else b"",
            _sane_host(_last(values[_HOST]).decode("latin-1")) if _HOST in values else "",
        )

    def _client_of_chain(self, chain: bytes) -> Address | None:
        """Find the client in X-Forwarded-For; remembered, as connections bring the same chain again."""
        try:
            return self._clients[chain]
        except KeyError:
            pass
        nodes = [node.strip(" \t") for node in chain.decode("latin-1").split(",")]
        nodes = [node for node in nodes if node]
        client = parse_node(nodes[self._client_index(nodes)]) if nodes else None
        _remember(self._clients, chain, client)
        return client

    def _read_forwarded(self, value: bytes) -> _Said:
        """Read what ``Forwarded`` says of the client; remembered too."""
        try:
            return self._forwarded[value]
        except KeyError:
            pass
        elements = parse_forwarded(value.decode("latin-1")) or [{}]
        element = elements[self._client_index([element.get("for", "") for element in elements])]
        fields = self._fields
        said = (
            parse_node(element.get("for", "")) if "for" in fields else None,
            element.get("proto", "").encode("latin-1") if "proto" in fields else b"",
            _sane_host(element.get("host", "")) if "host" in fields else "",
        )
        _remember(self._forwarded, value, said)
        return said

    def _client_index(self, nodes: Sequence[str]) -> int:
        """Index of the node that is the client: the first untrusted from the right, else the leftmost."""
        trusted = self._trusted
        if trusted.everybody:
            return 0
        for index in range(len(nodes) - 1, 0, -1):
            address = parse_node(nodes[index])
            if (address[0] if address else nodes[index]) not in trusted:
                return index
        return 0


if sys.version_info >= (3, 12):
    # Servers that look at __call__ to tell ASGI 3 from ASGI 2 take it for what it behaves like.
    inspect.markcoroutinefunction(ProxyHeaders.__call__)


def _remember(answers: dict[bytes, Any], value: bytes, answer: Any) -> None:
    if len(value) > _MAX_REMEMBERED_BYTES:
        return
    if len(answers) >= _MAX_REMEMBERED:
        answers.clear()
    answers[value] = answer


def _last(value: bytes) -> bytes:
    return value.rpartition(b",")[2].strip(b" \t")


def _sane_host(host: str) -> str:
    """The value of a Host field, or nothing when it is not one."""
    match = _HOST_VALUE.fullmatch(host)
    return "" if match is None or int((match["port"] or ":0")[1:]) > 65535 else host


def _sane_port(port: bytes) -> int:
    number = int(port) if _PORT_VALUE.fullmatch(port) else 0
    return number if number <= 65535 else 0


def _correct_port(scope: Scope, host: str, port: int) -> str:
    """Put a port into ``server``, and give the host back with it where it has none and needs one."""
    if not port:
        return host
    server = scope.get("server")
    # A Unix socket's path keeps its None.
    if server and server[1] is not None:
        scope["server"] = (server[0], port)
    has_port = re.search(r":[0-9]+\Z", host) is not None
    return host if not host or has_port or port in (80, 443) else f"{host}:{port}"


def _with_host(headers: Headers, host: bytes) -> Headers:
    """A new list with one ``host``, in the place of the old; the given one may be shared."""
    if not any(name == b"host" for name, _ in headers):
        return [(b"host", host), *headers]
    return [(name, host if name == b"host" else value) for name, value in headers]


def _add_prefix(scope: Scope, prefix: str) -> None:
    if _PREFIX_VALUE.fullmatch(prefix) is None:
        return
    prefix = prefix.removesuffix("/")
    root_path = scope.get("root_path", "")
    # Where paths do not carry the root path (--root-path-mode asgi) they do not carry the prefix either.
    if scope["path"].startswith(root_path):
        scope["path"] = prefix + scope["path"]
        if scope.get("raw_path") is not None:
            scope["raw_path"] = prefix.encode("ascii") + scope["raw_path"]
    scope["root_path"] = prefix + root_path
