"""The control surface of a real supervisor and of a single process."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from live import PATIENCE_S, ServerProcess, eventually
from supervised import APP, Supervised, is_alive

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are read from /proc")

Supervise = Callable[..., Supervised]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


def socket_of(server: ServerProcess, folder: Path) -> Path:
    """Where the server's control surface listens."""
    path = folder / "headrace" / f"{server.pid}.sock"
    eventually(path.exists, str(path))
    return path


def ask(path: Path, target: str, method: str = "GET", body: str | None = None) -> tuple[int, Any]:
    """Status and body of one request; JSON where it is JSON."""
    connection = UnixConnection(path)
    connection.request(method, target, body)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    is_json = "json" in (response.getheader("content-type") or "")
    return response.status, json.loads(text) if is_json else text


def run_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``headrace`` with the server's runtime folder, and none where other servers may be."""
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


class TestSupervisor:
    def test_answers_while_every_loop_is_blocked(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise("--timeout-worker-healthcheck", "60", workers=2)
        workers = server.wait_ready(2)
        path = socket_of(server, tmp_path)
        for count in (1, 2):
            # The second can only reach the one that is not blocked.
            server.connect().send(b"GET /block HTTP/1.1\r\nhost: a.test\r\n\r\n")
            eventually(lambda count=count: server.text.count("blocking") == count)
        status, found = ask(path, "/api/workers")
        assert status == 200
        assert sorted(worker["pid"] for worker in found["workers"]) == sorted(workers)
        assert ask(path, "/livez")[0] == 200
        for pid in workers:
            os.kill(pid, signal.SIGKILL)

    def test_socket_is_ours_alone(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise(workers=2)
        server.wait_ready(2)
        path = socket_of(server, tmp_path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        server.signal(signal.SIGTERM)
        server.wait_exit()
        assert not path.exists()

    def test_readiness(self, supervise: Supervise, tmp_path: Path) -> None:
        source = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n" + APP
        server = supervise("--timeout-graceful-shutdown", "2", source=source, workers=2)
        path = socket_of(server, tmp_path)
        eventually(lambda: ask(path, "/readyz")[0] == 503)
        (tmp_path / "go").touch()
        server.wait_ready(2)
        eventually(lambda: ask(path, "/readyz")[0] == 200)
        # Not from the moment a drain begins, while a request still runs.
        client = server.connect()
        client.send(b"GET /held HTTP/1.1\r\nhost: a.test\r\n\r\n")
        eventually(lambda: any(worker["running"] for worker in ask(path, "/api/workers")[1]["workers"]))
        server.signal(signal.SIGTERM)
        eventually(lambda: ask(path, "/readyz")[0] == 503)
        assert ask(path, "/livez")[0] == 200
        client.close()
        assert server.wait_exit() == 0

    def test_restart_of_one_worker(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise(workers=2)
        server.wait_ready(2)
        path = socket_of(server, tmp_path)
        first, second = ask(path, "/api/workers")[1]["workers"]
        assert ask(path, f"/api/workers/{first['id']}/restart", "POST")[0] == 200
        eventually(lambda: not is_alive(first["pid"]))
        assert second["pid"] in server.wait_ready(2)
        assert ask(path, "/api/workers/999/restart", "POST")[0] == 404

    def test_scale(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise(workers=2)
        server.wait_ready(2)
        path = socket_of(server, tmp_path)
        assert ask(path, "/api/scale", "POST", '{"workers": 3}')[0] == 200
        server.wait_ready(3)
        assert ask(path, "/api/scale", "POST", '{"workers": 0}')[0] == 400
        assert ask(path, "/api/scale?workers=1", "POST")[0] == 200
        eventually(lambda: len(server.workers()) == 1)

    def test_failing_reload_says_why(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise(workers=2)
        server.wait_ready(2)
        path = socket_of(server, tmp_path)
        (tmp_path / "app.py").write_text("1 / 0\n")
        status, answer = ask(path, "/api/reload", "POST")
        assert status == 500
        assert "ZeroDivisionError" in json.dumps(answer)
        done = run_command(tmp_path, "reload", str(server.pid))
        assert done.returncode == 3
        assert "ZeroDivisionError" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_configuration_is_shown(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise("--admin-token", "hunter2", workers=2)
        path = socket_of(server, tmp_path)
        found = ask(path, "/api/config")[1]
        assert found["options"]["workers"] == {"value": 2, "source": "--workers"}
        assert "hunter2" not in json.dumps(found)

    def test_commands(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise(workers=2)
        workers = server.wait_ready(2)
        status = run_command(tmp_path, "status")
        assert status.returncode == 0
        assert all(str(pid) in status.stdout for pid in workers)
        assert run_command(tmp_path, "reload").returncode == 0
        assert not set(server.wait_ready(2)) & set(workers)
        assert run_command(tmp_path, "stop").returncode == 0
        assert server.wait_exit() == 0
        assert run_command(tmp_path, "status").returncode == 3

    def test_over_tcp(self, supervise: Supervise) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = supervise("--admin", f"127.0.0.1:{port}", "--admin-token", "hunter2", workers=2)
        server.wait_ready(2)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        for headers, status in (({}, 401), ({"authorization": "Bearer hunter2"}, 200)):
            connection.request("GET", "/api/status", headers=headers)
            response = connection.getresponse()
            response.read()
            assert response.status == status
        connection.request("GET", "/readyz")
        assert connection.getresponse().status == 200
        connection.close()

    def test_taken_address_is_one_sentence(self, supervise: Supervise) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = supervise("--admin", f"127.0.0.1:{taken.getsockname()[1]}", workers=2)
            assert server.wait_exit() == 3
        assert "Traceback" not in server.text
        assert len([line for line in server.err if line.startswith("Error: ")]) == 1

    def test_folder_that_cannot_be_made_is_no_matter(self, supervise: Supervise, tmp_path: Path) -> None:
        (tmp_path / "headrace").touch()
        server = supervise(workers=2)
        server.wait_ready(2)
        assert server.answering()
        assert "headrace" not in server.text.replace(str(tmp_path), "")


class TestSingleProcess:
    def test_status_and_stop(self, spawn: Callable[..., ServerProcess], tmp_path: Path) -> None:
        server = spawn(APP, env={"XDG_RUNTIME_DIR": str(tmp_path)})
        assert server.port
        path = socket_of(server, tmp_path)
        assert ask(path, "/readyz")[0] == 200
        status, found = ask(path, "/api/status")
        assert (status, found["target"], found["workers"][0]["pid"]) == (200, 1, server.pid)
        status, answer = ask(path, "/api/reload", "POST")
        assert status == 409
        assert "without a supervisor" in json.dumps(answer)
        assert run_command(tmp_path, "stop", str(server.pid)).returncode == 0
        assert server.wait_exit() == 0

    def test_off(self, spawn: Callable[..., ServerProcess], tmp_path: Path) -> None:
        server = spawn(APP, "--admin", "off", env={"XDG_RUNTIME_DIR": str(tmp_path)})
        assert server.port
        assert not (tmp_path / "headrace").exists()
