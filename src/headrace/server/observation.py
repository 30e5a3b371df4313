"""What one server tells of itself: who is told of finished exchanges, and what the layers need for it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.config import Config
from headrace.config.rules import metrics_buckets
from headrace.errors import ConfigError
from headrace.middleware.tracing import start_tracing
from headrace.middleware.websocket_limit import WebSocketLimit
from headrace.telemetry import AccessLog, Sampling
from headrace.telemetry.exchange import Consumer
from headrace.telemetry.log_context import attach_context
from headrace.telemetry.logs import lend_handlers
from headrace.telemetry.metrics.bridge import install_bridge
from headrace.telemetry.metrics.http import HTTPMetrics
from headrace.telemetry.metrics.registry import Registry, process_registry, use_registry
from headrace.telemetry.route import learn_routes
from headrace.telemetry.tracing import current_ids, missing_sentence, wants_tracing
from headrace.types import ASGIApplication

if TYPE_CHECKING:
    from headrace.telemetry.tracing.tracer import RequestTracer


CLOSE_S = 5.0
"""How long the last spans may take when the server stops; a collector may be away."""

RELOAD_CLOSE_S = 0.5
"""The same where somebody waits for the next version of what he has just saved."""

_counting: weakref.WeakSet[Observation] = weakref.WeakSet()
"""Servers of this process that have metrics now."""

_logger = logging.getLogger("uvicorn.error")


class Observation:
    """Access log, metrics and tracing of one server.

    Made before the application is imported, so that what it counts itself stands beside what is counted
    here; ``begin`` follows when the application has started, and has had its say about logging and tracing.

    Args:
        config: says which of them are on.
        registry: keeps the figures; None for one of this process alone. Without metrics it is not used.
        worker_id: the worker's place, None without a supervisor.

    Attributes:
        registry: None without metrics.
        http: what counts requests; None without metrics.
        tracer: None without tracing, and before ``begin``.
        websocket_limit: the layer, where it is on.
        worker_id: as given.

    Raises:
        ConfigError: the access log's format is wrong, or tracing is asked for and a package is missing.
    """

    def __init__(self, config: Config, registry: Registry | None, worker_id: int | None) -> None:
        self.registry: Registry | None = None
        self.tracer: RequestTracer | None = None
        self._config = config
        self.worker_id = worker_id
        self._access_log = _access_log(config, worker_id)
        self._detach: Callable[[], None] = _nothing
        self._take_handlers_back: Callable[[], None] = _nothing
        self.http: HTTPMetrics | None = None
        self.websocket_limit: WebSocketLimit | None = None
        stack = config.stack
        if stack.has("metrics"):
            self.registry = registry or _registry_for(stack.metrics_max_series)
            use_registry(self.registry)
            install_bridge(self.registry, stack.metrics_preset)
            try:
                self.http = HTTPMetrics(
                    self.registry, preset=stack.metrics_preset, buckets=metrics_buckets(config)
                )
            except ValueError as error:
                raise ConfigError(
                    f"Another server of this process counts in another way ({error}): give both the same "
                    "--metrics-preset and --metrics-buckets."
                ) from error
            _counting.add(self)
        if stack.has("request_id") or stack.has("tracing"):
            # Before the application makes loggers of its own.
            self._detach = attach_context(current_ids if stack.has("tracing") else None)
        sentence = missing_sentence(os.environ) if stack.tracing else None
        if sentence is not None:
            raise ConfigError(sentence)

    def begin(self, application: ASGIApplication, name: str) -> None:
        """The application has started.

        Args:
            application: as it was imported.
            name: what it was found as, ``main:app``.

        Raises:
            ConfigError: an OTEL_* variable asks for what cannot be had.
        """
        if self._is_traced():
            self._take_handlers_back = lend_handlers("opentelemetry")
            self.tracer = start_tracing(
                application,
                service_name=name.partition(":")[0],
                worker=self.worker_id,
                close_s=RELOAD_CLOSE_S if self._config.process.reload else CLOSE_S,
            )
        if self.consumers():
            learn_routes(application)

    def consumers(self) -> tuple[Consumer, ...]:
        """Who is told of each finished exchange."""
        consumers: list[Consumer] = []
        if self._access_log is not None and self._access_log.enabled:
            consumers.append(self._access_log)
        if self.http is not None:
            consumers.append(self.http)
        if self.tracer is not None:
            consumers.append(self.tracer.consumer)
        return tuple(consumers)

    async def close(self) -> None:
        """Write what waits, and send the last spans, which may take ``CLOSE_S``."""
        for consumer in (self._access_log, self.http):
            if consumer is not None:
                consumer.close()
        if self.tracer is not None:
            # The loop goes on: somebody may ask whether it lives. The loop's own threads may all be taken by
            # work of the application's that does not end.
            await _in_own_thread(self.tracer.consumer.close)
        self._detach()
        self._take_handlers_back()
        _counting.discard(self)

    def _is_traced(self) -> bool:
        stack = self._config.stack
        if not wants_tracing(stack.tracing, stack.stack, os.environ):
            return False
        sentence = None if stack.tracing else missing_sentence(os.environ)
        if sentence is not None:
            _logger.warning("Requests are not traced. %s", sentence)
        return sentence is None


def _registry_for(max_series: int) -> Registry:
    """A registry for a server without a supervisor: one for all that run at a time in a process, whose page
    and whose application's metrics are one as well."""
    return process_registry() if _counting else Registry(max_series=max_series)


def _access_log(config: Config, worker_id: int | None) -> AccessLog | None:
    log = config.log
    if not log.access_log:
        return None
    sampling = Sampling(log.access_log_sample, slow_s=log.access_log_slow, skip=log.access_log_skip)
    return AccessLog(log.access_log_format, sampling=sampling, worker=worker_id)


async def _in_own_thread(function: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        try:
            function()
        finally:
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="headrace-last-spans", daemon=True).start()
    await done.wait()


def _nothing() -> None:
    pass
