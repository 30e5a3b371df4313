from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.config import ProcessOptions
from headrace.server.loops import loop_factory
from headrace.supervisor import watch as module
from headrace.supervisor.source_tree import Look
from headrace.supervisor.watch import Watcher
from live import PATIENCE_S, eventually

NEVER_S = 1_000_000.0


class Watched:
    """A watcher in a loop that runs only while somebody waits for a change."""

    def __init__(self, runner: asyncio.Runner, watcher: Watcher, folder: Path) -> None:
        self.runner = runner
        self.watcher = watcher
        self._folder = folder

    def next(self, *steps: Callable[[], Any]) -> set[str]:
        """The next change, relative to the folder; the steps are done while it is waited for."""
        return self.runner.run(self._next(steps))

    async def _next(self, steps: tuple[Callable[[], Any], ...]) -> set[str]:
        waiting = asyncio.create_task(self.watcher.next_change())
        for step in steps:
            await asyncio.sleep(0)
            step()
        done, _ = await asyncio.wait([waiting], timeout=PATIENCE_S)
        assert done, "no change"
        return {os.path.relpath(path, self._folder) for path in waiting.result()}


@pytest.fixture(params=["folders", "trees", "polling"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the files are watched: events of folders (Linux), of trees (macOS), or polling."""
    if request.param == "polling":
        monkeypatch.setitem(sys.modules, "watchfiles", None)
    else:
        pytest.importorskip("watchfiles")
        monkeypatch.setattr(module, "_TREES_COST_NOTHING", request.param == "trees")
    return str(request.param)


@pytest.fixture
def loop_name() -> str:
    """Only the tests that concern the loop are run under both."""
    return "asyncio"


both_loops = pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a small application."""
    (tmp_path / "package").mkdir()
    for name in ("main.py", "package/a.py", "package/b.py"):
        (tmp_path / name).write_text("old")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def watch(folder: Path, loop_name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watched]]:
    """Give a function that begins to watch; with events it then never looks unless there was one."""
    monkeypatch.setattr(module, "SETTLE_S", 0.02)
    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        watchers: list[Watcher] = []

        def start(way: str, first: str = "main.py", **options: Any) -> Watched:
            options["reload_delay"] = 0.01 if way == "polling" else NEVER_S
            watchers.append(Watcher(ProcessOptions(**options), ""))
            watched = Watched(runner, watchers[-1], folder)
            # A change before anybody waits is seen; with it, events are known to be on.
            (folder / first).write_text("first")
            assert watched.next() == {first}
            return watched

        yield start
        for watcher in watchers:
            watcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "headrace-watch"]


def test_names(folder: Path, way: str) -> None:
    watcher = Watcher(ProcessOptions(), "")
    assert watcher.name == ("StatReload" if way == "polling" else "WatchFiles")
    assert watcher.folders == [folder]
    watcher.close()


@both_loops
def test_a_save(watch: Any, way: str, folder: Path) -> None:
    watched = watch(way)
    (folder / "package/a.py").write_text("new, and longer")
    assert watched.next() == {"package/a.py"}
    assert watched.next(lambda: (folder / "main.py").write_text("new, and longer")) == {"main.py"}


def test_a_save_as_editors_do(watch: Any, way: str, folder: Path) -> None:
    """Vim, and most others: a file beside, a backup, then a rename over the old one."""
    watched = watch(way)

    def save() -> None:
        (folder / "main.py~").write_text("first")
        (folder / ".main.py.swp").write_text("by the way")
        (folder / "4913.tmp").write_text("other")
        os.replace("4913.tmp", "main.py")

    # The same size: what tells is the inode, whatever the clock's resolution.
    assert len("first") == len("other")
    assert watched.next(save) == {"main.py"}


def test_a_burst_is_one_change(watch: Any, way: str, folder: Path) -> None:
    """However long it takes, as long as each look sees more than the one before."""
    watched = watch(way)
    names = [f"package/m{number}.py" for number in range(40)]
    rest = iter(names[10:])
    tree = watched.watcher._tree
    look = tree.look

    def write_more(count: int) -> None:
        for name in itertools.islice(rest, count):
            (folder / name).write_text("x")

    def look_between() -> Look:
        seen = look()
        write_more(10)
        return seen

    tree.look = look_between
    for name in names[:10]:
        (folder / name).write_text("x")
    assert watched.next() == set(names)


def test_new_moved_and_deleted(watch: Any, way: str, folder: Path) -> None:
    watched = watch(way)
    assert watched.next((folder / "new.py").touch) == {"new.py"}
    assert watched.next((folder / "new.py").unlink) == {"new.py"}
    moved = {"package/a.py", "package/b.py", "parcel/a.py", "parcel/b.py"}
    assert watched.next(lambda: (folder / "package").rename(folder / "parcel")) == moved
    assert watched.next(lambda: (folder / "parcel/a.py").write_text("moved")) == {"parcel/a.py"}


def test_new_folders(watch: Any, way: str, folder: Path) -> None:
    watched = watch(way)
    deep = folder / "package/one/two"

    def make() -> None:
        deep.mkdir(parents=True)
        (deep / "c.py").touch()

    assert watched.next(make) == {"package/one/two/c.py"}
    assert watched.next(lambda: (deep / "c.py").write_text("changed")) == {"package/one/two/c.py"}
    assert watched.next((deep / "d.py").touch) == {"package/one/two/d.py"}


