"""The task in which applications run; it knows whether one of them has tied something to it."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
from contextvars import Context
from typing import Any

TASK_NAME = "request"
"""Of a task until somebody asks. Before CPython 3.12 one without a name has "Task-" and its number formatted
at once: 0.14 µs."""

_numbers = itertools.count(1)


class RequestTask(asyncio.Task[None]):
    """An ``asyncio.Task`` that may serve several requests, one after the other; see ``Turn``.

    The methods are those of ``asyncio.Task``, and note that they were called.

    Attributes:
        is_touched: it was cancelled; an attribute, a name or a callback was set on it; or its name or its
            context was asked for, which may be how somebody tells requests apart.
    """

    is_touched = False

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__("is_touched", True)
        super().__setattr__(name, value)

    def add_done_callback(self, *arguments: Any, **more: Any) -> None:
        """See ``asyncio.Task``."""
        self.is_touched = True
        super().add_done_callback(*arguments, **more)

    def cancel(self, msg: Any = None) -> bool:
        """See ``asyncio.Task``."""
        self.is_touched = True
        serving: Any = self.get_coro()
        if inspect.getcoroutinestate(serving) == inspect.CORO_CREATED:
            # All tasks of the loop are cancelled, say. asyncio would end this one without a step, and its
            # requests would never be answered.
            arguments = serving.cr_frame.f_locals
            arguments["self"].start_again(arguments["ready"])
        return super().cancel(msg)

    def get_name(self) -> str:
        """See ``asyncio.Task``; from CPython 3.12 on each log record has it as ``taskName``."""
        self.is_touched = True
        name = super().get_name()
        if name == TASK_NAME:
            # Each its own, as everywhere: somebody may tell requests apart by it.
            name = f"{TASK_NAME}-{next(_numbers)}"
            super().set_name(name)
        return name

    def set_name(self, value: object) -> None:
        """See ``asyncio.Task``."""
        self.is_touched = True
        super().set_name(value)

    if sys.version_info >= (3, 12):

        def get_context(self) -> Context:
            """See ``asyncio.Task``."""
            self.is_touched = True
            return super().get_context()
