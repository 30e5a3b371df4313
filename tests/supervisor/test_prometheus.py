"""A real Prometheus scrapes a real supervisor."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from live import PATIENCE_S, eventually
from scrape import tool
from supervised import APP, Supervised

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are read from /proc")

CONFIGURATION = """
global:
  scrape_interval: 500ms
  scrape_timeout: 500ms
scrape_configs:
  - job_name: headrace
    authorization: {{credentials: hunter2}}
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


class Prometheus:
    """In a process of its own, on a free port, with nothing stored behind it.

    Args:
        folder: for its files.
        scraped_port: where the figures are.
    """

    def __init__(self, folder: Path, scraped_port: int) -> None:
        program = tool("prometheus")
        (folder / "prometheus.yml").write_text(CONFIGURATION.format(port=scraped_port))
        self._port = free_port()
        self._log = (folder / "prometheus.log").open("w+")
        self._process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def ask(self, path: str) -> Any:
        """Data of one answer of its interface; None while it starts."""
        assert self._process.poll() is None, Path(self._log.name).read_text()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        try:
            connection.request("GET", f"/api/v1/{path}")
            response = connection.getresponse()
            return json.loads(response.read())["data"] if response.status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    def query(self, expression: str) -> float | None:
        """The number of an expression now; None without a series."""
        data = self.ask(f"query?query={quote(expression)}")
        return float(data["result"][0]["value"][1]) if data and data["result"] else None

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._log.close()


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[int], Prometheus]]:
    """Give a function that starts one."""
    started: list[Prometheus] = []

    def start(scraped_port: int) -> Prometheus:
        started.append(Prometheus(tmp_path, scraped_port))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_scrapes(
    supervise: Callable[..., Supervised], prometheus: Callable[[int], Prometheus], tmp_path: Path
) -> None:
    tool("prometheus")
    port = free_port()
    server = supervise(
        "--metrics", "--admin", f"127.0.0.1:{port}", "--admin-token", "hunter2", source=APP, workers=2
    )
    server.wait_ready(2)
    reader = prometheus(port)
    for _ in range(20):
        assert server.connect().request("/", headers=["connection: close"]).status == 200
    eventually(lambda: reader.query("up") == 1, "up = 1")
    eventually(lambda: reader.query("sum(http_request_duration_seconds_count)") == 20)
    # On a busy machine a scrape may come too late, and the next one in time.
    eventually(lambda: reader.query('headrace_workers{state="ready"}') == 2)
    eventually(lambda: (reader.query("sum(process_resident_memory_bytes)") or 0) > 0)
    eventually(lambda: reader.ask("targets")["activeTargets"][0]["health"] == "up")
    kinds = reader.ask("targets/metadata?metric=http_request_duration_seconds")
    assert [kind["type"] for kind in kinds] == ["histogram"]
