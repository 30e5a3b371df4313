"""The options of WebSocket as all sessions of a worker use them."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.config import WebSocketOptions
from headrace.protocol.websocket import DeflateOptions


@dataclass(frozen=True, slots=True)
class WebSocketSettings:
    """What all WebSockets of a worker share; durations in seconds, 0 is none."""

    max_message_bytes: int
    max_queue: int
    ping_interval_s: float
    ping_timeout_s: float
    send_timeout_s: float
    idle_timeout_s: float
    max_rate: float
    closes_above_rate: bool
    deflate: DeflateOptions | None

    @property
    def shortest_s(self) -> float:
        """The shortest timer that is on, infinity when none is."""
        timers = (self.ping_interval_s, self.ping_timeout_s, self.send_timeout_s, self.idle_timeout_s)
        return min((timer for timer in timers if timer), default=1e9)


def settings_of(options: WebSocketOptions) -> WebSocketSettings | None:
    """The settings that the options mean; None when no WebSockets are served."""
    if options.ws == "none":
        return None
    server_takes_over = options.ws_deflate_context_takeover in ("server", "both")
    client_takes_over = options.ws_deflate_context_takeover in ("client", "both")
    bits = options.ws_deflate_window_bits
    # A window kept from message to message is memory of each connection; one that is not costs nothing.
    deflate = DeflateOptions(
        server_context_takeover=server_takes_over,
        client_context_takeover=client_takes_over,
        server_max_window_bits=bits or (12 if server_takes_over else 15),
        client_max_window_bits=bits or (12 if client_takes_over else 15),
        level=options.ws_deflate_level,
    )
    return WebSocketSettings(
        max_message_bytes=options.ws_max_size,
        max_queue=options.ws_max_queue,
        ping_interval_s=options.ws_ping_interval or 0.0,
        ping_timeout_s=options.ws_ping_timeout or 0.0,
        send_timeout_s=options.ws_send_timeout,
        idle_timeout_s=options.ws_idle_timeout,
        max_rate=options.ws_max_rate or 0.0,
        closes_above_rate=options.ws_rate_action == "close",
        deflate=deflate if options.ws_per_message_deflate else None,
    )
