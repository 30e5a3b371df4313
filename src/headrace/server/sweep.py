"""What is done now and then for all connections: deadlines, the Date field, what consumers of
exchanges hold, certificates.

No timer is made for a request: a connection notes what it waits for and until when, and a sweep looks.
"""

from __future__ import annotations

import asyncio
import logging

from headrace.errors import ConfigError
from headrace.net.tls import TLSContexts
from headrace.server.listening import Listeners
from headrace.server.runtime import Runtime

FLUSH_S = 0.1

_logger = logging.getLogger("uvicorn.error")


class Sweep:
    """Runs every ``runtime.sweep_s`` seconds, and flushes the consumers of exchanges more often."""

    def __init__(
        self, runtime: Runtime, listeners: Listeners, tls: TLSContexts | None, tls_interval_s: float
    ) -> None:
        self._runtime = runtime
        self._listeners = listeners
        self._tls = tls
        self._tls_interval_s = tls_interval_s
        self._tls_due = runtime.now + tls_interval_s
        self._timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""
        loop = self._runtime.loop
        self._timer = loop.call_later(self._runtime.sweep_s, self._sweep)
        if self._runtime.consumers:
            self._flush_timer = loop.call_later(FLUSH_S, self._flush)

    def stop(self) -> None:
        """End."""
        for timer in (self._timer, self._flush_timer):
            if timer is not None:
                timer.cancel()

    def _sweep(self) -> None:
        runtime = self._runtime
        self._timer = runtime.loop.call_later(runtime.sweep_s, self._sweep)
        runtime.tick()
        runtime.bad_requests.sweep()
        for connection in list(runtime.connections):
            connection.on_sweep(runtime.now)
        runtime.on_swept()
        if self._tls is not None and self._tls_interval_s and runtime.now >= self._tls_due:
            self._tls_due = runtime.now + self._tls_interval_s
            self._reload_certificates(self._tls)

    def _flush(self) -> None:
        self._flush_timer = self._runtime.loop.call_later(FLUSH_S, self._flush)
        for consumer in self._runtime.consumers:
            consumer.flush()

    def _reload_certificates(self, tls: TLSContexts) -> None:
        try:
            changed = tls.reload_if_changed()
        except ConfigError as error:
            _logger.error("The old certificates stay: %s", error)
            return
        if changed:
            _logger.info("Certificates reloaded: %s", ", ".join(changed))
