"""What all connections of one worker share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Protocol

from headrace.asgi.http import HTTPExchange
from headrace.config import Config
from headrace.protocol.http1 import HeadParser, HTTP1Limits, ResponseDefaults
from headrace.server.bad_requests import BadRequestLog
from headrace.server.connection_limit import ConnectionLimit
from headrace.server.stack import Stack
from headrace.server.turn import Turn
from headrace.telemetry import AccessLog


class OpenConnection(Protocol):
    """A connection, as the books, the sweep and the drain know it."""

    def on_sweep(self, now: float) -> None:
        """Act if the deadline has passed, and give back what an idle connection can do without."""

    def drain(self) -> None:
        """End with the exchange under way."""

    def abort(self) -> None:
        """Cut it."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The timers of a connection, in seconds; 0 is none."""

    header_s: float
    keep_alive_s: float
    body_s: float
    write_s: float

    @property
    def shortest_s(self) -> float:
        """The shortest that is on, infinity when none is."""
        return min(
            (t for t in (self.header_s, self.keep_alive_s, self.body_s, self.write_s) if t), default=1e9
        )


class Runtime:
    """The application, the limits and the books of one worker; connections read it, the server writes it.

    Attributes:
        now: the loop's time at the last sweep; good enough for timeouts of seconds.
        sweep_s: time between two sweeps.
        connections: all that are open.
        keep_alive_deadline: for connections that go idle before the next sweep.
        has_limits: a request is looked at before it is admitted.
        start, turn: see ``Turn``.
        running: exchanges whose application has not returned.
        total_requests: requests answered or being answered.
        on_idle: called when the last running exchange ends during a drain.
    """

    __slots__ = (
        "access_log", "bad_requests", "cancels_on_disconnect", "connection_limit",
        "connections", "defaults", "has_limits", "is_draining", "keep_alive_deadline",
        "limit_concurrency", "limit_requests", "loop", "now", "on_connection_lost", "on_idle",
        "on_limit_requests", "parser", "root_path", "root_path_mode", "running", "stack", "start", "state",
        "sweep_s", "timeouts", "total_requests", "turn",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        stack: Stack,
        state: dict[str, Any],
        turn: Turn,
        access_log: AccessLog | None,
    ) -> None:
        http = config.http
        self.stack = stack
        self.state = state
        self.access_log = access_log
        self.loop = asyncio.get_running_loop()
        self.parser = HeadParser(
            HTTP1Limits(
                http.limit_request_line,
                http.limit_request_head,
                http.limit_request_fields,
                http.limit_request_body,
            )
        )
        self.defaults = ResponseDefaults(
            b"headrace" if http.server_header else None,
            http.date_header,
            tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in http.headers),
        )
        self.timeouts = Timeouts(
            http.timeout_header, http.timeout_keep_alive, http.timeout_body, http.timeout_write
        )
        self.sweep_s = min(1.0, max(0.02, self.timeouts.shortest_s / 4))
        self.root_path = config.application.root_path.rstrip("/")
        self.root_path_mode = config.application.root_path_mode
        self.cancels_on_disconnect = config.application.on_disconnect == "cancel"
        self.limit_concurrency = http.limit_concurrency
        self.connection_limit: ConnectionLimit | None = None
        self.limit_requests: int | None = None
        self.bad_requests = BadRequestLog()
        self.connections: set[OpenConnection] = set()
        self.running: set[HTTPExchange] = set()
        self.total_requests = 0
        self.is_draining = False
        self.has_limits = http.limit_concurrency is not None or not http.timeout_keep_alive
        self.start = turn.start
        self.turn = turn
        self.on_idle: Callable[[], None] = _nothing
        self.on_limit_requests: Callable[[], None] = _nothing
        self.on_connection_lost: Callable[[], None] = _nothing
        self.now = self.keep_alive_deadline = 0.0
        self.tick()

    def tick(self) -> None:
        """Take the time, for deadlines and for Date."""
        self.now = self.loop.time()
        self.keep_alive_deadline = self.deadline_in(self.timeouts.keep_alive_s)
        self.defaults.set_date(formatdate(time.time(), usegmt=True).encode("ascii"))

    def deadline_in(self, timeout_s: float) -> float:
        """The time, not before ``timeout_s`` from now, at which a sweep should act; 0.0 for no timeout."""
        return self.now + self.sweep_s + timeout_s if timeout_s else 0.0


def _nothing() -> None:
    pass
