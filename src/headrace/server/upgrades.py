"""A connection of HTTP/1.1 goes on as something else: another protocol takes its transport over.

HTTP/2 by ALPN or by its preface (RFC 9113 §3.3), WebSocket by its handshake (RFC 6455 §4.2). Nothing that has
been parsed is parsed again.
"""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.asgi.scope import ScopeTemplate
from headrace.asgi.websocket import WebSocketSession
from headrace.errors import RemoteProtocolError
from headrace.net.tls_extension import tls_extension
from headrace.protocol.events import RequestReceived
from headrace.protocol.websocket import (
    UPGRADE_REQUIRED_FIELDS,
    DeflateAgreement,
    WebSocketEngine,
    accept_fields,
    negotiate_deflate,
    read_handshake,
)
from headrace.server.runtime import Runtime
from headrace.server.websocket_settings import WebSocketSettings
from headrace.types import Address, Headers


def scope_template(
    runtime: Runtime, transport: asyncio.Transport, client: Address | None, server: Address | None
) -> ScopeTemplate:
    """What the scopes of all requests of one connection share."""
    ssl_object = transport.get_extra_info("ssl_object")
    extensions: dict[str, dict[str, Any]] = {
        "http.response.early_hint": {},
        "http.response.pathsend": {},
        "http.response.trailers": {},
    }
    if ssl_object is not None:
        extensions["tls"] = tls_extension(ssl_object)
    return ScopeTemplate(
        scheme="http" if ssl_object is None else "https",
        client=client,
        server=server,
        root_path=runtime.root_path,
        root_path_mode=runtime.root_path_mode,
        state=runtime.state,
        extensions=extensions,
    )


def start_session(
    runtime: Runtime, stream: Any, template: ScopeTemplate, event: RequestReceived
) -> WebSocketSession:
    """Check the handshake and make its session.

    Raises:
        RemoteProtocolError: the handshake is not valid; ``refusal_fields`` has what its answer must carry.
    """
    handshake = read_handshake(event)
    scope = template.build_websocket(event, handshake.subprotocols)
    session = WebSocketSession(runtime.stack.websocket, stream, scope, event)
    session.own_fields = runtime.stack.handshake_fields
    session.handshake = handshake
    return session


def refusal_fields(error: RemoteProtocolError) -> Headers:
    """Further fields of the response to a bad handshake."""
    return UPGRADE_REQUIRED_FIELDS if error.status == 426 else []


def agree(
    settings: WebSocketSettings, session: WebSocketSession, subprotocol: str | None, headers: Headers
) -> tuple[WebSocketEngine, Headers]:
    """Settle what client, server and application want.

    Returns:
        The engine of the session, and the fields of the accepting response.
    """
    handshake = session.handshake
    agreement: DeflateAgreement | None = None
    if settings.deflate is not None and handshake.extensions:
        agreement = negotiate_deflate(handshake.extensions, settings.deflate)
    engine = WebSocketEngine(settings.max_message_bytes, agreement)
    return engine, accept_fields(handshake, agreement, subprotocol) + headers
