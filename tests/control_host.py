"""A control surface with stand-in controls: in a thread or, run as a script, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

from headrace.admin.application import AdminApplication
from headrace.admin.controls import Controls
from headrace.admin.listeners import bind_admin
from headrace.config.options import AdminOptions
from headrace.server.loops import loop_factory
from headrace.server.plain_server import PlainServer
from headrace.telemetry.metrics.page import PageKind
from live import PATIENCE_S, Client


class FakeControls:
    """Does what it is told to, or fails as it is told to.

    Attributes:
        calls: what it has been asked to do.
        failure: raised by ``reload``, ``restart`` and ``scale``, behind the wait for ``go`` when ``waits``.
        go: what these wait for when ``waits``.
        page: of metrics.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.is_up = True
        self.page: bytes | None = b"up 1\n"
        self.failure: Exception | None = None
        self.waits = False
        self.go = asyncio.Event()
        self.on_stop: Callable[[], object] = lambda: None

    def is_ready(self) -> bool:
        return self.is_up

    def status(self) -> dict[str, Any]:
        worker = {
            "id": 2, "pid": 4712, "state": "ready", "uptime_s": 125.5, "connections": 12, "running": 3,
            "requests": 40_000, "memory_bytes": 33_554_432, "lag_s": 0.0125, "is_leader": True,
        }  # fmt: skip
        young = {**worker, "id": 11, "pid": 4713, "state": "starting", "uptime_s": 0.2, "is_leader": False}
        return {
            "pid": 4711, "version": "9.9", "started_at": 1_700_000_000.0, "uptime_s": 273_600.0,
            "state": "running", "target": 2, "application": "shop:app",
            "listeners": ["http://127.0.0.1:8000", "unix socket /run/shop.sock"], "leader": 2,
            "workers": [worker, young],
        }  # fmt: skip

    def options(self) -> dict[str, dict[str, Any]]:
        return {"app": {"value": FakeControls, "source": "APP"}, "port": {"value": 80, "source": "--port"}}

    async def metrics(self, kind: PageKind) -> bytes | None:
        self.calls.append(("metrics", kind))
        return self.page

    async def reload(self) -> None:
        await self._do("reload", None)

    async def restart(self, worker_id: int) -> None:
        if worker_id != 2:
            raise KeyError(worker_id)
        await self._do("restart", worker_id)

    async def scale(self, count: int) -> None:
        await self._do("scale", count)

    def stop(self) -> None:
        self.calls.append(("stop", None))
        self.on_stop()

    async def _do(self, name: str, argument: Any) -> None:
        self.calls.append((name, argument))
        if self.waits:
            await self.go.wait()
        if self.failure is not None:
            raise self.failure


class PlainHost:
    """``PlainServer`` in a thread with a loop of its own; an error that reaches the loop fails the test.

    Args:
        application: what it serves.
        sockets: listening; closed in the end.
    """

    def __init__(self, application: Any, sockets: list[socket.socket], loop: str) -> None:
        self._application = application
        self._sockets = sockets
        self._loop_name = loop
        self._clients: list[Client] = []
        self._started: queue.Queue[BaseException | None] = queue.Queue()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.loop_errors: list[dict[str, Any]] = []
        self.leaked: list[str] = []

    def start(self) -> None:
        self._thread.start()
        error = self._started.get(timeout=PATIENCE_S)
        if error is not None:
            raise error

    def stop(self) -> None:
        """Close the clients, stop, and look at what is left."""
        for client in self._clients:
            client.close()
        self.begin_stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server does not stop"
        # They are the caller's until here.
        assert all(sock.fileno() >= 0 for sock in self._sockets)
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        assert not self.leaked, f"tasks outlive the server: {self.leaked}"
        assert not self.loop_errors, f"errors reached the loop: {self.loop_errors}"

    def begin_stop(self) -> None:
        """Tell it to stop."""
        with contextlib.suppress(RuntimeError):  # it has been told before, and its loop is closed
            self._loop.call_soon_threadsafe(self._stopping.set)

    def connect(self) -> Client:
        """A new connection to the first socket."""
        sock = socket.socket(self._sockets[0].family)
        sock.connect(self._sockets[0].getsockname())
        self._clients.append(Client(sock))
        return self._clients[-1]

    def in_loop(self, function: Callable[[], Any]) -> Any:
        """Call a function in the server's loop."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory(self._loop_name)) as runner:
            self._loop = runner.get_loop()
            self._loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
            try:
                runner.run(self._live())
            except BaseException as error:
                self._started.put(error)

    async def _live(self) -> None:
        self.server = PlainServer(self._application, self._sockets)
        await self.server.start()
        self._started.put(None)
        await self._stopping.wait()
        await self.server.stop()
        self.leaked = [repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()}]


def loopback() -> socket.socket:
    """A listening socket on a free port."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


async def _serve_until_stopped(controls: FakeControls) -> None:
    stopping = asyncio.Event()
    controls.on_stop = stopping.set
    listeners = bind_admin(AdminOptions())
    server = PlainServer(AdminApplication(_typed(controls), None), listeners.unix)
    await server.start()
    print(os.getpid(), flush=True)
    await stopping.wait()
    await server.stop()
    listeners.close()


def _typed(controls: FakeControls) -> Controls:
    """The stand-in has every method of the protocol: mypy looks."""
    return controls


if __name__ == "__main__":
    asyncio.run(_serve_until_stopped(FakeControls()))
