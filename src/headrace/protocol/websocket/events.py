"""What a WebSocket engine tells its session.

A text message is a ``str`` and a binary message is ``bytes``, both whole: a wrapper around each would cost
as much as parsing a short frame. Everything else is a named tuple.
"""

from __future__ import annotations

from typing import NamedTuple

from headrace.errors import RemoteProtocolError


class PongReceived(NamedTuple):
    """A Pong frame, asked for or not. RFC 6455 §5.5.3."""

    payload: bytes
    """0 to 125 bytes."""


class CloseReceived(NamedTuple):
    """The peer's Close frame; always the last event. RFC 6455 §5.5.1.

    The reply stands in the out-buffer unless our Close frame was sent before.
    """

    code: int
    """1000 to 4999; 1005 when the frame carried none."""
    reason: str
    """At most 123 bytes of UTF-8."""


class ConnectionFailed(NamedTuple):
    """The peer broke the protocol; always the last event. RFC 6455 §7.1.7.

    The Close frame with ``error.close_code`` stands in the out-buffer unless ours was sent before.
    """

    error: RemoteProtocolError


Event = str | bytes | PongReceived | CloseReceived | ConnectionFailed
