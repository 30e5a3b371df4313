"""The binding of libnghttp2, where it is installed (extra ``http2``)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

ngh2: Any
"""The module, None without it."""

_module: ModuleType | None
try:
    import ngh2 as _module
except ImportError:
    _module = None
ngh2 = _module

is_available = ngh2 is not None

MISSING = "HTTP/2 needs the package ngh2: pip install 'headrace[http2]'"
