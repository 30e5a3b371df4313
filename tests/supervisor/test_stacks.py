import _thread
import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.server.loops import loop_factory
from headrace.supervisor import stacks
from headrace.supervisor.stacks import describe_stacks
from live import PATIENCE_S, eventually

HERE = os.path.relpath(__file__)


class Blocked:
    """A thread whose event loop runs a coroutine function that blocks until ``go`` is called."""

    def __init__(self, loop_name: str, main: Callable[["Blocked"], Any]) -> None:
        self.is_blocked = threading.Event()
        self.may_go = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._main = main
        self._loop_name = loop_name
        self.thread = threading.Thread(target=self._run, name="the loop's", daemon=True)
        self.thread.start()
        assert self.is_blocked.wait(PATIENCE_S)

    def block(self) -> None:
        """Hold the event loop up."""
        self.is_blocked.set()
        assert self.may_go.wait(PATIENCE_S)

    def describe(self) -> tuple[str, str]:
        """Where it is."""
        assert self.thread.ident is not None
        return describe_stacks(self.thread.ident, self.loop)

    def end(self) -> None:
        """Let it go on."""
        self.may_go.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory(self._loop_name)) as runner:
            self.loop = runner.get_loop()
            runner.run(self._main(self))


@pytest.fixture
def block(loop_name: str) -> Iterator[Callable[[Any], Blocked]]:
    begun: list[Blocked] = []

    def start(main: Any) -> Blocked:
        begun.append(Blocked(loop_name, main))
        return begun[-1]

    yield start
    for one in begun:
        one.end()


def line_of(marker: str) -> int:
    """The line of this file that ends in a comment."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if line.endswith(f"# {marker}"))
    return number


def section(text: str, title: str) -> list[str]:
    """The lines under a heading, without it."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title)) + 1
    end = next((n for n, line in enumerate(lines[start:], start) if not line.startswith(" ")), len(lines))
    return lines[start:end]


async def handler(blocked: Blocked) -> None:
    blocked.block()  # blocks here


class Stream:
    async def messages(self, never: asyncio.Event) -> AsyncIterator[int]:
        yield 1
        await never.wait()  # suspended here

    async def read(self, never: asyncio.Event) -> None:
        async for _ in self.messages(never):  # reads here
            pass


async def waits_for(inner: Any) -> None:
    await inner  # waits here


def cancel_all() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


class TestWhere:
    def test_the_innermost_place_of_the_application(self, block: Callable[[Any], Blocked]) -> None:
        where, _ = block(handler).describe()
        # ``block`` is nearer, and the lock it waits for is the standard library's.
        lines = Path(__file__).read_text().splitlines()
        number = next(n for n, line in enumerate(lines, 1) if "assert self.may_go.wait" in line)
        assert where == f"{HERE}:{number} in Blocked.block"

    @pytest.mark.parametrize(
        ("places", "expected"),
        [
            (
                [("/x/lib/python3.11/site-packages/db/a.py", 3, "read"), ("/srv/a.py", 2, "f")],
                "/srv/a.py:2 in f",
            ),
            ([(os.__file__, 1, "walk"), ("/srv/a.py", 2, "f")], "/srv/a.py:2 in f"),
            (
                [(stacks.__file__, 1, "g"), ("<string>", 1, "__init__"), ("/srv/a.py", 2, "f")],
                "/srv/a.py:2 in f",
            ),
            (
                [
                    (os.__file__, 1, "walk"),
                    ("/x/site-packages/app/a.py", 3, "read"),
                    (stacks.__file__, 1, "g"),
                ],
                "/x/site-packages/app/a.py:3 in read",
            ),
            ([(f"{os.path.dirname(os.__file__)}/site-packages/a.py", 3, "r")], None),
            ([("<frozen importlib._bootstrap>", 5, "_load")], "<frozen importlib._bootstrap>:5 in _load"),
            ([], "an unknown place"),
        ],
    )
    def test_whose_code_counts(self, places: list[stacks.Place], expected: str | None) -> None:
        file, line, function = places[0] if places else ("", 0, "")
        assert stacks._where(places) == (expected or f"{stacks._shortened(file)}:{line} in {function}")

    def test_no_such_thread(self) -> None:
        where, text = describe_stacks(-1, None)
        assert where == "an unknown place"
        assert "Thread MainThread:" in text


