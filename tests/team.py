"""A hub in the running loop with workers whose processes are left out: the pipes are real."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from headrace.server.loops import loop_factory
from headrace.supervisor.control import FrameDecoder, Lost, Message, Pong, Publish, Subscribe, decode, encode
from headrace.supervisor.hub import Hub
from headrace.supervisor.pipe import ControlPipe
from headrace.supervisor.relay import Relay
from live import PATIENCE_S

KERNEL_BYTES = 65_536
"""What the kernel is asked to buffer of a pipe; it may take twice that."""

READ_BYTES = 262_144
"""An event loop's read, and so the most of a batch of small messages."""

PONG = Pong(1, 0, 0, 0, 0, 0.0)


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop run until something is true; the test's own timeout bounds it."""
    await asyncio.sleep(0)  # a test may ask in a loop for what is true already
    while not condition():
        await asyncio.sleep(0.001)


def small_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends with little between them."""
    pair = socket.socketpair()
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        sock.setblocking(False)
    return pair


class Reader:
    """The far end of a pipe, read when the test says so and strictly."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.messages: list[Message] = []
        self._decoder = FrameDecoder()

    def send(self, *messages: Message) -> None:
        """Write messages, few enough for the kernel to take."""
        self.sock.sendall(b"".join(map(encode, messages)))

    def read(self) -> None:
        """Take what there is."""
        while True:
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            self.messages += [decode(*frame) for frame in self._decoder.feed(data)]

    def has(self, kind: type) -> bool:
        """Read, and see whether such a message has come."""
        self.read()
        return any(isinstance(message, kind) for message in self.messages)

    @property
    def data(self) -> list[bytes]:
        """Of the messages published, in order."""
        return [message.data for message in self.messages if isinstance(message, Publish)]

    @property
    def lost(self) -> int:
        """How many it was told it lost."""
        return sum(message.count for message in self.messages if isinstance(message, Lost))


class Member:
    """A worker that takes part.

    Attributes:
        got: data of the messages of the channels it joined with, in order.
        heard: what the supervisor said that is not the backplane's.
    """

    def __init__(self, worker_id: int) -> None:
        self.worker_id = worker_id
        self.got: list[bytes] = []
        self.heard: list[Message] = []
        self.pipe: ControlPipe
        self.relay: Relay

    def on_frames(self, frames: list[tuple[int, bytes]]) -> None:
        """What the pipe brought."""
        self.heard += [decode(*frame) for frame in self.relay.on_frames(frames)]


class Team:
    """The hub, and those that come and go.

    Attributes:
        pipes: worker to the supervisor's end of its pipe.
        said: worker to what it said that is not the backplane's.
        ended: workers whose pipes have ended.
    """

    def __init__(self) -> None:
        self.hub = Hub()
        self.pipes: dict[int, ControlPipe] = {}
        self.said: dict[int, list[Message]] = {}
        self.ended: list[int] = []
        self._far_ends: list[ControlPipe | socket.socket] = []

    async def join(self, *channels: str) -> Member:
        """A new member whose subscriptions have reached the hub."""
        worker_id, sock = await self._connect()
        member = Member(worker_id)
        member.pipe = ControlPipe(member.on_frames, lambda: None)
        await member.pipe.open(sock)
        self._far_ends.append(member.pipe)
        member.relay = Relay(member.pipe)
        for channel in channels:
            member.relay.subscribe(channel, member.got.append)
        await self.settle(member)
        return member

    async def join_reader(self, *channels: str) -> tuple[int, Reader]:
        """A new worker that subscribes and then reads when it is told to; also its number."""
        worker_id, sock = await self._connect()
        self._far_ends.append(sock)
        reader = Reader(sock)
        reader.send(*map(Subscribe, channels), PONG)
        await until(lambda: self.said[worker_id])
        return worker_id, reader

    async def settle(self, member: Member) -> None:
        """Wait until the hub has had all that a member sent."""
        count = len(self.said[member.worker_id])
        member.relay.flush()
        member.pipe.send(PONG)
        await until(lambda: len(self.said[member.worker_id]) > count)

    async def close(self) -> None:
        """End all pipes; no task may be left."""
        for worker_id, pipe in self.pipes.items():
            self.hub.remove(worker_id)
            pipe.close()
        for end in self._far_ends:
            end.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=PATIENCE_S / 3)
        assert all(task.done() for task in left), left

    async def _connect(self) -> tuple[int, socket.socket]:
        worker_id = len(self.pipes)
        said = self.said[worker_id] = []

        def on_frames(frames: list[tuple[int, bytes]]) -> None:
            said.extend(decode(*frame) for frame in self.hub.on_frames(worker_id, frames))

        def on_end() -> None:
            self.ended.append(worker_id)
            self.hub.remove(worker_id)

        near, far = small_pair()
        self.pipes[worker_id] = pipe = ControlPipe(on_frames, on_end)
        await pipe.open(near)
        self.hub.add(worker_id, pipe)
        return worker_id, far


def with_team(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test method that takes a ``Team`` under each event loop; its other fixtures stay as they are."""
    names = list(inspect.signature(test).parameters)[2:]

    def run(self: Any, loop_name: str, **fixtures: Any) -> None:
        async def main() -> None:
            team = Team()
            async with asyncio.timeout(PATIENCE_S):
                try:
                    await test(self, team, **fixtures)
                finally:
                    await team.close()

        with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
            runner.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        for name in ("self", "loop_name", *names)
    )
    return run
