"""Runs the application of an exchange as a server does, without one."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from headrace.server.turn import Turn


async def run_exchange(exchange: Any, told: list[Any]) -> None:
    """Run it in a turn of its own, until its stream is told that it is ``done``."""
    Turn(asyncio.get_running_loop(), contextvars.copy_context()).start(exchange)
    while "done" not in told:
        await asyncio.sleep(0)
