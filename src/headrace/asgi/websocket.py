"""One WebSocket: its handshake is an HTTP exchange, behind which messages go both ways.

    CONNECTING ──accept──▶ OPEN ──close of either side, loss, error──▶ CLOSED
        │
        └─ close (403), a response of the application's own, or none (500) ──▶ CLOSED

ASGI WebSocket specification 2.4 with ``websocket.http.response``. Everything before the acceptance is the
exchange's: the order of response messages, promised lengths, what is answered for an application that fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from threading import get_ident
from typing import Any, Protocol, cast
from urllib.parse import quote

from headrace.asgi.finished import FINISHED, mark_async
from headrace.asgi.http import HTTPExchange
from headrace.asgi.response_state import ResponseState
from headrace.asgi.stream import Stream
from headrace.errors import ASGIError, ClientDisconnected, HeadraceError, LocalProtocolError
from headrace.protocol.events import RequestReceived
from headrace.protocol.fields import TOKEN
from headrace.types import ASGIApplication, Headers, Message

NORMAL_CLOSURE, GOING_AWAY, NO_STATUS, ABNORMAL_CLOSURE, INTERNAL_ERROR = 1000, 1001, 1005, 1006, 1011

HIGH_WATER_BYTES = 65_536
"""Messages waiting for the application above which no more are taken from the engine, and frames waiting
for the end of the turn above which they are written at once."""

_EXPECT_START, _COMPLETE = int(ResponseState.EXPECT_START), int(ResponseState.COMPLETE)

_OURS = frozenset({
    b"connection", b"content-length", b"sec-websocket-accept", b"sec-websocket-extensions",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Fields of the accepting response that are the server's to decide."""

_logger = logging.getLogger("uvicorn.error")


class Engine(Protocol):
    """The sending half of a WebSocket engine, as far as a session needs it."""

    has_unread: bool

    def short_text_frame(self, text: object) -> bytes | None:
        """Encode a short text message that is to be written at once; None if it must wait, or is refused."""

    def short_binary_frame(self, data: object) -> bytes | None:
        """The same of a binary message."""

    def send_text(self, text: str) -> int:
        """Encode a text message; returns the size of all that waits to be written."""

    def send_bytes(self, data: bytes) -> int:
        """The same of a binary message."""


class Channel(Protocol):
    """What carries an accepted session: a connection of its own, or a stream of HTTP/2."""

    is_writable: bool
    is_flush_due: bool

    @property
    def engine(self) -> Engine:
        """Encodes messages."""

    def write(self, data: bytes) -> None:
        """Write bytes of the protocol."""

    def flush(self) -> None:
        """Write what the engine has encoded."""

    def flush_later(self) -> None:
        """The same at the end of the turn, together with what is sent until then."""

    def write_if_late(self) -> None:
        """Write now if what was to be written at the turn's end has waited for long."""

    def wait_writable(self) -> Awaitable[None]:
        """Wait while the write brake is on."""

    def on_drained(self) -> None:
        """No message waits for the application any more: take what the engine holds."""

    def close(self, code: int, reason: str) -> None:
        """Send a Close frame, and ``end`` the session."""


class WebSocketStream(Stream, Protocol):
    """What carries a handshake."""

    def accept_websocket(self, session: Any, subprotocol: str | None, headers: Headers) -> None:
        """Answer with 101, or 200 over HTTP/2, and call the session's ``open``."""


