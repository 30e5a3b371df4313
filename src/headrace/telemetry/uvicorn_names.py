"""Lets a logging configuration name uvicorn's classes where uvicorn is not installed.

Configurations in the field say ``uvicorn.logging.DefaultFormatter`` and ``ext://uvicorn.config...``. While
such a one is applied, and only then, these names lead to headrace's own classes.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_UVICORN_NAME = re.compile(r"\buvicorn\.(?:logging|config)\b")


def names_uvicorn(configuration: object) -> bool:
    """Whether a string in ``configuration`` (text, or nested mappings and lists) names uvicorn's modules."""
    if isinstance(configuration, str):
        return _UVICORN_NAME.search(configuration) is not None
    if isinstance(configuration, Mapping):
        return any(names_uvicorn(value) for value in configuration.values())
    if isinstance(configuration, Sequence) and not isinstance(configuration, bytes):
        return any(names_uvicorn(value) for value in configuration)
    return False


@contextmanager
def uvicorn_names(
    logging_names: Mapping[str, Any], config_names: Mapping[str, Any], *, needed: bool
) -> Iterator[None]:
    """Inside, ``uvicorn.logging`` and ``uvicorn.config`` can be imported.

    Args:
        logging_names: what ``uvicorn.logging`` has to offer.
        config_names: what ``uvicorn.config`` has to offer.
        needed: False changes nothing; neither does an uvicorn that is installed.
    """
    if not needed or _has_uvicorn():
        yield
        return
    aliases = _alias_modules(logging_names, config_names)
    before = {name: sys.modules[name] for name in aliases if name in sys.modules}
    sys.modules.update(aliases)
    try:
        yield
    finally:
        for name in aliases:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _has_uvicorn() -> bool:
    try:
        return importlib.util.find_spec("uvicorn") is not None
    except ImportError:  # an import hook forbids it
        return False
    except ValueError:  # somebody put a module of that name in place
        return True


def _alias_modules(
    logging_names: Mapping[str, Any], config_names: Mapping[str, Any]
) -> dict[str, ModuleType]:
    package = ModuleType("uvicorn", "Names of uvicorn, served by headrace.")
    package.__path__ = []
    modules = {"uvicorn": package}
    for name, content in (("logging", logging_names), ("config", config_names)):
        module = ModuleType(f"uvicorn.{name}")
        module.__dict__.update(content)
        setattr(package, name, module)
        modules[module.__name__] = module
    return modules
