"""One accepted WebSocket between the bytes below and its session above: brakes, timers, rate, the end.

    bytes ──▶ engine ──messages──▶ session ◀── receive, send ── application
      ▲          │
      └─ flush ──┘   once a turn, whatever has been sent in it

What carries the bytes is a connection of its own (``WebSocketConnection``) or a stream of HTTP/2
(``WebSocketTunnel``); both are this class with the few calls that differ.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import cast

from headrace.asgi.websocket import (
    ABNORMAL_CLOSURE,
    GOING_AWAY,
    HIGH_WATER_BYTES,
    NO_STATUS,
    WebSocketSession,
)
from headrace.protocol.websocket import (
    CloseReceived,
    ConnectionFailed,
    Event,
    State,
    WebSocketEngine,
)
from headrace.server.message_rate import MessageRate
from headrace.server.runtime import Runtime
from headrace.server.websocket_settings import WebSocketSettings

CLOSE_TIMEOUT_S = 10.0
"""How long the peer has to answer our Close frame, as uvicorn's."""

LAST_WORDS_TIMEOUT_S = 2.0
"""How long a peer that is not waited for has to take what is still unwritten."""

LARGE_BYTES = 16_384
"""Written in pieces: from here on the kernel takes several sooner than they are joined."""

SERVICE_RESTART, TRY_AGAIN_LATER, POLICY_VIOLATION, PING_TIMEOUT = 1012, 1013, 1008, 1011

_logger = logging.getLogger("uvicorn.error")
_OPEN, _CLOSING, _CLOSED = State
NO_EVENTS: Sequence[Event] = ()


