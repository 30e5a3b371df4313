"""A worker's registry of metrics, over the memory that its supervisor reads."""

from __future__ import annotations

import os

from headrace.config.options import StackOptions
from headrace.telemetry.metrics.bridge import install_bridge
from headrace.telemetry.metrics.registry import Registry, process_registry, use_registry
from headrace.telemetry.metrics.store import Store


def open_registry(fd: int, options: StackOptions, *, is_forked: bool) -> Registry:
    """Make it the registry of this process; before the application is imported, if it is not already.

    The application's own metrics are kept in it as well. A process that the application forks gets a copy of
    the numbers as they are, and counts on for itself: else two would write the same memory.

    Args:
        fd: the memory's descriptor; closed here.
        options: how many series there may be, and what names are headrace's.
        is_forked: from a template, whose registry has what the application declared when it was imported.

    Raises:
        OSError, ValueError: the memory is none.
    """
    os.set_inheritable(fd, False)
    store = Store.open(fd)
    if is_forked:
        registry = process_registry()
        registry.move(store)
    else:
        registry = Registry(store, max_series=options.metrics_max_series)
        use_registry(registry)
    store.close()  # it is mapped
    install_bridge(registry, options.metrics_preset)
    os.register_at_fork(after_in_child=lambda: registry.move(Store.local()))
    return registry
