"""Requests whose applications run in one task notice nothing of each other."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from headrace.asgi.response_state import ResponseState
from headrace.server.turn import HAS_EAGER_TASKS, OWN_TASKS, Turn
from live import LiveServer, eventually, respond

Body = Callable[[], Awaitable[None]]
Serve = Callable[..., LiveServer]

CITY = contextvars.ContextVar("CITY", default="none")
OURS = contextvars.ContextVar("OURS", default="")
LAMP: contextvars.ContextVar[object] = contextvars.ContextVar("LAMP")


class CountingTurn(Turn):
    """Counts its tasks."""

    __slots__ = ("tasks",)

    def __init__(self, overwritten: Any) -> None:
        super().__init__(asyncio.get_running_loop(), contextvars.copy_context(), overwritten)
        self.tasks = 0

    async def _serve(self, ready: Any, context: contextvars.Context) -> None:
        self.tasks += 1
        await super()._serve(ready, context)


class FakeExchange:
    """Runs a body; notes what it found, and how it ended."""

    scope: Any = None
    state = int(ResponseState.COMPLETE)

    def __init__(self, body: Body, ended: list[FakeExchange]) -> None:
        self._body = body
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        self.city = ""
        self.error: BaseException | None = None

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Set by the turn: to None at the end."""
        return self._task

    @task.setter
    def task(self, task: asyncio.Task[None] | None) -> None:
        self._task = task
        if task is None:
            self._ended.append(self)

    def begin(self, task: asyncio.Task[None]) -> FakeExchange:
        self.task = task
        return self

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        self.city = CITY.get()
        assert asyncio.current_task() is self.task
        await self._body()

    async def receive(self) -> None:
        """Nothing comes."""

    async def send(self, message: Any) -> None:
        """Nothing goes."""

    def on_return(self, result: object) -> None:
        assert result is None

    def on_raise(self, error: BaseException) -> None:
        self.error = error


class Served:
    """Some bodies served in one turn.

    Attributes:
        tasks: how many it took.
        exchanges: in the order of the bodies.
        ended: the same in the order of their ends.
    """

    def __init__(self, *bodies: Body, overwritten: Any = (), debug: bool = False) -> None:
        self.ended: list[FakeExchange] = []
        self.exchanges = [FakeExchange(body, self.ended) for body in bodies]
        self.tasks = 0
        asyncio.run(self._serve(overwritten), debug=debug)

    async def _serve(self, overwritten: Any) -> None:
        LAMP.set(self)
        turn = CountingTurn(overwritten)
        turn.start_all(cast("Any", self.exchanges))
        while len(self.ended) < len(self.exchanges):
            await asyncio.sleep(0)
        self.tasks = turn.tasks


async def leave_nothing() -> None:
    token = CITY.set("Rome")
    CITY.reset(token)
    async with asyncio.timeout(60):
        assert asyncio.current_task() is not None


async def wait() -> None:
    await asyncio.sleep(0)


async def fail() -> None:
    raise ValueError("one's own")


def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


KEPT: list[Any] = []


async def keep_the_task() -> None:
    KEPT.append(current())


async def have_it_cancelled_later() -> None:
    KEPT.append(asyncio.get_running_loop().call_later(60, current().cancel))


async def be_a_key() -> None:
    KEPT.append(weakref.WeakKeyDictionary({current(): "session"}))


async def be_referred_to() -> None:
    KEPT.append(weakref.ref(current()))


async def add_a_callback() -> None:
    current().add_done_callback(lambda _: None)


async def set_an_attribute() -> None:
    current().user = "ada"  # type: ignore[attr-defined]


async def set_a_name() -> None:
    current().set_name("ada's")


async def ask_for_its_name() -> None:
    """As each log record does, from CPython 3.12 on."""
    assert current().get_name()


async def ask_for_its_context() -> None:
    """To run something in it later. CPython 3.11 does not give it."""
    if sys.version_info >= (3, 12):
        current().get_context()
    else:
        current().get_name()


