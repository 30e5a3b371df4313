"""``python -m benchmarks.scaling``: what a request costs in one process and under a supervisor.

The load, two clients, shares the cores with the workers, so rates say little here; the figure is the CPU that
all processes of a server use for each request. Two processes without a supervisor, each with a client of its
own, show what sharing the machine costs by itself. Samples are interleaved.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.applications import HELLO
from benchmarks.clients import check_answer
from benchmarks.measure import read_session_cpu_s

ROOT = Path(__file__).parent.parent
CONNECTIONS = 64

ARRANGEMENTS: dict[str, tuple[str, ...]] = {
    "one process": (),
    "supervisor, 1 worker": ("--worker-lifetime", "86400"),
    "supervisor, 2 workers": ("--workers", "2"),
    "the same, --accept shared": ("--workers", "2", "--accept", "shared"),
}


class Server:
    """One arrangement, running."""

    def __init__(self, arguments: tuple[str, ...]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "headrace", "run", "benchmarks.applications:hello"]
        command += ["--port", str(self.port), "--no-access-log", "--admin", "off", *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        word, wanted = ("is ready", 2 if "2" in arguments else 1) if arguments else ("Uvicorn running", 1)
        while wanted:
            wanted -= word in self._process.stderr.readline()
        check_answer(self.port, "/", HELLO)

    def cpu_s(self) -> float:
        """CPU seconds of all processes so far."""
        return read_session_cpu_s(self._process.pid)

    def stop(self) -> None:
        """End it."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def sample(servers: list[Server], duration_s: int) -> float:
    """CPU in µs for each request while two clients ask, of one server or of one each."""
    before_s = sum(server.cpu_s() for server in servers)
    loads = [
        subprocess.Popen(
            ["wrk", "-t1", f"-c{CONNECTIONS // 2}", f"-d{duration_s}s", f"http://127.0.0.1:{server.port}/"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for server in (servers * 2)[:2]
    ]
    requests = 0
    for load in loads:
        text, _ = load.communicate()
        found = re.search(r"(\d+) requests in", text)
        assert found, text
        requests += int(found[1])
    return (sum(server.cpu_s() for server in servers) - before_s) / requests * 1e6


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--duration", type=int, default=2, help="seconds for each sample")
    options = parser.parse_args()
    servers = {name: [Server(arguments)] for name, arguments in ARRANGEMENTS.items()}
    servers["two processes, a port each"] = [Server(()), Server(())]
    samples: dict[str, list[float]] = {name: [] for name in servers}
    try:
        for group in servers.values():
            sample(group, 1)
        for _ in range(options.rounds):
            for name, group in servers.items():
                samples[name].append(sample(group, options.duration))
                time.sleep(0.1)
    finally:
        for server in itertools.chain(*servers.values()):
            server.stop()
    print(f"CPU in us a request, {CONNECTIONS} connections, {options.rounds} interleaved samples")
    for name, found in samples.items():
        print(f"{name:28} median {median(found):6.2f}  best {min(found):6.2f}")


if __name__ == "__main__":
    main()
