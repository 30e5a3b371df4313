"""Runs the application of an exchange as a server does, without one."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from headrace.server.turn import Turn


async def run_exchange(exchange: Any) -> None:
    """Run it in a turn of its own, until its end."""
    turn = Turn(asyncio.get_running_loop(), contextvars.copy_context())
    turn.running.add(exchange)
    turn.start(exchange)
    while exchange in turn.running:
        await asyncio.sleep(0)
