"""The task in which applications run; it knows whether one of them has tied something to it."""

from __future__ import annotations

import asyncio
import sys
from contextvars import Context
from typing import Any


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
        return super().cancel(msg)

    def get_name(self) -> str:
        """See ``asyncio.Task``; from CPython 3.12 on each log record has it as ``taskName``."""
        self.is_touched = True
        return super().get_name()

    def set_name(self, value: object) -> None:
        """See ``asyncio.Task``."""
        self.is_touched = True
        super().set_name(value)

    if sys.version_info >= (3, 12):

        def get_context(self) -> Context:
            """See ``asyncio.Task``."""
            self.is_touched = True
            return super().get_context()
