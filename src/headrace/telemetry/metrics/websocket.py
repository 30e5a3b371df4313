"""The figures of WebSocket sessions: how many are open, their messages, how long they last, how they end."""

from __future__ import annotations

from headrace.telemetry.metrics.family import Family, Kind, Merge
from headrace.telemetry.metrics.registry import Registry
from headrace.telemetry.metrics.series import Gauge

DURATION_BUCKETS = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)
"""Seconds, up to a day: sessions outlive requests."""

SESSIONS = Family("headrace_websocket_sessions", Kind.GAUGE, "WebSockets that are open.", merge=Merge.LIVESUM)
MESSAGES = Family(
    "headrace_websocket_messages",
    Kind.COUNTER,
    "Messages of WebSockets, received by the application and sent by it.",
    ("direction", "endpoint"),
)
CLOSES = Family(
    "headrace_websocket_closes",
    Kind.COUNTER,
    "WebSockets that have ended, by the code of RFC 6455.",
    ("code", "endpoint"),
)
DURATION = Family(
    "headrace_websocket_session_duration_seconds",
    Kind.HISTOGRAM,
    "Time from the acceptance of a WebSocket to its end.",
    ("endpoint",),
    DURATION_BUCKETS,
)


class WebSocketMetrics:
    """Declares the metrics of WebSockets, and gives the places to write. One thread uses it.

    Args:
        registry: that keeps them.
        unmatched: stands for the route of a session that has none.

    Attributes:
        sessions: the gauge of open ones.

    Raises:
        ValueError: one of the names stands for something else in the registry.
    """

    def __init__(self, registry: Registry, *, unmatched: str = "unmatched") -> None:
        self.sessions: Gauge = registry.gauge(SESSIONS).labels()
        self._messages = registry.counter(MESSAGES)
        self._closes = registry.counter(CLOSES)
        self._durations = registry.histogram(DURATION)
        self._unmatched = unmatched

    def endpoint(self, route: str | None) -> str:
        """The label for a route template."""
        return self._unmatched if route is None else route

    def messages(self, endpoint: str) -> tuple[memoryview[float], memoryview[float]]:
        """Where its messages are counted, received and sent: one number each, to be added to."""
        received = self._messages.labels("received", endpoint)
        return received.values, self._messages.labels("sent", endpoint).values

    def end(self, endpoint: str, duration_s: float, code: int, *, is_clients: bool = False) -> None:
        """Count the end of a session.

        Args:
            endpoint: its label.
            duration_s: how long it was open.
            code: RFC 6455 §7.4.
            is_clients: the client chose the code; it could choose a thousand, so those of its own make
                are one.
        """
        self._durations.labels(endpoint).observe(duration_s)
        self._closes.labels(_close_label(code, is_clients), endpoint).inc()


def _close_label(code: int, is_clients: bool) -> str:
    if is_clients and not 1000 <= code <= 1015:
        return f"{code // 1000}xxx"
    return str(code)
