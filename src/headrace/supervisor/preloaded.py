"""``--preload`` as the supervisor sees it: a template process that makes the workers.

    PreloadedSpawner ──"fork", two pipes──▶ template (has imported the application) ──fork──▶ worker
                     ◀──pid, exit code────

The supervisor imports nothing of the application here either, and workers start without importing it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from headrace.config import Config
from headrace.errors import WorkerError
from headrace.supervisor.blueprint import pack
from headrace.supervisor.process import FreshProcess, Spawned, end_words, start_interpreter

END_S = 2.0
"""What a template without workers has to end in before it is killed."""

UNKNOWN_CODE = 255
"""The exit code of a worker whose real one nobody learnt."""

_LOOK_S = 0.05
"""Time between two looks at a worker whose template is gone, where the kernel does not tell of its end."""

_logger = logging.getLogger("uvicorn.error")


class PreloadedSpawner:
    """Makes workers from a template; a ``Spawner``.

    The template is started with the first worker, and again when it has died.

    Args:
        config: what the template imports the application by.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._inherited: Sequence[int] = ()
        self._template: TemplateProcess | None = None
        self._previous: tuple[Config, TemplateProcess | None] | None = None
        self._retired: list[TemplateProcess] = []
        self._lock = asyncio.Lock()

    async def spawn(self, inherited: Sequence[int], metrics: int = -1) -> Spawned:
        """Have a worker forked.

        Args:
            inherited: descriptors that it has under the same numbers; the same ones each time.
            metrics: descriptor of its own store of metrics, -1 for none; it stays the caller's.

        Raises:
            WorkerError: the application cannot be imported, or not in time, or the fork failed.
            OSError: the system has no descriptors left.
        """
        # One behind the other: the first waits for the import, and the others with it.
        async with self._lock:
            self._inherited = inherited
            if self._template is None or self._template.is_gone:
                self._template = await self._start(self._config)
            template = self._template
            control, its_control = socket.socketpair()
            lifeline, its_lifeline = socket.socketpair()
            with its_control, its_lifeline:
                pipes = [its_control.fileno(), its_lifeline.fileno()]
                try:
                    process = await template.fork(pipes if metrics < 0 else [*pipes, metrics])
                except BaseException:
                    control.close()
                    lifeline.close()
                    raise
            return Spawned(process, control, lifeline)

    async def renew(self, config: Config) -> None:
        """Import the application anew, for the workers from now on; for a reload.

        ``keep`` or ``go_back`` must follow.

        Raises:
            WorkerError: it cannot be imported; the template there was stays.
        """
        async with self._lock:
            if self._template is None:
                # It begins with the first worker.
                self._config = config
                return
            template = await self._start(config)
            self.keep()
            self._previous = (self._config, self._template)
            self._config, self._template = config, template

    def keep(self) -> None:
        """What ``renew`` brought is good: the template before it goes when its last worker has."""
        if self._previous is not None:
            self._retire(self._previous[1])
            self._previous = None

    def go_back(self) -> None:
        """What ``renew`` brought is not: workers are made from the template before it again."""
        if self._previous is not None:
            self._retire(self._template)
            self._config, self._template = self._previous
            self._previous = None

    async def close(self) -> None:
        """End all templates; their workers have ended, or are left to themselves."""
        self.keep()
        self._retire(self._template)
        self._template = None
        for template in self._retired:
            await template.end()

    async def _start(self, config: Config) -> TemplateProcess:
        try:
            template = TemplateProcess(pack(config), self._inherited)
        except OSError as error:
            raise WorkerError(f"No process can be started for the template of --preload: {error}.") from error
        timeout_s = config.process.timeout_worker_startup or None
        loading = asyncio.ensure_future(template.wait_loaded())
        try:
            # Not ``wait_for``: before 3.12 it can swallow a cancellation.
            done, _ = await asyncio.wait([loading], timeout=timeout_s)
            if not done:
                raise WorkerError(
                    f"The application was not imported within {timeout_s:g} s (--timeout-worker-startup), "
                    "and the template of --preload was killed."
                )
            loading.result()
        except BaseException:
            loading.cancel()
            template.kill()
            raise
        return template

    def _retire(self, template: TemplateProcess | None) -> None:
        self._retired = [retired for retired in self._retired if not retired.is_gone]
        if template is not None and not template.is_gone:
            template.retire()
            self._retired.append(template)


class ForkedProcess:
    """A worker that a template has forked; a ``WorkerProcess``."""

    def __init__(self, pid: int, template: TemplateProcess) -> None:
        self.pid = pid
        self._template = template
        self._loop = asyncio.get_running_loop()
        self._code: int | None = None
        self._on_exit: Callable[[int], None] | None = None

    def signal(self, number: int) -> None:
        """Send a signal, if it still lives."""
        if self._code is not None:
            return
        if self._template.is_gone:
            os.kill(self.pid, number)
        else:
            # Only the parent knows whether the number is still the worker's.
            self._template.tell(signal=[self.pid, number])

    def watch(self, on_exit: Callable[[int], None]) -> None:
        """Have ``on_exit`` called in the running loop with the exit code; minus the number for a signal."""
        self._on_exit = on_exit
        if self._code is not None:
            self._loop.call_soon(on_exit, self._code)

    def exited(self, code: int) -> None:
        """The template says so."""
        if self._code is None:
            self._code = code
            if self._on_exit is not None:
                self._on_exit(code)

    def orphaned(self) -> None:
        """The template is gone: look after it ourselves. It serves on."""
        threading.Thread(target=self._look, name=f"look-{self.pid}", daemon=True).start()

    def _look(self) -> None:
        code = _wait_for_orphan(self.pid)
        # The loop may have ended before the worker.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.exited, code)


