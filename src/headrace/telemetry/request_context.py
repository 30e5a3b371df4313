"""The id of the request under way, for whatever runs within it."""

from __future__ import annotations

from contextvars import ContextVar

request_id_var: ContextVar[str] = ContextVar("headrace_request_id")
"""Set by ``middleware.request_id`` for the task of a request or WebSocket, and for the tasks and threads that
it starts; not set elsewhere, so read it with ``request_id_var.get("-")`` or the like."""
