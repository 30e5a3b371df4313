"""``python -m benchmarks``: headrace, its peers and the floor, side by side in one run."""

from __future__ import annotations

import argparse
import http.client
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from benchmarks.clients import WrongAnswer
from benchmarks.environment import (
    FOLDER,
    CannotRun,
    check_machine,
    describe_interpreter,
    describe_machine,
    prepare_programs,
)
from benchmarks.figures import Figures, Settings, Workload
from benchmarks.report import Header, Table, render_header, render_table, write_results
from benchmarks.servers import FLOOR, SERVERS, Server, ServerFailed, running
from benchmarks.workloads import WORKLOADS

ALSO_INSTALLED = (
    *("uvloop", "httptools", "gunicorn_h1c", "fastapi", "starlette", "pydantic"),
    *("ngh2", "zttp", "h2", "websockets", "wsproto", "autobahn"),
)


def main() -> int:
    """Measures what the command line asks for; returns the exit status."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, _exit_on_signal)  # so that the servers are stopped then, too
    try:
        load_programs = {workload.program for workload in arguments.only if workload.program}
        check_machine((arguments.server_core, arguments.load_core), sorted(load_programs))
        programs = prepare_programs(arguments.venv, arguments.python)
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 2
    distributions = [server.distribution for server in arguments.servers if server.distribution]
    header = Header(
        started=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        interpreter=describe_interpreter(programs, [*distributions, *ALSO_INSTALLED]),
        machine=describe_machine(),
        duration_s=arguments.duration,
        rounds=arguments.rounds,
        connections=arguments.connections,
        idle_connections=arguments.idle_connections,
        in_flight=arguments.in_flight,
        server_core=arguments.server_core,
        load_core=arguments.load_core,
    )
    take_load_core(arguments.load_core)
    measure_all(header, programs, arguments.only, arguments.servers, arguments.output or _results_path())
    return 0


def parse_arguments() -> argparse.Namespace:
    """Names are checked here; `only` and `servers` come out as workloads and servers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", type=_pick_workloads, default=list(WORKLOADS.values()), metavar="NAMES",
        help=f"workloads, separated by commas: {', '.join(WORKLOADS)}")  # fmt: skip
    add("--servers", type=_pick_servers, default=list(SERVERS.values()), metavar="NAMES",
        help=f"servers, separated by commas: {', '.join(SERVERS)}")  # fmt: skip
    add("--duration", type=float, default=5.0, metavar="S", help="of each measurement, in seconds (5)")
    add("--rounds", type=int, default=5, metavar="N", help="how often each is measured (5)")
    add("--connections", type=int, default=64, metavar="N", help="that wrk keeps open (64)")
    add(
        "--idle-connections",
        type=int,
        default=2000,
        metavar="N",
        help="of the workloads idle and ws-idle (2000)",
    )
    add(
        "--in-flight",
        type=int,
        default=8,
        metavar="N",
        help="messages under way on each WebSocket, but for ws-echo-32-single (8)",
    )
    add("--venv", default=os.environ.get("BENCH_VENV"), metavar="DIR",
        help="environment with the servers, also as BENCH_VENV; without it an own one is made")  # fmt: skip
    add("--python", metavar="PROGRAM", help="interpreter to make the own environment with")
    add("--server-core", type=int, default=0, metavar="N", help="core of the server (0)")
    add("--load-core", type=int, default=1, metavar="N", help="core of the load (1)")
    add("--output", type=Path, metavar="FILE", help="results file (benchmarks/results/<time>.json)")
    arguments = parser.parse_args()
    for name in ("duration", "rounds", "connections", "idle_connections", "in_flight"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return arguments


def _pick_workloads(names: str) -> list[Workload]:
    return [WORKLOADS[name] for name in _split_known(names, WORKLOADS)]


def _pick_servers(names: str) -> list[Server]:
    return [SERVERS[name] for name in _split_known(names, SERVERS)]


def _split_known(names: str, known: Iterable[str]) -> list[str]:
    wanted = names.split(",")
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(known)}")
    return wanted


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _results_path() -> Path:
    return FOLDER / "results" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"


def take_load_core(core: int) -> None:
    """Moves this process, and so wrk, to the load's core, and lets it open many connections."""
    os.sched_setaffinity(0, {core})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure_all(
    header: Header, programs: Path, workloads: list[Workload], servers: list[Server], output: Path
) -> None:
    """Measures workload by workload, prints each table when it is complete, and keeps all in the file."""
    names = [server.name for server in servers]
    tables: list[Table] = []
    print(render_header(header))
    for workload in workloads:
        table = Table(workload)
        tables.append(table)
        for number in range(header.rounds):
            # Another server begins each round, so that none always comes after the same neighbour.
            start = number % len(servers)
            for server in servers[start:] + servers[:start]:
                sample(table, server, number, header, programs)
        print(render_table(table, names), flush=True)
        write_results(output, header, tables, names)
    print(f"Results: {output}", file=sys.stderr)


def sample(table: Table, server: Server, number: int, header: Header, programs: Path) -> None:
    """One fresh server, one measurement, into the table; the reason instead if it fails."""
    if server.name in table.failures:
        return  # what failed once fails again: the time is the others'
    workload = table.workload
    settings = Settings(
        header.duration_s, header.connections, header.idle_connections, header.in_flight, number
    )
    print(
        f"{workload.name} {number + 1}/{header.rounds} {server.name}: ", end="", file=sys.stderr, flush=True
    )
    try:
        figures = measure_once(workload, server, settings, programs, header.server_core)
    except (ServerFailed, WrongAnswer) as error:
        table.failures[server.name] = str(error)
    except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
        table.failures[server.name] = f"{type(error).__name__}: {error}"
    else:
        table.add(server.name, number, figures)
        cost = workload.kind.cost
        print(f"{figures[cost.key]:.2f} {cost.label}", file=sys.stderr)
        return
    print(table.failures[server.name], file=sys.stderr)


def measure_once(
    workload: Workload, server: Server, settings: Settings, programs: Path, core: int
) -> Figures:
    application = workload.floor if server is FLOOR else workload.application
    if workload.protocol == "http/2":
        server = server.over_http2()
    with running(server, application, programs=programs, core=core) as started:
        return workload.measure(started, settings)


if __name__ == "__main__":
    sys.exit(main())