def test_folders_that_vanish_and_return(watch: Any, way: str, folder: Path) -> None:
    watched = watch(way)
    both = {"package/a.py", "package/b.py"}
    assert watched.next(lambda: shutil.rmtree(folder / "package")) == both
    (folder / "package").mkdir()
    (folder / "package/c.py").touch()
    assert watched.next() == {"package/c.py"}
    assert watched.next(lambda: (folder / "package/c.py").write_text("more")) == {"package/c.py"}
    assert watched.next(lambda: (folder / "package").rename(f"{folder}-gone")) == {"package/c.py"}


def test_a_root_that_vanishes_and_returns(watch: Any, way: str, folder: Path) -> None:
    watched = watch(way, first="package/a.py", reload_dirs=("package",))
    assert watched.next(lambda: shutil.rmtree("package")) == {"package/a.py", "package/b.py"}
    Path("package").mkdir()
    # Nobody hears of this file itself: the folder that was watched is another one.
    Path("package/c.py").touch()
    assert watched.next() == {"package/c.py"}
    assert watched.next(lambda: Path("package/c.py").write_text("again")) == {"package/c.py"}


def test_what_does_not_count(watch: Any, way: str, folder: Path) -> None:
    watched = watch(way, reload_includes=("*.toml",), reload_excludes=("package/b.py", "build"))

    def write() -> None:
        for name in (".env", "log.txt", "package/b.py", "build/x.py", ".venv/y.py", "node_modules/z.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("changed")
        (folder / "package/a.py").chmod(0o600)
        (folder / "app.toml").write_text("counts")

    assert watched.next(write) == {"app.toml"}


def test_a_name_that_is_included(watch: Any, way: str, folder: Path) -> None:
    watched = watch(way, reload_includes=(".env",))
    assert watched.next(lambda: (folder / ".env").write_text("A=1")) == {".env"}


@both_loops
def test_a_cancelled_wait_loses_nothing(watch: Any, way: str, folder: Path) -> None:
    """Nor does a look that takes long hold up the loop."""
    watched = watch(way)
    looking, may_end = threading.Event(), threading.Event()
    tree = watched.watcher._tree
    look = tree.look

    def look_slowly() -> Look:
        seen = look()
        if threading.current_thread().name != "headrace-watch":
            looking.set()
            assert may_end.wait(PATIENCE_S)
        return seen

    tree.look = look_slowly

    async def cancel() -> None:
        waiting = asyncio.create_task(watched.watcher.next_change())
        await asyncio.sleep(0)
        (folder / "main.py").write_text("while nobody waits")
        while not looking.is_set():
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        may_end.set()

    watched.runner.run(cancel())
    assert watched.next() == {"main.py"}


def test_a_folder_that_vanishes_before_it_can_be_watched(
    watch: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pytest.importorskip("watchfiles")
    refused: list[Path] = []

    def refuse_once(*paths: Any, **options: Any) -> Iterator[set[Any]]:
        if not refused:
            refused.append(folder)
            raise FileNotFoundError("No path was found.")
        yield from real.watch(*paths, **options)

    fake = types.SimpleNamespace(watch=refuse_once, Change=real.Change)
    monkeypatch.setitem(sys.modules, "watchfiles", fake)
    watched = watch("folders")
    assert refused
    assert watched.next(lambda: (folder / "main.py").write_text("again and again")) == {"main.py"}
    assert watched.watcher.name == "WatchFiles"


@both_loops
def test_events_that_cannot_be_had_are_replaced_by_polling(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loop_name: str
) -> None:
    def no_more(*_: Any, **__: Any) -> Iterator[set[Any]]:
        raise OSError("OS file watch limit reached")
        yield

    fake = types.ModuleType("watchfiles")
    fake.watch = no_more  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "watchfiles", fake)
    watcher = Watcher(ProcessOptions(reload_delay=0.01), "")
    with (
        asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner,
        caplog.at_level(logging.WARNING, "uvicorn.error"),
    ):
        watched = Watched(runner, watcher, folder)
        assert watched.next(lambda: (folder / "main.py").write_text("first")) == {"main.py"}
        assert watched.next(lambda: (folder / "main.py").write_text("second")) == {"main.py"}
    assert watcher.name == "StatReload"
    assert caplog.messages == [
        "watchfiles cannot watch the files (OS file watch limit reached); they are polled instead"
    ]
    watcher.close()


def test_its_thread_does_not_mind_a_loop_that_is_gone(
    folder: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    call_soon = module._call_soon

    def record(loop: asyncio.AbstractEventLoop, callback: Any, *arguments: Any) -> None:
        call_soon(loop, callback, *arguments)
        calls.append(callback)

    monkeypatch.setattr(module, "_call_soon", record)
    watcher = Watcher(ProcessOptions(), "")

    async def begin() -> None:
        waiting = asyncio.create_task(watcher.next_change())
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(begin())
    if way != "polling":
        eventually(lambda: calls, "a call into the closed loop")
    watcher.close()
    assert "headrace-watch" not in {thread.name for thread in threading.enumerate()}
