"""Pages of metrics: of a server in a process of its own, over its control surface, and of a registry."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from headrace.telemetry.metrics.exposition import render
from headrace.telemetry.metrics.merge import Merged
from headrace.telemetry.metrics.registry import Registry
from live import PATIENCE_S, Client, Response, ServerProcess, eventually

Figures = dict[str, float]
"""Line without its number -> the number: ``{'orders_total{kind="a"}': 3.0}``."""


def figures_of(text: str) -> Figures:
    """The numbers of a page."""
    lines = [line.partition(" # ")[0] for line in text.splitlines() if not line.startswith("#")]
    return {name: float(number) for name, _, number in (line.rpartition(" ") for line in lines)}


def read_page(server: ServerProcess, folder: Path, *fields: str) -> Response:
    """The page as it is sent for such fields.

    Args:
        server: runs, or is about to.
        folder: its XDG_RUNTIME_DIR.
        fields: further header fields of the request.
    """
    path = folder / "headrace" / f"{server.pid}.sock"
    eventually(path.exists, str(path))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(path))
        client = Client(sock)
        client.send("\r\n".join(["GET /metrics HTTP/1.1", "host: localhost", *fields, "", ""]).encode())
        return client.read_response()


def scrape(server: ServerProcess, folder: Path) -> Figures:
    """The numbers as they are now."""
    response = read_page(server, folder)
    assert response.status == 200, response
    return figures_of(response.body.decode())


def total(figures: Figures, name: str) -> float:
    """The sum of all series of one metric; their buckets, counts and so on are metrics of their own."""
    return sum(number for line, number in figures.items() if line.partition("{")[0] == name)


def figures_in(registry: Registry) -> Figures:
    """The numbers of one process."""
    merged = Merged()
    merged.attach(registry.store)
    return figures_of("".join(render(merged)))


def tool(name: str) -> str:
    """Where a program of Debian's package ``prometheus`` is; without it the test is skipped, in CI failed."""
    path = shutil.which(name)
    if path is None and not os.environ.get("CI"):
        pytest.skip(f"{name} is not installed; it is in Debian's package prometheus")
    assert path is not None, f"{name} is not installed"
    return path
