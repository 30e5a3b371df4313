"""Samples in, tables out: medians, bests, ratios, Markdown and the results file.

A ratio is taken within each round, between two figures measured minutes apart at most, and the median of
those is shown: a machine that is slow for a while is slow for both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.environment import Interpreter, Machine, as_json
from benchmarks.figures import Figures, Metric, Workload

FLOOR = "floor"
REFERENCE = "uvicorn"
NOTHING = "-"
DISTURBANCE_LIMIT = 0.05
"""Share of a sample above which a note says so."""


@dataclass(slots=True)
class Table:
    """All samples of one workload.

    Attributes:
        samples: server to its figures by round; the rounds that failed are absent.
        failures: server to the reason of its last failure.
    """

    workload: Workload
    samples: dict[str, dict[int, Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, server: str, round_number: int, figures: Figures) -> None:
        self.samples.setdefault(server, {})[round_number] = figures

    def median(self, server: str, metric: Metric) -> float:
        """The median of a figure over the rounds of a server that has samples."""
        return median(figures[metric.key] for figures in self.samples[server].values())

    def best(self, server: str, metric: Metric) -> float:
        """The lowest of a figure over the rounds of a server that has samples."""
        return min(figures[metric.key] for figures in self.samples[server].values())

    def ratio(self, server: str, reference: str, metric: Metric) -> float | None:
        """Median of the rounds' ratios; None if the two share no round, or the reference is not above 0."""
        ours = self.samples.get(server, {})
        theirs = self.samples.get(reference, {})
        ratios = [
            ours[number][metric.key] / theirs[number][metric.key]
            for number in ours.keys() & theirs.keys()
            if theirs[number][metric.key] > 0
        ]
        return median(ratios) if ratios else None

    def worst_share(self, key: str) -> float:
        """The highest share of that name in any sample, 0 to 1."""
        rounds_of_all = self.samples.values()
        shares = [figures.get(key, 0.0) for rounds in rounds_of_all for figures in rounds.values()]
        return max(shares, default=0.0)


@dataclass(frozen=True, slots=True)
class Header:
    """What stands above the tables."""

    started: str
    interpreter: Interpreter
    machine: Machine
    duration_s: float
    rounds: int
    connections: int
    idle_connections: int
    in_flight: int
    server_core: int
    load_core: int


def render_header(header: Header) -> str:
    """The header as a Markdown list."""
    machine, python = header.machine, header.interpreter
    versions = ", ".join(f"{name} {version}" for name, version in python.versions.items())
    lines = [
        "# Benchmarks",
        "",
        f"- Started: {header.started}; {header.rounds} rounds of {header.duration_s:g} s; "
        f"{header.connections} connections, {header.idle_connections} when idle; "
        f"{header.in_flight} messages in flight on each WebSocket.",
        f"- Server on core {header.server_core}, one worker; load on core {header.load_core}; "
        f"{machine.wrk}; {machine.h2load}.",
        f"- Machine: {machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB, {machine.kernel}; "
        f"load average at the start {machine.load_average}.",
        f"- Python: {python.version}, {python.compiler}; optimised build: {python.optimised}; "
        f"LTO: {python.lto}; GIL {python.gil}; a turn of a pure loop {python.loop_ns:.1f} ns.",
        f"- Installed: {versions}.",
        "",
    ]
    return "\n".join(lines)


def render_table(table: Table, servers: list[str]) -> str:
    """One workload as a Markdown table, with its servers in the order given."""
    kind = table.workload.kind
    heads = ["server", *(metric.label for metric in kind.metrics), f"best {kind.cost.label}"]
    if kind.has_ratios:
        heads += [f"÷ {FLOOR}", f"÷ {REFERENCE}"]
    if kind.rate is not None:
        heads.append(f"{kind.rate.label} ÷ {REFERENCE}")
    lines = [f"## {table.workload.name}: {table.workload.title}", "", _row(heads)]
    lines.append(_row([":--", *["--:"] * (len(heads) - 1)]))
    for server in servers:
        if server in table.samples:
            lines.append(_row([server, *_cells(table, server)]))
        else:
            reason = table.failures.get(server, "not measured").replace("|", "\\|")
            lines.append(_row([server, reason, *[""] * (len(heads) - 2)]))
    return "\n".join([*lines, "", *_notes(table), ""])


def _cells(table: Table, server: str) -> list[str]:
    kind = table.workload.kind
    cells = [_number(table.median(server, metric), metric.digits) for metric in kind.metrics]
    cells.append(_number(table.best(server, kind.cost), kind.cost.digits))
    if kind.has_ratios:
        cells += [_number(table.ratio(server, reference, kind.cost), 2) for reference in (FLOOR, REFERENCE)]
    if kind.rate is not None:
        cells.append(_number(table.ratio(server, REFERENCE, kind.rate), 2))
    return cells


def _notes(table: Table) -> list[str]:
    """What the reader must know about the figures above, if anything."""
    notes = []
    for server, rounds in table.samples.items():
        errors = sum(int(figures.get("socket_errors", 0)) for figures in rounds.values())
        if errors:
            notes.append(f"- {server}: {errors} socket errors under load.")
        if server in table.failures:
            notes.append(f"- {server} failed in a round: {table.failures[server]}.")
    for key, who in (("foreign_share", "other processes"), ("stolen_share", "other machines")):
        share = table.worst_share(key)
        if share > DISTURBANCE_LIMIT:
            notes.append(
                f"- The server's core was with {who} for up to {share:.0%} of a sample: "
                "repeat it when the machine is quiet."
            )
    return [*notes, ""] if notes else []


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"


def write_results(path: Path, header: Header, tables: list[Table], servers: list[str]) -> None:
    """Writes everything measured as JSON, and the tables beside it as Markdown."""
    document = {
        "header": {
            "started": header.started,
            "duration_s": header.duration_s,
            "rounds": header.rounds,
            "connections": header.connections,
            "idle_connections": header.idle_connections,
            "in_flight": header.in_flight,
            "server_core": header.server_core,
            "load_core": header.load_core,
            "interpreter": as_json(header.interpreter),
            "machine": as_json(header.machine),
        },
        "workloads": {table.workload.name: _table_as_json(table) for table in tables},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    text = "\n".join([render_header(header), *(render_table(table, servers) for table in tables)])
    path.with_suffix(".md").write_text(text)


def _table_as_json(table: Table) -> dict[str, object]:
    cost = table.workload.kind.cost
    return {
        "title": table.workload.title,
        "cost": cost.key,
        "summary": {
            server: {
                "median": table.median(server, cost),
                "best": table.best(server, cost),
                "to_floor": table.ratio(server, FLOOR, cost),
                "to_uvicorn": table.ratio(server, REFERENCE, cost),
            }
            for server in table.samples
        },
        "samples": table.samples,
        "failures": table.failures,
    }
