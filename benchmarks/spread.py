"""``python -m benchmarks.spread``: how evenly connections spread over workers, and what accepting costs.

Three ways to connect, each from nothing, each with clients that keep their connections:

- burst: 64 connect in one moment;
- in turn: each connects when the one before has its answer;
- coming and going: 264 in random order, 16 at a time; 200 of them leave again within 20 ms, 64 stay.

The spread is the number of connections on the fullest worker, divided by the mean: 1 is even, and 4 is all on
one of four workers. Then wrk makes a new connection for each request, and the CPU time of all workers is
divided by the connections. The strategies are measured in turn, round for round. Nothing is pinned: workers
and load share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from benchmarks.measure import parse_wrk
from benchmarks.servers import ServerFailed
from benchmarks.worker_group import STRATEGIES, WorkerGroup, running_group

STAYING = 64
LEAVING = 200
AT_A_TIME = 16
LEAVE_WITHIN_S = 0.02
REST_S = 0.1
PATIENCE_S = 30.0
WARM_UP_S = 1
LOAD_CONNECTIONS = (1, 64)
REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"

Place = str
"""The process that answered, as it says itself."""


def main() -> int:
    """Measures what the command line asks for; returns the exit status."""
    arguments = _parse_arguments()
    spreads: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    costs: dict[tuple[str, str, int], list[tuple[float, float]]] = defaultdict(list)
    times_ms: dict[tuple[str, str], list[float]] = defaultdict(list)
    try:
        for _ in range(arguments.rounds):
            for loop in arguments.loops:
                for strategy in arguments.strategies:
                    with running_group(strategy, loop, arguments.workers) as group:
                        for name, connect in SCENARIOS.items():
                            begin = time.monotonic()
                            spreads[loop, strategy, name].append(spread_of(connect(group.port), group.count))
                            if name == "burst":
                                times_ms[loop, strategy].append((time.monotonic() - begin) * 1000)
                            time.sleep(REST_S)
                        for connections in LOAD_CONNECTIONS if arguments.duration else ():
                            cost = measure_cost(group, connections, arguments.duration)
                            costs[loop, strategy, connections].append(cost)
    except (ServerFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    _print_spreads(arguments, spreads, times_ms)
    if costs:
        _print_costs(arguments, costs)
    return 0


def spread_of(places: Iterable[Place], workers: int) -> float:
    """Connections on the fullest worker divided by the mean; 1.0 is even."""
    numbers = Counter(places)
    return max(numbers.values()) * workers / numbers.total()


# --- clients ---------------------------------------------------------------------------------------------


def connect_in_burst(port: int) -> list[Place]:
    """All connect before any of them sends."""
    clients = [socket.socket() for _ in range(STAYING)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(("127.0.0.1", port))
        for client in clients:
            client.settimeout(PATIENCE_S)
            client.sendall(REQUEST)
        return [_read_answer(client) for client in clients]


def connect_in_turn(port: int) -> list[Place]:
    """Each connects when the one before has its answer."""
    places = []
    with contextlib.ExitStack() as stack:
        for _ in range(STAYING):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
            client.sendall(REQUEST)
            places.append(_read_answer(client))
    return places


def come_and_go(port: int) -> list[Place]:
    """Some stay, and most leave again; only where the former are counts."""
    return asyncio.run(_come_and_go(port))


SCENARIOS: dict[str, Callable[[int], list[Place]]] = {
    "burst": connect_in_burst,
    "in turn": connect_in_turn,
    "coming and going": come_and_go,
}


def _read_answer(client: socket.socket) -> Place:
    data = b""
    while b"\r\n\r\n" not in data or data.endswith(b"\r\n\r\n"):
        more = client.recv(4096)
        if not more:
            raise OSError("a worker closed a connection without an answer")
        data += more
    return data.rpartition(b"\r\n\r\n")[2].decode()


async def _come_and_go(port: int) -> list[Place]:
    kinds = [True] * STAYING + [False] * LEAVING
    random.shuffle(kinds)
    queue = iter(kinds)
    places: list[Place] = []
    staying: list[asyncio.StreamWriter] = []

    async def connect_and_connect() -> None:
        for stays in queue:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            place = (await reader.readexactly(length)).decode()
            if stays:
                places.append(place)
                staying.append(writer)
            else:
                await asyncio.sleep(random.uniform(0, LEAVE_WITHIN_S))
                writer.close()

    await asyncio.gather(*(connect_and_connect() for _ in range(AT_A_TIME)))
    for writer in staying:
        writer.close()
    return places


def measure_cost(group: WorkerGroup, connections: int, duration_s: int) -> tuple[float, float]:
    """A new connection for each request.

    Returns:
        Connections per second, and CPU of all workers in microseconds for each.
    """
    _run_wrk(group.port, connections, WARM_UP_S)
    before_s = group.cpu_s()
    begin = time.monotonic()
    requests = _run_wrk(group.port, connections, duration_s)
    return requests / (time.monotonic() - begin), (group.cpu_s() - before_s) * 1e6 / requests


def _run_wrk(port: int, connections: int, duration_s: int) -> int:
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{duration_s}s"]
    command += ["--latency", "--header", "Connection: close", f"http://127.0.0.1:{port}/"]
    result = parse_wrk(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if result.socket_errors or result.refused:
        raise OSError(f"wrk counted {result.socket_errors} errors and {result.refused} refusals")
    return result.requests


# --- output ----------------------------------------------------------------------------------------------


def _print_spreads(
    arguments: argparse.Namespace,
    spreads: dict[tuple[str, str, str], list[float]],
    times_ms: dict[tuple[str, str], list[float]],
) -> None:
    print(
        f"\nFullest worker ÷ mean, {STAYING} connections on {arguments.workers} workers, "
        f"median and worst of {arguments.rounds} rounds\n"
    )
    print(f"| loop | strategy | {' | '.join(SCENARIOS)} | burst answered, ms |")
    print(f"| :-- | :-- |{' --: |' * (len(SCENARIOS) + 1)}")
    for loop in arguments.loops:
        for strategy in arguments.strategies:
            found = [spreads[loop, strategy, name] for name in SCENARIOS]
            cells = [f"{statistics.median(values):.2f}, {max(values):.2f}" for values in found]
            cells.append(f"{statistics.median(times_ms[loop, strategy]):.0f}")
            print(f"| {loop} | {strategy} | {' | '.join(cells)} |")


def _print_costs(
    arguments: argparse.Namespace, costs: dict[tuple[str, str, int], list[tuple[float, float]]]
) -> None:
    print(f"\nA connection for each request, {arguments.workers} workers, medians, and the least CPU\n")
    heads = [f"{count} at a time: connections/s | CPU µs/connection | least µs" for count in LOAD_CONNECTIONS]
    print(f"| loop | strategy | {' | '.join(heads)} |")
    print(f"| :-- | :-- |{' --: |' * (3 * len(LOAD_CONNECTIONS))}")
    for loop in arguments.loops:
        for strategy in arguments.strategies:
            cells = []
            for count in LOAD_CONNECTIONS:
                rates, cpu_us = zip(*costs[loop, strategy, count], strict=True)
                cells.append(
                    f"{statistics.median(rates):,.0f} | {statistics.median(cpu_us):.0f} | {min(cpu_us):.0f}"
                )
            print(f"| {loop} | {strategy} | {' | '.join(cells)} |")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.spread",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--strategies", type=_names(STRATEGIES), default=list(STRATEGIES), metavar="NAMES",
        help=f"separated by commas: {', '.join(STRATEGIES)}")  # fmt: skip
    add("--loops", type=_names(("uvloop", "asyncio")), default=["uvloop", "asyncio"], metavar="NAMES",
        help="separated by commas: uvloop, asyncio")  # fmt: skip
    add("--workers", type=int, default=4, metavar="N", help="how many (4)")
    add("--rounds", type=int, default=10, metavar="N", help="how often each is measured (10)")
    add("--duration", type=int, default=2, metavar="S",
        help="of each measurement of the cost, in seconds; 0 leaves it out (2)")  # fmt: skip
    return parser.parse_args()


def _names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        found = text.split(",")
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name}: not one of {', '.join(known)}")
        return found

    return names


if __name__ == "__main__":
    sys.exit(main())
