"""``python -m benchmarks.fanout``: what the backplane's hub costs the supervisor, with real processes.

A process with a hub on one core; a publisher and its subscribers, each a process with a relay, on another.
The hub also pings all of them, as a supervisor does. Three questions:

- **full**: how many messages a second go through, if the publisher waits for its subscribers, so that none
  is lost.
- **rate**: what part of a core ``--rate`` messages a second take, and whether any is lost.
- **stopped**: the same, while one of four subscribers is stopped by SIGSTOP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from benchmarks.environment import CannotRun, check_machine, describe_machine
from benchmarks.measure import parse_smaps_rollup
from headrace.server.loops import loop_factory
from headrace.supervisor.control import Ping, Pong, decode
from headrace.supervisor.hub import Hub
from headrace.supervisor.pipe import ControlPipe
from headrace.supervisor.relay import Relay

CHANNEL = "room:1234"
ACKS = "acks"
ACK_EVERY = 64
IN_FLIGHT_BYTES = 393_216
"""Under way at full speed: enough for large batches, and less than a hub keeps for a slow worker."""
PING_EVERY_S = 0.05
TICK_S = 0.001
WARM_UP_S = 0.5
SETTLE_S = 0.2
GO = b"!"
ASK = b"?"
LIMIT_S = 30.0

Snapshot = dict[str, float]
"""What a process says of itself: its counters, and the clocks."""


# --- in the processes ------------------------------------------------------------------------------------


class HubProcess:
    """A supervisor with nothing but a hub and its heartbeat."""

    def __init__(self) -> None:
        self._hub = Hub()
        self._pipes: dict[int, ControlPipe] = {}
        self._pinged: dict[int, float] = {}
        self._slowest_pong_s: dict[int, float] = {}

    async def open(self, socks: list[socket.socket]) -> None:
        for worker_id, sock in enumerate(socks):
            self._pipes[worker_id] = pipe = ControlPipe(self._reader(worker_id), _nothing)
            self._hub.add(worker_id, pipe)
            await pipe.open(sock)

    async def run(self) -> None:
        while True:
            for worker_id, pipe in self._pipes.items():
                if worker_id not in self._pinged:
                    self._pinged[worker_id] = time.monotonic()
                    pipe.send(Ping(worker_id))
            await asyncio.sleep(PING_EVERY_S)

    def snapshot(self) -> Snapshot:
        waiting = sum(map(self._hub.waiting_bytes, self._pipes))
        slowest_s = max(self._slowest_pong_s.values(), default=0.0)
        self._slowest_pong_s.clear()
        return {
            "messages": self._hub.messages,
            "lost": self._hub.lost,
            "waiting_bytes": waiting,
            "slowest_pong_s": slowest_s,
        }

    def _reader(self, worker_id: int) -> Callable[[list[tuple[int, bytes]]], None]:
        def on_frames(frames: list[tuple[int, bytes]]) -> None:
            for kind, payload in self._hub.on_frames(worker_id, frames):
                assert isinstance(decode(kind, payload), Pong)
                taken_s = time.monotonic() - self._pinged.pop(worker_id)
                self._slowest_pong_s[worker_id] = max(taken_s, self._slowest_pong_s.get(worker_id, 0.0))

        return on_frames


class WorkerProcess:
    """A relay that publishes, or counts what it gets."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._got = 0
        self._published = 0
        self._acked = 0
        self._has_acks = asyncio.Event()

    async def open(self, socks: list[socket.socket]) -> None:
        self._pipe = ControlPipe(self._on_frames, _nothing)
        self._relay = Relay(self._pipe)
        await self._pipe.open(socks[0])
        if self._role.kind == "subscriber":
            self._relay.subscribe(CHANNEL, self._acknowledge if not self._role.rate else self._count)
        else:
            self._relay.subscribe(ACKS, self._on_ack)

    async def run(self) -> None:
        if self._role.kind == "publisher":
            await (self._publish_at_rate() if self._role.rate else self._publish_all())

    def snapshot(self) -> Snapshot:
        relay = self._relay
        return {"got": self._got, "published": self._published, "lost": relay.lost, "unsent": relay.unsent}

    def _on_frames(self, frames: list[tuple[int, bytes]]) -> None:
        for kind, payload in self._relay.on_frames(frames):
            ping = decode(kind, payload)
            assert isinstance(ping, Ping)
            self._pipe.send(Pong(ping.number, 0, 0, 0, 0, 0.0))

    def _count(self, data: bytes) -> None:
        self._got += 1

    def _acknowledge(self, data: bytes) -> None:
        self._got += 1
        if not self._got % ACK_EVERY:
            self._relay.publish(ACKS, b"")

    def _on_ack(self, data: bytes) -> None:
        self._acked += ACK_EVERY
        self._has_acks.set()

    async def _publish_all(self) -> None:
        """As fast as the subscribers take it, on the average of them."""
        role, data = self._role, bytes(self._role.size)
        most = max(2 * ACK_EVERY, IN_FLIGHT_BYTES // role.size)
        while True:
            while self._published - self._acked / role.subscribers > most - ACK_EVERY:
                self._has_acks.clear()
                await self._has_acks.wait()
            for _ in range(ACK_EVERY):
                self._relay.publish(CHANNEL, data)
            self._published += ACK_EVERY
            await self._relay.wait_writable()

    async def _publish_at_rate(self) -> None:
        role, data = self._role, bytes(self._role.size)
        begin = time.monotonic()
        while True:
            due = int((time.monotonic() - begin) * role.rate)
            for _ in range(due - self._published):
                self._relay.publish(CHANNEL, data)
            self._published = due
            await asyncio.sleep(TICK_S)


@dataclass(frozen=True, slots=True)
class Role:
    """What a process is told on its command line.

    Attributes:
        kind: hub, publisher or subscriber.
        questions: descriptor; ``GO`` begins the work, ``ASK`` asks for a snapshot, the end ends the process.
        pipes: descriptors of control pipes: all of the hub's, the one of a worker.
        size: of a message, in bytes.
        rate: messages a second, 0 for as many as go.
    """

    kind: str
    core: int
    questions: int
    pipes: list[int]
    subscribers: int
    size: int
    rate: int


def _nothing() -> None:
    pass


async def play(role: Role) -> None:
    """Be a process of the benchmark until the parent is gone."""
    os.sched_setaffinity(0, {role.core})
    process = HubProcess() if role.kind == "hub" else WorkerProcess(role)
    await process.open([socket.socket(fileno=fd) for fd in role.pipes])
    running: asyncio.Task[None] | None = None
    questions = socket.socket(fileno=role.questions)
    questions.setblocking(False)
    loop = asyncio.get_running_loop()
    while order := await loop.sock_recv(questions, 1):
        if order == GO:
            running = asyncio.create_task(process.run())
            continue
        if running is not None and running.done():
            running.result()
        memory = parse_smaps_rollup(Path("/proc/self/smaps_rollup").read_text())
        clocks = {"wall_s": time.monotonic(), "cpu_s": time.process_time(), "rss_bytes": memory.rss_bytes}
        await loop.sock_sendall(questions, json.dumps(process.snapshot() | clocks).encode() + b"\n")
    if running is not None:
        running.cancel()


# --- in the parent ---------------------------------------------------------------------------------------


class Process:
    """One of the processes, as the parent has it."""

    def __init__(self, role: Role, questions: socket.socket) -> None:
        fds = (role.questions, *role.pipes)
        arguments = json.dumps({name: getattr(role, name) for name in Role.__slots__})
        command = [sys.executable, "-m", "benchmarks.fanout", "--role", arguments]
        self._process = subprocess.Popen(command, pass_fds=fds)
        self._questions = questions
        self._questions.settimeout(LIMIT_S)
        self._answers = questions.makefile("r")

    def ask(self) -> Snapshot:
        self._questions.send(ASK)
        return cast("Snapshot", json.loads(self._answers.readline()))

    def go(self) -> None:
        self._questions.send(GO)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._answers.close()
        self._questions.close()
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of one sample."""

    hub: Process
    publisher: Process
    subscribers: list[Process]


@contextmanager
def running(cores: tuple[int, int], subscribers: int, size: int, rate: int) -> Iterator[Team]:
    """Have a hub work on the first core and the others on the second; end them all."""
    pairs = [socket.socketpair() for _ in range(subscribers + 1)]
    asking = [socket.socketpair() for _ in range(subscribers + 2)]
    kinds = ["hub", "publisher", *["subscriber"] * subscribers]
    processes: list[Process] = []
    try:
        for number, kind in enumerate(kinds):
            pipes = [hub_end for hub_end, _ in pairs] if kind == "hub" else [pairs[number - 1][1]]
            fds = [sock.fileno() for sock in pipes]
            core = cores[kind != "hub"]
            role = Role(kind, core, asking[number][1].fileno(), fds, subscribers, size, rate)
            processes.append(Process(role, asking[number][0]))
        for sock in (sock for pair in pairs for sock in pair):
            sock.close()
        for _, sock in asking:
            sock.close()
        for process in processes:
            process.ask()
        time.sleep(SETTLE_S)  # the subscriptions are under way
        for process in processes:
            process.go()
        time.sleep(WARM_UP_S)
        yield Team(processes[0], processes[1], processes[2:])
    finally:
        for process in processes:
            process.end()


@dataclass(frozen=True, slots=True)
class Sample:
    """What came out between two snapshots.

    Attributes:
        per_s: messages published a second.
        cpu_us: of the hub, for one message to all its subscribers.
        core_share: part of its core that the hub used.
        delivered_share: what the subscribers that ran got, divided by what was published for them.
        lost: deliveries that were not made to those.
        slowest_pong_s: the longest time from ping to pong, of those that ran.
    """

    per_s: float
    cpu_us: float
    core_share: float
    delivered_share: float
    lost: float
    slowest_pong_s: float


def sample(team: Team, awake: list[Process], duration_s: float) -> Sample:
    """Let a team work for a while; ``awake`` are the subscribers that run."""

    def snapshots() -> tuple[Snapshot, Snapshot, list[Snapshot]]:
        return team.hub.ask(), team.publisher.ask(), [process.ask() for process in awake]

    hub, publisher, subscribers = snapshots()
    time.sleep(duration_s)
    hub_after, publisher_after, subscribers_after = snapshots()
    wall_s = hub_after["wall_s"] - hub["wall_s"]
    published = publisher_after["published"] - publisher["published"]
    pairs = zip(subscribers, subscribers_after, strict=True)
    got = sum(after["got"] - before["got"] for before, after in pairs)
    cpu_s = hub_after["cpu_s"] - hub["cpu_s"]
    return Sample(
        per_s=published / (publisher_after["wall_s"] - publisher["wall_s"]),
        cpu_us=cpu_s * 1e6 / published,
        core_share=cpu_s / wall_s,
        delivered_share=got / (published * len(awake)),
        lost=sum(after["lost"] for after in subscribers_after) + publisher_after["unsent"],
        slowest_pong_s=hub_after["slowest_pong_s"],
    )


def measure(cores: tuple[int, int], subscribers: int, size: int, rate: int, duration_s: float) -> Sample:
    """One sample of a fresh team."""
    with running(cores, subscribers, size, rate) as team:
        return sample(team, team.subscribers, duration_s)


def measure_stopped(cores: tuple[int, int], rate: int, duration_s: float) -> Iterator[tuple[str, str]]:
    """Four subscribers, one of which is stopped meanwhile: names and values of what is seen."""
    with running(cores, 4, 100, rate) as team:
        *awake, stopped = team.subscribers
        before = sample(team, awake, duration_s)
        rss = team.hub.ask()["rss_bytes"]
        stopped.signal(signal.SIGSTOP)
        during = sample(team, awake, duration_s)
        hub = team.hub.ask()
        yield "messages/s before and while it is stopped", f"{before.per_s:,.0f}, {during.per_s:,.0f}"
        yield "delivered to the other three", f"{before.delivered_share:.3f}, {during.delivered_share:.3f}"
        yield "lost by them", f"{during.lost:,.0f}"
        yield "hub, CPU µs/message", f"{before.cpu_us:.2f}, {during.cpu_us:.2f}"
        slowest = [f"{found.slowest_pong_s * 1e3:.1f}" for found in (before, during)]
        yield "slowest pong of them, ms", ", ".join(slowest)
        yield "waiting in the hub for the stopped one, MiB", f"{hub['waiting_bytes'] / 2**20:.2f}"
        yield "growth of the hub's RSS, MiB", f"{(hub['rss_bytes'] - rss) / 2**20:.2f}"
        stopped.signal(signal.SIGCONT)
        time.sleep(SETTLE_S)
        told, lost = stopped.ask()["lost"], team.hub.ask()["lost"]
        yield "lost by the stopped one, and what it is told", f"{lost:,.0f}, {told:,.0f}"


def main() -> int:
    """Measure and print Markdown; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout")
    add = parser.add_argument
    add("--duration", type=float, default=3.0, metavar="S", help="of each measurement, in seconds (3)")
    add("--rate", type=int, default=50_000, metavar="N", help="messages a second in rate and stopped (50000)")
    add("--hub-core", type=int, default=0, metavar="N", help="core of the hub (0)")
    add("--load-core", type=int, default=1, metavar="N", help="core of publisher and subscribers (1)")
    add("--role", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        be_process(json.loads(arguments.role))
    cores = (arguments.hub_core, arguments.load_core)
    try:
        check_machine(cores, [])
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 2
    machine = describe_machine()
    python = sys.version.split()[0]
    print(f"{machine.cpu}, {machine.kernel}, load average {machine.load_average}; Python {python}\n")
    heads = ("", "subscribers", "bytes", "messages/s", "deliveries/s", "hub µs/message", "hub's core used",
             "lost", "slowest pong ms")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n| :-- |{' --: |' * (len(heads) - 1)}")
    for name, rate in (("full", 0), ("rate", arguments.rate)):
        for size in (100, 1024):
            for subscribers in (1, 2, 4):
                found = measure(cores, subscribers, size, rate, arguments.duration)
                cells = (name, subscribers, size, f"{found.per_s:,.0f}", f"{found.per_s * subscribers:,.0f}",
                         f"{found.cpu_us:.2f}", f"{found.core_share:.2f}", f"{found.lost:,.0f}",
                         f"{found.slowest_pong_s * 1e3:.1f}")  # fmt: skip
                print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print("\n| stopped | |\n| :-- | --: |")
    for name, value in measure_stopped(cores, arguments.rate, arguments.duration):
        print(f"| {name} | {value} |", flush=True)
    return 0


def be_process(fields: dict[str, Any]) -> NoReturn:
    """Play a role, and end."""
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        runner.run(play(Role(**fields)))
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
