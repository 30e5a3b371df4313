"""The figures of one server that are looked up once a second, as nobody counts them for a scrape."""

from __future__ import annotations

from headrace.server.observation import Observation
from headrace.server.runtime import Runtime
from headrace.telemetry.metrics.loop import LoopMetrics
from headrace.telemetry.metrics.process import SUPERVISOR, ProcessMetrics
from headrace.telemetry.metrics.server import CONNECTIONS, LIMITED, SHED


class ServerMetrics:
    """Looks at a server until ``stop``; made in its loop.

    Args:
        observation: has the registry; without one nothing is looked at.
        runtime: the server's books.
    """

    def __init__(self, observation: Observation, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loop: LoopMetrics | None = None
        registry, http = observation.registry, observation.http
        if registry is None or http is None:
            return
        worker = SUPERVISOR if observation.worker_id is None else str(observation.worker_id)
        self._in_flight = http.in_flight
        self._websocket_limit = observation.websocket_limit
        self._connections = registry.gauge(CONNECTIONS).labels()
        self._shed = registry.counter(SHED).labels("concurrency")
        self._limited = registry.counter(LIMITED).labels("websockets_per_client")
        self._process = ProcessMetrics(registry, worker)
        self._loop = LoopMetrics(registry, self._look)
        self._loop.start()

    def stop(self) -> None:
        """Look for the last time."""
        if self._loop is not None:
            self._loop.stop()

    def _look(self) -> None:
        runtime = self._runtime
        self._connections.set(len(runtime.connections))
        self._in_flight.set(len(runtime.running))
        self._shed.set_total(runtime.total_shed)
        if self._websocket_limit is not None:
            self._limited.set_total(self._websocket_limit.refused)
        self._process.sample()
