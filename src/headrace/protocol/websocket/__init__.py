"""WebSocket, Sans-I/O, server side: ``WebSocketEngine`` takes a connection's bytes and returns whole messages
and closing events; ``send_*`` encode. ``read_handshake`` and ``negotiate_deflate`` judge the request before.

Called by ``server.connection``, over HTTP/1.1 or over a stream of HTTP/2; it cannot tell which. RFC 6455
(protocol), RFC 7692 (compression), RFC 8441 (over HTTP/2). Tests: ``tests/protocol/websocket``.
"""

from headrace.protocol.websocket.closing import State, is_valid_close_code
from headrace.protocol.websocket.deflate import DeflateAgreement, DeflateOptions
from headrace.protocol.websocket.engine import WebSocketEngine
from headrace.protocol.websocket.events import CloseReceived, ConnectionFailed, Event, PongReceived
from headrace.protocol.websocket.handshake import (
    UPGRADE_REQUIRED_FIELDS,
    Handshake,
    accept_fields,
    is_websocket,
    read_handshake,
)
from headrace.protocol.websocket.offers import negotiate_deflate

__all__ = [
    "UPGRADE_REQUIRED_FIELDS",
    "CloseReceived",
    "ConnectionFailed",
    "DeflateAgreement",
    "DeflateOptions",
    "Event",
    "Handshake",
    "PongReceived",
    "State",
    "WebSocketEngine",
    "accept_fields",
    "is_valid_close_code",
    "is_websocket",
    "negotiate_deflate",
    "read_handshake",
]
