"""One worker as its supervisor sees it: spawned, starting, ready, draining, gone."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import signal
import time
from typing import Any, Protocol

from headrace.errors import WorkerError
from headrace.server.seat import Cause, Reason
from headrace.supervisor.control import (
    Collect,
    Collected,
    ControlError,
    Drain,
    DumpStacks,
    Failed,
    Force,
    Lead,
    Lost,
    PageAsked,
    Ping,
    Pong,
    Publish,
    Ready,
    Retire,
    Stacks,
    Start,
    Subscribe,
    Unsubscribe,
    decode,
)
from headrace.supervisor.pipe import ControlPipe
from headrace.supervisor.process import Spawned, end_words
from headrace.telemetry.metrics.store import Store

REAP_S = 2.0
"""How long a process may live on when its pipe has ended."""

LAST_WORDS_S = 0.5
"""How long the pipe of a process that has ended is read for."""

_BACKPLANE = frozenset(message.kind for message in (Subscribe, Unsubscribe, Lost, Publish))
"""Kinds of messages that are passed on."""

_logger = logging.getLogger("uvicorn.error")


class State(enum.Enum):
    """Of a worker."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Owner(Protocol):
    """Who is told what children say."""

    def on_retire(self, child: Child, reason: Reason) -> None:
        """The child asks to be replaced."""

    def on_page_asked(self, child: Child, asked: PageAsked) -> None:
        """The child wants the page of metrics."""

    def on_backplane(self, child: Child, frames: list[tuple[int, bytes]]) -> None:
        """Messages that are not for the supervisor."""

    def on_gone(self, child: Child) -> None:
        """The process has ended."""


