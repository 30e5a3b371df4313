"""Starts a crew of workers, reloads it without loss, stops it; obeys signals and the control surface.

signals, admin ──▶ Supervisor ──▶ Crew ──▶ Slot (one place, kept filled) ──▶ Child (one process)
                       │                                                      │ control pipe, lifeline
                       └── never imports the application                      ▼
                                                                            worker
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

from headrace.config import Config
from headrace.config.description import describe_options
from headrace.errors import ControlRefused, HeadraceError, WorkerError
from headrace.net import systemd
from headrace.server.seat import Cause, Reason
from headrace.supervisor.blueprint import pack
from headrace.supervisor.changes import compare
from headrace.supervisor.child import Child
from headrace.supervisor.cpus import cpu_count
from headrace.supervisor.crew import MAX_WORKERS, Crew
from headrace.supervisor.development_slot import DevelopmentSlot
from headrace.supervisor.liveness import Liveness
from headrace.supervisor.process import Spawner
from headrace.supervisor.slot import Slot
from headrace.telemetry.metrics.page import PageKind
from headrace.version import __version__

_logger = logging.getLogger("uvicorn.error")


class Supervisor:
    """Serves by workers.

    Args:
        config: resolved.
        sockets: listening; they stay the caller's.
        listeners: where they are, in words.
        spawner: makes the processes.
        workers: how many.
        reload_config: resolves the configuration anew; None keeps it.

    """

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        listeners: list[str],
        spawner: Spawner,
        workers: int,
        reload_config: Callable[[], Config] | None = None,
    ) -> None:
        self._listeners = listeners
        self._spawner = spawner
        self._reload_config = reload_config
        self._started_at = time.time()
        self._crew = Crew(config, sockets, spawner, workers, self._on_news, self._fail)
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False
        self._failure: HeadraceError | None = None
        self._news = asyncio.Event()
        self._was_complete = False
        self._has_said_ready = False

    @property
    def config(self) -> Config:
        """What the next worker gets."""
        return self._crew.config

    # Its life

    async def run(self) -> None:
        """Start the workers, keep them until a stop, and stop them.

        Raises:
            HeadraceError: the first worker could not start, or, later, none does any more.
        """
        if self._crew.watched_folders:
            _logger.info("Will watch for changes in these directories: %s", self._crew.watched_folders)
        _logger.info("Started parent process [%d]", os.getpid())
        with self._handle_signals():
            works = (Liveness(self._crew).watch(), self._crew.books.keep())
            watching = [asyncio.ensure_future(work) for work in works]
            try:
                await self._start()
                while not self._crew.is_stopping:
                    self._news.clear()
                    await self._news.wait()
            finally:
                await self._stop()
                for task in watching:
                    task.cancel()
        _logger.info("Stopping parent process [%d]", os.getpid())
        if self._failure is not None:
            raise self._failure

    async def _start(self) -> None:
        """Start one alone: if the application is at fault, it is said once. Then the others, together."""
        first = asyncio.ensure_future(self._crew.bring_up())
        news = asyncio.ensure_future(self._news.wait())
        await asyncio.wait([first, news], return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
        if not first.done():
            first.cancel()
            return
        try:
            child = first.result()
        except WorkerError as error:
            self._fail(error)
            return
        self._crew.add_slot(child)
        while len(self._crew.slots) < self._crew.target and not self._crew.is_stopping:
            self._crew.add_slot()
        self._crew.is_running = True

    async def _stop(self) -> None:
        self._crew.is_stopping = True
        systemd.notify("STOPPING=1")
        if self._reloading is not None:
            self._reloading.cancel()
        await self._crew.empty()

    def _fail(self, error: HeadraceError) -> None:
        """End, and say why."""
        if self._failure is None:
            self._failure = error
        self._crew.is_stopping = True
        self._news.set()

    # Signals

    @contextlib.contextmanager
    def _handle_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers: dict[str, Callable[[], None]] = {
            "SIGTERM": lambda: self._on_stop_signal(signal.SIGTERM),
            "SIGINT": lambda: self._on_stop_signal(signal.SIGINT),
            "SIGQUIT": lambda: self._on_stop_signal(signal.SIGQUIT),
            "SIGHUP": self._on_reload_signal,
            "SIGTTIN": lambda: self._on_scale_signal(+1),
            "SIGTTOU": lambda: self._on_scale_signal(-1),
        }
        present = {getattr(signal, name): handler for name, handler in handlers.items()}
        for number, handler in present.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in present:
                loop.remove_signal_handler(number)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        _logger.info("Received %s, exiting.", number.name)
        self._begin_stop(is_quick=number is signal.SIGQUIT)

    def _on_reload_signal(self) -> None:
        if self._crew.config.process.reload:
            # The terminal was closed; while one develops, a change is what reloads.
            self._begin_stop(is_quick=False)
        elif self._crew.is_stopping or not self._crew.is_running:
            return
        elif self._reloading is not None and not self._reloading.done():
            # What has changed since that one began must not be missed.
            self._reload_again = True
        else:
            self._begin_reload()

    def _begin_reload(self) -> asyncio.Task[None]:
        task = self._reloading = self._crew.in_background(self._reload_until_current())
        # Nobody may be waiting; why it failed is in the log.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _reload_until_current(self) -> None:
        """Reload, and again for who asked meanwhile.

        Raises:
            HeadraceError: the last of them failed.
        """
        while True:
            self._reload_again = False
            try:
                await self._reload()
            except HeadraceError:
                if not self._reload_again:
                    raise
            if not self._reload_again:
                return

    def _on_scale_signal(self, step: int) -> None:
        if self._crew.is_running and not self._crew.is_stopping:
            self._crew.scale(max(1, min(MAX_WORKERS // 2, self._crew.target + step)))

    # What an operator may ask for: admin.Controls

    def is_ready(self) -> bool:
        """Whether requests should be sent here: enough workers serve, and no stop has begun.

        All of them until the start is done, at least half of them from then on: one that is being replaced
        must not take the others out of service.
        """
        if not self._crew.is_running or self._crew.is_stopping:
            return False
        serving = sum(slot.child is not None and not slot.child.is_condemned for slot in self._crew.slots)
        self._was_complete |= serving >= self._crew.target
        return 2 * serving >= self._crew.target if self._was_complete else serving >= self._crew.target

    def status(self) -> dict[str, Any]:
        """How everything is."""
        state = "draining" if self._crew.is_stopping else "running" if self._crew.is_running else "starting"
        return {
            "pid": os.getpid(),
            "version": __version__,
            "started_at": self._started_at,
            "uptime_s": round(time.time() - self._started_at, 3),
            "state": state,
            "is_ready": self.is_ready(),
            "target": self._crew.target,
            "application": str(self._crew.config.application.app or ""),
            "listeners": self._listeners,
            "leader": None if self._crew.leader is None else self._crew.leader.worker_id,
            "workers": [_describe(child, child is self._crew.leader) for child in self._crew.children()],
        }

    def options(self) -> dict[str, dict[str, Any]]:
        """Every option with its value and source."""
        return describe_options(self._crew.config)

    async def metrics(self, kind: PageKind) -> bytes | None:
        """The page of all workers' figures; None when none are kept."""
        return await self._crew.metrics(kind)

    def stop(self) -> None:
        """Drain and end; asked again, without waiting for requests."""
        _logger.info("Told to stop over the control surface.")
        self._begin_stop(is_quick=False)

    def _begin_stop(self, is_quick: bool) -> None:
        if is_quick:
            self._crew.graceful_s = 0.0
        if self._crew.is_stopping:
            self._crew.force()
        self._crew.is_stopping = True
        self._news.set()

    async def reload(self) -> None:
        """Resolve the configuration anew, and replace every worker, one behind the other.

        Raises:
            ControlRefused: it is under way, or this is no time for it.
            HeadraceError: why it came to nothing; the old workers stay.
        """
        if self._crew.is_stopping or not self._crew.is_running:
            raise ControlRefused("The server is starting or stopping.")
        if self._reloading is not None and not self._reloading.done():
            raise ControlRefused("A reload is under way.")
        task = self._begin_reload()
        await asyncio.wait([task])
        if task.cancelled():
            raise ControlRefused("The server is stopping.")
        task.result()

    async def restart(self, worker_id: int) -> None:
        """Replace one worker.

        Raises:
            KeyError: there is none of that number.
            ControlRefused: it is on its way in or out.
            WorkerError: the new one did not come up; the old one stays.
        """
        slot = self._crew.slot_of(self._crew.child(worker_id))
        if slot is None or self._crew.is_stopping:
            raise ControlRefused(f"Worker {worker_id} is starting or draining.")
        await asyncio.shield(slot.replace(Reason(Cause.OPERATOR, "an operator asked for it")))

    async def scale(self, count: int) -> None:
        """Have so many workers, in a while.

        Raises:
            ControlRefused: the number is out of range, or this is no time for it.
        """
        if self._crew.is_stopping or not self._crew.is_running:
            raise ControlRefused("The server is starting or stopping.")
        if not 1 <= count <= MAX_WORKERS // 2:
            raise ControlRefused(f"The number of workers must be from 1 to {MAX_WORKERS // 2}.")
        self._crew.scale(count)

    async def _reload(self) -> None:
        old = self._crew.config
        before = {slot.child for slot in self._crew.slots}
        try:
            systemd.reloading()
            new = self._new_config(old)
            _logger.info("Reloading: every worker is replaced.")
            self._crew.config = new
            await self._spawner.renew(new)
            for slot in list(self._crew.slots):
                await self._replace_if_kept(slot)
            if new.process.workers != old.process.workers and new.process.workers is not None:
                self._crew.scale(new.process.workers or cpu_count())
            self._crew.graceful_s = new.process.timeout_graceful_shutdown
            self._spawner.keep()
            _logger.info("Reloaded.")
        except HeadraceError as error:
            self._crew.config = old
            self._spawner.go_back()
            # Nobody can bring the old code back: places that have the new version keep it.
            _logger.error("%s %s", _stays(self._crew.slots, before), error)
            raise
        finally:
            self._say_ready()

    async def _replace_if_kept(self, slot: Slot | DevelopmentSlot) -> None:
        """Replace the worker of a place, unless the place is given up before or meanwhile."""
        if slot not in self._crew.slots:
            return
        try:
            await slot.replace(Reason(Cause.RELOAD, "a reload"))
        except WorkerError:
            if slot in self._crew.slots:
                raise

    def _new_config(self, old: Config) -> Config:
        if self._reload_config is None:
            return old
        changes = compare(old, self._reload_config())
        if changes.taken:
            _logger.info("Changed: %s.", ", ".join(changes.taken))
        if changes.refused:
            _logger.warning("Changed, but only a restart can take it: %s.", ", ".join(changes.refused))
        pack(changes.config)
        return changes.config

    # Within

    def _on_news(self) -> None:
        """A worker has come or gone, or there are to be more or fewer."""
        crew = self._crew
        self._news.set()
        if crew.is_stopping:
            return
        if not self._has_said_ready and crew.ready_count >= crew.target:
            self._has_said_ready = True
            self._say_ready()
        systemd.status(self._status_words())

    def _say_ready(self) -> None:
        if not self._crew.is_stopping:
            systemd.ready(self._status_words())

    def _status_words(self) -> str:
        return f"{self._crew.ready_count} of {self._crew.target} workers serve"


def _stays(slots: Collection[Slot | DevelopmentSlot], before: Collection[Child | None]) -> str:
    """How far a reload has come that failed."""
    new = sum(slot.child not in before for slot in slots)
    if not new:
        return "The reload came to nothing, what ran before stays."
    return f"The reload came to an end behind {new} of {len(slots)} workers, the others are the old ones."


def _describe(child: Child, is_leader: bool) -> dict[str, Any]:
    """A worker in JSON's types."""
    pong = child.pong
    return {
        "id": child.worker_id,
        "pid": child.pid,
        "state": "blocked" if child.is_condemned else child.state.value,
        "uptime_s": round(child.age_s, 3),
        "connections": pong.connections,
        "running": pong.running,
        "requests": pong.requests,
        "memory_bytes": pong.memory_bytes,
        "lag_s": pong.lag_s,
        "is_leader": is_leader,
    }
