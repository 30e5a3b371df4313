"""``headrace status``: how a running server and its workers are."""

from __future__ import annotations

import json
from typing import Any

import click

from headrace.admin.client import AdminClient
from headrace.cli.control_command import make_command

_HELP = """Show a running server and its workers.

It answers also while every worker is busy. A star marks the leader.
"""
_HEADINGS = ("worker", "pid", "state", "up", "connections", "running", "requests", "memory", "lag")


def _status(server: AdminClient, as_json: bool) -> str:
    status = server.get("/api/status")
    return json.dumps(status, indent=2) if as_json else _describe(status)


def _describe(status: dict[str, Any]) -> str:
    """The server in a line, where it listens, and a table of its workers."""
    workers = status["workers"]
    title = f"headrace {status['version']}, process {status['pid']}: {status['application']}"
    lines = [
        f"{title}, {status['state']}, up {_duration(status['uptime_s'])}",
        *(f"  on {listener}" for listener in status["listeners"]),
        f"  workers: {len(workers)}, wanted {status['target']}",
    ]
    if workers:
        lines += ["", *_table([_HEADINGS, *map(_cells, workers)])]
    return "\n".join(lines)


def _cells(worker: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{worker['id']}{'*' if worker['is_leader'] else ''}",
        str(worker["pid"]),
        worker["state"],
        _duration(worker["uptime_s"]),
        str(worker["connections"]),
        str(worker["running"]),
        str(worker["requests"]),
        f"{worker['memory_bytes'] / 1_048_576:.1f} MiB",
        f"{worker['lag_s'] * 1000:.0f} ms",
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _duration(seconds: float) -> str:
    """The two largest units: ``3d 4h``, ``2m 5s``."""
    left = int(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


_JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object.")

command = make_command("status", _status, _HELP, _JSON)
