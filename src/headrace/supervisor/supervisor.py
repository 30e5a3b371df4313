"""Binds, keeps workers alive, replaces them without loss, stops.

signals, admin ──▶ Supervisor ──▶ Slot (one place, kept filled) ──▶ Child (one process)
                       │                                              │ control pipe, lifeline
                       └── never imports the application              ▼
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
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from headrace.config import Config
from headrace.config.description import describe_options
from headrace.errors import ControlRefused, HeadraceError, WorkerError
from headrace.net import systemd
from headrace.server.load_board import LoadBoard
from headrace.supervisor.blueprint import pack
from headrace.supervisor.changes import compare
from headrace.supervisor.child import Child, State
from headrace.supervisor.control import Start
from headrace.supervisor.cpus import cpu_count
from headrace.supervisor.development_slot import DevelopmentSlot
from headrace.supervisor.hub import Hub
from headrace.supervisor.liveness import Liveness
from headrace.supervisor.process import Spawner
from headrace.supervisor.slot import Slot
from headrace.supervisor.watch import Watcher
from headrace.version import __version__

TERM_S = 2.0
"""How long a worker that still starts has after SIGTERM."""
MARGIN_S = 5.0
"""How long a worker may take beyond the timeouts of its stop before it is killed."""
OLD_MARGIN_S = 2.0
"""The same in development, for a worker on old code."""
FAILED_STARTS = 5
"""So many in a row, while nobody serves, end the supervisor."""
RETRY_S = 10.0
"""Time between two attempts to replace a worker that asked for it."""
MAX_WORKERS = 1_024

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

    Attributes:
        config: what the next worker gets.
        is_stopping: a stop has begun.
        is_running: the first start is done.
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
        self.config = config
        self._sockets = sockets
        self._listeners = listeners
        self._spawner = spawner
        self._target = workers
        self._reload_config = reload_config
        self._started_at = time.time()
        self._slots: dict[Slot | DevelopmentSlot, asyncio.Task[None]] = {}
        self._children: dict[int, Child] = {}
        self._leader: Child | None = None
        self._board = LoadBoard.create(MAX_WORKERS + 1) if config.process.accept == "balanced" else None
        self._hub = Hub()
        self._watcher = Watcher(config.process, config.application.app_dir) if config.process.reload else None
        self._background: set[asyncio.Task[Any]] = set()
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False
        self._failure: HeadraceError | None = None
        self._news = asyncio.Event()
        self._graceful_s = config.process.timeout_graceful_shutdown
        self._was_complete = False
        self._has_said_ready = False
        self.is_stopping = False
        self.is_running = False

    # Its life

    async def run(self) -> None:
        """Start the workers, keep them until a stop, and stop them.

        Raises:
            HeadraceError: the first worker could not start, or, later, none does any more.
        """
        if self._watcher is not None:
            folders = [str(folder) for folder in self._watcher.folders]
            _logger.info("Will watch for changes in these directories: %s", folders)
        _logger.info("Started parent process [%d]", os.getpid())
        with self._handle_signals():
            watching = asyncio.ensure_future(Liveness(self).watch())
            try:
                await self._start()
                while not self.is_stopping:
                    self._news.clear()
                    await self._news.wait()
            finally:
                await self._stop()
                watching.cancel()
                if self._watcher is not None:
                    self._watcher.close()
                if self._board is not None:
                    self._board.close()
        _logger.info("Stopping parent process [%d]", os.getpid())
        if self._failure is not None:
            raise self._failure

    async def _start(self) -> None:
        """Start one alone: if the application is at fault, it is said once. Then the others, together."""
        first = asyncio.ensure_future(self.bring_up())
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
        self._add_slot(child)
        while len(self._slots) < self._target and not self.is_stopping:
            self._add_slot()
        self.is_running = True

    async def _stop(self) -> None:
        self.is_stopping = True
        systemd.notify("STOPPING=1")
        if self._reloading is not None:
            self._reloading.cancel()
        for slot, task in self._slots.items():
            task.cancel()
            slot.dismiss()
        self._slots.clear()
        for child in list(self._children.values()):
            self._let_go(child, is_replaced=False)
        for child in list(self._children.values()):
            _logger.info("Waiting for child process [%d]", child.pid)
        while self._children:
            self._news.clear()
            await self._news.wait()
        await self._spawner.close()
        for task in list(self._background):
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)

    def _fail(self, error: HeadraceError) -> None:
        """End, and say why."""
        if self._failure is None:
            self._failure = error
        self.is_stopping = True
        self._news.set()

    # Workers

    async def bring_up(self) -> Child:
        """Start a worker.

        Returns:
            The worker, accepting.

        Raises:
            WorkerError: it could not start, or not in time.
        """
        config = self.config
        inherited = [sock.fileno() for sock in self._sockets]
        if self._board is not None:
            inherited.append(self._board.fd)
        if self.is_stopping:
            raise WorkerError("The server stops.")
        try:
            spawned = await self._spawner.spawn(inherited)
        except OSError as error:
            raise WorkerError(f"No process can be started for a worker: {error}.") from error
        child = Child(self._free_id(), spawned, self)
        self._children[child.worker_id] = child
        self._hub.add(child.worker_id, child.pipe)
        is_leader = self._leader is None
        if is_leader:
            self._leader = child
        try:
            await child.begin(
                Start(
                    child.worker_id,
                    pack(config),
                    [sock.fileno() for sock in self._sockets],
                    -1 if self._board is None else self._board.fd,
                    is_leader,
                    self._shows(),
                )
            )
            timeout_s = config.process.timeout_worker_startup or None
            # Not ``wait_for``: before 3.12 it can swallow a cancellation.
            done, _ = await asyncio.wait([child.ready], timeout=timeout_s)
            if not done:
                child.kill(signal.SIGKILL)
                raise WorkerError(
                    f"{child.name} was not ready within {config.process.timeout_worker_startup:g} s "
                    "(--timeout-worker-startup), and was killed."
                )
            child.ready.result()
        except WorkerError:
            self._show_fault(child)
            raise
        except asyncio.CancelledError:
            self._let_go(child, is_replaced=False)
            raise
        _logger.info("%s is ready.", child.name)
        if self._leader is None:
            self._appoint()
        if not self._has_said_ready and self._ready_count() >= self._target:
            self._has_said_ready = True
            self._say_ready()
        self._say_status()
        return child

    def retire(self, child: Child) -> None:
        """Let a worker drain whose successor serves."""
        self._let_go(child, is_replaced=True)

    def _let_go(self, child: Child, is_replaced: bool) -> None:
        """Have a worker end; it is killed when it takes longer than its own timeouts allow."""
        is_starting = child.state is State.STARTING
        child.drain(self._graceful_s, is_replaced)
        # A signal that comes in the middle of an import is looked at behind it.
        self._in_background(self._kill_after(child, TERM_S) if is_starting else self._kill_in_time(child))

    def _end_old(self, child: Child) -> None:
        """In development: what runs on the old code has a moment."""
        graceful_s = self.config.process.reload_graceful
        child.drain(graceful_s, is_replaced=False)
        self._in_background(self._kill_after(child, graceful_s + OLD_MARGIN_S))

    async def _kill_in_time(self, child: Child) -> None:
        graceful_s = self._graceful_s
        shutdown_s = self.config.application.timeout_shutdown
        if graceful_s is None or not shutdown_s:
            # The operator asked for patience without end.
            return
        limit_s = graceful_s + self.config.process.drain_delay + shutdown_s + MARGIN_S
        await self._kill_after(child, limit_s)

    async def _kill_after(self, child: Child, limit_s: float) -> None:
        done, _ = await asyncio.wait([child.gone], timeout=limit_s)
        if not done:
            _logger.error("%s did not end within %g s, and is killed.", child.name, limit_s)
            child.kill(signal.SIGKILL)

    def _add_slot(self, child: Child | None = None) -> None:
        slot: Slot | DevelopmentSlot
        if self._watcher is None:
            slot = Slot(self.bring_up, self.retire, self._on_start_failed, child)
        else:
            slot = DevelopmentSlot(self.bring_up, self._end_old, self._watcher, child)
        task = asyncio.ensure_future(slot.keep())
        task.add_done_callback(self._on_slot_ended)
        self._slots[slot] = task

    def _on_slot_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _logger.error("A fault of headrace's own; it stops.", exc_info=error)
            self._fail(WorkerError(f"The supervisor failed: {error!r}."))

    def _on_start_failed(self, error: WorkerError) -> None:
        if any(child.state is State.READY for child in self._children.values()):
            return
        if max(slot.failures for slot in self._slots) >= FAILED_STARTS:
            self._fail(WorkerError(f"No worker comes up any more. {error}"))

    def _free_id(self) -> int:
        return next(number for number in range(1, MAX_WORKERS + 1) if number not in self._children)

    def _slot_of(self, child: Child) -> Slot | DevelopmentSlot | None:
        return next((slot for slot in self._slots if slot.child is child), None)

    def _show_fault(self, child: Child) -> None:
        if child.application_traceback:
            _logger.error("The application could not be started:\n%s", child.application_traceback.rstrip())

    def _appoint(self) -> None:
        """Make the oldest that serves the leader."""
        ready = [child for child in self._children.values() if child.state is State.READY]
        if ready and not self.is_stopping:
            self._leader = min(ready, key=lambda child: child.born_s)
            self._leader.lead()

    def _shows(self) -> str:
        """Which errors a worker shows as a page; a wrong name on the command line is none of them."""
        if not self.config.process.reload:
            return "none"
        return "every" if self.is_running else "application"

    # What children say

    def on_retire(self, child: Child, reason: str) -> None:
        """The child asks to be replaced."""
        if self.is_stopping:
            return
        slot = self._slot_of(child)
        if slot is not None:
            self._in_background(self._replace_in_the_end(slot, child, reason))
        elif child.state is State.READY:
            # Its place is another's already.
            self.retire(child)

    async def _replace_in_the_end(self, slot: Slot | DevelopmentSlot, child: Child, reason: str) -> None:
        while slot.child is child and not child.gone.done():
            with contextlib.suppress(WorkerError):
                await slot.replace(reason, child)
                return
            await asyncio.sleep(RETRY_S)

    def on_backplane(self, child: Child, frames: list[tuple[int, bytes]]) -> None:
        """Messages for other workers."""
        self._hub.on_frames(child.worker_id, frames)

    def on_gone(self, child: Child) -> None:
        """The process has ended."""
        del self._children[child.worker_id]
        self._hub.remove(child.worker_id)
        if self._board is not None:
            self._board.clear(child.worker_id)
        if child is self._leader:
            self._leader = None
            self._appoint()
        self._say_status()
        self._news.set()

    # What liveness asks for

    def children(self) -> Iterable[Child]:
        """All workers that live."""
        return self._children.values()

    def replace_by_force(self, child: Child) -> None:
        """Put another in its place without waiting for it."""
        slot = self._slot_of(child)
        if slot is not None:
            slot.abandon()

    def replace_unhurried(self, child: Child, reason: str) -> None:
        """Put another in its place, and let it drain."""
        self.on_retire(child, reason)

    def in_background(self, work: Callable[[], Any]) -> asyncio.Task[Any]:
        """Run a coroutine function beside everything else."""
        return self._in_background(work())

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
        if self.is_stopping or not self.is_running:
            return
        if self.config.process.reload:
            # The terminal was closed; while one develops, a change is what reloads.
            self._begin_stop(is_quick=False)
        elif self._reloading is not None and not self._reloading.done():
            # What has changed since that one began must not be missed.
            self._reload_again = True
        else:
            self._begin_reload()

    def _begin_reload(self) -> asyncio.Task[None]:
        task = self._reloading = self._in_background(self._reload_until_current())
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
        if self.is_running and not self.is_stopping:
            self._scale(max(1, min(MAX_WORKERS // 2, self._target + step)))

    # What an operator may ask for: admin.Controls

    def is_ready(self) -> bool:
        """Whether requests should be sent here: enough workers serve, and no stop has begun.

        All of them until the start is done, at least half of them from then on: one that is being replaced
        must not take the others out of service.
        """
        if not self.is_running or self.is_stopping:
            return False
        serving = sum(slot.child is not None and not slot.child.is_condemned for slot in self._slots)
        self._was_complete |= serving >= self._target
        return 2 * serving >= self._target if self._was_complete else serving >= self._target

    def status(self) -> dict[str, Any]:
        """How everything is."""
        state = "draining" if self.is_stopping else "running" if self.is_running else "starting"
        return {
            "pid": os.getpid(),
            "version": __version__,
            "started_at": self._started_at,
            "uptime_s": round(time.time() - self._started_at, 3),
            "state": state,
            "is_ready": self.is_ready(),
            "target": self._target,
            "application": str(self.config.application.app or ""),
            "listeners": self._listeners,
            "leader": None if self._leader is None else self._leader.worker_id,
            "workers": [self._describe(child) for _, child in sorted(self._children.items())],
        }

    def options(self) -> dict[str, dict[str, Any]]:
        """Every option with its value and source."""
        return describe_options(self.config)

    def stop(self) -> None:
        """Drain and end; asked again, without waiting for requests."""
        _logger.info("Told to stop over the control surface.")
        self._begin_stop(is_quick=False)

    def _begin_stop(self, is_quick: bool) -> None:
        if is_quick:
            self._graceful_s = 0.0
        if self.is_stopping:
            for child in self._children.values():
                if child.state is State.STARTING:
                    child.kill(signal.SIGKILL)
                else:
                    child.force()
        self.is_stopping = True
        self._news.set()

    async def reload(self) -> None:
        """Resolve the configuration anew, and replace every worker, one behind the other.

        Raises:
            ControlRefused: it is under way, or this is no time for it.
            HeadraceError: why it came to nothing; the old workers stay.
        """
        if self.is_stopping or not self.is_running:
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
        slot = self._slot_of(self._children[worker_id])
        if slot is None or self.is_stopping:
            raise ControlRefused(f"Worker {worker_id} is starting or draining.")
        await asyncio.shield(slot.replace("an operator asked for it"))

    async def scale(self, count: int) -> None:
        """Have so many workers, in a while.

        Raises:
            ControlRefused: the number is out of range, or this is no time for it.
        """
        if self.is_stopping or not self.is_running:
            raise ControlRefused("The server is starting or stopping.")
        if not 1 <= count <= MAX_WORKERS // 2:
            raise ControlRefused(f"The number of workers must be from 1 to {MAX_WORKERS // 2}.")
        self._scale(count)

    def _scale(self, count: int) -> None:
        if count != self._target:
            _logger.info("%d workers instead of %d.", count, self._target)
        self._target = count
        while len(self._slots) < count:
            self._add_slot()
        while len(self._slots) > count:
            slot, task = self._slots.popitem()
            task.cancel()
            slot.dismiss()
            if slot.child is not None:
                self.retire(slot.child)
        self._say_status()

    async def _reload(self) -> None:
        old = self.config
        before = {slot.child for slot in self._slots}
        try:
            systemd.reloading()
            new = self._new_config(old)
            _logger.info("Reloading: every worker is replaced.")
            self.config = new
            await self._spawner.renew(new)
            for slot in list(self._slots):
                await self._replace_if_kept(slot)
            if new.process.workers != old.process.workers and new.process.workers is not None:
                self._scale(new.process.workers or cpu_count())
            self._graceful_s = new.process.timeout_graceful_shutdown
            self._spawner.keep()
            _logger.info("Reloaded.")
        except HeadraceError as error:
            self.config = old
            self._spawner.go_back()
            # Nobody can bring the old code back: places that have the new version keep it.
            _logger.error("%s %s", _stays(self._slots, before), error)
            raise
        finally:
            self._say_ready()

    async def _replace_if_kept(self, slot: Slot | DevelopmentSlot) -> None:
        """Replace the worker of a place, unless the place is given up before or meanwhile."""
        if slot not in self._slots:
            return
        try:
            await slot.replace("a reload")
        except WorkerError:
            if slot in self._slots:
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

    def _describe(self, child: Child) -> dict[str, Any]:
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
            "is_leader": child is self._leader,
        }

    def _say_ready(self) -> None:
        if not self.is_stopping:
            systemd.ready(self._status_words())

    def _say_status(self) -> None:
        if not self.is_stopping:
            systemd.status(self._status_words())

    def _ready_count(self) -> int:
        return sum(child.state is State.READY for child in self._children.values())

    def _status_words(self) -> str:
        return f"{self._ready_count()} of {self._target} workers serve"

    def _in_background(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _stays(slots: Collection[Slot | DevelopmentSlot], before: Collection[Child | None]) -> str:
    """How far a reload has come that failed."""
    new = sum(slot.child not in before for slot in slots)
    if not new:
        return "The reload came to nothing, what ran before stays."
    return f"The reload came to an end behind {new} of {len(slots)} workers, the others are the old ones."
