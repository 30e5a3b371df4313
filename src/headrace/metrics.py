"""The page of metrics inside an application: ``app.mount("/metrics", headrace.metrics.asgi_app())``."""

from __future__ import annotations

from headrace.middleware.metrics_page import MetricsPage

__all__ = ["asgi_app"]


def asgi_app() -> MetricsPage:
    """An ASGI application that answers GET with all metrics, for Prometheus.

    Behind headrace with ``--metrics`` these are the figures of all workers, and the application's own
    ``prometheus_client`` metrics among them. Under another server they are those of
    ``headrace.middleware.metrics.Metrics`` in this process. Text 0.0.4, or OpenMetrics 1.0 for who
    prefers it.

    Mounted at ``/metrics`` in an application of Starlette or FastAPI it answers there and at ``/metrics/``
    under headrace. Under another server Starlette redirects from the one to the other: there say
    ``app.add_route("/metrics", asgi_app())``, which works everywhere.

    It asks for no password: leave it to the application who may see it, or use the control surface's
    ``/metrics``.
    """
    return MetricsPage()
