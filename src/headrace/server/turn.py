"""What is done once for all connections in a turn of the loop, instead of once for each request.

Applications are started when every socket that had something has been read, and what they answer is written
when all that can have answered, or ``BATCH`` of them: the code and data of the server, of the application and
of the kernel then each stay in the processor's caches for the whole batch. A response of FastAPI's costs a
fifth less for it (60 against 48 us, CPython 3.11, 64 connections, 2026-11).

To an application its task is its own. To make one costs 1 us though, a fifth of a request of HTTP/2's, and
most applications that answer without waiting leave theirs as they found it; it then serves the next request
of the turn as a new one would. That is so when nobody holds the task (a session registry that has it as its
key, a lock, a timer that will cancel it), nothing was set on it, and each context variable is as it was. An
application that waits has its task to itself from then on.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections.abc import Callable, Sequence
from threading import get_ident
from time import monotonic
from typing import Any, Protocol, cast
from weakref import getweakrefcount

from headrace.asgi.http import HTTPExchange
from headrace.asgi.response_state import ResponseState
from headrace.server.request_task import TASK_NAME, RequestTask

HAS_EAGER_TASKS = sys.version_info >= (3, 12)
"""From CPython 3.12 on a task may run to its first wait without going through the loop."""

BATCH = 16
"""Responses that are written together."""

SLOW_S = 0.001
"""An answer that has waited so long for others is told to go, and some of those behind it do not wait."""

SLOW_RESPONSES = 64
"""How many that are."""

OWN_TASKS = 64
"""Before CPython 3.12: requests that get a task of their own, behind one that had to wait for a whole pass of
the loop because an application before it kept the task that both were to share."""

Variables = Sequence[tuple[contextvars.ContextVar[Any], Any]]
"""Context variables with values."""

_count_holders: Callable[[object], int] = getattr(sys, "getrefcount", id)
"""Where holders cannot be counted no task is shared."""

_logger = logging.getLogger("uvicorn.error")
_HEAD_HELD = int(ResponseState.HEAD_HELD)


class Writable(Protocol):
    """What is written: a connection."""

    def flush(self) -> None:
        """Write what has been encoded."""

    def abort(self) -> None:
        """Cut it."""


class Flushable(Writable, Protocol):
    """What is written once a turn: a connection of HTTP/2, a WebSocket."""

    def write_early(self) -> None:
        """Write in the middle of an application's call: a ``flush``, with what it may bring, follows."""


class Startable(Protocol):
    """An exchange, or what becomes one when its turn has come."""

    def begin(self, task: asyncio.Task[None]) -> HTTPExchange | None:
        """The exchange whose application is to be run now, in this task; None if nobody wants it any more."""