class Child:
    """A worker's process, its pipes, and what is known of it.

    Attributes:
        worker_id: small and reused.
        pipe: the control pipe.
        metrics: the store that it writes its figures into; None without metrics.
        born_s: when it was spawned, by the monotonic clock.
        ready: done when it accepts; with a ``WorkerError`` when it ended before.
        gone: done when the process has ended, with the exit code.
        pong: how it was when it last answered.
        asked_s: the supervisor's awake time of the first ping that it has not answered; negative when it has
            answered all.
        is_condemned: it is being ended because its loop is blocked.
        application_traceback: of the fault that it could not start for.
    """

    def __init__(self, worker_id: int, spawned: Spawned, owner: Owner, metrics: Store | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.worker_id = worker_id
        self.metrics = metrics
        self.process = spawned.process
        self._spawned = spawned
        self._owner = owner
        self.pipe = ControlPipe(self._on_frames, self._on_pipe_end)
        self._lifeline = ControlPipe(self._on_lifeline, _nothing)
        self.state = State.STARTING
        self.born_s = time.monotonic()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[int] = loop.create_future()
        self.stacks: asyncio.Future[Stacks] = loop.create_future()
        self.pong = Pong(0, 0, 0, 0, 0, 0.0)
        self.asked_s = -1.0
        self.is_condemned = False
        self.application_traceback = ""
        self._has_collectors = True  # as far as is known
        self._collecting: asyncio.Future[None] | None = None
        self._failure = ""
        self._code: int | None = None
        # Nobody may be waiting when it fails.
        self.ready.add_done_callback(lambda future: future.cancelled() or future.exception())

    @property
    def name(self) -> str:
        """To people."""
        return f"Worker {self.worker_id} [{self.pid}]"

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def age_s(self) -> float:
        """Since the spawn."""
        return time.monotonic() - self.born_s

    async def begin(self, start: Start) -> None:
        """Open the pipes and tell it what it is to do."""
        # First of all: whoever begins may be cancelled at each of these steps.
        self.process.watch(self._on_exit)
        try:
            await self.pipe.open(self._spawned.control)
            await self._lifeline.open(self._spawned.lifeline)
        except BaseException:
            # The worker sees its pipe end.
            self._spawned.lifeline.close()
            raise
        self.pipe.send(start)

    # What it is told

    def ping(self, number: int, awake_s: float) -> None:
        """Ask how it does; the one before must have been answered, so that pings do not heap up."""
        self.asked_s = awake_s
        self.pipe.send(Ping(number))

    def drain(self, graceful_s: float | None, is_replaced: bool) -> None:
        """Have it end; again with other terms."""
        if self.state is State.GONE:
            return
        if self.state is State.STARTING:
            # It has accepted nothing.
            self.kill(signal.SIGTERM)
        else:
            self.pipe.send(Drain(-1.0 if graceful_s is None else graceful_s, is_replaced))
        self.state = State.DRAINING

    def force(self) -> None:
        """Have it end without waiting for requests."""
        if self.state is not State.GONE:
            self.pipe.send(Force())

    def lead(self) -> None:
        """Make it the leader."""
        self.pipe.send(Lead())

    def kill(self, number: int) -> None:
        """Send a signal."""
        with contextlib.suppress(ProcessLookupError):
            self.process.signal(number)

    async def ask_stacks(self, timeout_s: float) -> Stacks | None:
        """Where its threads and tasks are; None when not even the lifeline answers."""
        if not self.stacks.done():
            self._lifeline.send(DumpStacks())
        either: list[asyncio.Future[Any]] = [self.stacks, self.gone]
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return self.stacks.result() if self.stacks.done() else None

    def ask_to_collect(self) -> asyncio.Future[None] | None:
        """Have the application's own collectors asked.

        Returns:
            Done when it is; None when it is not worth waiting for: there are none, or the last time has not
            been answered yet.
        """
        if self._collecting is not None or self.state is not State.READY:
            return None
        self._collecting = asyncio.get_running_loop().create_future()
        self.pipe.send(Collect())
        return self._collecting if self._has_collectors else None

    # What it says

    def _on_frames(self, frames: list[tuple[int, bytes]]) -> None:
        backplane = []
        for kind, payload in frames:
            if kind in _BACKPLANE:
                backplane.append((kind, payload))
                continue
            message = decode(kind, payload)
            if isinstance(message, Pong):
                self.pong = message
                self.asked_s = -1.0
            elif isinstance(message, Ready):
                self._on_ready()
            elif isinstance(message, Retire):
                self._owner.on_retire(self, Reason(Cause(message.cause), message.words))
            elif isinstance(message, PageAsked):
                self._owner.on_page_asked(self, message)
            elif isinstance(message, Collected):
                self._on_collected(message.is_any)
            elif isinstance(message, Failed):
                self._failure = message.sentence
                self.application_traceback = message.traceback
            else:
                raise ControlError(f"A worker does not send {type(message).__name__}")
        if backplane:
            self._owner.on_backplane(self, backplane)

    def _on_ready(self) -> None:
        if self.state is not State.STARTING:
            return
        self.state = State.READY
        self.ready.set_result(None)

    def _on_collected(self, is_any: bool) -> None:
        self._has_collectors = is_any
        if self._collecting is not None:
            self._collecting.set_result(None)
            self._collecting = None

    def _on_lifeline(self, frames: list[tuple[int, bytes]]) -> None:
        for kind, payload in frames:
            message = decode(kind, payload)
            if isinstance(message, Stacks) and not self.stacks.done():
                self.stacks.set_result(message)

    # Its end

    def _on_pipe_end(self) -> None:
        """The pipe's end means death: who cannot be told anything any more must not serve on."""
        if self._code is not None:
            self._end(self._code)
        elif self.state not in (State.GONE, State.DRAINING):
            # Of one that drains the loop has ended, and threads of the application may still work.
            asyncio.get_running_loop().call_later(REAP_S, self._kill_if_alive)

    def _kill_if_alive(self) -> None:
        if self.state is not State.GONE:
            self.kill(signal.SIGKILL)

    def _on_exit(self, code: int) -> None:
        self._code = code
        if not self.pipe.is_open:
            self._end(code)
        else:
            # What it said last is still in the pipe; but its own children may hold that open.
            asyncio.get_running_loop().call_later(LAST_WORDS_S, self._end, code)

    def _end(self, code: int) -> None:
        if self.state is State.GONE:
            return
        self.state = State.GONE
        self.pipe.close()
        self._lifeline.close()
        if not self.ready.done():
            reason = self._failure or f"{self.name} {end_words(code)} before it was ready."
            self.ready.set_exception(WorkerError(reason))
        self._on_collected(False)
        self.gone.set_result(code)
        self._owner.on_gone(self)


def _nothing() -> None:
    pass
