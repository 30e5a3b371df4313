"""A WebSocket in the DATA of one stream of HTTP/2, RFC 8441."""

from __future__ import annotations

from typing import Any, Protocol

from headrace.asgi.websocket import WebSocketSession
from headrace.protocol.http2 import HTTP2Engine
from headrace.server.runtime import Runtime
from headrace.server.websocket import LAST_WORDS_TIMEOUT_S, WebSocketChannel


class TunnelStream(Protocol):
    """The stream of HTTP/2 below a tunnel, as far as the tunnel needs it."""

    stream_id: int

    @property
    def engine(self) -> HTTP2Engine:
        """Encodes DATA."""

    @property
    def is_writable(self) -> bool:
        """Little enough waits for the client's window."""

    def flush(self) -> None:
        """Write at the end of the turn."""

    def wait_for_room(self) -> None:
        """Have the tunnel's ``release`` called when enough of what is queued is gone."""

    def on_consumed(self) -> None:
        """What came has been taken: the client may send as much more."""

    def is_held_back(self) -> bool:
        """What is queued waits for its turn, and not for the client."""

    def abort(self) -> None:
        """Reset the stream."""


class WebSocketTunnel(WebSocketChannel):
    """A WebSocket in the DATA of one stream."""

    __slots__ = ("_has_peer_ended", "_stream")

    def __init__(
        self, runtime: Runtime, session: WebSocketSession, engine: Any, stream: TunnelStream
    ) -> None:
        assert runtime.websocket is not None
        super().__init__(runtime, runtime.websocket, session, engine)
        self._stream = stream
        self._has_peer_ended = False

    def feed(self, data: bytes, end_stream: bool) -> None:
        """Take a piece of the tunnel."""
        self._has_peer_ended = self._has_peer_ended or end_stream
        self.take(data)

    def take(self, data: bytes) -> None:
        """The client sent something, or the application has taken what it sent before."""
        super().take(data)
        if self._is_reading:
            self._stream.on_consumed()
        if self._has_peer_ended and not self.engine.has_unread and not self._is_ending:
            self.lose()
            self._end(lingers=False)
            self._deadline = self.runtime.deadline_in(LAST_WORDS_TIMEOUT_S)

    def write(self, data: bytes) -> None:
        """Write bytes of the protocol."""
        stream = self._stream
        stream.engine.send_data(stream.stream_id, data, False)
        stream.flush()
        if self.is_writable and not stream.is_writable:
            stream.wait_for_room()
            self.brake()

    def _set_reading(self, wanted: bool) -> None:
        if wanted:
            self._stream.on_consumed()

    def _makes_progress(self, awake_s: float) -> bool:
        if self._stream.is_held_back():
            # The client takes other streams' data, of which it has said that they go first.
            self._wait_for_progress()
            return True
        return super()._makes_progress(awake_s)

    def _end(self, lingers: bool) -> None:
        stream = self._stream
        stream.engine.send_data(stream.stream_id, b"", True)
        stream.flush()

    def _taken(self) -> int:
        return self._stream.engine.taken_bytes(self._stream.stream_id)

    def abort(self) -> None:
        """Reset the stream."""
        self._stream.abort()
