"""``python -m benchmarks.stack``: what each layer of the stack costs, and whether its bars are met.

A row whose requests did not leave the lines, counts and spans that they must leave is given no figure, and
the exit status is 1; it is 2 when a bar is missed.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from benchmarks.__main__ import take_load_core
from benchmarks.clients import WrongAnswer
from benchmarks.environment import (
    FOLDER,
    CannotRun,
    check_machine,
    describe_interpreter,
    describe_machine,
    prepare_programs,
)
from benchmarks.figures import REQUEST_CPU, Figures, Settings, Workload, usage_figures
from benchmarks.measure import usage_between
from benchmarks.report import Header, Table, render_header, write_results
from benchmarks.servers import ServerFailed, running
from benchmarks.stack.evidence import Witness, check_left
from benchmarks.stack.report import BARS, SPANS, render_bars, render_rows
from benchmarks.stack.rows import ROWS, Ports, Row, Subject
from benchmarks.stack.sink import Sink, running_sink
from benchmarks.workloads import WARM_UP_S, WORKLOADS, check_hello, check_json, run_wrk

DISTRIBUTIONS = [
    *("headrace", "uvicorn", "uvloop", "httptools", "fastapi", "starlette", "pydantic", "prometheus-client"),
    *("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-instrumentation-fastapi"),
]

SUBJECTS: dict[Subject, Workload] = {"fastapi": WORKLOADS["fastapi"], "raw": WORKLOADS["small"]}
CHECKS: dict[Subject, Callable[[int], None]] = {"fastapi": check_json, "raw": check_hello}


def main() -> int:
    """Measures what the command line asks for; returns the exit status."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, _exit_on_signal)  # so that the servers are stopped then, too
    try:
        check_machine((arguments.server_core, arguments.load_core), ["wrk"])
        programs = prepare_programs(arguments.venv, arguments.python)
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 2
    header = Header(
        started=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        interpreter=describe_interpreter(programs, DISTRIBUTIONS),
        machine=describe_machine(),
        duration_s=arguments.duration,
        rounds=arguments.rounds,
        connections=arguments.connections,
        idle_connections=0,
        in_flight=0,
        server_core=arguments.server_core,
        load_core=arguments.load_core,
    )
    take_load_core(arguments.load_core)
    with running_sink(programs) as sink:
        tables = Measurement(header, programs, sink).run(arguments.rows, arguments.output or _results_path())
    if any(table.failures for table in tables):
        return 1
    return 2 if any(bar.is_missed(table) for table in tables for bar in BARS) else 0