class WebSocketSession(HTTPExchange):
    """One WebSocket, from its handshake to its end.

    Args:
        application, stream, scope, event: see ``HTTPExchange``.

    Attributes:
        handshake: what the client offered; the stream's to keep here.
        messages: that wait for the application, the oldest one last; those of the client as it sent them.
        has_traffic: a message, or a part of one, has gone either way since somebody last looked.
    """

    is_recorded = False
    """Its answer is a line of ``uvicorn.error``, as uvicorn's."""

    __slots__ = (
        "_channel", "_end", "_has_closed", "_is_answer_due", "_loop", "_thread_id", "_waiters", "handshake",
        "has_traffic", "messages",
    )  # fmt: skip

    def __init__(
        self, application: ASGIApplication, stream: Stream, scope: dict[str, Any], event: RequestReceived
    ) -> None:
        super().__init__(application, stream, scope, event)
        self._loop: asyncio.AbstractEventLoop | None = None
        """To have it at hand saves a wait 0.2 µs."""
        self._thread_id = stream.turn.thread_id
        self._channel: Channel | None = None
        self._end: Message | None = None
        self._has_closed = False
        self._is_answer_due = False
        """The application has just taken the last message that was there: most send once, and wait."""
        self._waiters: list[asyncio.Future[None]] = []
        self.handshake: Any = None
        self.has_traffic = False
        self.messages: list[Message | str | bytes] = [{"type": "websocket.connect"}]

    # The server's side

    @property
    def is_over(self) -> bool:
        """Either side has closed, or the client is gone."""
        return self._end is not None

    @property
    def waiting_bytes(self) -> int:
        """Size of the messages that wait for the application."""
        return sum(len(message) for message in self.messages if isinstance(message, (str, bytes)))

    def open(self, channel: Channel) -> None:
        """The handshake is accepted: from now on ``channel`` carries the session."""
        self._channel = channel
        self._stream = channel  # type: ignore[assignment]
        # The connection's engine and its books go with the handshake; thousands of sessions sit idle.
        self._engine = self._turn = self.handshake = None  # type: ignore[assignment]

    @property
    def has_body_ended(self) -> bool:
        """The client has sent its end behind the handshake; over HTTP/2 it may, before that is answered."""
        return self._body_ended

    def take_early_data(self) -> bytes:
        """What the client has sent behind its handshake, before that was answered; over HTTP/2 it may."""
        early = b"".join(self._body or ())
        self._body = None
        self.buffered_bytes = 0
        return early

    def feed_messages(self, messages: Sequence[str | bytes]) -> None:
        """Take the client's messages."""
        if len(messages) == 1 and not self.messages:
            self.messages.append(messages[0])
        else:
            self.messages[:0] = messages[::-1]
        self.has_traffic = True
        if self._waiters:
            self._wake_receivers()

    def end(self, code: int, reason: str = "") -> None:
        """The session is over: ``receive`` gives what has come before, then ``websocket.disconnect``."""
        if self._end is None:
            self.replace_end(code, reason)

    def replace_end(self, code: int, reason: str) -> None:
        """Behind messages of a client that is gone stands its own end, which nobody has been told yet."""
        self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._wake()

    def disconnect(self) -> None:
        """The client is gone before the handshake was answered, or while it was refused."""
        super().disconnect()
        self.end(ABNORMAL_CLOSURE)

    def half_close(self) -> None:
        """The client has sent its end before the answer, so no session can follow."""
        super().half_close()
        self.end(ABNORMAL_CLOSURE)

    # The turn's side

    def on_return(self, result: object) -> None:
        """The application has returned: the session ends with it."""
        if self._channel is None:
            if self.state != _COMPLETE and not self.is_disconnected:
                self._on_unfinished()
        elif self._end is None:
            self.messages.clear()
            self._channel.close(NORMAL_CLOSURE, "")
        elif result is not None:
            _logger.error("ASGI callable should return None, but returned '%s'.", result)

    # The application's side

    async def receive(self) -> Message:
        """The next ASGI message; waits until there is one. Behind the end it is the end again."""
        if not self.messages:
            if self._channel is not None and self._channel.engine.has_unread:
                self._channel.on_drained()
            while not self.messages:
                if self._end is not None:
                    return self._end
                if self._loop is None:
                    self._loop = asyncio.get_running_loop()
                waiter: asyncio.Future[None] = asyncio.Future(loop=self._loop)
                self._waiters.append(waiter)
                try:
                    await waiter
                except BaseException:
                    if waiter in self._waiters:
                        self._waiters.remove(waiter)
                    raise
        messages = self.messages
        message = messages.pop()
        self._is_answer_due = not messages
        if type(message) is bytes:
            return {"type": "websocket.receive", "bytes": message}
        if type(message) is str:
            return {"type": "websocket.receive", "text": message}
        return cast("Message", message)

    def send(self, message: Message) -> Awaitable[None]:
        """Take one ASGI message.

        A plain method, see ``HTTPExchange.send``.

        Raises:
            ASGIError: out of order, or not valid.
            ClientDisconnected: the client is gone.
        """
        if get_ident() != self._thread_id:
            return self._send_in_loop(message)
        channel = self._channel
        if channel is None or self._end is not None or message["type"] != "websocket.send":
            return self._send_other(message)
        engine = channel.engine
        data = message.get("bytes")
        # An answer on its own goes at once: a callback at the end of the turn would only cost time.
        is_alone = self._is_answer_due and not channel.is_flush_due
        self.has_traffic = True
        if is_alone:
            self._is_answer_due = False
            if data is not None:
                frame = engine.short_binary_frame(data)
            else:
                frame = engine.short_text_frame(message.get("text"))
            if frame is not None:
                channel.write(frame)
                return FINISHED if channel.is_writable else channel.wait_writable()
        if data is not None:
            out_bytes = engine.send_bytes(data)
        else:
            out_bytes = self._send_text(engine, message.get("text"))
        if is_alone or out_bytes > HIGH_WATER_BYTES:
            channel.flush()
        elif not channel.is_flush_due:
            channel.flush_later()
        elif not self.messages:
            # Not an answer among others: it may come late in a long step of the application.
            channel.write_if_late()
        return FINISHED if channel.is_writable else channel.wait_writable()

    mark_async(send)

    def _send_text(self, engine: Engine, text: object) -> int:
        if not isinstance(text, str):
            raise ASGIError("'websocket.send' needs 'bytes' or 'text'")
        try:
            return engine.send_text(text)
        except LocalProtocolError as error:
            raise ASGIError(str(error)) from None

    def _send_other(self, message: Message) -> Awaitable[None]:
        """Anything but a message on an open session."""
        kind = message["type"]
        return self._answer(kind, message) if self._channel is None else self._close(kind, message)

    # Within: the handshake

    def _answer(self, kind: str, message: Message) -> Awaitable[None]:
        if kind in ("websocket.accept", "websocket.close") and self.state == _EXPECT_START:
            if self.is_disconnected or self._half_closed:
                raise ClientDisconnected("The client left before its handshake was answered")
            return self._accept(message) if kind == "websocket.accept" else self._refuse()
        if kind.startswith("websocket.http.response."):
            sent = super().send({**message, "type": kind.removeprefix("websocket.")})
            if kind == "websocket.http.response.start":
                self._log_answer(message.get("status"))
                self.messages.clear()
            return sent
        if self.state == _EXPECT_START:
            raise ASGIError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' or "
                f"'websocket.http.response.start', but got '{kind}'."
            )
        raise ASGIError(f"Unexpected ASGI message '{kind}', after the handshake has been answered.")

    def _accept(self, message: Message) -> Awaitable[None]:
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and not _is_token(subprotocol):
            raise ASGIError(f"Invalid subprotocol: {subprotocol!r:.80}")
        headers = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
        for name, _ in headers:
            if name.lower() in _OURS:
                raise ASGIError(f"The field {name!r:.80} of an accepted WebSocket is the server's")
        if self.own_fields is not None:
            headers += self.own_fields(self, headers)
        stream: Any = self._stream
        self.state = _COMPLETE
        try:
            stream.accept_websocket(self, subprotocol, headers)
        except (ValueError, TypeError) as error:
            self.state = _EXPECT_START
            raise ASGIError(str(error)) from None
        self._log_answer("[accepted]")
        return FINISHED

    def _refuse(self) -> Awaitable[None]:
        """Closed before it was accepted: 403, as the ASGI specification says."""
        self._log_answer(403)
        self.messages.clear()
        super().send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
        return super().send({"type": "http.response.body", "body": b""})

    def _log_answer(self, answer: object) -> None:
        client = self.scope.get("client")
        peer = f"{client[0]}:{client[1]}" if client else ""
        path = quote(self.scope.get("path", ""))
        query = self.scope.get("query_string", b"")
        target = f"{path}?{query.decode('latin-1')}" if query else path
        _logger.info('%s - "WebSocket %s" %s', peer, target, answer)

    # Within: the open session

    def _close(self, kind: str, message: Message) -> Awaitable[None]:
        """Anything but a message on an open session."""
        channel = self._channel
        assert channel is not None
        if kind not in ("websocket.send", "websocket.close"):
            raise ASGIError(f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'.")
        if self._end is not None:
            return self._send_behind_the_end(kind)
        code = message.get("code")
        if code is None:
            code = NORMAL_CLOSURE
        reason = message.get("reason") or ""
        try:
            channel.close(code, reason)
        except HeadraceError as error:
            raise ASGIError(str(error)) from None
        self._has_closed = True
        self.messages.clear()
        return FINISHED

    def _send_behind_the_end(self, kind: str) -> Awaitable[None]:
        """Nothing can follow. Closing what the client has closed is what every clean-up does."""
        if self._has_closed:
            raise ASGIError(f"Unexpected ASGI message '{kind}', after sending 'websocket.close'.")
        if kind == "websocket.close":
            return FINISHED
        raise ClientDisconnected("The WebSocket is closed")

    def _on_error(self, error: BaseException) -> None:
        if self._channel is None:
            super()._on_error(error)
            return
        if self._end is not None and isinstance(error, OSError):
            # What an application raises because the client has gone is not its fault.
            _logger.debug("The client left: %r", error)
            return
        _logger.error("Exception in ASGI application\n", exc_info=error)
        self._give_up(500)

    def _give_up(self, status: int) -> None:
        if self._channel is None:
            if self.state == _EXPECT_START:
                self._log_answer(status)
            super()._give_up(status)
            return
        if self._end is None:
            self.messages.clear()
            code = GOING_AWAY if status == 503 else INTERNAL_ERROR
            self._channel.close(code, "")

    def _missing(self) -> str:
        return "sending handshake" if self.state == _EXPECT_START else "completing response"

    def _send_body(self, data: bytes, more: bool) -> Awaitable[None]:
        sent = super()._send_body(data, more)
        if self.state == _COMPLETE:
            self.end(ABNORMAL_CLOSURE)
        return sent

    def _complete(self) -> None:
        super()._complete()
        self.end(ABNORMAL_CLOSURE)

    def _wake(self) -> None:
        super()._wake()
        self._wake_receivers()

    def _wake_receivers(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


def _is_token(text: object) -> bool:
    return isinstance(text, str) and text.isascii() and TOKEN.fullmatch(text.encode("ascii")) is not None