class TemplateProcess:
    """A template's process.

    Args:
        blueprint: the configuration, packed.
        inherited: descriptors that its workers have under the same numbers.

    Attributes:
        is_gone: it has ended, or speaks to us no longer.

    Raises:
        OSError: the system cannot start it.
    """

    def __init__(self, blueprint: str, inherited: Sequence[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock, its = socket.socketpair()
        with its:
            try:
                popen = start_interpreter(
                    "headrace.supervisor.template", (its.fileno(),), (its.fileno(), *inherited)
                )
            except BaseException:
                self._sock.close()
                raise
        self._process = FreshProcess(popen)
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._process.watch(self._on_exit)
        self._sock.setblocking(False)
        self._blueprint = blueprint
        self._buffer = b""
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        # Who waits for a worker, in the order they asked: the answers come in the same.
        self._asked: deque[asyncio.Future[ForkedProcess]] = deque()
        self._children: dict[int, ForkedProcess] = {}
        self._is_ending = False
        self.is_gone = False

    async def wait_loaded(self) -> None:
        """Wait until it has imported the application.

        Raises:
            WorkerError: it could not; the traceback of the application's fault is in the log by then.
        """
        self._loop.add_reader(self._sock, self._on_readable)
        with contextlib.suppress(OSError):
            # It may have ended already.
            await self._loop.sock_sendall(self._sock, _line(blueprint=self._blueprint))
        await self._loaded

    async def fork(self, fds: list[int]) -> ForkedProcess:
        """Have a worker made that has these descriptors, which stay ours to close.

        Raises:
            WorkerError: it cannot, or has ended.
        """
        try:
            socket.send_fds(self._sock, [_line(fork=len(fds))], fds)
        except OSError as error:
            raise WorkerError(f"The template of --preload cannot be asked for a worker: {error}.") from error
        forked: asyncio.Future[ForkedProcess] = self._loop.create_future()
        self._asked.append(forked)
        try:
            # Behind a shield: a worker that nobody waits for any more must be known all the same.
            return await asyncio.shield(forked)
        except asyncio.CancelledError:
            forked.add_done_callback(_kill_unwanted)
            raise

    def tell(self, **message: Any) -> None:
        """Send a line; nobody may be there any more."""
        # Short lines, and it reads at once; where it does not, it is as good as dead.
        with contextlib.suppress(OSError):
            self._sock.send(_line(**message))

    def retire(self) -> None:
        """Have it end when its last worker has."""
        self._is_ending = True
        self.tell(retire=True)

    def kill(self) -> None:
        """End it at once; its workers serve on."""
        self._is_ending = True
        with contextlib.suppress(OSError):
            self._process.signal(signal.SIGKILL)
        self._on_end()

    async def end(self) -> None:
        """Wait until it has ended, which it was asked to; in the end it is killed."""
        done, _ = await asyncio.wait([self._exit], timeout=END_S)
        if not done:
            self.kill()
            await self._exit

    # What it says

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_end()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._on_message(json.loads(line))

    def _on_message(self, message: dict[str, Any]) -> None:
        if "loaded" in message and not self._loaded.done():
            self._loaded.set_result(None)
        elif "failed" in message and not self._loaded.done():
            if message["traceback"]:
                _logger.error("The application could not be started:\n%s", message["traceback"].rstrip())
            self._loaded.set_exception(WorkerError(message["failed"]))
        elif "forked" in message:
            pid = message["forked"]
            child = self._children[pid] = ForkedProcess(pid, self)
            self._asked.popleft().set_result(child)
        elif "refused" in message:
            self._asked.popleft().set_exception(WorkerError(message["refused"]))
        elif "exited" in message:
            pid, code = message["exited"]
            if pid in self._children:
                self._children.pop(pid).exited(UNKNOWN_CODE if code is None else code)

    def _on_exit(self, code: int) -> None:
        self._exit.set_result(code)
        if not self._is_ending and self._loaded.done() and self._loaded.exception() is None:
            _logger.error(
                "The template of --preload %s; its workers serve on, the next comes from a new template.",
                end_words(code),
            )
        if not self._loaded.done():
            # It may have said why: that is in the socket still.
            self._on_readable()
        if not self._loaded.done():
            self._loaded.set_exception(
                WorkerError(f"The template of --preload {end_words(code)} while it imported the application.")
            )
        self._on_end()

    def _on_end(self) -> None:
        if self.is_gone:
            return
        self.is_gone = True
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for asked in self._asked:
            asked.set_exception(WorkerError("The template of --preload ended before it made the worker."))
        self._asked.clear()
        for child in self._children.values():
            child.orphaned()
        self._children.clear()


def _wait_for_orphan(pid: int) -> int:
    """Wait until a process has ended that was not our child; gives its exit code."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return UNKNOWN_CODE
    except (OSError, AttributeError):
        # An old kernel, or macOS.
        while (code := _reap_orphan(pid)) is None and _lives(pid):
            threading.Event().wait(_LOOK_S)
        return UNKNOWN_CODE if code is None else code
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll()
    finally:
        os.close(fd)
    code = _reap_orphan(pid)
    return UNKNOWN_CODE if code is None else code


def _reap_orphan(pid: int) -> int | None:
    """Its exit code, if it has ended and orphans come to this process, as to the first one of a container."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if found else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _kill_unwanted(forked: asyncio.Future[ForkedProcess]) -> None:
    if not forked.cancelled() and forked.exception() is None:
        forked.result().signal(signal.SIGKILL)


def _line(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"
