"""The workers of one supervisor: brought up, kept in their places, replaced, led, let go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from headrace.config import Config
from headrace.errors import HeadraceError, WorkerError
from headrace.server.load_board import LoadBoard
from headrace.server.seat import Reason
from headrace.supervisor.blueprint import pack
from headrace.supervisor.child import Child, State
from headrace.supervisor.control import PageAsked, Start
from headrace.supervisor.development_slot import DevelopmentSlot
from headrace.supervisor.hub import Hub
from headrace.supervisor.metrics import Books
from headrace.supervisor.process import Spawner
from headrace.supervisor.remote_pages import asked_kind, send_page
from headrace.supervisor.slot import Slot
from headrace.supervisor.watch import Watcher
from headrace.telemetry.metrics.page import COLLECT_S, PageKind
from headrace.telemetry.metrics.store import Store

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
COLLECT_MARGIN_S = 0.05
"""How much longer than a worker waits for its collectors the supervisor waits for the worker."""

_logger = logging.getLogger("uvicorn.error")


class Crew:
    """Places of workers, and who is in them.

    Args:
        config: resolved.
        sockets: listening; they stay the caller's.
        spawner: makes the processes.
        target: how many places there are to be.
        on_news: called when a worker has come or gone.
        on_failed: called when no worker comes up any more, or with a fault of our own.

    Attributes:
        config: what the next worker gets.
        target: how many workers there should be.
        slots: the places, each with the task that keeps it filled.
        leader: who leads.
        books: the figures of all workers.
        graceful_s: how long running requests of a worker may take that is told to end; None waits for ever.
        is_running: the first start is done.
        is_stopping: nobody is brought up any more.
    """

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        spawner: Spawner,
        target: int,
        on_news: Callable[[], None],
        on_failed: Callable[[HeadraceError], None],
    ) -> None:
        self.config = config
        self.target = target
        self.slots: dict[Slot | DevelopmentSlot, asyncio.Task[None]] = {}
        self.leader: Child | None = None
        self.graceful_s = config.process.timeout_graceful_shutdown
        self.is_running = False
        self.is_stopping = False
        self._sockets = sockets
        self._spawner = spawner
        self._on_news = on_news
        self._on_failed = on_failed
        self._children: dict[int, Child] = {}
        self._board = LoadBoard.create(MAX_WORKERS + 1) if config.process.accept == "balanced" else None
        self._hub = Hub()
        self.books = Books(self._refresh, config.stack.metrics_max_series)
        self._has_warned_of_metrics = False
        self._watcher = Watcher(config.process, config.application.app_dir) if config.process.reload else None
        self._background: set[asyncio.Task[Any]] = set()

    @property
    def watched_folders(self) -> list[str]:
        """Whose changes bring new code in, while one develops."""
        return [] if self._watcher is None else [str(folder) for folder in self._watcher.folders]

    @property
    def ready_count(self) -> int:
        """How many accept."""
        return sum(child.state is State.READY for child in self._children.values())

    def child(self, worker_id: int) -> Child:
        """The worker of that number.

        Raises:
            KeyError: there is none.
        """
        return self._children[worker_id]

    async def empty(self) -> None:
        """Let all workers drain, and come back when the last has gone."""
        self.is_stopping = True
        for slot, task in self.slots.items():
            task.cancel()
            slot.dismiss()
        self.slots.clear()
        for child in list(self._children.values()):
            self._let_go(child, is_replaced=False)
        for child in list(self._children.values()):
            _logger.info("Waiting for child process [%d]", child.pid)
        # Again and again: some may have been spawned in the very moment of the stop.
        while self._children:
            await asyncio.wait([child.gone for child in self._children.values()])
        await self._spawner.close()
        for work in list(self._background):
            work.cancel()
        if self._background:
            await asyncio.wait(self._background)
        if self._watcher is not None:
            self._watcher.close()
        if self._board is not None:
            self._board.close()

    def force(self) -> None:
        """Have all end without waiting for requests."""
        for child in self._children.values():
            if child.state is State.STARTING:
                child.kill(signal.SIGKILL)
            else:
                child.force()

    async def bring_up(self) -> Child:
        """Start a worker.

        Returns:
            The worker, accepting.

        Raises:
            WorkerError: it could not start, or not in time.
        """
        config = self.config
        child = await self._spawn()
        try:
            await child.begin(self._start_of(child, config))
            await self._wait_ready(child, config.process.timeout_worker_startup)
        except WorkerError:
            self._show_fault(child)
            raise
        except asyncio.CancelledError:
            self._let_go(child, is_replaced=False)
            raise
        _logger.info("%s is ready.", child.name)
        if self.leader is None:
            self._appoint()
        self._on_news()
        return child

    async def _spawn(self) -> Child:
        inherited = [sock.fileno() for sock in self._sockets]
        if self._board is not None:
            inherited.append(self._board.fd)
        if self.is_stopping:
            raise WorkerError("The server stops.")
        metrics: Store | None = None
        try:
            metrics = self._open_metrics()
            spawned = await self._spawner.spawn(inherited, -1 if metrics is None else metrics.fd)
        except BaseException as error:
            if metrics is not None:
                self.books.fold(metrics)
            if isinstance(error, OSError):
                raise WorkerError(f"No process can be started for a worker: {error}.") from error
            raise
        if metrics is not None:
            # The worker has a descriptor of its own by now, and here the memory is mapped.
            metrics.close()
        child = Child(self._free_id(), spawned, self, metrics)
        self._children[child.worker_id] = child
        self._hub.add(child.worker_id, child.pipe)
        if self.leader is None:
            self.leader = child
        return child

    def _open_metrics(self) -> Store | None:
        """Memory for a worker's figures; None without metrics, and where none can be had: it serves all the
        same."""
        if not self.config.stack.has("metrics"):
            return None
        try:
            return self.books.open()
        except OSError as error:
            if not self._has_warned_of_metrics:
                self._has_warned_of_metrics = True
                _logger.error("There is no memory for a worker's metrics; it serves without: %s.", error)
            return None

    def _start_of(self, child: Child, config: Config) -> Start:
        return Start(
            child.worker_id,
            pack(config),
            [sock.fileno() for sock in self._sockets],
            -1 if self._board is None else self._board.fd,
            child is self.leader,
            self._shows(),
        )

    async def _wait_ready(self, child: Child, timeout_s: float) -> None:
        # Not ``wait_for``: before 3.12 it can swallow a cancellation.
        done, _ = await asyncio.wait([child.ready], timeout=timeout_s or None)
        if not done:
            child.kill(signal.SIGKILL)
            raise WorkerError(
                f"{child.name} was not ready within {timeout_s:g} s (--timeout-worker-startup), and was "
                "killed."
            )
        child.ready.result()

    def retire(self, child: Child) -> None:
        """Let a worker drain whose successor serves."""
        self._let_go(child, is_replaced=True)

    def _let_go(self, child: Child, is_replaced: bool) -> None:
        """Have a worker end; it is killed when it takes longer than its own timeouts allow."""
        is_starting = child.state is State.STARTING
        child.drain(self.graceful_s, is_replaced)
        # A signal that comes in the middle of an import is looked at behind it.
        self.in_background(self._kill_after(child, TERM_S) if is_starting else self._kill_in_time(child))

    def _end_old(self, child: Child) -> None:
        """In development: what runs on the old code has a moment."""
        graceful_s = self.config.process.reload_graceful
        child.drain(graceful_s, is_replaced=False)
        self.in_background(self._kill_after(child, graceful_s + OLD_MARGIN_S))

    async def _kill_in_time(self, child: Child) -> None:
        graceful_s = self.graceful_s
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

    def add_slot(self, child: Child | None = None) -> None:
        """One place more; ``child`` is in it already."""
        slot: Slot | DevelopmentSlot
        if self._watcher is None:
            slot = Slot(self.bring_up, self.retire, self._on_start_failed, self.books.count_restart, child)
        else:
            slot = DevelopmentSlot(
                self.bring_up, self._end_old, self._watcher, self.books.count_restart, child
            )
        task = asyncio.ensure_future(slot.keep())
        task.add_done_callback(self._on_slot_ended)
        self.slots[slot] = task

    def _on_slot_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _logger.error("A fault of headrace's own; it stops.", exc_info=error)
            self._on_failed(WorkerError(f"The supervisor failed: {error!r}."))

    def _on_start_failed(self, error: WorkerError) -> None:
        if any(child.state is State.READY for child in self._children.values()):
            return
        if max(slot.failures for slot in self.slots) >= FAILED_STARTS:
            self._on_failed(WorkerError(f"No worker comes up any more. {error}"))

    def _free_id(self) -> int:
        return next(number for number in range(1, MAX_WORKERS + 1) if number not in self._children)

    def slot_of(self, child: Child) -> Slot | DevelopmentSlot | None:
        """Whose place the worker is in."""
        return next((slot for slot in self.slots if slot.child is child), None)

    def _show_fault(self, child: Child) -> None:
        if child.application_traceback:
            _logger.error("The application could not be started:\n%s", child.application_traceback.rstrip())

    def _appoint(self) -> None:
        """Make the oldest that serves the leader."""
        ready = [child for child in self._children.values() if child.state is State.READY]
        if ready and not self.is_stopping:
            self.leader = min(ready, key=lambda child: child.born_s)
            self.leader.lead()

    def _shows(self) -> str:
        """Which errors a worker shows as a page; a wrong name on the command line is none of them."""
        if not self.config.process.reload:
            return "none"
        return "every" if self.is_running else "application"

    # What children say

    def on_retire(self, child: Child, reason: Reason) -> None:
        """The child asks to be replaced."""
        if self.is_stopping:
            return
        slot = self.slot_of(child)
        if slot is not None:
            self.in_background(self._replace_in_the_end(slot, child, reason))
        elif child.state is State.READY:
            # Its place is another's already.
            self.retire(child)

    async def _replace_in_the_end(self, slot: Slot | DevelopmentSlot, child: Child, reason: Reason) -> None:
        while slot.child is child and not child.gone.done():
            with contextlib.suppress(WorkerError):
                await slot.replace(reason, child)
                return
            await asyncio.sleep(RETRY_S)

    def on_page_asked(self, child: Child, asked: PageAsked) -> None:
        """The child wants the page of metrics."""
        self.in_background(self._send_page(child, asked))

    async def _send_page(self, child: Child, asked: PageAsked) -> None:
        await send_page(child.pipe, asked.number, await self.metrics(asked_kind(asked)))

    async def metrics(self, kind: PageKind) -> bytes | None:
        """The page of all workers' figures; None when none are kept."""
        if not self.config.stack.has("metrics"):
            return None
        return await self.books.page(kind, self.children(), self.target)

    async def _refresh(self) -> None:
        """Have the workers' collectors asked, and wait for them a moment."""
        asked = [child.ask_to_collect() for child in self.children()]
        waiting = [future for future in asked if future is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=COLLECT_S + COLLECT_MARGIN_S)

    def on_backplane(self, child: Child, frames: list[tuple[int, bytes]]) -> None:
        """Messages for other workers."""
        self._hub.on_frames(child.worker_id, frames)

    def on_gone(self, child: Child) -> None:
        """The process has ended."""
        del self._children[child.worker_id]
        self._hub.remove(child.worker_id)
        if child.metrics is not None:
            self.books.fold(child.metrics)
            # Here and not when the child is garbage: it is a lot of memory.
            child.metrics = None
        if self._board is not None:
            self._board.clear(child.worker_id)
        if child is self.leader:
            self.leader = None
            self._appoint()
        self._on_news()

    # What liveness asks for

    def children(self) -> Iterable[Child]:
        """All workers that live."""
        return self._children.values()

    def replace_by_force(self, child: Child) -> None:
        """Put another in its place without waiting for it."""
        slot = self.slot_of(child)
        if slot is not None:
            slot.abandon()

    def replace_unhurried(self, child: Child, reason: Reason) -> None:
        """Put another in its place, and let it drain."""
        self.on_retire(child, reason)

    def scale(self, count: int) -> None:
        """Have so many places; who is in one too many drains."""
        if count != self.target:
            _logger.info("%d workers instead of %d.", count, self.target)
        self.target = count
        while len(self.slots) < count:
            self.add_slot()
        while len(self.slots) > count:
            slot, task = self.slots.popitem()
            task.cancel()
            slot.dismiss()
            if slot.child is not None:
                self.retire(slot.child)
        self._on_news()

    def in_background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine beside everything else, until the crew is empty."""
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
