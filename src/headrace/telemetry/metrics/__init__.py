"""Metrics: figures that a process writes into shared memory, merged and shown without asking it.

In: finished exchanges (``http.HTTPMetrics``), WebSocket messages (``websocket.WebSocketMetrics``), handles of
a ``registry.Registry``. Out: text for Prometheus (``exposition.render``), merged (``merge.Merged``).
Called by ``middleware.metrics`` and ``server``, which write, ``supervisor``, which merges, ``admin``.
Standards: Prometheus text format 0.0.4, OpenMetrics 1.0, OpenTelemetry's HTTP metrics for one of the presets.
Tests: ``tests/telemetry/metrics/``.
"""
