"""The application's own ``prometheus_client`` metrics: their values are kept in a registry of ours.

``prometheus_client`` keeps each number in an object of ``values.ValueClass``; its own mode for several
processes puts a class there whose numbers stand in files. Those of ours stand in the registry's store,
where whoever merges the figures of all workers finds them. ``generate_latest`` goes on working, with the
numbers of its process. Nothing of ``prometheus_client`` is imported unless the application does it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

from headrace.telemetry.metrics import loop, process, server, websocket
from headrace.telemetry.metrics.build import BUILD
from headrace.telemetry.metrics.collectors import Collectors
from headrace.telemetry.metrics.family import Family, Kind, Merge, legal_name
from headrace.telemetry.metrics.presets import choose_preset
from headrace.telemetry.metrics.registry import DROPPED, Registry, SampleSet
from headrace.telemetry.metrics.series import Sample

MODULE = "prometheus_client.values"

_OWN = (
    BUILD, DROPPED, server.CONNECTIONS, server.SHED, server.LIMITED, websocket.SESSIONS, websocket.MESSAGES,
    websocket.CLOSES, websocket.DURATION, *process.FAMILIES, *loop.FAMILIES,
)  # fmt: skip
"""Metrics of headrace's that no preset renames."""

_logger = logging.getLogger("uvicorn.error")


class Bridge:
    """Gives ``prometheus_client`` its values.

    Args:
        registry: keeps the numbers.
        reserved: names of metrics that are headrace's own.
    """

    def __init__(self, registry: Registry, reserved: Collection[str] = ()) -> None:
        self._registry = registry
        self._reserved = frozenset(reserved)
        self._private: Any = None
        self._warned: set[str] = set()
        self._collectors = Collectors(registry, self._reserved)

    def install(self) -> None:
        """Be there when ``prometheus_client`` is imported; what it has already is taken over."""
        module = sys.modules.get(MODULE)
        if module is None:
            sys.meta_path.insert(0, _Hook(self))
        elif self.enter(module):
            # Some are there already: the application was made before it was handed to us.
            _renew_all(module)

    def use(self, registry: Registry, reserved: Collection[str]) -> None:
        """Go on in another registry, with the numbers there are."""
        if registry is self._registry:
            return
        self._registry, self._reserved = registry, frozenset(reserved)
        self._collectors = Collectors(registry, self._reserved)
        if self._private is not None:
            _renew_all(sys.modules[MODULE])

    def enter(self, module: ModuleType) -> bool:
        """Take the place of the class in ``prometheus_client.values``, unless its own mode for several
        processes is on; gives whether it is so."""
        if module.ValueClass is not module.MutexValue:
            _logger.warning(
                "PROMETHEUS_MULTIPROC_DIR is set: the application's prometheus_client metrics are written "
                "there, and are not on headrace's page."
            )
            return False
        self._private = module.MutexValue
        module.ValueClass = self.value  # type: ignore[attr-defined]
        return True

    def value(
        self,
        kind: str,
        metric_name: str,
        name: str,
        label_names: Sequence[str],
        label_values: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "all",
        **others: Any,
    ) -> Any:
        """A new value, or one more on the same number; the parameters are ``prometheus_client``'s.

        What cannot be kept in the registry stays in the process, as without a bridge.
        """
        part, labels, values = name.removeprefix(metric_name), tuple(label_names), tuple(label_values)
        if part == "_bucket":
            part, labels, values = f"le={values[-1]}", labels[:-1], values[:-1]
        try:
            merge = Merge(multiprocess_mode) if kind == Kind.GAUGE else Merge.SUM
            names = tuple(legal_name(label).replace(":", "_") for label in labels)
            family = Family(
                legal_name(metric_name), Kind(kind), help_text, names, merge=merge, in_samples=True
            )
            if self._reserved & family.line_names:
                raise ValueError("headrace has one of that name itself")
            samples = self._registry.samples(family)
            sample = samples.hold(part, *values)
        except ValueError as error:
            self._warn(metric_name, error)
            return self._private(kind, metric_name, name, label_names, label_values, help_text, **others)
        return GaugeValue(sample, samples) if kind == Kind.GAUGE else Value(sample)

    async def refresh(self, timeout_s: float) -> bool:
        """Ask what has no values; see ``Collectors.refresh``."""
        return self._private is not None and await self._collectors.refresh(timeout_s)

    def _warn(self, name: str, error: Exception) -> None:
        if name not in self._warned:
            self._warned.add(name)
            _logger.warning(
                "The application's metric %.80s is not on headrace's page: %s.", name, str(error).rstrip(".")
            )


