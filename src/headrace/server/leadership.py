"""Which worker does what only one may do: ``scope["state"]["headrace.leader"]``, ``leadership()``."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from headrace.errors import WorkerError

current_leadership: ContextVar[Leadership] = ContextVar("headrace.leadership")
"""Of the server that a task belongs to."""


def leadership() -> Leadership:
    """Whether this worker leads; for code that is not given a scope, as a framework's lifespan function.

    Raises:
        WorkerError: called outside of an application that a headrace server runs.
    """
    try:
        return current_leadership.get()
    except LookupError:
        raise WorkerError("leadership() knows no server here: call it inside the application.") from None


class Leadership:
    """True in the one worker that leads, also in the lifespan's state, before the application has started.

    It comes and stays: a worker leads until its process has ended, and only then does another begin to. A
    server without a supervisor always leads.

        leader = scope["state"]["headrace.leader"]
        if leader: ...
        await leader.acquired()  # in a background task: returns when this worker leads
    """

    __slots__ = ("_event",)

    def __init__(self, is_leader: bool) -> None:
        self._event = asyncio.Event()
        if is_leader:
            self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def __repr__(self) -> str:
        return f"<Leadership {bool(self)}>"

    async def acquired(self) -> None:
        """Wait until this worker leads."""
        await self._event.wait()

    def acquire(self) -> None:
        """The supervisor's word: this worker leads now."""
        self._event.set()
