"""Whether workers are alive: pings, and what becomes of one whose event loop is blocked."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from headrace.config import Config
from headrace.net import systemd
from headrace.server.seat import Cause, Reason
from headrace.supervisor.child import Child, State

TICK_S = 1.0
PINGS_WITHIN = 4
"""So many pings at least fall into the time that a loop may be blocked for."""
STACKS_S = 2.0
"""How long a worker whose loop is blocked has to say where it is."""
TERM_S = 2.0
"""How long it has after SIGTERM; it may have been about to go on."""

_logger = logging.getLogger("uvicorn.error")


class Workers(Protocol):
    """The crew, as far as liveness needs it."""

    config: Config

    def children(self) -> Iterable[Child]:
        """All that live."""

    def replace_by_force(self, child: Child) -> None:
        """Put another in its place without waiting for it."""

    def replace_unhurried(self, child: Child, reason: Reason) -> None:
        """Put another in its place, and let it drain."""

    def in_background(self, work: Coroutine[Any, Any, None]) -> object:
        """Run a coroutine beside everything else."""


class Liveness:
    """Pings the workers of one supervisor, and feeds systemd's watchdog.

    Time in which the supervisor itself did not run (a suspended machine, SIGSTOP) is not held against them.

    Args:
        workers: whose.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._awake_s = 0.0
        self._pings = 0

    async def watch(self) -> None:
        """Look after them until cancelled."""
        watchdog_s = systemd.watchdog_interval_s()
        looked_s = time.monotonic()
        while True:
            # Often enough to tell a late answer from none.
            limit_s = self._workers.config.process.timeout_worker_healthcheck
            interval_s = min(TICK_S, watchdog_s or TICK_S, limit_s / PINGS_WITHIN)
            await asyncio.sleep(interval_s)
            now_s = time.monotonic()
            self._awake_s += min(now_s - looked_s, 2 * interval_s)
            looked_s = now_s
            if watchdog_s:
                systemd.watchdog()
            for child in list(self._workers.children()):
                self._look_after(child, limit_s)

    def _look_after(self, child: Child, limit_s: float) -> None:
        # A long import is no blocked loop, and where the pipe has ended the loop has as well.
        if child.state not in (State.READY, State.DRAINING) or child.is_condemned or not child.pipe.is_open:
            return
        if child.asked_s < 0:
            self._pings += 1
            child.ping(self._pings, self._awake_s)
        elif self._awake_s - child.asked_s > limit_s and self._may_condemn():
            child.is_condemned = True
            self._workers.in_background(self._end_blocked(child))

    def _may_condemn(self) -> bool:
        """Not while somebody develops, unless told to: a debugger's breakpoint blocks the loop as well."""
        config = self._workers.config
        return not config.process.reload or config.sources["timeout_worker_healthcheck"] != "default"

    async def _end_blocked(self, child: Child) -> None:
        """Say where it is, and put another in its place."""
        silent_s = self._awake_s - child.asked_s
        stacks = await child.ask_stacks(STACKS_S)
        if child.gone.done():
            return
        if stacks is not None:
            _logger.error(
                "%s: its event loop has been blocked for %.1f s in %s; it is replaced.\n%s",
                child.name, silent_s, stacks.where, stacks.text.rstrip(),
            )  # fmt: skip
        else:
            _logger.error(
                "%s: its event loop has been blocked for %.1f s, and no other thread of it can run (it is "
                "stopped, or native code holds the interpreter); it is replaced.",
                child.name, silent_s,
            )  # fmt: skip
        if self._has_come_back(child):
            return
        self._workers.replace_by_force(child)
        child.kill(signal.SIGTERM)
        await asyncio.wait([child.gone], timeout=TERM_S)
        if child.gone.done() or self._has_come_back(child):
            return
        if stacks is None:
            # faulthandler writes all stacks from within the signal, whoever holds the interpreter.
            child.kill(signal.SIGABRT)
            await asyncio.wait([child.gone], timeout=TERM_S)
        if not child.gone.done():
            child.kill(signal.SIGKILL)

    def _has_come_back(self, child: Child) -> bool:
        """Whether its loop goes on after all: then what else runs in it may end in its time."""
        if child.asked_s >= 0:
            return False
        child.is_condemned = False
        self._workers.replace_unhurried(child, Reason(Cause.BLOCKED, "its event loop was blocked"))
        return True
