"""The attributes of a SERVER span, by OpenTelemetry's stable HTTP semantic conventions.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (schema ``SCHEMA_URL``), section HTTP server.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import quote

from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.route import route_template
from headrace.types import Scope

SCHEMA_URL = "https://opentelemetry.io/schemas/1.36.0"

Fact = str | int | bool
"""What an attribute of ours may be."""

LONGEST_TEXT = 2_048
"""Characters of what a client has written, in one attribute: a queue of spans must have a bound."""

CLIENT_LEFT = 499
"""No response was started: the status is only a figure of the log."""

_KNOWN_METHODS = "CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,QUERY,TRACE"
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SECRETS = re.compile(
    r"(?:^|(?<=&))(AWSAccessKeyId|Signature|sig|X-Goog-Signature|X-Amz-Signature|X-Amz-Credential"
    r"|X-Amz-Security-Token)=[^&]*"
)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/?#@\[\]\s]+)(?::(\d{1,5}))?")


class SpanMethod(NamedTuple):
    """A request's method, of which there are few, and what the client called it if that is another.

    Attributes:
        name: for the span's name, HTTP where the method is unknown.
        value: for ``http.request.method``, _OTHER where it is unknown.
        original: what the client wrote, else None.
    """

    name: str
    value: str
    original: str | None


def known_methods() -> frozenset[str]:
    """``OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS``, else those of RFC 9110, RFC 5789 and QUERY."""
    names = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "").strip() or _KNOWN_METHODS
    return frozenset(name.strip() for name in names.split(",") if name.strip())


def method_of(scope: Scope, known: frozenset[str]) -> SpanMethod:
    """The method; a WebSocket's handshake is a GET."""
    method = scope.get("method", "GET")
    if method in known:
        return SpanMethod(method, method, None)
    return SpanMethod("HTTP", "_OTHER", method[:LONGEST_TEXT])


def path_of(scope: Scope) -> str:
    """The path as it came, percent-encoded; of ``LONGEST_TEXT`` at most, as all that clients write."""
    raw_path = scope.get("raw_path")
    path = raw_path.decode("latin-1") if raw_path else quote(scope["path"], errors="replace")
    return path[:LONGEST_TEXT]


def query_of(scope: Scope) -> str:
    """The query as it came, without the secrets that the conventions name."""
    return _SECRETS.sub(r"\1=REDACTED", scope.get("query_string", b"").decode("latin-1"))[:LONGEST_TEXT]


def agent_of(value: bytes) -> str:
    """What the client calls itself."""
    return value[:LONGEST_TEXT].decode("latin-1")


def server_of(scope: Scope, host: bytes | None) -> tuple[str, int | None] | None:
    """Name and port the client asked for, by its Host field, else where the connection came in."""
    match = _AUTHORITY.fullmatch(host.decode("latin-1")) if host else None
    if match is None:
        server = scope.get("server")
        return (str(server[0]), server[1]) if server else None
    port = int(match[2]) if match[2] else _DEFAULT_PORTS.get(scope.get("scheme", "http"))
    return match[1].strip("[]")[:LONGEST_TEXT], port


def peer_of(scope: Scope) -> tuple[str, int] | None:
    """The connection's other end. A client that a proxy spoke for has no port, and no end of ours."""
    client = scope.get("client")
    return (str(client[0]), client[1]) if client and client[1] else None


def type_name(error: BaseException) -> str:
    """``package.Error``, or ``ValueError`` alone for those of Python itself."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def request_facts(scope: Scope, known: frozenset[str]) -> dict[str, Fact]:
    """What is known when a request comes; samplers may look at it."""
    headers = dict(scope["headers"])
    method = method_of(scope, known)
    facts: dict[str, Fact] = {"http.request.method": method.value}
    if method.original is not None:
        facts["http.request.method_original"] = method.original
    facts["url.scheme"] = scope.get("scheme", "http")
    facts["url.path"] = path_of(scope)
    if scope.get("query_string"):
        facts["url.query"] = query_of(scope)
    facts["network.protocol.version"] = scope.get("http_version", "1.1")
    if scope["type"] == "websocket":
        facts["network.protocol.name"] = "websocket"
    server = server_of(scope, headers.get(b"host"))
    if server is not None:
        facts["server.address"] = server[0]
        if server[1] is not None:
            facts["server.port"] = server[1]
    client = scope.get("client")
    if client:
        facts["client.address"] = str(client[0])
    peer = peer_of(scope)
    if peer is not None:
        facts["network.peer.address"], facts["network.peer.port"] = peer
    user_agent = headers.get(b"user-agent")
    if user_agent is not None:
        facts["user_agent.original"] = agent_of(user_agent)
    return facts


class Outcome(NamedTuple):
    """How an exchange ended.

    Attributes:
        name: of the span: method and route.
        route: the template, None where there is none.
        status: sent to the client, None when it left before.
        error: what the application raised, and the client had not caused.
        error_type: the attribute, None when nothing failed.
    """

    name: str
    route: str | None
    status: int | None
    error: BaseException | None
    error_type: str | None


def outcome_of(exchange: FinishedExchange, known: frozenset[str], raised: BaseException | None) -> Outcome:
    """Tell how an exchange ended.

    Args:
        exchange: that.
        known: see ``known_methods``.
        raised: what the layer saw the application raise, perhaps behind its response.
    """
    scope, status = exchange[0], exchange[1]
    method = method_of(scope, known)
    route = route_template(scope)
    name = f"{method.name} {route}" if route else method.name
    if status == CLIENT_LEFT:
        return Outcome(name, route, None, None, None)
    error = raised or exchange[7]
    if error is not None:
        return Outcome(name, route, status, error, type_name(error))
    return Outcome(name, route, status, None, str(status) if status >= 500 else None)


def outcome_facts(outcome: Outcome) -> dict[str, Fact]:
    """The attributes that are known only now."""
    facts: dict[str, Fact] = {}
    if outcome.route is not None:
        facts["http.route"] = outcome.route
    if outcome.status is not None:
        facts["http.response.status_code"] = outcome.status
    else:
        facts["headrace.client_left"] = True
    if outcome.error_type is not None:
        facts["error.type"] = outcome.error_type
    return facts