class Value:
    """One number, as ``prometheus_client`` uses it.

    It has a number of its own, which nobody else changes: the same metric may be there twice, in two
    ``CollectorRegistry``. In the store stands what all of them have counted.

    Args:
        sample: where it stands.
    """

    __slots__ = ("_exemplar", "_own", "_sample")

    _multiprocess = False

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._own = 0.0
        self._exemplar: Any = None

    def inc(self, amount: float) -> None:
        """Add, or with a negative amount take away."""
        sample = self._sample
        with sample.lock:
            self._own += amount
            sample.values[0] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Replace it; ``timestamp`` is Unix time."""
        with self._sample.lock:
            self._sample.values[0] += value - self._own
            self._own = value

    def get(self) -> float:
        """The number."""
        return self._own

    def set_exemplar(self, exemplar: Any) -> None:
        """Keep it for ``generate_latest``; the page of all workers has none of the application's."""
        self._exemplar = exemplar

    def get_exemplar(self) -> Any:
        """The latest."""
        return self._exemplar


class GaugeValue(Value):
    """The number of a gauge; of several on one series the page has what was said last.

    With its last user the series goes from the page: the application has removed it. What a counter or a
    histogram has counted stays, as a counter must not fall.

    Args:
        sample: where it stands.
        samples: to which it is given back.
    """

    __slots__ = ("_samples",)

    def __init__(self, sample: Sample, samples: SampleSet) -> None:
        super().__init__(sample)
        self._samples = samples

    def inc(self, amount: float) -> None:
        """Add, or with a negative amount take away."""
        sample = self._sample
        with sample.lock:
            self._own += amount
            sample.values[0] = self._own

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Replace it; ``timestamp`` is Unix time."""
        self._own = value
        self._sample.set(value, timestamp)

    def __del__(self) -> None:
        # At the end of the process everything is removed, and the last figures may be wanted still.
        if not sys.is_finalizing():
            self._samples.release(self._sample)


_installed: list[Bridge] = []


def install_bridge(registry: Registry, preset: str) -> None:
    """Keep the application's ``prometheus_client`` metrics in a registry, from now on.

    Best before the application is imported. What it has declared by then in ``prometheus_client.REGISTRY`` is
    taken over all the same. Again with another registry moves them there.

    Args:
        registry: for the numbers.
        preset: of ``presets.PRESETS``: its names are not the application's to use.
    """
    reserved = headrace_names(preset)
    if _installed:
        _installed[0].use(registry, reserved)
    else:
        _installed.append(Bridge(registry, reserved))
        _installed[0].install()


async def refresh_collected(timeout_s: float) -> bool:
    """Have the figures of the application's collectors as they are now; see ``Collectors.refresh``.

    Args:
        timeout_s: comes back after so long; who is late is shown on the next page.
    """
    return bool(_installed) and await _installed[0].refresh(timeout_s)


def headrace_names(preset: str) -> frozenset[str]:
    """Names of metrics that are headrace's own, and of their lines."""
    chosen = choose_preset(preset)
    http = [chosen.in_flight, *(row.family for row in chosen.rows)]
    return frozenset().union(*(family.line_names for family in (*http, *_OWN)))


class _Hook(importlib.abc.MetaPathFinder):
    """Lets a bridge in when ``prometheus_client.values`` has been executed, and nobody has used it."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as it would be found without us, once."""
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._bridge)
        return spec


class _Loader(importlib.abc.Loader):
    """A module's loader, and what follows it."""

    def __init__(self, loader: importlib.abc.Loader, bridge: Bridge) -> None:
        self._loader = loader
        self._bridge = bridge

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, and let the bridge in."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._bridge.enter(module)


def _renew_all(module: ModuleType) -> None:
    """Have all metrics of ``prometheus_client.REGISTRY`` make their values anew, and keep the numbers."""
    registry = sys.modules["prometheus_client.registry"].REGISTRY
    for collector in list(registry._collector_to_names):
        if getattr(collector, "_type", None) in list(Kind):
            for metric in (collector, *getattr(collector, "_metrics", {}).values()):
                _renew(metric, (module.MutexValue, Value))


def _renew(metric: Any, types: tuple[type, ...]) -> None:
    before = {
        name: list(_values_in(metric, name, types)) for name in ("_value", "_sum", "_count", "_buckets")
    }
    if not any(before.values()):
        return  # its children have them
    created = vars(metric).get("_created")
    metric._metric_init()
    if created is not None:
        metric._created = created
    for name, values in before.items():
        for old, new in zip(values, _values_in(metric, name, types), strict=True):
            new.set(old.get(), timestamp=time.time())


def _values_in(metric: Any, name: str, types: tuple[type, ...]) -> Iterator[Any]:
    found = vars(metric).get(name)
    values: Iterable[Any] = found if isinstance(found, list) else (found,)
    return (value for value in values if isinstance(value, types))
