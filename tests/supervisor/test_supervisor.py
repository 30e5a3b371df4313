"""A supervisor and its workers, by real processes and signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from live import eventually
from load import Load
from supervised import APP, Supervised, is_alive

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are read from /proc")

Supervise = Callable[..., Supervised]


class TestStart:
    def test_workers_serve_and_stop(self, supervise: Supervise) -> None:
        server = supervise(workers=2)
        workers = server.wait_ready(2)
        assert server.answering() in workers
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert not any(is_alive(pid) for pid in workers)
        assert "Stopping parent process" in server.text

    def test_supervisor_never_imports_the_application(self, supervise: Supervise) -> None:
        server = supervise(source="import os, sys\nprint('imported by', os.getpid(), flush=True)\n" + APP)
        server.wait_ready(2)
        assert server.text.count("imported by") == 2
        assert f"imported by {server.pid}" not in server.text

    @pytest.mark.parametrize(
        ("source", "sentence"),
        [
            ("1 / 0\n", "Error: Importing app failed: ZeroDivisionError: division by zero"),
            ("def other(): ...\n", "Error: "),
            ("import os\nos._exit(9)\n", "exit code 9"),
            (
                "async def app(scope, receive, send):\n"
                "    await receive()\n"
                "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n",
                "Error: Application startup failed: no database",
            ),
        ],
    )
    def test_failing_start_ends_with_3_and_one_message(
        self, supervise: Supervise, source: str, sentence: str
    ) -> None:
        server = supervise(source=source, workers=4)
        assert server.wait_exit() == 3
        assert sentence in server.text
        assert len([line for line in server.err if line.startswith("Error: ")]) == 1
        assert server.text.count("Started server process") <= 1

    def test_port_in_use(self, supervise: Supervise) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = supervise("--port", str(taken.getsockname()[1]))
            assert server.wait_exit() == 3
        assert "Traceback" not in server.text
        assert server.text.count("Error: ") == 1
        assert "Started server process" not in server.text

    @pytest.mark.parametrize(("level", "tracebacks"), [("info", 0), ("debug", 1)])
    def test_no_permission(self, tmp_path: Path, level: str, tracebacks: int) -> None:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        # Everything is imported before: where Python itself lies nobody may not go either.
        code = (
            "import os, headrace.cli.run, headrace.supervisor.entry\n"
            "from headrace.cli import main\n"
            "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"main(['run', 'app:app', '--workers', '2', '--uds', {str(locked / 'a.sock')!r},"
            f" '--log-level', {level!r}])\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
        assert done.returncode == 3
        assert done.stderr.count("Traceback") >= tracebacks
        assert tracebacks or "Traceback" not in done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("Error: ")]) == 1
        assert "This user may not make or reach the Unix socket" in done.stderr

    def test_application_object_is_refused(self, tmp_path: Path) -> None:
        code = "import headrace\nasync def app(s, r, w): ...\nheadrace.run(app, workers=2, port=0)"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 3
        assert "the application must be named" in done.stderr

    def test_slow_start_is_no_death(self, supervise: Supervise) -> None:
        # Longer than the health check allows a loop to be blocked.
        source = "import time\ntime.sleep(2)\n" + APP
        server = supervise("--timeout-worker-healthcheck", "1", source=source)
        server.wait_ready(2)
        assert "blocked" not in server.text

    def test_start_that_takes_too_long(self, supervise: Supervise) -> None:
        server = supervise("--timeout-worker-startup", "0.5", source="import time\ntime.sleep(60)\n")
        assert server.wait_exit() == 3
        assert "was not ready within 0.5 s" in server.text

    def test_stop_during_the_start(self, supervise: Supervise) -> None:
        server = supervise(source="import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
        server.wait_line("begun")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


class TestDeath:
    def test_each_worker_killed_in_turn_under_load(self, supervise: Supervise) -> None:
        server = supervise(workers=2)
        workers = server.wait_ready(2)
        with Load(server.port, 8) as load:
            for pid in workers:
                eventually(lambda pid=pid: load.answers[str(pid)])
                before = len(load.failures)
                os.kill(pid, signal.SIGKILL)
                server.wait_line(rf"\[{pid}\] was ended by SIGKILL")
                living = server.wait_ready(2)
                served = load.requests
                eventually(lambda served=served: load.requests > served + 100)
                # Only requests that were inside it: at most one of each client.
                assert len(load.failures) - before <= 8
                assert pid not in living
        assert not [line for line in load.failures if "Refused" in line]

    def test_application_that_ends_its_process(self, supervise: Supervise) -> None:
        server = supervise(workers=2)
        server.wait_ready(2)
        client = server.connect()
        client.send(b"GET /exit HTTP/1.1\r\nhost: a.test\r\n\r\n")
        assert client.read_to_end() == b""
        server.wait_line("ended with exit code 7")
        server.wait_ready(2)

    def test_workers_do_not_outlive_a_killed_supervisor(self, supervise: Supervise) -> None:
        server = supervise(workers=2)
        workers = server.wait_ready(2)
        client = server.connect()
        client.send(b"GET /block HTTP/1.1\r\nhost: a.test\r\n\r\n")
        server.process.kill()
        eventually(lambda: not any(is_alive(pid) for pid in workers))

    def test_worker_told_to_end_is_replaced_without_loss(self, supervise: Supervise) -> None:
        server = supervise("--worker-lifetime", "3600", workers=1)
        (pid,) = server.wait_ready(1)
        with Load(server.port, 4) as load:
            eventually(lambda: load.requests > 10)
            os.kill(pid, signal.SIGTERM)
            eventually(lambda: not is_alive(pid))
            served = load.requests
            eventually(lambda: load.requests > served + 10)
        assert load.failures == []


class TestBlockedLoop:
    def test_is_named_and_replaced(self, supervise: Supervise) -> None:
        server = supervise("--timeout-worker-healthcheck", "1", workers=2)
        before = server.wait_ready(2)
        client = server.connect()
        client.send(b"GET /block HTTP/1.1\r\nhost: a.test\r\n\r\n")
        line = server.wait_line(
            r"\[(\d+)\]: its event loop has been blocked for .* in .*app\.py:\d+ in block_the_loop"
        )
        blocked = int(line[1])
        assert blocked in before
        assert "Task lifespan" in server.text
        eventually(lambda: not is_alive(blocked))
        assert blocked not in server.wait_ready(2)
        assert server.answering()

    def test_stopped_supervisor_does_not_blame_its_workers(self, supervise: Supervise) -> None:
        server = supervise("--timeout-worker-healthcheck", "1", workers=2)
        before = server.wait_ready(2)
        server.signal(signal.SIGSTOP)
        served = [server.answering() for _ in range(200)]
        server.signal(signal.SIGCONT)
        server.signal(signal.SIGTTIN)
        server.wait_ready(3)
        assert set(before) < set(server.workers())
        assert set(served) <= set(before)
