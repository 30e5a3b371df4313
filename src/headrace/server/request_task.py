"""The task in which applications run; it knows whether one of them has changed it."""

from __future__ import annotations

import asyncio
from typing import Any


class RequestTask(asyncio.Task[None]):
    """An ``asyncio.Task`` that may serve several requests, one after the other; see ``Turn``.

    Attributes:
        is_touched: it was cancelled, or an attribute, a name or a callback was set on it.
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

    def set_name(self, value: object) -> None:
        """See ``asyncio.Task``."""
        self.is_touched = True
        super().set_name(value)
