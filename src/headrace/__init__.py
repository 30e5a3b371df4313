"""headrace: the server and production stack for ASGI."""

from __future__ import annotations

__version__ = "0.1.0"