class WebSocketChannel:
    """Drives one engine.

    Args:
        runtime: what all connections share.
        settings: what all WebSockets share.
        session: told of messages and of the end.
        engine: with what was agreed in the handshake.

    Attributes:
        is_writable: the write brake is off.
        is_flush_due: a flush at the end of the turn has been asked for.
    """

    __slots__ = (
        "_deadline", "_has_news", "_idle_due", "_is_ending", "_is_reading", "_ping_due", "_pong_due", "_rate",
        "_settings", "_stall_due", "_taken_bytes", "_under_way_bytes", "_writable", "engine", "is_flush_due",
        "is_writable", "runtime", "session",
    )  # fmt: skip

    def __init__(
        self,
        runtime: Runtime,
        settings: WebSocketSettings,
        session: WebSocketSession,
        engine: WebSocketEngine,
    ) -> None:
        self.runtime = runtime
        self._settings = settings
        self.session = session
        self.engine = engine
        self.is_writable = True
        self.is_flush_due = False
        self._writable: asyncio.Event | None = None
        self._is_reading = True
        self._is_ending = False
        """Nothing more is read but the peer's end."""
        self._has_news = False
        self._taken_bytes: int | None = None
        """As ``on_sweep`` saw it last; None before it looks behind the write brake."""
        self._stall_due = 0.0
        """For the peer to have taken more than ``_taken_bytes``."""
        self._deadline = 0.0
        """For the end; a time of ``runtime.now``."""
        awake_s = runtime.awake_s
        self._ping_due = awake_s + settings.ping_interval_s if settings.ping_interval_s else 0.0
        self._pong_due = 0.0
        self._idle_due = awake_s + settings.idle_timeout_s if settings.idle_timeout_s else 0.0
        self._under_way_bytes = 0
        """When ``on_sweep`` last looked; kept for the idle timeout alone."""
        self._rate = MessageRate(settings.max_rate, runtime.loop.time()) if settings.max_rate else None

    # What differs by what carries it

    def write(self, data: bytes) -> None:
        """Write bytes of the protocol."""
        raise NotImplementedError

    def _write_pieces(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def _set_reading(self, wanted: bool) -> None:
        raise NotImplementedError

    def _end(self, lingers: bool) -> None:
        """End it behind what is written; with ``lingers`` the peer still sends, and is left time to read."""
        raise NotImplementedError

    def _taken(self) -> int:
        """A number that grows by what the peer takes, and by nothing else, while the write brake is on."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut it."""
        raise NotImplementedError

    # From below

    def take(self, data: bytes) -> None:
        """The client sent something."""
        self._has_news = True
        if self._is_ending:
            return
        session = self.session
        engine = self.engine
        rate = self._rate
        # Behind our own Close the engine drops messages itself, and must come to the client's.
        if (session.messages or rate is not None) and engine.state is _OPEN:
            allowance = self._allowance()
        else:
            allowance = self._settings.max_queue
        while True:
            events = engine.receive_data(data, allowance)
            if not engine.has_others:
                others = NO_EVENTS
                if events:
                    session.feed_messages(cast("Sequence[str | bytes]", events))
            else:
                others = self._split(events)
            if rate is not None:
                self._count(events, allowance)
            if not (others and engine.has_unread) or len(others) < len(events):
                break
            # Nothing but pongs: no application takes them and then asks for more.
            data = b""
        if engine.out_bytes and not self.is_flush_due:
            self.flush_later()
        if engine.has_unread is self._is_reading:
            self._update_reading()

    def lose(self) -> None:
        """The connection or stream is gone; what it has brought is still given to the application."""
        self._is_ending = True
        self.is_writable = True
        self._release_writers()
        if self._rate is not None and self._rate.timer is not None:
            self._rate.timer.cancel()
        self.session.is_disconnected = True
        if not self.session.messages:
            # Somebody may wait in ``receive``, as the rate was used up.
            self._take_rest()
        # uvicorn's number for a loss without a Close frame.
        self.session.end(NO_STATUS)

    def brake(self) -> None:
        """The transport, or the stream's window, takes no more for now."""
        self.is_writable = False
        # To ask the kernel here would cost each large answer 1 us.
        self._taken_bytes = None
        self._wait_for_progress()
        self._update_reading()

    def release(self) -> None:
        """It takes more again."""
        self.is_writable = True
        self._release_writers()
        self._update_reading()

    # From the session: asgi.websocket.Channel

    def flush(self) -> None:
        """Write what the engine has encoded."""
        self.is_flush_due = False
        engine = self.engine
        if engine.out_bytes >= LARGE_BYTES:
            self._write_pieces(engine.pieces_to_send())
            return
        data = engine.data_to_send()
        if data:
            self.write(data)

    def flush_later(self) -> None:
        """The same at the end of the turn, together with what is sent until then."""
        self.is_flush_due = True
        self.runtime.turn.flush_later(self)

    def write_early(self) -> None:
        """See ``Turn``."""
        self.flush()

    def write_if_late(self) -> None:
        """The same now, if that end is far."""
        self.runtime.turn.write_if_late()

    def wait_writable(self) -> Awaitable[None]:
        """Wait until the client has taken enough, or is gone."""
        if self._writable is None:
            self._writable = asyncio.Event()
        return cast("Awaitable[None]", self._writable.wait())

    def on_drained(self) -> None:
        """The application has taken all messages: take what the engine holds."""
        if self._is_ending:
            self._take_rest()
        else:
            self.take(b"")

    def close(self, code: int, reason: str) -> None:
        """Send a Close frame, tell the session, and wait for the client's.

        Raises:
            LocalProtocolError: a code that may not be sent, or something of a wrong type.
        """
        if self.engine.state is not _OPEN:
            return
        self.engine.send_close(code, reason)
        # Before the client's own Close is looked at, which may be there already.
        self.session.end(code, reason)
        self.flush()
        self._deadline = self.runtime.deadline_in(CLOSE_TIMEOUT_S)
        self._update_reading()
        if self.engine.has_unread:
            self.take(b"")

    # The server's side

    def on_sweep(self, now: float) -> None:
        """Act on what is due; times of the peer do not go on while our own loop is late."""
        if 0.0 < self._deadline <= now:
            self._cut()
        if self.engine.state is not _OPEN or self._is_ending:
            if not self._deadline:
                # Whatever became of its end: nothing that ends may last.
                self._deadline = self.runtime.deadline_in(CLOSE_TIMEOUT_S)
            return
        awake_s = self.runtime.awake_s
        if not self.is_writable and not self._makes_progress(awake_s):
            return
        if self._idle_due and (under_way_bytes := self.engine.under_way_bytes) != self._under_way_bytes:
            self._under_way_bytes = under_way_bytes
            self.session.has_traffic = True
        if self.session.has_traffic:
            self.session.has_traffic = False
            if self._idle_due:
                self._idle_due = awake_s + self._settings.idle_timeout_s
        if self._idle_due and awake_s >= self._idle_due:
            self._stop(GOING_AWAY, "No message for too long")
        elif self._ping_due:
            self._ping(awake_s)

    def drain(self) -> None:
        """The server stops: 1012 asks the client to come back; a close under way is hurried."""
        if self._is_ending:
            return
        self._stop(SERVICE_RESTART, "")
        deadline = self.runtime.deadline_in(LAST_WORDS_TIMEOUT_S)
        self._deadline = min(self._deadline or deadline, deadline)

    # Within

    def _split(self, events: Sequence[Event]) -> Sequence[Event]:
        """Feed the messages among the events, act on the others, and return these."""
        messages = [event for event in events if isinstance(event, (str, bytes))]
        if messages:
            self.session.feed_messages(messages)
        others = [event for event in events if not isinstance(event, (str, bytes))]
        for event in others:
            self._on_event(event)
        return others

    def _on_event(self, event: Event) -> None:
        if isinstance(event, CloseReceived):
            self.session.end(event.code, event.reason)
            self._finish(lingers=False)
        elif isinstance(event, ConnectionFailed):
            self.session.end(event.error.close_code, str(event.error))
            _logger.debug("A WebSocket failed: %s", event.error)
            self._finish(lingers=True)

    def _take_rest(self) -> None:
        """Take what a client that is gone has sent before, by the queue's measure, and without a rate."""
        session = self.session
        engine = self.engine
        while engine.has_unread and engine.state is _OPEN and not session.messages:
            events = engine.receive_data(b"", self._settings.max_queue)
            messages = [event for event in events if isinstance(event, (str, bytes))]
            if messages:
                session.feed_messages(messages)
            for event in events:
                if isinstance(event, CloseReceived):
                    session.replace_end(event.code, event.reason)
                elif isinstance(event, ConnectionFailed):
                    session.replace_end(event.error.close_code, str(event.error))

    def _finish(self, lingers: bool) -> None:
        """Both Close frames are there, or the protocol is broken: end what carries it."""
        self._is_ending = True
        self._deadline = self.runtime.deadline_in(LAST_WORDS_TIMEOUT_S)
        self._update_reading()
        self.flush()
        self._end(lingers)

    def _stop(self, code: int, reason: str) -> None:
        """Close for a reason of the server's own; the application is told the same."""
        if self.engine.state is not _OPEN or self._is_ending:
            return
        self.session.end(code, reason)
        self.close(code, reason)

    def _allowance(self) -> int:
        """How many messages may be taken now."""
        session = self.session
        allowance = self._settings.max_queue - len(session.messages)
        if allowance <= 0 or session.waiting_bytes > HIGH_WATER_BYTES:
            return 0
        if self._rate is not None and self.engine.state is _OPEN:
            allowance = min(allowance, self._rate.allowance(self.runtime.loop.time()))
        return allowance

    def _count(self, events: Sequence[Event], allowance: int) -> None:
        """Note the messages taken, and act when more wait than may be taken."""
        rate = self._rate
        assert rate is not None
        rate.take(sum(isinstance(event, (str, bytes)) for event in events))
        if not self.engine.has_unread or self._is_ending:
            return
        has_token = rate.allowance(self.runtime.loop.time()) > 0
        if has_token and self.session.messages:
            return
        # Without a message that waits nobody will ask for more, and the token may have come just now.
        if self._settings.closes_above_rate and not has_token:
            self._stop(POLICY_VIOLATION, "Too many messages")
        elif rate.timer is None:
            rate.timer = self.runtime.loop.call_later(rate.wait_s, self._go_on)

    def _go_on(self) -> None:
        assert self._rate is not None
        self._rate.timer = None
        if self.engine.has_unread and not self._is_ending:
            self.take(b"")

    def _update_reading(self) -> None:
        """The read brake: on while messages wait in the engine, or the client takes none of ours."""
        wanted = self._is_ending or self.engine.state is not _OPEN
        wanted = wanted or (self.is_writable and not self.engine.has_unread)
        if wanted is not self._is_reading:
            self._is_reading = wanted
            self._set_reading(wanted)

    def _release_writers(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    def _ping(self, awake_s: float) -> None:
        timeout_s = self._settings.ping_timeout_s
        if self._has_news:
            self._has_news = False
            self._pong_due = 0.0
        elif self._pong_due and not self._is_reading:
            # Its pong may be there, unread.
            self._pong_due = awake_s + timeout_s
        if self._pong_due and awake_s >= self._pong_due:
            self._stop(PING_TIMEOUT, "keepalive ping timeout")
            self._deadline = self.runtime.deadline_in(LAST_WORDS_TIMEOUT_S)
        elif awake_s >= self._ping_due:
            self._ping_due = awake_s + self._settings.ping_interval_s
            if not self._pong_due and self.is_writable:
                self.engine.send_ping(b"headrace")
                self.flush()
                self._pong_due = awake_s + timeout_s if timeout_s else 0.0

    def _cut(self) -> None:
        self._deadline = 0.0
        self.session.end(ABNORMAL_CLOSURE)
        self.abort()

    def _makes_progress(self, awake_s: float) -> bool:
        """False when the client has taken nothing for too long, and is told so."""
        taken = self._taken()
        if self._taken_bytes is None:
            self._taken_bytes = taken
        elif taken > self._taken_bytes:
            # Slowly, but it takes something.
            self._taken_bytes = taken
            self._wait_for_progress()
            self.session.has_traffic = True
        elif 0.0 < self._stall_due <= awake_s:
            self._stop(TRY_AGAIN_LATER, "The client takes nothing of what is sent")
            self._deadline = self.runtime.deadline_in(LAST_WORDS_TIMEOUT_S)
            self._release_writers()
            return False
        return True

    def _wait_for_progress(self) -> None:
        timeout_s = self._settings.send_timeout_s
        self._stall_due = self.runtime.awake_s + self.runtime.sweep_s + timeout_s if timeout_s else 0.0
