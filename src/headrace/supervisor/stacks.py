"""Where every thread and task of this process is, asked by a thread while the event loop is blocked.

Nothing here takes a lock that another thread may hold, calls code of the application (``repr``), or raises:
what cannot be read is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import linecache
import os
import sys
import sysconfig
import threading
import types
from collections.abc import Iterator
from typing import Any

MAX_THREADS = 50
MAX_TASKS = 100
MAX_FRAMES = 40
"""Of each stack, the innermost."""
MAX_TEXT_CHARS = 100_000

_HEADRACE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STANDARD_LIBRARY = tuple(
    os.path.join(path, "")
    for path in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.dirname(os.__file__)}
)
_PACKAGES = ("site-packages", "dist-packages")

Place = tuple[str, int, str]
"""File, line and function."""


def describe_stacks(loop_thread_id: int, loop: asyncio.AbstractEventLoop | None) -> tuple[str, str]:
    """Say where everything is; may be called by any thread, whatever the loop does.

    Args:
        loop_thread_id: ``threading.get_ident()`` of the thread that runs the loop.
        loop: whose tasks are described.

    Returns:
        The place where the loop's thread is in the application, "app.py:12 in handler"; and the stacks of all
        threads, that one's first, and of the loop's tasks: many lines, the last of them ended.
    """
    stacks = {thread_id: _places_of_frame(frame) for thread_id, frame in sys._current_frames().items()}
    where = _where(stacks.get(loop_thread_id, []))
    lines = [*_thread_lines(stacks, loop_thread_id), *_task_lines(loop)]
    text = "\n".join(lines) + "\n"
    if len(text) > MAX_TEXT_CHARS:
        text = text[:MAX_TEXT_CHARS] + "\n... (cut)\n"
    return where, text


# ---- threads


def _places_of_frame(frame: types.FrameType | None) -> list[Place]:
    """The places of a stack, the innermost first."""
    places: list[Place] = []
    # A bound, because a thread that runs changes what is walked along.
    while frame is not None and len(places) < sys.getrecursionlimit():
        places.append(_place_of(frame))
        frame = frame.f_back
    return places


def _place_of(frame: types.FrameType) -> Place:
    return frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_qualname


def _thread_lines(stacks: dict[int, list[Place]], first: int) -> Iterator[str]:
    names = _thread_names()
    thread_ids = sorted(stacks, key=lambda thread_id: thread_id != first)
    for thread_id in thread_ids[:MAX_THREADS]:
        whose = " (event loop)" if thread_id == first else ""
        yield f"Thread {names.get(thread_id, thread_id)}{whose}:"
        yield from _stack_lines(stacks[thread_id])
    if len(thread_ids) > MAX_THREADS:
        yield f"... and {len(thread_ids) - MAX_THREADS} more threads"


def _thread_names() -> dict[int, str]:
    # Not ``threading.enumerate``, which waits for a lock. The copy is made in one step of the interpreter.
    threads = getattr(threading, "_active", {}).copy()
    return {thread_id: str(getattr(thread, "_name", thread_id)) for thread_id, thread in threads.items()}


# ---- tasks


def _task_lines(loop: asyncio.AbstractEventLoop | None) -> Iterator[str]:
    if loop is None:
        return
    try:
        tasks = asyncio.all_tasks(loop)
        running = asyncio.current_task(loop)
    except RuntimeError:
        # The set changed each time it was walked: a loop so busy is not blocked.
        yield "The tasks cannot be listed, they change too fast."
        return
    for task in sorted(tasks, key=lambda task: task is not running)[:MAX_TASKS]:
        yield from _lines_of_task(task, task is running)
    if len(tasks) > MAX_TASKS:
        yield f"... and {len(tasks) - MAX_TASKS} more tasks"


def _lines_of_task(task: asyncio.Task[Any], is_running: bool) -> list[str]:
    try:
        coroutine = task.get_coro()
        name = str(getattr(coroutine, "__qualname__", type(coroutine).__qualname__))
        return [
            f"Task {task.get_name()} of {name}{' (running)' if is_running else ''}:",
            *_stack_lines(_places_of_awaitable(coroutine)),
        ]
    except Exception as error:
        # A task of a class of its own, or one that ends in this moment.
        return [f"A task that cannot be described ({type(error).__name__})"]


def _places_of_awaitable(awaitable: Any) -> list[Place]:
    """The places where a coroutine and those it waits for are suspended, the innermost first."""
    places: list[Place] = []
    for _ in range(sys.getrecursionlimit()):
        frame, awaited = _frame_and_awaited(awaitable)
        if frame is not None:
            places.insert(0, _place_of(frame))
        if awaited is None:
            break
        awaitable = awaited
    return places


def _frame_and_awaited(awaitable: Any) -> tuple[types.FrameType | None, Any]:
    """The frame of an awaitable, and what that waits for; twice None at the end, a future for example."""
    if isinstance(awaitable, types.CoroutineType):
        return awaitable.cr_frame, awaitable.cr_await
    if isinstance(awaitable, types.GeneratorType):
        return awaitable.gi_frame, awaitable.gi_yieldfrom
    if isinstance(awaitable, types.AsyncGeneratorType):
        return awaitable.ag_frame, awaitable.ag_await
    if type(awaitable).__name__ in ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper"):
        # What stands between ``await`` and these has no attribute for what it wraps.
        for inner in gc.get_referents(awaitable):
            if isinstance(inner, (types.CoroutineType, types.AsyncGeneratorType)):
                return None, inner
    # Cython's coroutines have the same attributes.
    if hasattr(type(awaitable), "cr_frame"):
        return awaitable.cr_frame, awaitable.cr_await
    return None, None


# ---- lines


def _stack_lines(places: list[Place]) -> Iterator[str]:
    """As a traceback has them, the innermost last."""
    if len(places) > MAX_FRAMES:
        yield f"  ... {len(places) - MAX_FRAMES} frames further out"
    for file, line, function in reversed(places[:MAX_FRAMES]):
        yield f'  File "{file}", line {line}, in {function}'
        if source := _source_of(file, line):
            yield f"    {source}"


def _source_of(file: str, line: int) -> str:
    with contextlib.suppress(Exception):
        return linecache.getline(file, line).strip()[:200]
    return ""


def _where(places: list[Place]) -> str:
    """The innermost place in the application; without one, outside of the standard library and headrace."""
    found = (
        next((place for place in places if _is_application(place[0])), None)
        or next((place for place in places if _is_package(place[0])), None)
        or next(iter(places), None)
    )
    if found is None:
        return "an unknown place"
    file, line, function = found
    return f"{_shortened(file)}:{line} in {function}"


def _is_application(file: str) -> bool:
    return _is_package(file) and not any(folder in file.split(os.sep) for folder in _PACKAGES)


def _is_package(file: str) -> bool:
    # In ``<frozen importlib._bootstrap>`` and ``<string>`` nobody can look anything up.
    if file.startswith(("<", _HEADRACE)):
        return False
    is_installed = any(folder in file.split(os.sep) for folder in _PACKAGES)
    return is_installed or not file.startswith(_STANDARD_LIBRARY)


def _shortened(file: str) -> str:
    """Relative to the current folder where it lies in that."""
    try:
        relative = os.path.relpath(file)
    except (OSError, ValueError):
        return file
    return file if relative.startswith(os.pardir) else relative
