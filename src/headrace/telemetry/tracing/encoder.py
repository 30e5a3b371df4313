"""Our spans as OTLP bytes, without the objects in between.

``opentelemetry.proto.trace.v1.Span``; what a field's tag stands for is in ``opentelemetry/proto/trace/v1/
trace.proto``. Most of a span repeats from one request to the next, so its encoded parts are kept.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, SpanLimits
from opentelemetry.trace import Link, StatusCode

from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.route import route_template
from headrace.telemetry.table_key import is_short
from headrace.telemetry.tracing import facts
from headrace.telemetry.tracing.facts import SCHEMA_URL, Fact, Outcome
from headrace.telemetry.tracing.span import ServerSpan, exception_facts
from headrace.telemetry.tracing.wire import attribute, attributes, field, text, varint
from headrace.types import Scope
from headrace.version import __version__

SCOPE_NAME = "headrace"
"""The instrumentation scope of our spans."""

_SPAN, _ATTRIBUTE, _EVENT, _LINK = b"\x12", b"\x4a", b"\x5a", b"\x6a"
_KIND_SERVER = b"\x30\x02"
_STATUS_ERROR = b"\x7a\x02\x18\x02"
_pack_times = struct.Struct("<BQBQ").pack
_pack_flags = struct.Struct("<BBI").pack
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200
"""``SpanFlags``: it is known whether the parent is another process; it is."""

_OURS = frozenset({
    "client.address", "error.type", "headrace.client_left", "headrace.websocket.close_code",
    "http.request.method", "http.request.method_original", "http.response.status_code", "http.route",
    "network.peer.address", "network.peer.port", "network.protocol.name", "network.protocol.version",
    "server.address", "server.port", "url.path", "url.query", "url.scheme", "user_agent.original",
})  # fmt: skip
_MOST_PARTS = 2048
_LONGEST_PART_BYTES = 512
_LATEST_NS = (1 << 64) - 1


class _Parts(dict[Any, bytes]):
    """Encoded parts by what they were made from; clients choose some of that, so it is emptied when full."""

    def keep(self, key: Any, part: bytes) -> bytes:
        if len(part) <= _LONGEST_PART_BYTES and is_short(key):
            if len(self) >= _MOST_PARTS:
                self.clear()
            self[key] = part
        return part


class SpanEncoder:
    """Encodes ``ServerSpan`` of finished exchanges.

    Args:
        limits: what the OTEL_SPAN_* variables allow.
        known: see ``facts.known_methods``.
    """

    def __init__(self, limits: SpanLimits, known: frozenset[str]) -> None:
        self._limits = limits
        self._known = known
        self._outcomes = _Parts()
        self._paths = _Parts()
        self._queries = _Parts()
        self._servers = _Parts()
        self._clients = _Parts()
        self._agents = _Parts()

    def encode(self, span: ServerSpan, exchange: FinishedExchange, wall_offset_ns: int) -> bytes:
        """Encode one span, framed as a member of ``ScopeSpans.spans``.

        Args:
            span: that of the exchange.
            exchange: a finished request, or a WebSocket in its shape.
            wall_offset_ns: what to add to the exchange's times to get Unix time.
        """
        scope, status = exchange[0], exchange[1]
        started_ns = int(exchange[3] * 1e9) + wall_offset_ns
        finished_ns = max(int(exchange[4] * 1e9) + wall_offset_ns, started_ns)
        content = [
            _identity(span),
            _pack_times(0x39, started_ns, 0x41, finished_ns),
        ]
        error = None if status == facts.CLIENT_LEFT else span.error or exchange[7]
        if self._is_plain(span):
            route = route_template(scope)
            key = (
                scope.get("method"),
                route,
                status,
                scope.get("scheme", "http"),
                scope.get("http_version", "1.1"),
                scope["type"],
            )
            part = None if error is not None else self._outcomes.get(key)
            content.append(part or self._outcome_part(key, exchange, error))
            content.append(self._request_parts(scope))
            if span.close_code:
                content.append(attribute(_ATTRIBUTE, "headrace.websocket.close_code", span.close_code))
        else:
            content.append(self._told_otherwise(span, exchange))
        if span.own_attributes is not None or span.events or span.links:
            content.append(_own_parts(span))
        if error is not None:
            told = exception_facts(error, self._limits.max_attribute_length)
            content.append(_event("exception", finished_ns, told, 0))
        return field(_SPAN, b"".join(content))

    def _is_plain(self, span: ServerSpan) -> bool:
        """Whether the application has contradicted nothing of ours."""
        own = span.own_attributes
        return (
            span.own_name is None
            and span.own_status is None
            and (own is None or _OURS.isdisjoint(own))
            and self._limits.max_span_attribute_length is None
        )

    def _outcome_part(self, key: Any, exchange: FinishedExchange, error: BaseException | None) -> bytes:
        """Name, kind, status, and the attributes of which there are few values."""
        scope = exchange[0]
        outcome = facts.outcome_of(exchange, self._known, error)
        method = facts.method_of(scope, self._known)
        values: dict[str, Fact] = {"http.request.method": method.value}
        if method.original is not None:
            values["http.request.method_original"] = method.original
        values["url.scheme"] = scope.get("scheme", "http")
        values["network.protocol.version"] = scope.get("http_version", "1.1")
        if scope["type"] == "websocket":
            values["network.protocol.name"] = "websocket"
        values.update(facts.outcome_facts(outcome))
        part = text(b"\x2a", outcome.name) + _KIND_SERVER + attributes(_ATTRIBUTE, values)
        if outcome.error_type is not None:
            part += _STATUS_ERROR
        return part if error is not None else self._outcomes.keep(key, part)

    def _request_parts(self, scope: Scope) -> bytes:
        """The attributes of which there are many values."""
        headers = dict(scope["headers"])
        raw_path = scope.get("raw_path") or scope["path"]
        path = self._paths.get(raw_path)
        if path is None:
            path = self._paths.keep(raw_path, attribute(_ATTRIBUTE, "url.path", facts.path_of(scope)))
        host = headers.get(b"host")
        # A Host that names nothing leaves it to where the connection came in.
        place = (host, scope.get("scheme", "http"), _hashable(scope.get("server")))
        server = self._servers.get(place)
        if server is None:
            server = self._server_part(place, scope, host)
        peer = _hashable(scope.get("client"))
        client = self._clients.get(peer)
        if client is None:
            client = self._client_part(peer, scope)
        agent = headers.get(b"user-agent")
        query = scope.get("query_string", b"")
        if agent is None and not query:
            return path + server + client
        return path + server + client + self._agent_part(agent) + self._query_part(query, scope)

    def _server_part(self, place: Any, scope: Scope, host: bytes | None) -> bytes:
        server = facts.server_of(scope, host)
        values: dict[str, Any] = {}
        if server is not None:
            values["server.address"] = server[0]
            if server[1] is not None:
                values["server.port"] = server[1]
        return self._servers.keep(place, attributes(_ATTRIBUTE, values))

    def _client_part(self, client: Any, scope: Scope) -> bytes:
        values: dict[str, Any] = {"client.address": str(client[0])} if client else {}
        peer = facts.peer_of(scope)
        if peer is not None:
            values["network.peer.address"], values["network.peer.port"] = peer
        return self._clients.keep(client, attributes(_ATTRIBUTE, values))

    def _agent_part(self, agent: bytes | None) -> bytes:
        if agent is None:
            return b""
        part = self._agents.get(agent)
        if part is None:
            part = attribute(_ATTRIBUTE, "user_agent.original", facts.agent_of(agent))
            self._agents.keep(agent, part)
        return part

    def _query_part(self, query: bytes, scope: Scope) -> bytes:
        if not query:
            return b""
        part = self._queries.get(query)
        if part is None:
            part = self._queries.keep(query, attribute(_ATTRIBUTE, "url.query", facts.query_of(scope)))
        return part

    def _told_otherwise(self, span: ServerSpan, exchange: FinishedExchange) -> bytes:
        """Name, kind, status and our attributes where the application or a limit changes them."""
        outcome = facts.outcome_of(exchange, self._known, span.error)
        values = our_facts(span, exchange, outcome, self._known, self._limits)
        part = text(b"\x2a", span.own_name or outcome.name) + _KIND_SERVER
        part += attributes(_ATTRIBUTE, values)
        if span.own_status is None:
            return part + (_STATUS_ERROR if outcome.error_type is not None else b"")
        status = span.own_status
        code = 1 if status.status_code is StatusCode.OK else 2
        message = text(b"\x12", status.description) if status.description else b""
        return part + field(b"\x7a", message + b"\x18" + varint(code))


def our_facts(
    span: ServerSpan,
    exchange: FinishedExchange,
    outcome: Outcome,
    known: frozenset[str],
    limits: SpanLimits,
) -> dict[str, Fact]:
    """All attributes of ours that the application has not set itself, as long as they may be."""
    values = {**facts.request_facts(exchange[0], known), **facts.outcome_facts(outcome)}
    if span.close_code:
        values["headrace.websocket.close_code"] = span.close_code
    own: Mapping[str, Any] = span.own_attributes or {}
    longest = limits.max_span_attribute_length
    return {
        key: value[:longest] if isinstance(value, str) else value
        for key, value in values.items()
        if key not in own
    }


class ResourceFrame:
    """What stands around the spans of one export: ``ExportTraceServiceRequest``.

    Args:
        resource: who sends them.
    """

    def __init__(self, resource: Resource) -> None:
        schema = text(b"\x1a", resource.schema_url) if resource.schema_url else b""
        self._resource = field(b"\x0a", attributes(b"\x0a", resource.attributes))
        self._schema = schema
        self._scope = field(b"\x0a", text(b"\x0a", SCOPE_NAME) + text(b"\x12", __version__))

    def around(self, spans: list[bytes]) -> bytes:
        """A whole request of spans that ``SpanEncoder`` made; others may be joined to it."""
        scope_spans = self._scope + b"".join(spans) + text(b"\x1a", SCHEMA_URL)
        return field(b"\x0a", self._resource + field(b"\x12", scope_spans) + self._schema)


def _hashable(address: Any) -> Any:
    """An address as a key; ASGI allows a list."""
    return tuple(address) if type(address) is list else address


def _identity(span: ServerSpan) -> bytes:
    """Ids, flags and the parent's."""
    parent = span.parent
    state = span.trace_state
    state_part = text(b"\x1a", state.to_header()) if state else b""
    ids = b"\x0a\x10%b\x12\x08%b" % (span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big"))
    if parent is None:
        return ids + state_part + _pack_flags(0x85, 0x01, span.flags | _HAS_IS_REMOTE)
    return b"%b%b\x22\x08%b%b" % (
        ids,
        state_part,
        parent.span_id.to_bytes(8, "big"),
        _pack_flags(0x85, 0x01, span.flags | _HAS_IS_REMOTE | _IS_REMOTE),
    )


def _own_parts(span: ServerSpan) -> bytes:
    """What the application has added."""
    own = span.own_attributes
    parts = [] if own is None else [attributes(_ATTRIBUTE, own)]
    if own is not None and own.dropped:
        parts.append(b"\x50" + varint(own.dropped))
    parts += [_event_of(event) for event in span.events or ()]
    if span.dropped_events:
        parts.append(b"\x60" + varint(span.dropped_events))
    parts += [_link(link) for link in span.links or ()]
    if span.dropped_links:
        parts.append(b"\x70" + varint(span.dropped_links))
    return b"".join(parts)


def _event_of(event: Event) -> bytes:
    return _event(event.name, event.timestamp, event.attributes or {}, event.dropped_attributes)


def _event(name: str, time_ns: int, values: Mapping[str, Any], dropped: int) -> bytes:
    # The application may have given any time.
    time_ns = min(max(int(time_ns), 0), _LATEST_NS)
    content = b"\x09" + time_ns.to_bytes(8, "little") + text(b"\x12", name) + attributes(b"\x1a", values)
    return field(_EVENT, content + (b"\x20" + varint(dropped) if dropped else b""))


def _link(link: Link) -> bytes:
    context = link.context
    content = b"\x0a\x10%b\x12\x08%b" % (
        context.trace_id.to_bytes(16, "big"),
        context.span_id.to_bytes(8, "big"),
    )
    flags = int(context.trace_flags) | _HAS_IS_REMOTE | (_IS_REMOTE if context.is_remote else 0)
    content += text(b"\x1a", context.trace_state.to_header()) if context.trace_state else b""
    content += attributes(b"\x22", link.attributes)
    dropped = link.dropped_attributes
    content += b"\x28" + varint(dropped) if dropped else b""
    return field(_LINK, content + b"\x35" + flags.to_bytes(4, "little"))