def parse_arguments() -> argparse.Namespace:
    """Names are checked here; `rows` comes out as rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stack", description=__doc__)
    add = parser.add_argument
    add("--rows", type=_pick_rows, default=list(ROWS.values()), metavar="NAMES",
        help=f"separated by commas; raw-* is all that begin so: {', '.join(ROWS)}")  # fmt: skip
    add("--duration", type=float, default=3.0, metavar="S", help="of each measurement, in seconds (3)")
    add("--rounds", type=int, default=5, metavar="N", help="how often each is measured (5)")
    add("--connections", type=int, default=64, metavar="N", help="that wrk keeps open (64)")
    add("--venv", default=os.environ.get("BENCH_VENV"), metavar="DIR",
        help="environment with the servers, also as BENCH_VENV; without it an own one is made")  # fmt: skip
    add("--python", metavar="PROGRAM", help="interpreter to make the own environment with")
    add("--server-core", type=int, default=0, metavar="N", help="core of the server (0)")
    add("--load-core", type=int, default=1, metavar="N", help="core of the load and of the sink (1)")
    add("--output", type=Path, metavar="FILE", help="results file (benchmarks/results/stack-<time>.json)")
    return parser.parse_args()


def _pick_rows(names: str) -> list[Row]:
    picked: dict[str, Row] = {}
    for name in names.split(","):
        found = [row for row in ROWS if row == name or (name[-1:] == "*" and row.startswith(name[:-1]))]
        if not found:
            raise argparse.ArgumentTypeError(f"unknown: {name}; known are {', '.join(ROWS)}")
        picked |= {row: ROWS[row] for row in found}
    return list(picked.values())


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _results_path() -> Path:
    return FOLDER / "results" / f"stack-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"


class Measurement:
    """One run.

    Args:
        programs: the folder of programs of the environment to measure in.
        sink: takes the spans of all rows, one after the other.
    """

    def __init__(self, header: Header, programs: Path, sink: Sink) -> None:
        self._header = header
        self._programs = programs
        self._sink = sink

    def run(self, rows: list[Row], output: Path) -> list[Table]:
        """Measures all rows in turn, round after round, and prints and writes the tables at the end."""
        header = self._header
        tables = {subject: Table(workload) for subject, workload in SUBJECTS.items()}
        print(render_header(header), flush=True)
        for number in range(header.rounds):
            # Another row begins each round, so that none always comes after the same neighbour.
            start = number * len(rows) // header.rounds
            for row in rows[start:] + rows[:start]:
                self._sample(tables[row.subject], row, number)
        measured = [table for table in tables.values() if table.samples or table.failures]
        text = render_all(tables, rows)
        print(text)
        write_results(output, header, measured, [row.name for row in rows])
        output.with_suffix(".md").write_text(f"{render_header(header)}\n{text}\n")
        print(f"Results: {output}", file=sys.stderr)
        return measured

    def _sample(self, table: Table, row: Row, number: int) -> None:
        """One fresh server, one measurement, into the table; the reason instead if it fails."""
        if row.name in table.failures:
            return  # what failed once fails again: the time is the others'
        header = self._header
        print(f"{number + 1}/{header.rounds} {row.name}: ", end="", file=sys.stderr, flush=True)
        settings = Settings(header.duration_s, header.connections, 0, 0, number)
        try:
            figures = self._measure(row, settings)
        except (ServerFailed, WrongAnswer) as error:
            table.failures[row.name] = str(error)
        except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
            table.failures[row.name] = f"{type(error).__name__}: {error}"
        else:
            table.add(row.name, number, figures)
            print(f"{figures[REQUEST_CPU.key]:.2f} {REQUEST_CPU.label}", file=sys.stderr)
            return
        print(table.failures[row.name], file=sys.stderr)

    def _measure(self, row: Row, settings: Settings) -> Figures:
        ports = Ports(self._sink.port, free_port())
        server_row = row.server(ports)
        core = self._header.server_core
        with running(server_row, row.application, programs=self._programs, core=core) as server:
            witness = Witness(row.evidence, server, self._sink, ports)
            CHECKS[row.subject](server.port)
            witness.check_answer()
            run_wrk(server.port, settings, "", duration_s=WARM_UP_S)
            witness.settle()
            left_before, before = witness.look(), server.moment()
            result = run_wrk(server.port, settings, "", duration_s=settings.duration_s)
            at_end = server.moment()
            # What is still to be written or sent belongs to these requests, too: its CPU is counted.
            witness.settle()
            settled = server.moment()
            left = witness.look().since(left_before)
            server.check_alive()
        if result.refused or result.socket_errors or not result.requests:
            faults = f"{result.refused} refused, {result.socket_errors} socket errors"
            raise WrongAnswer(f"{result.requests} answers, {faults}")
        check_left(row.evidence, left, result.requests, settings.connections)
        return usage_figures(usage_between(before, at_end)) | {
            "rate_per_s": result.rate_per_s,
            "p50_ms": result.p50_ms,
            "p99_ms": result.p99_ms,
            "cpu_us_per_request": (settled.cpu_s - before.cpu_s) * 1e6 / result.requests,
            "requests": result.requests,
            SPANS: (left.spans + left.other_spans) / result.requests,
        }


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def render_all(tables: dict[Subject, Table], rows: list[Row]) -> str:
    """The bars, and a table for each application."""
    parts = [render_bars(tables["fastapi"])]
    for subject, table in tables.items():
        own = [row for row in rows if row.subject == subject]
        if own:
            parts.append(render_rows(table, own, subject))
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
