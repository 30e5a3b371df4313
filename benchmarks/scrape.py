"""``python -m benchmarks.scrape``: what a scrape costs, and whom it keeps waiting.

Four workers serve 200 routes, each of which every worker has answered, so that all series are there. Then the
page of all of them is read over the control surface again and again, in each format. Besides it is noted how
late the event loops were: each worker's, by a task of its own that looks every millisecond, and the
supervisor's, by the time that ``/livez`` takes on another connection. Nothing is pinned, and a loop is late
when the machine has other work as well: a row without scrapes stands beside it, and one without scrapes in
which this process burns as much CPU as a scrape takes.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.scrape_application import ROUTES

PATIENCE_S = 30.0
BURN_S = 0.005

FORMATS: dict[str, dict[str, str]] = {
    "text": {},
    "text, gzip": {"accept-encoding": "gzip"},
    "OpenMetrics": {"accept": "application/openmetrics-text"},
    "OpenMetrics, gzip": {"accept": "application/openmetrics-text", "accept-encoding": "gzip"},
}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


class Group:
    """A running supervisor.

    Attributes:
        port: of the workers.
        control: the socket of its control surface.
        pid: of the supervisor.
    """

    def __init__(self, port: int, control: Path, pid: int) -> None:
        self.port = port
        self.control = control
        self.pid = pid


def main() -> int:
    """Measures what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--scrapes", type=int, default=40, help="in each format")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two scrapes")
    arguments = parser.parse_args()
    with running(arguments.workers) as group:
        series = fill(group, arguments.workers)
        print(f"{arguments.workers} workers, {ROUTES} routes, {series} series of request durations\n")
        print("| page | KB | ms, median | worst | supervisor's CPU ms | worst lag ms, workers | supervisor |")
        print("|---|---|---|---|---|---|---|")
        measure(group, "none", arguments, lambda: 0)
        measure(group, "none, CPU burnt", arguments, burn)
        connection = UnixConnection(group.control)

        def scrape(headers: dict[str, str]) -> int:
            connection.request("GET", "/metrics", headers=headers)
            return len(connection.getresponse().read())

        for name, headers in FORMATS.items():
            measure(group, name, arguments, partial(scrape, headers))
        connection.close()
    return 0


def measure(group: Group, name: str, arguments: argparse.Namespace, work: Callable[[], int]) -> None:
    """Work again and again, and print a row; the work gives a page's size in bytes."""
    worst_lags(group, arguments.workers)
    times_ms: list[float] = []
    before_s = cpu_s(group.pid)
    with prober(group) as probed_ms:
        for _ in range(arguments.scrapes):
            begin = time.monotonic()
            size = work()
            times_ms.append((time.monotonic() - begin) * 1000)
            time.sleep(arguments.pause)
    spent_ms = (cpu_s(group.pid) - before_s) * 1000 / arguments.scrapes
    lags = worst_lags(group, arguments.workers)
    print(
        f"| {name} | {size / 1000:.0f} | {statistics.median(times_ms):.1f} | {max(times_ms):.1f} | "
        f"{spent_ms:.1f} | {max(lags.values()):.1f} | {max(probed_ms):.1f} |"
    )


def burn() -> int:
    """Use the CPU for as long as the supervisor makes a page."""
    end_s = time.process_time() + BURN_S
    while time.process_time() < end_s:
        pass
    return 0


def fill(group: Group, workers: int) -> int:
    """Have every worker answer every route; gives how many series that makes over all workers."""
    clients: dict[str, http.client.HTTPConnection] = {}
    while len(clients) < workers:
        client = http.client.HTTPConnection("127.0.0.1", group.port, timeout=PATIENCE_S)
        clients.setdefault(read(client, "/r/0"), client)
    for client in clients.values():
        for number in range(ROUTES):
            read(client, f"/r/{number}")
    time.sleep(0.3)  # written a tenth of a second later
    scraper = UnixConnection(group.control)
    return read(scraper, "/metrics").count("http_request_duration_seconds_count")


def worst_lags(group: Group, workers: int) -> dict[str, float]:
    """Each worker's longest lag in ms since the last call."""
    found: dict[str, float] = {}
    while len(found) < workers:
        client = http.client.HTTPConnection("127.0.0.1", group.port, timeout=PATIENCE_S)
        pid, lag = read(client, "/lag").split()
        found[pid] = max(found.get(pid, 0.0), float(lag))
        client.close()
    return found


def read(client: http.client.HTTPConnection, target: str) -> str:
    """One answer."""
    client.request("GET", target)
    return client.getresponse().read().decode()


@contextmanager
def prober(group: Group) -> Iterator[list[float]]:
    """Ask the supervisor for its life all the while; gives the times of its answers in ms."""
    found = [0.0]
    is_over = threading.Event()

    def probe() -> None:
        connection = UnixConnection(group.control)
        while not is_over.is_set():
            begin = time.monotonic()
            read(connection, "/livez")
            found.append((time.monotonic() - begin) * 1000)
            is_over.wait(0.005)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


def cpu_s(pid: int) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(workers: int) -> Iterator[Group]:
    """A supervisor whose workers serve."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "headrace", "run", "benchmarks.scrape_application:app", "--metrics",
                "--workers", str(workers), "--port", "0", "--no-access-log",
            ],
            env={**os.environ, "XDG_RUNTIME_DIR": folder, "PYTHONUNBUFFERED": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            port = ready = 0
            for line in process.stderr:
                if found := re.search(r"running on http://.*:(\d+)", line):
                    port = int(found[1])
                ready += "is ready." in line
                if ready == workers:
                    break
            else:
                raise SystemExit("the server has not started")
            yield Group(port, Path(folder) / "headrace" / f"{process.pid}.sock", process.pid)
        finally:
            process.terminate()
            process.communicate()


if __name__ == "__main__":
    sys.exit(main())
