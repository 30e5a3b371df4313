"""What the control surface can ask of a server that is one process, without a supervisor."""

from __future__ import annotations

import logging
import os
import time
from typing import Any, NoReturn

from headrace.config.description import describe_options
from headrace.errors import ControlRefused
from headrace.server.server import Server
from headrace.supervisor.memory import memory_bytes
from headrace.telemetry.metrics.page import PageKind, process_pages
from headrace.version import __version__

_logger = logging.getLogger("uvicorn.error")


class SingleProcess:
    """The controls of one server; ``admin.Controls``.

    Args:
        server: started or not.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._started_at = time.time()

    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return self._server.started and not self._server.should_exit

    def status(self) -> dict[str, Any]:
        """How it is, as one worker that is its own supervisor."""
        server = self._server
        state = "running" if self.is_ready() else "draining" if server.should_exit else "starting"
        uptime_s = round(time.time() - self._started_at, 3)
        runtime = server.runtime if server.has_started else None
        worker = {
            "id": 1,
            "pid": os.getpid(),
            "state": "ready" if state == "running" else state,
            "uptime_s": uptime_s,
            "connections": 0 if runtime is None else len(runtime.connections),
            "running": 0 if runtime is None else len(runtime.running),
            "requests": 0 if runtime is None else runtime.total_requests,
            "memory_bytes": memory_bytes(),
            # Whoever reads this has been answered by the very loop.
            "lag_s": 0.0,
            "is_leader": True,
        }
        return {
            "pid": os.getpid(),
            "version": __version__,
            "started_at": self._started_at,
            "uptime_s": uptime_s,
            "state": state,
            "is_ready": self.is_ready(),
            "target": 1,
            "application": str(server.config.application.app or ""),
            "listeners": server.announcements,
            "leader": 1,
            "workers": [worker],
        }

    def options(self) -> dict[str, dict[str, Any]]:
        """Every option with its value and source."""
        return describe_options(self._server.config)

    async def metrics(self, kind: PageKind) -> bytes | None:
        """The page of this process's figures; None when none are kept."""
        if not self._server.config.stack.has("metrics"):
            return None
        return await process_pages().page(kind)

    async def reload(self) -> None:
        """Refused."""
        _refuse()

    async def restart(self, worker_id: int) -> None:
        """Refused."""
        if worker_id != 1:
            raise KeyError(worker_id)
        _refuse()

    async def scale(self, count: int) -> None:
        """Refused."""
        _refuse()

    def stop(self) -> None:
        """Drain and end."""
        _logger.info("Told to stop over the control surface.")
        self._server.should_exit = True


def _refuse() -> NoReturn:
    raise ControlRefused(
        "This server is one process without a supervisor; start it with --workers 2 or more."
    )
