"""Supervised servers and the system around them: files, users, systemd."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from live import PATIENCE_S, eventually
from supervised import APP, Supervised

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are read from /proc")

Supervise = Callable[..., Supervised]


@pytest.mark.parametrize("workers", [1, 2])
def test_pid_file(supervise: Supervise, tmp_path: Path, workers: int) -> None:
    server = supervise("--pid", "run.pid", workers=workers)
    server.wait_line("Application startup complete")
    assert (tmp_path / "run.pid").read_text() == f"{server.pid}\n"
    server.signal(signal.SIGTERM)
    server.wait_exit()
    assert not (tmp_path / "run.pid").exists()


def test_unix_socket_outlives_its_workers(supervise: Supervise, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    server = supervise("--uds", str(path), workers=2)
    (first, _) = server.wait_ready(2)
    os.kill(first, signal.SIGTERM)
    eventually(lambda: first not in server.workers())
    server.wait_ready(2)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    assert not path.exists()


def nobody_may_run_python() -> bool:
    """Whether every folder on the way to the interpreter lets others in."""
    path = Path(sys.executable)
    ways = {*path.parents, *path.resolve().parents}
    return all(way.stat().st_mode & stat.S_IXOTH for way in ways)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.skipif(not nobody_may_run_python(), reason="the interpreter lies where nobody may not go")
def test_user_is_dropped_to_behind_the_bind(supervise: Supervise, tmp_path: Path) -> None:
    # pytest's folders are root's alone.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    path = tmp_path / "app.sock"
    server = supervise("--user", "nobody", "--uds", str(path), "--uds-mode", "0600", workers=2)
    workers = server.wait_ready(2)
    nobody = pwd.getpwnam("nobody").pw_uid
    for pid in (server.pid, *workers):
        assert os.stat(f"/proc/{pid}").st_uid == nobody
    assert path.stat().st_uid == nobody


def test_umask(supervise: Supervise, tmp_path: Path) -> None:
    source = "open('made', 'w').close()\n" + APP
    server = supervise("--umask", "077", source=source, workers=2)
    server.wait_ready(2)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o600


def test_titles(supervise: Supervise) -> None:
    server = supervise("--worker-lifetime", "3600", workers=1)
    (worker,) = server.wait_ready(1)
    name = Path(f"/proc/{worker}/comm").read_text() + Path(f"/proc/{worker}/cmdline").read_text()
    assert "headrace: worke" in name


def test_once_runs_before_the_first_worker(supervise: Supervise, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("async def migrate():\n    print('migrated', flush=True)\n")
    server = supervise("--once", "jobs:migrate", source="print('imported', flush=True)\n" + APP, workers=2)
    server.wait_ready(2)
    lines = [line.strip() for line in server.out if line.strip() in ("migrated", "imported")]
    assert lines == ["migrated", "imported", "imported"]


def test_failing_once_starts_nothing(supervise: Supervise, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("def migrate():\n    1 / 0\n")
    server = supervise("--once", "jobs:migrate", workers=2)
    assert server.wait_exit() == 3
    assert "--once jobs:migrate" in server.text
    assert "Started server process" not in server.text


def test_systemd_is_told(supervise: Supervise, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        server = supervise(workers=2, env=environment)
        said: list[str] = []

        def wait_for(state: str) -> None:
            while not any(state in message for message in said):
                said.append(manager.recv(1000).decode())

        wait_for("READY=1")
        # Workers inherit none of it: a second READY=1 would come from one of them.
        wait_for("WATCHDOG=1")
        server.wait_ready(2)
        said.clear()
        server.signal(signal.SIGHUP)
        wait_for("RELOADING=1")
        wait_for("READY=1")
        server.signal(signal.SIGTERM)
        wait_for("STOPPING=1")
        assert server.wait_exit() == 0