async def cancel_oneself() -> None:
    current().cancel()


async def set_a_variable() -> None:
    CITY.set("Paris")


async def set_a_variable_of_the_lifespan() -> None:
    LAMP.set("another")


TRACES = [
    keep_the_task,
    have_it_cancelled_later,
    be_a_key,
    be_referred_to,
    add_a_callback,
    set_an_attribute,
    set_a_name,
    ask_for_its_name,
    ask_for_its_context,
    cancel_oneself,
    set_a_variable,
    set_a_variable_of_the_lifespan,
]


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Any:
    yield
    KEPT.clear()
    gc.collect()


def test_those_that_leave_nothing_share_a_task() -> None:
    assert Served(*[leave_nothing] * 10).tasks == 1


def test_error_of_one_is_not_the_next_ones() -> None:
    served = Served(fail, leave_nothing, fail)
    assert [type(exchange.error) for exchange in served.exchanges] == [ValueError, type(None), ValueError]


@pytest.mark.parametrize("leave", TRACES)
def test_those_behind_one_that_leaves_something_have_another(leave: Body) -> None:
    seen: list[tuple[int, str, str, object, int]] = []

    async def look() -> None:
        task = current()
        attribute = getattr(task, "user", "")
        seen.append((task.cancelling(), attribute, task.get_name(), LAMP.get(), len(KEPT)))

    served = Served(leave_nothing, leave, look)
    assert served.tasks == 2
    assert served.exchanges[-1].city == "none"
    ((cancelling, attribute, name, lamp, _),) = seen
    assert (cancelling, attribute, lamp) == (0, "", served)
    assert name != "ada's"
    assert not any(exchange.error for exchange in served.exchanges)


def test_one_that_waits_keeps_its_task() -> None:
    async def wait_with_a_variable() -> None:
        task = current()
        CITY.set("Oslo")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (CITY.get(), current()) == ("Oslo", task)

    served = Served(leave_nothing, wait_with_a_variable, leave_nothing, wait_with_a_variable, leave_nothing)
    assert [exchange.error for exchange in served.exchanges] == [None] * 5
    assert [exchange.city for exchange in served.exchanges] == ["none"] * 5
    # Nobody waits for those that wait.
    assert [served.exchanges.index(exchange) for exchange in served.ended] == [0, 2, 4, 1, 3]


def test_one_that_waits_does_not_hold_the_others() -> None:
    """A WebSocket's application may run for hours."""

    async def main() -> int:
        turn = CountingTurn(())
        ended: list[FakeExchange] = []
        go = asyncio.Event()

        async def wait_long() -> None:
            await go.wait()

        exchanges = [FakeExchange(body, ended) for body in (wait_long, *[leave_nothing] * 5)]
        quick = [weakref.ref(exchange) for exchange in exchanges[1:]]
        turn.start_all(cast("Any", exchanges))
        exchanges.clear()
        while len(ended) < len(quick):
            await asyncio.sleep(0)
        ended.clear()
        await asyncio.sleep(0)
        gc.collect()
        left = sum(exchange() is not None for exchange in quick)
        go.set()
        while not ended:
            await asyncio.sleep(0)
        return left

    assert asyncio.run(main()) == 0


def test_variables_that_the_stack_sets_begin_anew() -> None:
    """A layer that fails before it sets its own must not leave the one of the request before."""
    seen: list[str] = []

    async def set_ours() -> None:
        seen.append(OURS.get())
        OURS.set("mine")

    assert Served(*[set_ours] * 3, overwritten=[(OURS, "-")]).tasks == 1
    assert seen == ["-"] * 3


