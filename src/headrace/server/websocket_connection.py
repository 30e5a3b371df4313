"""A WebSocket that has a TCP, TLS or Unix connection to itself, from the 101 on."""

from __future__ import annotations

import asyncio
import contextlib

from headrace.asgi.websocket import WebSocketSession
from headrace.protocol.websocket import WebSocketEngine
from headrace.server.pieces import write_pieces
from headrace.server.runtime import Runtime
from headrace.server.unacknowledged import unacknowledged_bytes
from headrace.server.websocket import LAST_WORDS_TIMEOUT_S, WebSocketChannel
from headrace.server.websocket_settings import WebSocketSettings


class WebSocketConnection(WebSocketChannel, asyncio.Protocol):
    """An asyncio protocol; takes the transport over from the connection that read the handshake."""

    __slots__ = ("_given_bytes", "transport")

    def __init__(
        self,
        runtime: Runtime,
        settings: WebSocketSettings,
        session: WebSocketSession,
        engine: WebSocketEngine,
        transport: asyncio.Transport,
    ) -> None:
        super().__init__(runtime, settings, session, engine)
        self.transport = transport
        self._given_bytes = 0
        """To the transport, while the write brake was on."""

    # The transport's side

    data_received = WebSocketChannel.take

    def eof_received(self) -> bool:
        """The client sent its end; without a Close frame before it, it is lost."""
        if not self._is_ending:
            self.lose()
            # The transport closes behind what is unwritten, which the client may never take.
            self._deadline = self.runtime.deadline_in(LAST_WORDS_TIMEOUT_S)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        runtime = self.runtime
        runtime.connections.discard(self)
        self.lose()
        if runtime.connection_limit is not None:
            runtime.connection_limit.release(self)
        runtime.on_connection_lost()

    def pause_writing(self) -> None:
        """The transport is over its high mark."""
        self.brake()

    def resume_writing(self) -> None:
        """The transport is under its low mark again."""
        self.release()

    def on_admitted(self) -> None:
        """It was admitted before it was a WebSocket."""

    # The channel's side

    def write(self, data: bytes) -> None:
        """Write bytes of the protocol."""
        if not self.transport.is_closing():
            if not self.is_writable:
                self._given_bytes += len(data)
            self.transport.write(data)

    def _write_pieces(self, pieces: list[bytes]) -> None:
        if not self.transport.is_closing():
            if not self.is_writable:
                self._given_bytes += sum(map(len, pieces))
            write_pieces(self.transport, pieces)

    def _set_reading(self, wanted: bool) -> None:
        if self.transport.is_closing():
            return
        if wanted:
            self.runtime.turn.run_outside(self.transport.resume_reading)
        else:
            self.transport.pause_reading()

    def _end(self, lingers: bool) -> None:
        transport = self.transport
        if lingers and transport.can_write_eof() and not transport.is_closing():
            # Closing at once would reset what the peer still sends, and could take our Close frame from it.
            with contextlib.suppress(OSError):  # the client may have reset it in this moment
                transport.write_eof()
        else:
            transport.close()

    def _taken(self) -> int:
        waiting_bytes = self.transport.get_write_buffer_size() + unacknowledged_bytes(self.transport)
        return self._given_bytes - waiting_bytes

    def abort(self) -> None:
        """Cut it."""
        self.transport.abort()
