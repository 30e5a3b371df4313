"""``prometheus_client`` with a bridge of one test's own."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, registry, values

from headrace.telemetry.metrics.bridge import Bridge
from headrace.telemetry.metrics.exposition import render
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.registry import Registry


class Own:
    """A bridge, and what is declared behind it.

    Attributes:
        client: what metrics are registered in; it stands in for ``prometheus_client.REGISTRY``.
        registry: that the bridge writes.
    """

    def __init__(self) -> None:
        self.client = CollectorRegistry(auto_describe=True)
        self.registry = Registry()
        self.bridge = Bridge(self.registry, {"http_requests"})

    def page(self, *registries: Registry) -> list[str]:
        """Lines of the page of all registries, headrace's own left out."""
        merged = Merged()
        for one in registries or (self.registry,):
            merged.attach(one.store)
        lines = "".join(render(merged)).splitlines()
        return [line for line in lines if not line.startswith(("#", "headrace_"))]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Own:
    """As if ``prometheus_client`` had just been imported, and a bridge had been let in."""
    monkeypatch.setattr(values, "ValueClass", values.MutexValue)
    made = Own()
    monkeypatch.setattr(registry, "REGISTRY", made.client)
    return made
