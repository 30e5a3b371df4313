"""Workers on one listener: several in this loop, and one in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from headrace.server.acceptor import Acceptor
from headrace.server.load_board import BoardSlot, LoadBoard
from live import PATIENCE_S


class Greeting(asyncio.Protocol):
    """Says whose connection it is."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._worker.open.add(self)
        self.transport.write(self._worker.name)

    def connection_lost(self, error: Exception | None) -> None:
        self._worker.open.discard(self)


class Worker:
    """One of several in this process: an acceptor and what it has open."""

    def __init__(
        self, name: bytes, listeners: list[socket.socket], board: LoadBoard, number: int, **options: Any
    ) -> None:
        self.name = name
        self.open: set[Greeting] = set()
        self.slot = BoardSlot(board, number)
        self.acceptor = Acceptor(listeners, partial(Greeting, self), options, self.open.__len__, self.slot)

    async def end(self) -> None:
        self.acceptor.close()
        await self.acceptor.settle()
        for connection in list(self.open):
            connection.transport.abort()


class Bench:
    """A listener, a board, and workers that are ended with them; runs in the loop under test."""

    def __init__(self, *listeners: socket.socket) -> None:
        self.listeners = list(listeners)
        self.board = LoadBoard.create(8)
        self.workers: list[Worker] = []
        self.clients: list[socket.socket] = []

    def add(self, name: bytes, starts: bool = True, **options: Any) -> Worker:
        worker = Worker(name, self.listeners, self.board, len(self.workers) + 1, **options)
        self.workers.append(worker)
        if starts:
            worker.acceptor.start()
        return worker

    def connect(self, listener: socket.socket | None = None) -> socket.socket:
        """Queue a connection; the loop does not run meanwhile."""
        address = (listener or self.listeners[0]).getsockname()
        client = socket.socket((listener or self.listeners[0]).family)
        client.connect(address)
        client.setblocking(False)
        self.clients.append(client)
        return client

    async def greeting(self, client: socket.socket) -> bytes:
        """The name of the worker that took it."""
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(client, 1), PATIENCE_S)

    async def ask(self) -> bytes:
        """Connect, and say which worker took it."""
        return await self.greeting(self.connect())

    async def end(self) -> None:
        for client in self.clients:
            client.close()
        for worker in self.workers:
            await worker.end()
        for listener in self.listeners:
            listener.close()
        self.board.close()


async def until(condition: Callable[[], object]) -> None:
    """``eventually`` for conditions that need the loop to run."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.001)


def tcp_listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=128)


CHILD = """
import asyncio, logging, resource, signal, socket, sys
from functools import partial
from headrace.server import acceptor
from headrace.server.load_board import BoardSlot, LoadBoard
from headrace.server.loops import loop_factory

class Greeting(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        open.add(self)
        transport.write(b"x")
    def connection_lost(self, error):
        open.discard(self)

class Acceptor(acceptor.Acceptor):
    def start(self):
        print("start", flush=True)
        super().start()

async def main(loop, listener_fd, board_fd, slot, descriptors):
    acceptor.RETRY_S = 0.01
    board = LoadBoard.open(board_fd)
    listener = socket.socket(fileno=listener_fd)
    accepting = Acceptor([listener], Greeting, {}, open.__len__, BoardSlot(board, slot))
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    if descriptors:
        # The next free one, and so many from there on.
        with socket.socket() as probe:
            first = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (first + descriptors, first + descriptors))
    accepting.start()
    await stopped.wait()
    accepting.close()
    await accepting.settle()

logging.basicConfig(stream=sys.stdout, format="%(message)s")
open = set()
with asyncio.Runner(loop_factory=loop_factory(sys.argv[1])) as runner:
    runner.run(main(*sys.argv[:1], *map(int, sys.argv[2:])))
"""


class Child(subprocess.Popen[str]):
    """A worker in a process of its own; its connections say x."""

    def read_line(self) -> str:
        """The next line it wrote."""
        assert self.stdout is not None
        return self.stdout.readline()


@contextmanager
def child(bench: Bench, descriptors: int = 0) -> Iterator[Child]:
    """A second worker on the bench's first listener, in slot 2."""
    loop = "uvloop" if "uvloop" in type(asyncio.get_running_loop()).__module__ else "asyncio"
    fds = [bench.listeners[0].fileno(), bench.board.fd]
    process = Child(
        [sys.executable, "-c", CHILD, loop, *map(str, [*fds, 2, descriptors])],
        pass_fds=fds,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        assert process.stdout is not None
        process.stdout.close()
