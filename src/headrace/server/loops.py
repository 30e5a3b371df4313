"""Which event loop ``--loop`` means."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from typing import cast

from headrace.errors import ConfigError

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def loop_factory(name: str) -> LoopFactory:
    """The factory of the loop that ``name`` means.

    Args:
        name: auto (uvloop where it is there), asyncio, uvloop, zuvloop, none (asyncio's default policy), or
            ``module:factory``.

    Raises:
        ConfigError: it cannot be imported.
    """
    if name == "auto":
        try:
            return _uvloop()
        except ConfigError:
            return asyncio.new_event_loop
    if name == "uvloop":
        return _uvloop()
    if name == "none" or (name == "asyncio" and sys.platform != "win32"):
        return asyncio.new_event_loop
    if name == "asyncio":
        # What the Unix loops can, and the proactor cannot: add_reader.
        return asyncio.SelectorEventLoop
    module_name, _, attribute = ("zuvloop:new_event_loop" if name == "zuvloop" else name).partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--loop {name}: {error}") from None
    return cast("LoopFactory", factory)


def _uvloop() -> LoopFactory:
    try:
        import uvloop
    except ImportError:
        raise ConfigError("--loop uvloop needs uvloop: pip install uvloop") from None
    return cast("LoopFactory", uvloop.new_event_loop)