class TestThreads:
    def test_that_of_the_loop_comes_first(self, block: Callable[[Any], Blocked]) -> None:
        _, text = block(handler).describe()
        assert text.startswith("Thread the loop's (event loop):\n")
        assert text.endswith("\n")
        lines = section(text, "Thread the loop's")
        at = lines.index(f'  File "{__file__}", line {line_of("blocks here")}, in handler')
        assert lines[at + 1] == "    blocked.block()  # blocks here"
        # The innermost comes last, as in a traceback.
        assert lines.index(next(line for line in lines if "in Blocked.block" in line)) > at
        assert any(
            "test_that_of_the_loop_comes_first" in line for line in section(text, "Thread MainThread:")
        )

    def test_bounds(self, monkeypatch: pytest.MonkeyPatch, block: Callable[[Any], Blocked]) -> None:
        monkeypatch.setattr(stacks, "MAX_FRAMES", 2)
        monkeypatch.setattr(stacks, "MAX_THREADS", 1)
        _, text = block(handler).describe()
        assert sum(line.startswith("  File") for line in section(text, "Thread the loop's")) == 2
        assert section(text, "Thread the loop's")[0].endswith(" frames further out")
        assert text.count("\nThread ") == 0
        assert "more threads\n" in text
        monkeypatch.setattr(stacks, "MAX_TEXT_CHARS", 10)
        assert describe_stacks(threading.get_ident(), None)[1] == "Thread Mai\n... (cut)\n"

    def test_a_lock_that_another_holds_is_not_waited_for(self) -> None:
        answer: list[str] = []
        with threading._active_limbo_lock:  # type: ignore[attr-defined]
            # ``Thread.start`` would wait for the lock.
            _thread.start_new_thread(lambda: answer.append(describe_stacks(-1, None)[1]), ())
            eventually(lambda: answer)
        assert "Thread MainThread" in answer[0]


class TestTasks:
    def test_chain_of_coroutines_and_generators(self, block: Callable[[Any], Blocked]) -> None:
        async def main(blocked: Blocked) -> None:
            never = asyncio.Event()
            task = asyncio.create_task(waits_for(Stream().read(never)), name="the reader")
            other = asyncio.create_task(never.wait(), name="another")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            blocked.block()
            task.cancel()
            other.cancel()
            await asyncio.wait([task, other])

        _, text = block(main).describe()
        assert "Task the reader of waits_for:\n" in text
        found = [line.strip() for line in section(text, "Task the reader") if line.endswith("here")]
        assert found == [
            "await inner  # waits here",
            "async for _ in self.messages(never):  # reads here",
            "await never.wait()  # suspended here",
        ]
        assert "in Stream.messages" in text
        assert section(text, "Task another of Event.wait:")
        running = next(line for line in text.splitlines() if line.endswith(" (running):"))
        assert "main" in running
        # It comes first: it is the one that blocks.
        assert next(line for line in text.splitlines() if line.startswith("Task ")) == running

    def test_generators_and_wrapped_coroutines(self, block: Callable[[Any], Blocked]) -> None:
        class Awaitable:
            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def __await__(self) -> Any:
                return (yield from self.inner.__await__())  # yields here

        async def main(blocked: Blocked) -> None:
            never = asyncio.Event()
            task = asyncio.create_task(waits_for(Awaitable(waits_for(never.wait()))), name="wrapped")
            await asyncio.sleep(0)
            blocked.block()
            task.cancel()
            await asyncio.wait([task])

        _, text = block(main).describe()
        lines = section(text, "Task wrapped")
        assert [line.strip() for line in lines if "# " in line] == [
            "await inner  # waits here",
            "return (yield from self.inner.__await__())  # yields here",
            "await inner  # waits here",
        ]
        assert any("in Event.wait" in line for line in lines)

    def test_bound(self, block: Callable[[Any], Blocked], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stacks, "MAX_TASKS", 3)

        async def main(blocked: Blocked) -> None:
            tasks = [asyncio.create_task(asyncio.Event().wait()) for _ in range(9)]
            await asyncio.sleep(0)
            blocked.block()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        _, text = block(main).describe()
        assert text.count("\nTask ") == 3
        assert text.endswith("\n... and 7 more tasks\n")

    def test_code_of_the_application_is_not_called(self, block: Callable[[Any], Blocked]) -> None:
        class Odd(asyncio.Future[None]):
            def __repr__(self) -> str:
                raise AssertionError("called")

        class OddTask(asyncio.Task[None]):
            def get_name(self) -> str:
                raise KeyError("odd")

        async def main(blocked: Blocked) -> None:
            loop = asyncio.get_running_loop()
            tasks = [OddTask(waits_for(Odd()), loop=loop), asyncio.create_task(waits_for(Odd()), name="odd")]
            await asyncio.sleep(0)
            blocked.block()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        _, text = block(main).describe()
        assert "Task odd of waits_for:" in text
        assert "A task that cannot be described (KeyError)" in text

    def test_tasks_that_cannot_be_listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def all_tasks(loop: object) -> set[object]:
            raise RuntimeError("Set changed size during iteration")

        monkeypatch.setattr(asyncio, "all_tasks", all_tasks)
        assert "cannot be listed" in describe_stacks(-1, object())[1]  # type: ignore[arg-type]


def test_a_loop_that_runs_is_no_harm(loop_name: str) -> None:
    """Tasks begin and end while they are described."""
    stopped = threading.Event()
    started = threading.Event()
    failed: list[BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def deep(depth: int) -> None:
        if depth:
            await deep(depth - 1)
        await asyncio.sleep(0)

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        started.set()
        while not stopped.is_set():
            await asyncio.gather(*(deep(number) for number in range(20)))

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
                runner.run(main())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(PATIENCE_S)
        for _ in range(200):
            where, text = describe_stacks(thread.ident or 0, loops[0])
            assert where
            assert text.startswith("Thread ")
    finally:
        stopped.set()
        thread.join(PATIENCE_S)
    assert not failed