def test_names_of_tasks_tell_requests_apart(serve: Serve) -> None:
    go = asyncio.Event()
    names: list[set[str]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        first = task.get_name()
        if scope["path"] == "/wait":
            await go.wait()
        names.append({first, task.get_name()})
        await respond(send, b"")

    server = serve(application)
    waiting = server.connect()
    waiting.send(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n")
    for _ in range(3):
        server.connect().request()
    server.in_loop(go.set)
    waiting.read_response()
    assert len(names) == 4
    assert [len(of_one) for of_one in names] == [1] * 4
    assert len(set.union(*names)) == 4


@pytest.mark.skipif(HAS_EAGER_TASKS, reason="a task that starts eagerly has begun")
def test_one_alone_is_served_when_somebody_cancels_all_tasks() -> None:
    async def main() -> list[FakeExchange]:
        turn = CountingTurn(())
        turn._own_left = 3
        ended: list[FakeExchange] = []
        turn.start_all(cast("Any", [FakeExchange(leave_nothing, ended) for _ in range(3)]))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        while len(ended) < 3:
            await asyncio.sleep(0)
        return ended

    assert len(asyncio.run(main())) == 3


def test_variables_that_the_stack_sets_may_differ() -> None:
    async def set_ours() -> None:
        assert OURS.get() in ("-", "mine")
        OURS.set("mine")

    assert Served(*[set_ours] * 3, overwritten=[(OURS, "-")]).tasks == 1


def test_debug_mode_tells_tasks_apart() -> None:
    assert Served(*[leave_nothing] * 3, debug=True).tasks == 3


@pytest.mark.skipif(HAS_EAGER_TASKS, reason="a task that starts eagerly costs no pass of the loop")
def test_applications_that_wait_have_tasks_of_their_own_from_the_start() -> None:
    async def main() -> tuple[int, int]:
        turn = CountingTurn(())
        ended: list[FakeExchange] = []

        async def serve(body: Body, count: int) -> int:
            before = turn.tasks
            del ended[:]
            turn.start_all(cast("Any", [FakeExchange(body, ended) for _ in range(count)]))
            while len(ended) < count:
                await asyncio.sleep(0)
            return turn.tasks - before

        await serve(wait, 2)
        own = await serve(leave_nothing, OWN_TASKS)
        return own, await serve(leave_nothing, OWN_TASKS)

    assert asyncio.run(main()) == (OWN_TASKS, 1)


def test_all_are_served_when_somebody_cancels_all_tasks() -> None:
    """As some applications do when they stop."""

    async def main() -> list[FakeExchange]:
        turn = CountingTurn(())
        ended: list[FakeExchange] = []
        exchanges = [FakeExchange(leave_nothing, ended) for _ in range(3)]
        turn.start_all(cast("Any", exchanges))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        while len(ended) < len(exchanges):
            await asyncio.sleep(0)
        return ended

    assert len(asyncio.run(main())) == 3


def test_cancelled_by_the_server_is_one_request_alone(serve: Serve) -> None:
    """``--on-disconnect cancel``: the task of the client that left, and no other."""
    cancelled: list[str] = []
    waiting: list[str] = []
    go: list[asyncio.Event] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path.startswith("/wait"):
            if not go:
                go.append(asyncio.Event())
            waiting.append(path)
            try:
                await go[0].wait()
            except asyncio.CancelledError:
                cancelled.append(path)
                raise
        elif path == "/go":
            go[0].set()
        await respond(send, path.encode())

    server = serve(application, on_disconnect="cancel")
    clients = [server.connect() for _ in range(6)]
    for number, client in enumerate(clients):
        path = b"/wait%d" % number if number % 2 else b"/quick%d" % number
        client.send(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path)
    eventually(lambda: len(waiting) == 3)
    clients[1].close()
    eventually(lambda: cancelled == ["/wait1"])
    server.get("/go")
    for number in (0, 2, 3, 4, 5):
        body = b"/wait%d" % number if number % 2 else b"/quick%d" % number
        assert clients[number].read_until(body).startswith(b"HTTP/1.1 200")
    assert cancelled == ["/wait1"]
