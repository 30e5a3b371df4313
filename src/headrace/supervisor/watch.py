"""Waits for changes of the application's source, for ``--reload``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from headrace.config import ProcessOptions
from headrace.supervisor.source_tree import Look, SourceTree

SETTLE_S = 0.05
"""A change is over when the files have looked the same for so long: a save of many files is one change."""

MOST_LOOKS = 10
"""Looks for the end of one change; a burst that goes on longer makes several."""

IDLE_SHARE = 9
"""Polling rests for so many times as long as the last look took: it costs a tenth of a core at most."""

_STEP_MS = 25
_DEBOUNCE_MS = 100
_TIMEOUT_MS = 100
"""watchfiles' own grouping, kept short because ``SETTLE_S`` groups, and how often it looks up when quiet."""

_TREES_COST_NOTHING = sys.platform in ("darwin", "win32")
"""FSEvents and ReadDirectoryChangesW watch a whole tree by one handle; inotify needs one for each folder."""

_logger = logging.getLogger("uvicorn.error")


class Watcher:
    """Says when files of the application's source have changed.

    What has changed is found by comparing two looks at the files. watchfiles, where it is installed, only
    says when to look; without it they are looked at every ``reload_delay``. The options mean the same in
    both cases, and no event of the operating system that is lost or sent twice does harm.

    Making one takes the first look, which costs some milliseconds for each thousand files: make it before the
    application is imported. Use it in one event loop and, at the end, call ``close``.

    Args:
        options: ``reload_dirs``, ``reload_includes``, ``reload_excludes``, ``reload_delay`` (in seconds).
        app_dir: watched beside the current folder where no ``reload_dirs`` are given; empty is the current
            one.

    Attributes:
        folders: what is watched, sorted.
    """

    def __init__(self, options: ProcessOptions, app_dir: str) -> None:
        self._tree = SourceTree(options, app_dir)
        self.folders = sorted(map(Path, self._tree.roots))
        self._known = self._tree.look()
        self._delay_s = options.reload_delay
        self._look_s = 0.0
        self._news = asyncio.Event()
        self._watchfiles = _import_watchfiles()
        self._events: _FolderEvents | None = None

    @property
    def name(self) -> str:
        """uvicorn's name for the way it watches: ``WatchFiles`` or ``StatReload``."""
        return "StatReload" if self._watchfiles is None else "WatchFiles"

    async def next_change(self) -> set[Path]:
        """Wait for a change, and for its end.

        It may be cancelled and called again; a change in between is not lost.

        Returns:
            The files that are new, changed or gone, absolute; never empty.
        """
        if self._watchfiles is not None and self._events is None:
            self._listen(self._watchfiles)
        while True:
            await self._wait_news()
            try:
                seen = await self._wait_settled()
            except BaseException:
                self._news.set()
                raise
            changed = self._known.difference(seen)
            self._known = seen
            if changed:
                return set(map(Path, changed))

    def close(self) -> None:
        """Watch no longer."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _listen(self, watchfiles: Any) -> None:
        loop = asyncio.get_running_loop()
        self._events = _FolderEvents(
            watchfiles,
            self._tree,
            self._delay_s,
            on_news=partial(_call_soon, loop, self._news.set),
            on_failure=partial(_call_soon, loop, self._poll_instead),
        )

    def _poll_instead(self, error: Exception) -> None:
        _logger.warning("watchfiles cannot watch the files (%s); they are polled instead", error)
        self._watchfiles = None
        self._events = None
        self._news.set()

    async def _wait_news(self) -> None:
        """Return when it is time to look."""
        timer = None
        if self._watchfiles is None:
            pause_s = max(self._delay_s, SETTLE_S, self._look_s * IDLE_SHARE)
            timer = asyncio.get_running_loop().call_later(pause_s, self._news.set)
        try:
            await self._news.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._news.clear()

    async def _wait_settled(self) -> Look:
        """Look until two looks are the same; the first is enough when nothing has changed."""
        seen = await self._look()
        for _ in range(MOST_LOOKS if seen.files != self._known.files else 0):
            await asyncio.sleep(SETTLE_S)
            before, seen = seen, await self._look()
            if seen.files == before.files:
                break
        return seen

    async def _look(self) -> Look:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        # In a thread: the disk may be slow, and workers are to be watched meanwhile.
        look = await loop.run_in_executor(None, self._tree.look)
        self._look_s = loop.time() - start_s
        return look


class _FolderEvents:
    """A thread in which watchfiles hears of changes.

    Args:
        watchfiles: the package.
        tree: what is watched.
        poll_delay_s: for file systems on which watchfiles itself has to poll.
        on_news: called in the thread when it is time to look at the files.
        on_failure: called in the thread, at its end, when watching is not possible.
    """

    def __init__(
        self,
        watchfiles: Any,
        tree: SourceTree,
        poll_delay_s: float,
        *,
        on_news: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._watchfiles = watchfiles
        self._tree = tree
        self._poll_delay_s = poll_delay_s
        self._on_news = on_news
        self._on_failure = on_failure
        self._folders: set[str] = set()
        self._has_new_folder = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; it takes no longer than a step of watchfiles."""
        self._stopping.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._watch_folders()
        except Exception as error:
            self._on_failure(error)

    def _watch_folders(self) -> None:
        """Watch the folders that exist now, until there are others."""
        roots = self._roots_now()
        self._folders = self._tree.look().folders
        self._has_new_folder = False
        watched = self._tree.roots if _TREES_COST_NOTHING else self._folders
        changes = self._watchfiles.watch(
            *filter(os.path.isdir, watched),
            watch_filter=self._is_news,
            recursive=_TREES_COST_NOTHING,
            step=_STEP_MS,
            debounce=_DEBOUNCE_MS,
            rust_timeout=_TIMEOUT_MS,
            poll_delay_ms=max(_STEP_MS, int(self._poll_delay_s * 1000)),
            yield_on_timeout=True,
            stop_event=self._stopping,
            ignore_permission_denied=True,
        )
        is_watching = False
        with contextlib.closing(changes), contextlib.suppress(FileNotFoundError):
            for change in changes:
                if change or not is_watching:
                    # The first time too: nobody has heard of what changed before it watched.
                    self._on_news()
                is_watching = True
                if self._has_new_folder or self._roots_now() != roots:
                    return
        # A folder vanished before it could be watched, or all have.
        self._stopping.wait(_TIMEOUT_MS / 1000)

    def _roots_now(self) -> list[tuple[int, int] | None]:
        """Which folders stand where the roots are; one that was made anew is another."""
        return [_identity(root) for root in self._tree.roots]

    def _is_news(self, change: Any, path: str) -> bool:
        """Whether a change is worth a look; too many are better than too few."""
        if change == self._watchfiles.Change.added and os.path.isdir(path):
            is_news = not self._tree.is_skipped(path)
            self._has_new_folder |= is_news
            return is_news
        return path in self._folders or self._tree.is_source(path)


def _import_watchfiles() -> Any:
    """The package, or None: it is an extra."""
    try:
        import watchfiles
    except ImportError:
        return None
    return watchfiles


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(callback, *arguments)
