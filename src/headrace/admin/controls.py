"""What the control surface can ask of whoever runs the server."""

from __future__ import annotations

from typing import Any, Protocol

from headrace.telemetry.metrics.page import PageKind


class Controls(Protocol):
    """A supervisor, or whatever stands in its place.

    What is refused raises ``ControlRefused`` with one sentence for the operator. The awaited ones come back
    when what was asked is done; the one who awaits may be cancelled, which ends the waiting and not the work.
    """

    def is_ready(self) -> bool:
        """Whether requests should be sent here: enough workers serve, and no stop has begun."""

    def status(self) -> dict[str, Any]:
        """How everything is, in JSON's types.

        Returns:
            pid, version, started_at (Unix time, s), uptime_s, state ("starting", "running" or "draining"),
            target (number of workers), application, listeners (texts), leader (a worker's id or None), and
            workers: each with id, pid, state ("starting", "ready", "draining" or "blocked"), uptime_s,
            connections, running, requests, memory_bytes, lag_s, is_leader.
        """

    def options(self) -> dict[str, dict[str, Any]]:
        """Every option: key -> {"value", "source"}, secrets masked."""

    async def metrics(self, kind: PageKind) -> bytes | None:
        """The page of the figures of all workers, None when none are kept."""

    async def reload(self) -> None:
        """Replace every worker.

        Raises:
            ControlRefused: not now.
            HeadraceError: it came to nothing, and why.
        """

    async def restart(self, worker_id: int) -> None:
        """Replace one worker.

        Raises:
            KeyError: there is none of that number.
            ControlRefused: not now.
            HeadraceError: it came to nothing, and why.
        """

    async def scale(self, count: int) -> None:
        """Have ``count`` workers.

        Raises:
            ControlRefused: not so many, or not now.
        """

    def stop(self) -> None:
        """Begin to stop; the answer to the one who asked still has time to leave."""
