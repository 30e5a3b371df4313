"""The application's own ``prometheus_client`` metrics: their values are kept in a registry of ours.

``prometheus_client`` keeps each number in an object of ``values.ValueClass``; its own mode for several processes
puts a class there whose numbers stand in files. Ours puts one there whose numbers stand in the registry's store,
where whoever merges the figures of all workers finds them. ``generate_latest`` goes on working, with the numbers
of its process. Nothing of ``prometheus_client`` is imported unless the application does it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Collection, Sequence
from types import ModuleType
from typing import Any

from headrace.telemetry.metrics import loop, process, server, websocket
from headrace.telemetry.metrics.collectors import copy_collected
from headrace.telemetry.metrics.family import Family, Kind, Merge, legal_name
from headrace.telemetry.metrics.presets import choose_preset
from headrace.telemetry.metrics.registry import DROPPED, Registry

MODULE = "prometheus_client.values"

MULTIPROCESS_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")

_KINDS = {kind.value: kind for kind in Kind}
_logger = logging.getLogger("uvicorn.error")


class Bridge:
    """Gives ``prometheus_client`` its values.

    Args:
        registry: keeps the numbers.
        reserved: names of metrics that are headrace's own.
    """

    def __init__(self, registry: Registry, reserved: Collection[str] = ()) -> None:
        self.registry = registry
        self.reserved = frozenset(reserved)
        self._private: type[Any] = object
        self._warned: set[str] = set()

    def install(self) -> None:
        """Be there when ``prometheus_client`` is imported; what it has already is taken over."""
        module = sys.modules.get(MODULE)
        if module is not None:
            self._take_over(module)
        elif not any(isinstance(finder, _Hook) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Hook())

    def adopt(self, module: ModuleType) -> None:
        """Put our class into ``prometheus_client.values``, unless its own mode for several processes is on."""
        if module.ValueClass is not module.MutexValue:
            _logger.warning(
                "The application's prometheus_client metrics stay in the folder of %s, and are not on headrace's "
                "page; without that variable they are.",
                MULTIPROCESS_VARIABLES[0],
            )
            return
        self._private = module.MutexValue
        module.ValueClass = self.value  # type: ignore[attr-defined]

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
            if metric_name in self.reserved:
                raise ValueError("it is the name of one of headrace's")
            merge = Merge(multiprocess_mode) if kind == "gauge" else Merge.SUM
            family = Family(
                legal_name(metric_name),
                _KINDS[kind],
                help_text,
                tuple(label.replace(":", "_") for label in map(legal_name, labels)),
                merge=merge,
                in_samples=True,
            )
            sample = self.registry.samples(family).labels(part, *values)
        except (ValueError, KeyError) as error:
            self._warn(metric_name, error)
            return self._private(
                kind, metric_name, name, label_names, label_values, help_text, **others
            )
        return Value(sample)

    def _warn(self, name: str, error: Exception) -> None:
        if name not in self._warned:
            self._warned.add(name)
            _logger.warning(
                "The application's metric %.80s is not on headrace's page: %s.", name, str(error).rstrip(".")
            )

    def _take_over(self, module: ModuleType) -> None:
        self.adopt(module)
        if module.ValueClass == self.value:
            for metric in _metrics_of(sys.modules["prometheus_client"]):
                _renew_values(metric, (module.MutexValue, Value))