class Turn:
    """Starts exchanges, sends heads whose application waits for something else, and writes once for all.

    Args:
        loop: the running loop.
        context: each request's task gets a copy of it, so that no variable set in a request, a connection's
            callback or the lifespan is seen by another request.
        overwritten: variables that the stack sets anew in each request before anything reads them, and what
            they are elsewhere: these may differ from one request to the next in one task.

    Attributes:
        thread_id: of the loop's thread.
        current: the exchange whose application was called last in this turn; its head is let go by whoever
            comes when that waits. None outside of the calls of a turn.
        held: another exchange whose head waits for its body. There is at most one: an application that lets
            another run has stopped to wait, and then its head goes.
        running: exchanges whose application has not returned; who starts one puts it there.
        on_idle: called when there is none any more; None while nobody waits for that.
    """

    __slots__ = (
        "_answered", "_answered_since_s", "_context", "_count", "_is_flush_due", "_is_starting",
        "_keeps_contexts", "_loop",
        "_overwritten", "_own_left", "_ready", "_shares", "_slow_left", "_unflushed", "_unflushed_since_s",
        "_variables", "current", "held", "on_idle", "running", "thread_id",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: contextvars.Context, overwritten: Variables = ()
    ) -> None:
        self._loop = loop
        # uvloop's keeps none.
        self._keeps_contexts = isinstance(loop, asyncio.BaseEventLoop)
        self.thread_id = get_ident()
        self._context = context
        self._variables = tuple(context.items())
        self._overwritten = overwritten
        for variable, value in overwritten:
            context.run(variable.set, value)
        self._count = len(context)
        """Of the variables in a context that is as new."""
        # In debug mode asyncio tells which task was slow. Only CPython tells who holds an object.
        self._shares = not loop.get_debug() and hasattr(sys, "getrefcount")
        self._ready: list[Startable] = []
        self._is_starting = False
        """Requests are being started, and a flush follows."""
        self._own_left = 0 if self._shares else sys.maxsize
        self._is_flush_due = False
        self._unflushed: list[Flushable] = []
        self._unflushed_since_s = 0.0
        self.current: HTTPExchange | None = None
        self.held: HTTPExchange | None = None
        self.running: set[HTTPExchange] = set()
        self.on_idle: Callable[[], object] | None = None
        self._answered: list[Writable] = []
        self._answered_since_s = 0.0
        self._slow_left = 0

    def start(self, exchange: Startable) -> None:
        """Run the application for this exchange, at the end of the turn."""
        if self._own_left > 0 and not HAS_EAGER_TASKS:
            self._own_left -= 1
            self._start_alone(exchange)
            return
        self._ready.append(exchange)
        if len(self._ready) == 1:
            self._plan()

    def start_all(self, exchanges: Sequence[Startable]) -> None:
        """The same for several; each is made when its turn has come."""
        if self._own_left > 0 and not HAS_EAGER_TASKS:
            for exchange in exchanges:
                self.start(exchange)
            return
        self._ready += exchanges
        if len(self._ready) == len(exchanges):
            self._plan()

    def hold_head(self, exchange: HTTPExchange) -> None:
        """Send the exchange's head when its application waits, if no body has taken it along by then."""
        held = self.held
        if held is not None and held.state == _HEAD_HELD:
            _send_head(held)
        self.held = exchange
        if not self._is_starting:
            self._ask_for_flush()

    def write(self, connection: Writable) -> None:
        """Write a response that is encoded whole: at once when it is the only one, else at the turn's end.

        Nobody waits for a slow application: once an answer has waited for ``SLOW_S``, the next ones are
        written at once.
        """
        answered = self._answered
        if not answered and (self._slow_left or len(self.running) < 2):
            if self._slow_left:
                self._slow_left -= 1
            connection.flush()
            return
        count = len(answered)
        answered.append(connection)
        if not count:
            self._answered_since_s = monotonic()
            self._ask_for_flush()
            return
        if monotonic() - self._answered_since_s >= SLOW_S:
            self._slow_left = SLOW_RESPONSES
        if self._slow_left or count >= BATCH - 1:
            self._write_answered()

    def flush_later(self, connection: Flushable) -> None:
        """Call the connection's ``flush`` at the end of the turn; it asks once until it is flushed."""
        unflushed = self._unflushed
        unflushed.append(connection)
        if len(unflushed) == 1:
            self._unflushed_since_s = monotonic()
            self._ask_for_flush()
        else:
            self.write_if_late()

    def write_if_late(self) -> None:
        """Write what waits for the turn's end, if it has waited for ``SLOW_S``: an application is slow."""
        now_s = monotonic()
        if now_s - self._unflushed_since_s >= SLOW_S:
            self._unflushed_since_s = now_s
            for connection in self._unflushed:
                _guarded(connection, connection.write_early)

    def _ask_for_flush(self) -> None:
        if not (self._is_flush_due or self._is_starting):
            self._is_flush_due = True
            self._loop.call_soon(self._flush, context=self._context)

    def _plan(self) -> None:
        """Have served what gets ready in this turn."""
        if HAS_EAGER_TASKS:
            self._loop.call_soon(self._start_ready, context=self._context)
            return
        # The loop itself runs a new task when it has read all sockets.
        context = self._context.copy()
        serving = self._serve(self._ready, context)
        RequestTask(serving, loop=self._loop, context=context, name=TASK_NAME)
        self._loop.call_soon(self._start_left, self._ready, context=self._context)
        self._is_starting = True

    def _start_ready(self) -> None:
        ready = self._ready
        self._close(ready)
        self._is_starting = True
        try:
            while ready:
                context = self._context.copy()
                RequestTask(
                    self._serve(ready, context),
                    loop=self._loop,
                    context=context,
                    eager_start=True,  # type: ignore[call-arg,unused-ignore]
                )
                self._let_current_go()
        finally:
            self._is_starting = False
        self._flush()

    def _start_left(self, ready: list[Startable]) -> None:
        """Start what the task that was to serve these has left, because an application keeps it."""
        self._is_starting = False
        if ready is self._ready:  # somebody cancelled all tasks, before it could begin
            self._close(ready)
        if ready:
            self._own_left = OWN_TASKS
        while ready:
            self._start_alone(ready.pop())
        self._flush()

    def run_outside(self, function: Callable[[], object]) -> None:
        """Call something outside of every request's context: asyncio's loop keeps the context it is called in
        with what it is to call later, and with that all that a request has put there."""
        if self._keeps_contexts:
            self._context.copy().run(function)
        else:
            function()

    def _close(self, ready: list[Startable]) -> None:
        """What gets ready from now on is another turn's. These will be taken from the end of the list."""
        self._ready = []
        ready.reverse()

    def _start_alone(self, exchange: Startable) -> None:
        context = self._context.copy()
        serving = self._serve([exchange], context)
        RequestTask(serving, loop=self._loop, context=context, name=TASK_NAME)

    def start_again(self, ready: list[Startable]) -> None:
        """Start those of a task that is cancelled before its first step."""
        if ready is self._ready:
            return  # ``_start_left`` finds them
        left = ready.copy()
        ready.clear()
        for exchange in left:
            self._loop.call_soon(self._start_alone, exchange, context=self._context)

    async def _serve(self, ready: list[Startable], context: contextvars.Context) -> None:
        """Run one application after the other, until one waits or leaves something behind in this task.

        What is not served then is taken over before an application that waits can go on, and out of the list:
        who waits for long must not hold the other exchanges.
        """
        task = cast("RequestTask", asyncio.current_task(self._loop))
        if ready is self._ready:
            self._close(ready)
        count_holders, count_weak_holders = _count_holders, getweakrefcount
        holders = weak_holders = 0  # as no task has
        if self._shares:
            holders, weak_holders = count_holders(task), count_weak_holders(task)
        running, overwritten, is_starting = self.running, self._overwritten, self._is_starting
        while ready:
            startable = ready.pop()
            exchange = startable.begin(task)
            if exchange is None:
                running.discard(startable)
                self._tell_if_idle()
                continue
            if is_starting:
                self.current = exchange
            try:
                result: object = await exchange.application(exchange.scope, exchange.receive, exchange.send)  # type: ignore[func-returns-value]
            except BaseException as error:
                exchange.on_raise(error)
                if isinstance(error, KeyboardInterrupt):
                    raise
            else:
                exchange.on_return(result)
            finally:
                exchange.task = None
                running.discard(exchange)
                if self.on_idle is not None:
                    self._tell_if_idle()
            if (
                not ready
                or task.is_touched
                or count_holders(task) != holders
                or count_weak_holders(task) != weak_holders
                or len(context) != self._count
            ):
                return
            for variable, value in self._variables:
                if context[variable] is not value:
                    return
            if overwritten:
                # As in a new task: what sets them may read them first, or fail before it sets them.
                for variable, value in overwritten:
                    variable.set(value)

    def _tell_if_idle(self) -> None:
        if self.on_idle is not None and not self.running:
            self.on_idle()

    def _let_current_go(self) -> None:
        """The application that was called last has returned, or waits: then its head goes."""
        current = self.current
        if current is not None:
            self.current = None
            if current.state == _HEAD_HELD:
                _send_head(current)

    def _flush(self) -> None:
        self._is_flush_due = False
        self._let_current_go()
        held = self.held
        if held is not None:
            self.held = None
            if held.state == _HEAD_HELD:
                _send_head(held)
        if self._answered:
            self._write_answered()
        unflushed = self._unflushed
        if unflushed:
            self._unflushed = []
            _flush_all(unflushed)

    def _write_answered(self) -> None:
        answered = self._answered
        self._answered = []
        _flush_all(answered)


def _send_head(exchange: HTTPExchange) -> None:
    try:
        exchange.flush_head()
    except Exception:
        # Whoever comes here does it for others.
        _logger.exception("A response cannot be begun, and is given up")
        exchange.disconnect()


def _flush_all(connections: Sequence[Writable]) -> None:
    for connection in connections:
        _guarded(connection, connection.flush)


def _guarded(connection: Writable, write: Callable[[], None]) -> None:
    try:
        write()
    except Exception:
        # A fault of one connection must not be the others'.
        _logger.exception("A connection cannot be written, and is cut")
        connection.abort()
