"""The tables: what each row costs, what it adds, and whether the bars are met."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Literal

from benchmarks.figures import BUSY, RATE, REQUEST_CPU
from benchmarks.report import DISTURBANCE_LIMIT, NOTHING, Table
from benchmarks.stack.rows import ROWS, Row, Subject

REFERENCES: dict[Subject, tuple[str, str]] = {
    "fastapi": ("uvicorn", "headrace"),
    "raw": ("raw-uvicorn", "raw-headrace"),
}
"""Subject to the rows that the others are held against: uvicorn bare and headrace bare."""
RECIPE = "recipe"
FULL = 0.95
"""Share of its core below which a server waited for the load, and its rate says little."""
SPANS = "spans_per_request"


@dataclass(frozen=True, slots=True)
class Bar:
    """Requests per second of one row over those of another that must be reached."""

    row: str
    reference: str
    ratio: float

    def measured(self, table: Table) -> float | None:
        """The ratio; None when one of the two was not measured."""
        return table.ratio(self.row, self.reference, RATE)

    def is_missed(self, table: Table) -> bool:
        """It was measured and is below what must be reached."""
        measured = self.measured(table)
        return measured is not None and measured < self.ratio

    def render(self, table: Table) -> str:
        """One line of the table of bars."""
        measured = self.measured(table)
        # The inverse, taken by CPU, holds also where somebody else had a part of the core.
        by_cpu = table.ratio(self.reference, self.row, REQUEST_CPU)
        verdict = NOTHING if measured is None else "missed" if self.is_missed(table) else "met"
        names = f"{ROWS[self.row].title} ÷ {ROWS[self.reference].title}"
        return _row([names, f"{self.ratio:g}", _number(measured, 2), verdict, _number(by_cpu, 2)])


BARS = (
    Bar("stack-10", "uvicorn", 1.0),
    Bar("stack-100", "uvicorn", 0.85),
    Bar("stack-10", "recipe", 8.0),
)


def added_us(table: Table, row: str, reference: str) -> float | None:
    """CPU that a row needs above another, in µs a request: median of the rounds' differences."""
    ours, theirs = table.samples.get(row, {}), table.samples.get(reference, {})
    key = REQUEST_CPU.key
    differences = [ours[number][key] - theirs[number][key] for number in ours.keys() & theirs.keys()]
    return median(differences) if differences else None


def render_rows(table: Table, rows: list[Row], subject: Subject) -> str:
    """One application's rows as a Markdown table."""
    uvicorn, headrace = REFERENCES[subject]
    heads = [
        "",
        RATE.label,
        BUSY.label,
        REQUEST_CPU.label,
        "best",
        "µs above headrace bare",
        "µs above uvicorn bare",
    ]
    heads += ["requests/s ÷ uvicorn bare", "÷ recipe", "spans/request"]
    lines = [f"## {table.workload.title}", "", _row(heads), _row([":--", *["--:"] * (len(heads) - 1)])]
    for row in rows:
        if row.name not in table.samples:
            reason = table.failures.get(row.name, "not measured").replace("|", "\\|")
            lines.append(_row([row.title, reason, *[""] * (len(heads) - 2)]))
            continue
        samples = table.samples[row.name].values()
        spans = median(figures[SPANS] for figures in samples)
        cells = [
            _number(table.median(row.name, RATE), 0),
            _number(table.median(row.name, BUSY), 2),
            _number(table.median(row.name, REQUEST_CPU), 2),
            _number(table.best(row.name, REQUEST_CPU), 2),
            _number(added_us(table, row.name, headrace), 2),
            _number(added_us(table, row.name, uvicorn), 2),
            _number(table.ratio(row.name, uvicorn, RATE), 2),
            _number(table.ratio(row.name, RECIPE, RATE), 2),
            NOTHING if row.evidence.sampled is None else f"{spans:.2f}",
        ]
        lines.append(_row([row.title, *cells]))
    return "\n".join([*lines, "", *render_notes(table), ""])


def render_bars(table: Table) -> str:
    """The bars as a Markdown table."""
    lines = [
        "## Bars",
        "",
        _row(["requests/s", "wanted", "measured", "", "by CPU"]),
        _row([":--", "--:", "--:", ":--", "--:"]),
    ]
    return "\n".join([*lines, *(bar.render(table) for bar in BARS), ""])


def render_notes(table: Table) -> list[str]:
    """What the reader must know about the figures above, if anything."""
    notes = [f"- {ROWS[name].title} failed: {reason}." for name, reason in table.failures.items()]
    for name in table.samples:
        busy = table.median(name, BUSY)
        if busy < FULL:
            notes.append(
                f"- {ROWS[name].title} had {busy:.0%} of its core to do: the load was the slower side, "
                "perhaps disturbed, and ratios to its rate flatter the others."
            )
    who_by_key: dict[Literal["foreign_share", "stolen_share"], str]
    who_by_key = {"foreign_share": "other processes", "stolen_share": "other machines"}
    for key, who in who_by_key.items():
        share = table.worst_share(key)
        if share > DISTURBANCE_LIMIT:
            notes.append(f"- The server's core was with {who} for up to {share:.0%} of a sample: repeat it.")
    return notes


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"
