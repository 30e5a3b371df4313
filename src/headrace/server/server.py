"""A worker's server: start, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any

from headrace.asgi.importer import find_application, load_application
from headrace.asgi.lifespan import Lifespan
from headrace.config import Config
from headrace.errors import ConfigError, WorkerError
from headrace.middleware.trusted_proxies import TrustedProxies, warnings
from headrace.net import systemd
from headrace.net.addresses import addresses_of
from headrace.net.tls import TLSContexts, is_tls_wanted
from headrace.server.connection import HTTPConnection
from headrace.server.connection_limit import ConnectionLimit
from headrace.server.drain import Drain
from headrace.server.leadership import Leadership, current_leadership
from headrace.server.listening import Factory, Listeners
from headrace.server.observation import Observation
from headrace.server.proxied import ProxiedConnection
from headrace.server.runtime import Runtime, serves_http2
from headrace.server.seat import Cause, Reason, Seat
from headrace.server.server_metrics import ServerMetrics
from headrace.server.stack import build_stack
from headrace.server.sweep import Sweep
from headrace.server.turn import Turn
from headrace.types import ASGIApplication

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))

YOUNG_OBJECTS = 2_000
"""How many more there must be than at the last collection for the next. A request under way holds a dozen, so
CPython's 700 would have each burst of streams walked through ten times: 5 % of HTTP/2's CPU (as below)."""

_logger = logging.getLogger("uvicorn.error")


class Server:
    """Serves one application in one process.

    The attributes are those of ``uvicorn.Server`` that others use. ``handle_exit`` is installed with
    ``signal.signal`` as a bound method of an object with ``should_exit``: that is how sse-starlette learns of
    a stop.

    Args:
        config: resolved.
        seat: for a worker of a supervisor.

    Attributes:
        config: what it was made from.
        started: listeners accept.
        force_exit: stop without waiting.
        servers: asyncio's servers.
        captured_signals: numbers, in the order they came.
    """

    def __init__(self, config: Config, seat: Seat | None = None) -> None:
        self.config = config
        self._seat = seat
        self._graceful_s = config.process.timeout_graceful_shutdown
        self._is_replaced = False
        self._is_retired = False
        self.started = False
        self.force_exit = False
        self._should_exit = False
        self._forced = asyncio.Event()
        self._wake: Any = None
        self.captured_signals: list[int] = []
        self._listeners: Listeners | None = None
        self._runtime: Runtime | None = None
        self._lifespan: Lifespan | None = None
        self._sweep: Sweep | None = None
        self._drain: Drain | None = None
        self._tls: TLSContexts | None = None
        self._observation: Observation | None = None
        self._metrics: ServerMetrics | None = None

    # What others may read and set

    @property
    def should_exit(self) -> bool:
        """Set it to stop the server; it drains."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        if self._wake is not None:
            # Also from a signal handler or another thread: the loop may be asleep.
            with contextlib.suppress(RuntimeError):
                self._wake()

    @property
    def servers(self) -> list[asyncio.AbstractServer]:
        """asyncio's servers that accept at the moment."""
        return self._listeners.servers if self._listeners is not None else []

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets."""
        return self._listeners.sockets if self._listeners is not None else []

    @property
    def port(self) -> int:
        """The port of the first TCP listener.

        Raises:
            WorkerError: there is none.
        """
        for sock in self.sockets:
            name = sock.getsockname()
            if isinstance(name, tuple):
                return int(name[1])
        raise WorkerError("The server has no TCP listener")

    @property
    def announcements(self) -> list[str]:
        """Where each listener is; empty before the start."""
        return self._listeners.announcements if self._listeners is not None else []

    @property
    def url(self) -> str:
        """Where the first listener is: ``http://127.0.0.1:8000``."""
        return self._listeners.announcements[0] if self._listeners is not None else ""

    @property
    def has_started(self) -> bool:
        """Whether there is a ``runtime``; it outlives the stop."""
        return self._runtime is not None

    @property
    def runtime(self) -> Runtime:
        """The books of the running server."""
        if self._runtime is None:
            raise WorkerError("The server has not been started")
        return self._runtime

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: the first drains, the second forces.

        A worker's stop is its supervisor's business, which may well be sent the same signal: it asks to be
        replaced, and serves on until it is told to drain.
        """
        self.captured_signals.append(sig)
        if self._seat is not None and self.started:
            # Not from within a signal's handler.
            reason = Reason(Cause.SIGNAL, f"it was sent {signal.Signals(sig).name}")
            self.runtime.loop.call_soon_threadsafe(self.retire, reason)
            return
        if self._seat is not None:
            # It starts or it drains.
            self.should_exit = True
            return
        if self._should_exit:
            self.force_exit = True
        self.should_exit = True

    def drain(self, graceful_s: float | None, is_replaced: bool = False) -> None:
        """Stop, or go on stopping under other terms.

        Args:
            graceful_s: how long running requests may take; None waits for ever.
            is_replaced: another process serves on: idle connections may be used once more.
        """
        self._graceful_s = graceful_s
        self._is_replaced = is_replaced
        if self._drain is not None:
            self._drain.hasten(graceful_s, is_replaced)
        self.should_exit = True

    # Its life

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, serve until ``should_exit`` or a signal, and stop.

        Args:
            sockets: listening sockets in place of the configured ones; they stay the caller's.

        Raises:
            HeadraceError: it could not start.
        """
        with self.capture_signals():
            await self.serve_until_exit(sockets)
        for sig in reversed(self.captured_signals):
            # As uvicorn: the process ends by the signal that it was sent.
            signal.raise_signal(sig)

    async def start(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the application, start it, bind and accept; not to the end once ``should_exit`` is set."""
        self._wake = None
        config = self.config
        # Before the application is imported: what it counts itself stands beside what is counted here.
        seat = self._seat
        observation = self._observation = Observation(
            config, None if seat is None else seat.metrics, None if seat is None else seat.worker_id
        )
        found = find_application(config.application.app, config.application.app_dir)
        application = load_application(found, config.application.factory, config.application.interface)
        tls = self._tls = (
            TLSContexts(config.tls, config=config, alpn=_alpn(config)) if is_tls_wanted(config.tls) else None
        )
        if tls is not None and config.listen.proxy_protocol:
            raise ConfigError("--proxy-protocol and TLS exclude each other: let the proxy end TLS")
        for warning in warnings(config.proxy.forwarded_allow_ips) if config.proxy.proxy_headers else ():
            _logger.warning("%s", warning)
        # What can be wrong without the application is found before it is started.
        addresses_of(config.listen)
        _logger.info("Started server process [%d]", os.getpid())
        leadership = Leadership(True) if self._seat is None else self._seat.leadership
        current_leadership.set(leadership)
        # Tasks of requests start from the context that was current here: nothing that the lifespan, another
        # request or a connection's callback sets is seen in them.
        context = contextvars.copy_context()
        lifespan = self._lifespan = Lifespan(
            application,
            config.application.lifespan,
            config.application.timeout_startup or None,
            config.application.timeout_shutdown or None,
        )
        lifespan.state["headrace.leader"] = leadership
        # A signal that comes before the application has started ends the start.
        self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, lifespan.give_up)
        if self._should_exit or not await lifespan.startup():
            return
        try:
            if self._seat is not None:
                sockets = self._seat.sockets
            await self._listen(application, found.name, observation, lifespan, context, sockets)
        except BaseException:
            await lifespan.shutdown()
            raise

    async def stop(self) -> None:
        """Drain, stop the application, write the last lines."""
        runtime = self.runtime
        assert self._listeners is not None
        assert self._lifespan is not None
        assert self._sweep is not None
        self.started = False
        if self._seat is None:
            systemd.notify("STOPPING=1")
        _logger.info("Shutting down")
        runtime.is_draining = runtime.has_limits = True
        runtime.is_replaced = self._is_replaced
        drain = self._drain = Drain(runtime, self._graceful_s, lambda: self.force_exit)
        # Where another accepts from the same sockets nobody needs to notice.
        is_awaited = self._is_replaced or self.config.process.reload
        await self._keep_accepting(0.0 if is_awaited else self.config.process.drain_delay)
        if runtime.connection_limit is not None:
            await runtime.connection_limit.close()
        self._listeners.close()
        await self._listeners.settle()
        await drain.run()
        if not self.force_exit:
            await self._lifespan.shutdown()
        self._sweep.stop()
        assert self._observation is not None
        assert self._metrics is not None
        self._metrics.stop()
        await self._observation.close()
        _logger.info("Finished server process [%d]", os.getpid())

    # Within

    async def serve_until_exit(
        self, sockets: list[socket.socket] | None = None, owns_process: bool = False
    ) -> None:
        """``serve`` without the signals.

        Args:
            sockets: as of ``serve``.
            owns_process: nothing but this server runs in the process, so what is there when it has started
                stays until the end.
        """
        try:
            await self.start(sockets)
            if owns_process:
                _spare_the_collector()
            await self.wait_should_exit()
        finally:
            if self._runtime is not None:
                await self.stop()

    async def wait_should_exit(self) -> None:
        """Wait until somebody sets ``should_exit``."""
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        self._wake = partial(loop.call_soon_threadsafe, woken.set)
        if not self._should_exit:
            await woken.wait()
        self._wake = partial(loop.call_soon_threadsafe, self._look_again)
        # A second signal may have come before this one could be taken.
        self._look_again()

    def _look_again(self) -> None:
        if self.force_exit:
            self._forced.set()
        if self._drain is not None:
            self._drain.wake()

    async def _listen(
        self,
        application: ASGIApplication,
        name: str,
        observation: Observation,
        lifespan: Lifespan,
        context: contextvars.Context,
        sockets: list[socket.socket] | None,
    ) -> None:
        config = self.config
        tls = self._tls
        observation.begin(application, name)
        stack = build_stack(config, application, observation)
        turn = Turn(asyncio.get_running_loop(), context, stack.variables)
        slot = None if self._seat is None else self._seat.board_slot
        listeners = Listeners(config.listen, "http" if tls is None else "https", sockets, slot)
        try:
            runtime = Runtime(config, stack, lifespan.state, turn)
            runtime.limit_requests = _limit_requests(config)
            runtime.has_limits |= runtime.limit_requests is not None
            runtime.on_limit_requests = self._on_limit_requests
            if config.listen.limit_connections is not None:
                runtime.connection_limit = ConnectionLimit(
                    config.listen.limit_connections, listeners.pause, listeners.resume
                )
            self._sweep = Sweep(runtime, listeners, tls, config.tls.ssl_reload_interval)
            await listeners.accept(
                self._factory(runtime),
                None if tls is None else tls.context,
                runtime.connections.__len__,
            )
        except BaseException:
            listeners.close()
            raise
        self._sweep.start()
        self._metrics = ServerMetrics(observation, runtime)
        self._listeners = listeners
        self._runtime = runtime
        self.started = True
        if self._seat is not None:
            # The supervisor says where, once for all.
            self._seat.on_ready()
            return
        for announcement in listeners.announcements:
            _logger.info("Uvicorn running on %s (Press CTRL+C to quit)", announcement)
        systemd.notify("READY=1")

    def _factory(self, runtime: Runtime) -> Factory:
        if not self.config.listen.proxy_protocol:
            return partial(HTTPConnection, runtime)
        return partial(ProxiedConnection, runtime, TrustedProxies(self.config.proxy.forwarded_allow_ips))

    def retire(self, reason: Reason) -> None:
        """Ask to be replaced, once; without a supervisor that is a stop."""
        if self._seat is None:
            self.should_exit = True
        elif not self._is_retired and not self._should_exit:
            self._is_retired = True
            self._seat.on_retire(reason)

    def _on_limit_requests(self) -> None:
        if self._seat is not None:
            self.retire(Reason(Cause.REQUESTS, f"it has served {self.runtime.limit_requests} requests"))
            return
        if not self._should_exit:
            _logger.warning(
                "Maximum request limit of %d exceeded. Terminating process.", self.runtime.limit_requests
            )
        self.should_exit = True

    async def _keep_accepting(self, delay_s: float) -> None:
        """Give a load balancer time to notice; and take in what the kernel has queued already."""
        # Not ``asyncio.timeout``: before 3.11.3 it ends as a cancellation in a task that has been cancelled,
        # as that which serves may have been; and the listeners would stay open.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._forced.wait(), delay_s)
        for _ in range(3):
            await asyncio.sleep(0)

    @contextlib.contextmanager
    def capture_signals(self, signals: tuple[signal.Signals, ...] = SIGNALS) -> Iterator[None]:
        """Take the stop signals while the server lives; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in signals}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def _alpn(config: Config) -> tuple[str, ...]:
    """The protocols that TLS offers, the preferred one first. RFC 7301."""
    return ("h2", "http/1.1") if serves_http2(config.http) else ("http/1.1",)


def _limit_requests(config: Config) -> int | None:
    limit = config.process.limit_max_requests
    if limit is None:
        return None
    return limit + random.randint(0, config.process.limit_max_requests_jitter)


def _spare_the_collector() -> None:
    """Have it look only at what comes from now on, and not with each few requests.

    Else it walks through all modules again and again, because what hundreds of requests under way hold looks
    to it like growth: 27 ms each time, a fifth of HTTP/2's CPU (CPython 3.11, 512 streams, 2026-11).
    """
    gc.collect()
    gc.freeze()
    young, *older = gc.get_threshold()
    if 0 < young < YOUNG_OBJECTS:  # else the application has chosen, or turned it off
        gc.set_threshold(YOUNG_OBJECTS, *older)
