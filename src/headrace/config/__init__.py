"""Configuration: every option once, resolved from all its sources.

In: the command line's or the caller's values, the environment, ``headrace.toml``, ``pyproject.toml``.
Out: one frozen ``Config`` that says of each value where it came from, or a ``ConfigError``.
Called by: ``cli`` and the public ``run``, ``serve`` and ``Server``.
Obeys: click's reading of variables, for ``UVICORN_*``; TOML 1.0; JSON Schema draft 2020-12.
Tests: ``tests/config``.
"""

from __future__ import annotations

from headrace.config.options import (
    ApplicationOptions,
    Config,
    HTTPOptions,
    ListenOptions,
    LogOptions,
    Option,
    ProcessOptions,
    ProxyOptions,
    StackOptions,
    TLSOptions,
    WebSocketOptions,
)
from headrace.config.resolve import load
from headrace.config.sources import load_env_file
from headrace.config.table import Row, groups, rows

__all__ = [
    "ApplicationOptions",
    "Config",
    "HTTPOptions",
    "ListenOptions",
    "LogOptions",
    "Option",
    "ProcessOptions",
    "ProxyOptions",
    "Row",
    "StackOptions",
    "TLSOptions",
    "WebSocketOptions",
    "groups",
    "load",
    "load_env_file",
    "rows",
]
