"""headrace: the server and production stack for ASGI.

``run`` serves until a signal ends it, ``serve`` inside a running loop, ``Server`` is what both are made of.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headrace.version import __version__

if TYPE_CHECKING:
    from headrace.config import Config
    from headrace.errors import (
        ASGIError,
        ClientDisconnected,
        ConfigError,
        HeadraceError,
        ListenError,
        WorkerError,
    )
    from headrace.server.entry import serve
    from headrace.server.leadership import leadership
    from headrace.server.server import Server
    from headrace.supervisor.entry import run

__all__ = [
    "ASGIError",
    "ClientDisconnected",
    "Config",
    "ConfigError",
    "HeadraceError",
    "ListenError",
    "Server",
    "WorkerError",
    "__version__",
    "leadership",
    "run",
    "serve",
]

_HOMES = {
    "Config": "headrace.config",
    "Server": "headrace.server.server",
    "leadership": "headrace.server.leadership",
    "run": "headrace.supervisor.entry",
    "serve": "headrace.server.entry",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the command line starts without the server."""
    if name == "metrics":
        return importlib.import_module("headrace.metrics")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES.get(name, "headrace.errors")), name)
    globals()[name] = value
    return value
