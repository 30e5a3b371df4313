"""What all connections of one worker share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Protocol

from headrace.asgi.stream import Stream
from headrace.config import Config, HTTPOptions
from headrace.middleware.health import Health
from headrace.protocol import http2
from headrace.protocol.events import RequestReceived
from headrace.protocol.http1 import HeadParser, HTTP1Limits, ResponseDefaults
from headrace.server.bad_requests import BadRequestLog
from headrace.server.connection_limit import ConnectionLimit
from headrace.server.probe import Probe
from headrace.server.stack import Stack
from headrace.server.turn import Turn
from headrace.server.websocket_settings import settings_of


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
        awake_s: a clock that does not go on while the loop is late: peers are not judged by time in which we
            did not listen.
        sweep_s: time between two sweeps.
        connections: all that are open.
        keep_alive_deadline: for connections that go idle before the next sweep.
        is_draining: the server stops, connections are served once more at most.
        is_replaced: another process serves on, so that idle connections need not be closed at once.
        is_ending: no connection is accepted any more, and what has no end of its own is told to end at once.
        has_limits: a request is looked at before it is admitted.
        health: what answers probes, None without ``--health-path``.
        start, turn: see ``Turn``.
        running: exchanges whose application has not returned.
        consumers: are told of each finished exchange.
        takes_time: somebody asks when a request's head had been read.
        own_fields: see ``HTTPExchange``.
        total_requests: requests answered or being answered.
        total_shed: of them, answered with 503 for ``--limit-concurrency``.
        on_swept: called behind each sweep.
    """

    __slots__ = (
        "awake_s", "bad_requests", "cancels_on_disconnect", "connection_limit",
        "connections", "consumers", "defaults", "has_limits", "health", "http2_defaults",
        "http2_limits",
        "is_draining", "is_ending", "is_replaced", "keep_alive_deadline",
        "limit_concurrency", "limit_requests", "loop", "now", "on_connection_lost",
        "on_limit_requests", "on_swept", "own_fields", "parser", "root_path", "root_path_mode", "running",
        "serves_http2", "stack", "start", "state", "sweep_s", "takes_time",
        "timeouts", "total_requests", "total_shed", "turn", "websocket",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        stack: Stack,
        state: dict[str, Any],
        turn: Turn,
    ) -> None:
        http = config.http
        self.stack = stack
        self.state = state
        self.consumers = stack.consumers
        self.own_fields = stack.own_fields
        self.takes_time = bool(stack.consumers) or stack.own_fields is not None
        self.loop = asyncio.get_running_loop()
        self.parser = HeadParser(
            HTTP1Limits(
                http.limit_request_line,
                http.limit_request_head,
                http.limit_request_fields,
                http.limit_request_body,
            )
        )
        server = b"headrace" if http.server_header else None
        fields = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in http.headers)
        self.defaults = ResponseDefaults(server, http.date_header, fields)
        self.serves_http2 = serves_http2(http)
        self.http2_defaults = http2.HTTP2Defaults(server, http.date_header, fields)
        self.websocket = settings_of(config.websocket)
        self.http2_limits = http2.HTTP2Limits(
            http.limit_request_line,
            http.limit_request_head,
            http.limit_request_fields,
            http.limit_request_body,
            http.http2_max_streams,
            allows_connect=self.websocket is not None,
        )
        self.timeouts = Timeouts(
            http.timeout_header, http.timeout_keep_alive, http.timeout_body, http.timeout_write
        )
        shortest_s = self.timeouts.shortest_s
        if self.websocket is not None:
            shortest_s = min(shortest_s, self.websocket.shortest_s)
        self.sweep_s = min(1.0, max(0.02, shortest_s / 4))
        self.root_path = config.application.root_path.rstrip("/")
        self.root_path_mode = config.application.root_path_mode
        self.cancels_on_disconnect = config.application.on_disconnect == "cancel"
        self.limit_concurrency = http.limit_concurrency
        self.connection_limit: ConnectionLimit | None = None
        self.limit_requests: int | None = None
        self.bad_requests = BadRequestLog()
        self.connections: set[OpenConnection] = set()
        self.running = turn.running
        self.total_requests = self.total_shed = 0
        self.is_draining = False
        self.is_ending = False
        self.is_replaced = False
        self.has_limits = http.limit_concurrency is not None or not http.timeout_keep_alive
        self.health: Health | None = None
        if config.admin.health_path is not None:
            self.health = Health(config.admin.health_path, self.root_path, self.is_leaving)
            self.has_limits = True
        self.start = turn.start
        self.turn = turn
        self.on_limit_requests: Callable[[], None] = _nothing
        self.on_connection_lost: Callable[[], None] = _nothing
        self.on_swept: Callable[[], None] = _nothing
        self.now = self.loop.time()
        self.awake_s = self.keep_alive_deadline = 0.0
        self.tick()

    def tick(self) -> None:
        """Take the time, for deadlines and for Date."""
        now = self.loop.time()
        self.awake_s += min(now - self.now, self.sweep_s)
        self.now = now
        self.keep_alive_deadline = self.deadline_in(self.timeouts.keep_alive_s)
        date = formatdate(time.time(), usegmt=True).encode("ascii")
        self.defaults.set_date(date)
        self.http2_defaults.set_date(date)

    def admits(self) -> bool:
        """Whether one more request may run: ``--limit-concurrency``."""
        return self.limit_concurrency is None or len(self.running) < self.limit_concurrency

    def is_leaving(self) -> bool:
        """Whether clients should go elsewhere: a drain, unless another process serves on in our place."""
        return self.is_draining and not self.is_replaced

    def probe(self, stream: Stream, scope: dict[str, Any], event: RequestReceived) -> Probe | None:
        """The exchange of a request for ``--health-path``, None for every other request."""
        if self.health is None or not self.health.is_probe(scope):
            return None
        return Probe(self.health, stream, scope, event)

    def is_last(self) -> bool:
        """Whether no request may follow the one just counted: a drain, ``--limit-max-requests``."""
        if self.is_draining or not self.timeouts.keep_alive_s:
            return True
        if self.limit_requests is not None and self.total_requests >= self.limit_requests:
            self.on_limit_requests()
            return True
        return False

    def deadline_in(self, timeout_s: float) -> float:
        """The time, not before ``timeout_s`` from now, at which a sweep should act; 0.0 for no timeout."""
        return self.now + self.sweep_s + timeout_s if timeout_s else 0.0


def serves_http2(options: HTTPOptions) -> bool:
    """Whether connections may speak HTTP/2: by default where the package for it is installed."""
    return options.http2 is not False and http2.is_available


def _nothing() -> None:
    pass
