"""A worker's process as its parent sees it, and how a fresh one is made."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from headrace.config import Config
from headrace.net.systemd import without_systemd


class WorkerProcess(Protocol):
    """A child, or a child's child that is reported of."""

    pid: int

    def signal(self, number: int) -> None:
        """Send a signal, if it still lives."""

    def watch(self, on_exit: Callable[[int], None]) -> None:
        """Have ``on_exit`` called in the running loop with the exit code; minus the number for a signal."""


class Spawned(NamedTuple):
    """A new process and our ends of its two pipes."""

    process: WorkerProcess
    control: socket.socket
    lifeline: socket.socket


class Spawner(Protocol):
    """Makes worker processes.

    A reload calls ``renew``, and then ``keep`` or ``go_back``.
    """

    async def spawn(self, inherited: Sequence[int], metrics: int = -1) -> Spawned:
        """Make one.

        Args:
            inherited: descriptors that every worker has, under the same numbers.
            metrics: descriptor of its own store of metrics, -1 for none; it stays the caller's.

        Raises:
            OSError: the system cannot (memory, processes, descriptors).
            WorkerError: the application could not be imported.
        """

    async def renew(self, config: Config) -> None:
        """Make workers of the code and the configuration as they are now.

        Raises:
            WorkerError: it cannot be; the old ones are still made.
        """

    def keep(self) -> None:
        """The new workers serve: what the old ones were made from is not needed any more."""

    def go_back(self) -> None:
        """The new ones did not come up: make the old ones again."""

    async def close(self) -> None:
        """No more will be made."""


class FreshProcess:
    """A process that began with a fresh interpreter."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.pid = popen.pid

    def signal(self, number: int) -> None:
        """Send a signal, if it still lives."""
        # ``send_signal`` looks whether it has been reaped, so the number never means another process.
        self._popen.send_signal(number)

    def watch(self, on_exit: Callable[[int], None]) -> None:
        """Have ``on_exit`` called in the running loop with the exit code; minus the number for a signal.

        A thread waits: its end is known at once, also where a child of the worker holds its pipes open, and
        the loop's own handling of children is not in the way.
        """
        loop = asyncio.get_running_loop()

        def wait() -> None:
            code = self._popen.wait()
            # The loop may have ended before the worker.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(on_exit, code)

        threading.Thread(target=wait, name=f"wait-{self.pid}", daemon=True).start()


class FreshSpawner:
    """Starts each worker with a fresh interpreter: nothing is shared but what is handed over."""

    async def spawn(self, inherited: Sequence[int], metrics: int = -1) -> Spawned:
        """Start ``headrace.supervisor.worker``."""
        control, its_control = socket.socketpair()
        lifeline, its_lifeline = socket.socketpair()
        with its_control, its_lifeline:
            fds = (its_control.fileno(), its_lifeline.fileno())
            own = fds if metrics < 0 else (*fds, metrics)
            try:
                popen = start_interpreter("headrace.supervisor.worker", own, (*own, *inherited))
            except BaseException:
                control.close()
                lifeline.close()
                raise
        return Spawned(FreshProcess(popen), control, lifeline)

    async def renew(self, config: Config) -> None:
        """Nothing is kept between two workers."""

    def keep(self) -> None:
        """Nothing is kept between two workers."""

    def go_back(self) -> None:
        """Nothing is kept between two workers."""

    async def close(self) -> None:
        """Nothing is kept between two workers."""


def start_interpreter(module: str, arguments: Iterable[int], fds: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a Python like this one that runs a module of ours, with descriptors inherited."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    # -P: what lies in the current folder must not stand in front of the standard library. The path is ours:
    # it may have been set while this process ran, and headrace be found only by it.
    path = [entry for entry in sys.path if isinstance(entry, str)]
    code = f"import sys; sys.path[:] = {path!r}; from {module} import main; main()"
    command = [sys.executable, *flags, "-P", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, pass_fds=fds, env=without_systemd(os.environ))


def end_words(code: int) -> str:
    """How a process ended, to follow its name: "ended with exit code 1", "was ended by SIGKILL"."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"
