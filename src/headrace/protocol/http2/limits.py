"""How much an HTTP/2 client may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HTTP2Limits:
    """Sizes above which a stream is refused, each with its own status, and what a connection may hold.

    ``target_bytes`` 414, ``head_bytes`` and ``fields`` 431, ``body_bytes`` 413 (None: no limit), as in
    HTTP/1.1. ``streams`` is SETTINGS_MAX_CONCURRENT_STREAMS, ``window_bytes`` the body of one stream that may
    wait for the application. The connection's window is twice the product of both: libnghttp2 opens a window
    when half of it has been consumed, which one stream must manage while all others stand still.
    """

    target_bytes: int = 16_384
    head_bytes: int = 65_536
    fields: int = 128
    body_bytes: int | None = None
    streams: int = 100
    window_bytes: int = 131_072
    allows_connect: bool = True
    """Extended CONNECT is announced, which clients take for WebSocket. RFC 8441 §3."""

    @property
    def connection_window_bytes(self) -> int:
        """The connection's receive window."""
        return min(2 * self.streams * self.window_bytes, 2**31 - 1)
