"""Who waits for another worker in a place, and what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from headrace.errors import WorkerError
from headrace.server.seat import Reason
from headrace.supervisor.child import Child


class Request(NamedTuple):
    """One wish for a replacement.

    Attributes:
        future: done when another worker serves, with ``WorkerError`` when it could not.
        reason: for figures and the log.
        child: who is to be replaced; None is whoever is there.
    """

    future: asyncio.Future[None]
    reason: Reason
    child: Child | None


class Replacements:
    """The wishes that nobody has begun to fulfil.

    Attributes:
        news: set with each wish.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._waiting: list[Request] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def ask(self, reason: Reason, child: Child | None = None) -> asyncio.Future[None]:
        """Wait for a replacement; see ``Request``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting when it fails.
        future.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._waiting.append(Request(future, reason, child))
        self.news.set()
        return future

    def take(self) -> list[Request]:
        """All of them; what is asked from now on is another matter."""
        waiting, self._waiting = self._waiting, []
        return waiting


def answer(requests: Iterable[Request], error: WorkerError | None) -> None:
    """Tell who waited how it went; None is well."""
    for request in requests:
        if request.future.done():
            continue
        if error is None:
            request.future.set_result(None)
        else:
            request.future.set_exception(error)
