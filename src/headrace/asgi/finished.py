"""An awaitable that is finished already."""

from __future__ import annotations

import asyncio.coroutines
import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any

_ENDED: Generator[Any, None, None] = iter(())  # type: ignore[assignment]
"""An iterator that has nothing more to give, to whomever and however often it is asked."""


class Finished(Coroutine[Any, Any, None]):
    """What ``send`` returns when there is nothing to wait for: no coroutine is made, no frame entered.

    It has no state, so one serves all. A ``Coroutine``, so that ``asyncio.create_task(send(...))`` works.
    """

    __slots__ = ()

    # A call that needs no frame of Python's: an iterator gives itself.
    __await__ = staticmethod(_ENDED.__iter__)

    def send(self, value: Any) -> Any:
        """Finish."""
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        """Let the error pass."""
        raise error[0]

    def close(self) -> None:
        """Nothing is open."""


FINISHED = Finished()


def mark_async(function: Callable[..., Any]) -> None:
    """Have a plain function that gives awaitables pass for a coroutine function, where that is looked at."""
    if hasattr(inspect, "markcoroutinefunction"):  # from CPython 3.12 on
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
