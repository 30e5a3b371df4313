"""The application's start and stop. ASGI lifespan specification 2.0."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from headrace.asgi.scope import ASGI_VERSION
from headrace.errors import WorkerError
from headrace.types import ASGIApplication, Message

_logger = logging.getLogger("uvicorn.error")


class Lifespan:
    """One run of the lifespan protocol, in a task of its own.

    Args:
        application: an ASGI 3 callable.
        mode: "auto" goes on without when the application raises at its start; "on" takes that as a failure;
            "off" does nothing.
        timeout_startup_s, timeout_shutdown_s: limits; None for none.

    Attributes:
        state: what the application put there; requests get shallow copies.
    """

    def __init__(
        self,
        application: ASGIApplication,
        mode: str,
        timeout_startup_s: float | None = None,
        timeout_shutdown_s: float | None = None,
    ) -> None:
        self.state: dict[str, Any] = {}
        self._application = application
        self._mode = mode
        self._timeout_startup_s = timeout_startup_s
        self._timeout_shutdown_s = timeout_shutdown_s
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._startup = asyncio.Event()
        self._shutdown = asyncio.Event()
        self._failure: str | None = None
        self._error: BaseException | None = None
        self._is_given_up = False
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> bool:
        """Start the application.

        Returns:
            Whether it started; False when ``give_up`` was called in the meantime.

        Raises:
            WorkerError: it said ``lifespan.startup.failed``, raised in mode "on", or took too long.
        """
        if self._mode == "off":
            return True
        _logger.info("Waiting for application startup.")
        self._messages.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.get_running_loop().create_task(self._run(), name="lifespan")
        try:
            is_started = await self._wait(self._startup, self._timeout_startup_s)
        except asyncio.CancelledError:
            await self._cancel()
            raise
        if not is_started:
            await self._cancel()
            self._failure = f"took longer than {self._timeout_startup_s:g} s"
        if self._is_given_up:
            await self._cancel()
            return False
        if self._failure is not None:
            _logger.error("Application startup failed. Exiting.")
            raise WorkerError(f"Application startup failed: {self._failure}") from self._error
        _logger.info("Application startup complete.")
        return True

    def give_up(self) -> None:
        """Wait no longer for the start: the server is to stop before it has begun."""
        if not self._startup.is_set():
            self._is_given_up = True
            self._startup.set()

    async def shutdown(self) -> bool:
        """Stop the application.

        Returns:
            Whether it stopped as it should; what went wrong is logged.
        """
        if self._task is None or self._task.done():
            return True
        _logger.info("Waiting for application shutdown.")
        self._messages.put_nowait({"type": "lifespan.shutdown"})
        if not await self._wait(self._shutdown, self._timeout_shutdown_s):
            await self._cancel()
            _logger.error("Application shutdown took longer than %g s.", self._timeout_shutdown_s)
            return False
        if self._failure is not None:
            _logger.error("Application shutdown failed. Exiting.")
            return False
        # The application has answered; what it does behind that is its own, but it may finish.
        await asyncio.wait([self._task], timeout=1.0)
        if not self._task.done():
            await self._cancel()
        _logger.info("Application shutdown complete.")
        return True

    async def _wait(self, event: asyncio.Event, timeout_s: float | None) -> bool:
        try:
            # Not ``asyncio.timeout``, as the stop may run in a task that has been cancelled (3.11.2).
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task], timeout=1.0)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": ASGI_VERSION, "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._application(scope, self._messages.get, self._send)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._on_error(error)
        finally:
            self._startup.set()
            self._shutdown.set()

    def _on_error(self, error: BaseException) -> None:
        if self._failure is not None:
            return
        if self._startup.is_set() or self._mode == "on":
            self._failure = f"{error!r}"
            self._error = error
            _logger.error("Exception in 'lifespan' protocol\n", exc_info=error)
        else:
            _logger.info("ASGI 'lifespan' protocol appears unsupported.")
            _logger.debug("What it raised:", exc_info=error)

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._startup.set()
        elif kind == "lifespan.shutdown.complete":
            self._shutdown.set()
        elif kind in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._failure = message.get("message", "") or "the application gave no reason"
            if message.get("message"):
                _logger.error(message["message"])
            (self._startup if "startup" in kind else self._shutdown).set()
        else:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' in the lifespan protocol")
