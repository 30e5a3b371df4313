"""What ``docs/behaviour.md`` says of workers and no other file holds."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from live import Client, eventually
from supervised import APP, Supervised, is_alive

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are read from /proc")

Supervise = Callable[..., Supervised]

NOTED = APP.replace(
    '    path, body = scope["path"], PID',
    '    print("begun", scope["path"], flush=True)\n    path, body = scope["path"], PID',
).replace(
    '            if message["type"] == "lifespan.shutdown":',
    '            if message["type"] == "lifespan.shutdown":\n'
    '                print("application stopped", flush=True)',
)
"""Says when a request begins, and when it is stopped."""

BY_SIGHUP = ("--worker-lifetime", "3600")
"""One worker alone has a supervisor only if an option brings it."""


def begin(server: Supervised, path: str) -> Client:
    """A request under way, on a connection of its own."""
    client = server.connect()
    client.send(f"GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n".encode())
    server.wait_line(f"begun {path}")
    return client


def status(server: Supervised) -> int:
    """Of one response, on a connection of its own."""
    client = server.connect()
    try:
        return client.request(headers=["connection: close"]).status
    finally:
        client.close()


def reload(server: Supervised) -> None:
    """Reload, and wait until all workers are new."""
    before = server.text.count("Reloaded.")
    server.signal(signal.SIGHUP)
    eventually(lambda: server.text.count("Reloaded.") > before)


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_requests_end_and_the_exit_code_is_0(self, supervise: Supervise, number: int) -> None:
        source = NOTED.replace("asyncio.sleep(1)", "asyncio.sleep(0.3)")
        server = supervise(source=source, workers=2, start_new_session=True)
        workers = server.wait_ready(2)
        client = begin(server, "/slow")
        # A terminal sends its Ctrl-C to all of them, and so do some who mean to stop a service.
        os.killpg(server.pid, number) if number == signal.SIGINT else server.signal(number)
        response = client.read_response()
        assert (response.status, response.get("connection")) == (200, "close")
        assert server.wait_exit() == 0
        assert server.text.count("application stopped") == 2
        assert not any(is_alive(pid) for pid in workers)

    def test_sigquit_does_not_wait_for_requests(self, supervise: Supervise) -> None:
        server = supervise("--timeout-graceful-shutdown", "1000", source=NOTED, workers=2)
        server.wait_ready(2)
        client = begin(server, "/held")
        server.signal(signal.SIGQUIT)
        assert client.read_response().status == 503
        assert server.wait_exit() == 0
        # But for the application.
        assert server.text.count("application stopped") == 2

    def test_second_signal_forces(self, supervise: Supervise) -> None:
        server = supervise("--timeout-graceful-shutdown", "1000", source=NOTED, workers=2)
        server.wait_ready(2)
        client = begin(server, "/held")
        server.signal(signal.SIGTERM)
        server.wait_line("Waiting for connections to close")
        server.signal(signal.SIGTERM)
        assert client.read_to_end() == b""
        assert server.wait_exit() == 0
        # Not in the worker that had the request.
        assert server.text.count("application stopped") <= 1

    def test_drain_delay_keeps_accepting(self, supervise: Supervise) -> None:
        server = supervise("--drain-delay", "1000", workers=2)
        server.wait_ready(2)
        server.signal(signal.SIGTERM)
        eventually(lambda: server.text.count("Shutting down") >= 2)
        response = server.connect().request()
        assert (response.status, response.get("connection")) == (200, "close")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0

    def test_worker_that_does_not_end_is_killed(self, supervise: Supervise) -> None:
        source = NOTED.replace('"application stopped", flush=True)', '"stuck", flush=True); time.sleep(120)')
        times = ("--timeout-graceful-shutdown", "0", "--timeout-shutdown", "0.1")
        server = supervise(*times, "--timeout-worker-healthcheck", "60", *BY_SIGHUP, source=source, workers=1)
        server.wait_ready(1)
        server.signal(signal.SIGTERM)
        server.wait_line("did not end within 5.1 s, and is killed")
        assert server.wait_exit() == 0


class TestDeath:
    def test_when_none_comes_up_any_more_it_ends_with_3(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise(*BY_SIGHUP, workers=1)
        (pid,) = server.wait_ready(1)
        (tmp_path / "app.py").write_text("1 / 0\n")
        os.kill(pid, signal.SIGKILL)
        assert server.wait_exit() == 3
        server.wait_line(r"was ended by SIGKILL .*; another takes its place in 0\.1 s")
        for back_off_s in ("0.2", "0.4", "0.8", "1.6"):
            assert f"Trying again in {back_off_s} s" in server.text
        assert server.err[-1].startswith("Error: No worker comes up any more. Importing app failed: ZeroDiv")

    def test_loop_blocked_in_native_code(self, supervise: Supervise) -> None:
        # One call that never lets another thread run.
        source = NOTED.replace("time.sleep(120)", "__import__('re').match(r'(a+)+$', 'a' * 60 + 'b')")
        server = supervise("--timeout-worker-healthcheck", "1", source=source, workers=2)
        server.wait_ready(2)
        begin(server, "/block")
        blocked = int(server.wait_line(r"\[(\d+)\]: .*no other thread of it can run")[1])
        server.wait_line("in block_the_loop")
        eventually(lambda: not is_alive(blocked))
        assert blocked not in server.wait_ready(2)

    def test_worker_that_imports_does_not_outlive_a_killed_supervisor(self, supervise: Supervise) -> None:
        source = "import os, time\nprint('importing', os.getpid(), flush=True)\ntime.sleep(60)\n"
        server = supervise(source=source)
        pid = int(server.wait_line(r"importing (\d+)")[1])
        server.process.kill()
        eventually(lambda: not is_alive(pid))


class TestReload:
    def test_another_signal_meanwhile_begins_one_behind_it(self, supervise: Supervise) -> None:
        source = "import time\nprint('importing', flush=True)\ntime.sleep(0.3)\n" + APP
        server = supervise(*BY_SIGHUP, source=source, workers=1)
        server.wait_ready(1)
        server.signal(signal.SIGHUP)
        eventually(lambda: server.text.count("importing") == 2)
        # What has been saved since that import began must come in; more of them are no more work.
        server.signal(signal.SIGHUP)
        server.signal(signal.SIGHUP)
        eventually(lambda: server.text.count("Reloaded.") == 2)
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert server.text.count("importing") == 3

    def test_is_not_held_up_by_a_request_that_runs_on(self, supervise: Supervise) -> None:
        server = supervise("--timeout-graceful-shutdown", "1", source=NOTED, workers=2)
        old = server.wait_ready(2)
        client = begin(server, "/held")
        reload(server)
        assert client.read_response().status == 503
        eventually(lambda: not any(is_alive(pid) for pid in old))

    def test_number_of_workers(self, tmp_path: Path, from_file: Callable[[str], Supervised]) -> None:
        server = from_file("workers = 2")
        server.wait_ready(2)
        (tmp_path / "headrace.toml").write_text("workers = 3")
        reload(server)
        assert "Changed: workers." in server.text
        server.wait_ready(3)

    def test_variables_of_the_env_file(self, supervise: Supervise, tmp_path: Path) -> None:
        source = "import os\nprint('GREETING is', os.environ['GREETING'], flush=True)\n" + APP
        (tmp_path / ".env").write_text("GREETING=hello")
        server = supervise("--env-file", ".env", source=source, workers=2)
        server.wait_ready(2)
        (tmp_path / ".env").write_text("GREETING=bye")
        reload(server)
        assert server.text.count("GREETING is hello") == 2
        assert server.text.count("GREETING is bye") == 2

    def test_once_is_not_run_again(self, supervise: Supervise, tmp_path: Path) -> None:
        (tmp_path / "jobs.py").write_text("def migrate():\n    print('migrated', flush=True)\n")
        server = supervise("--once", "jobs:migrate", workers=2)
        server.wait_ready(2)
        reload(server)
        assert server.text.count("migrated") == 1


def test_preload_imports_once_and_again_on_reload(supervise: Supervise) -> None:
    source = "import os\nprint('imported by', os.getpid(), flush=True)\n" + APP
    # Each asks for its own number; what the import found is the template's.
    source = source.replace("PID = str(os.getpid()).encode()", "").replace("PID", "str(os.getpid()).encode()")
    server = supervise("--preload", source=source, workers=2)
    template = int(server.wait_line(r"imported by (\d+)")[1])
    eventually(lambda: server.text.count("is ready") == 2)
    pid = server.answering()
    assert pid not in (template, server.pid)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: server.text.count("is ready") == 3)
    assert server.text.count("imported by") == 1
    reload(server)
    assert server.text.count("imported by") == 2
    eventually(lambda: not is_alive(template))


def test_who_waits_for_the_lead_gets_it(supervise: Supervise) -> None:
    source = APP.replace(
        "        while True:",
        "        async def schedule():\n"
        "            await scope['state']['headrace.leader'].acquired()\n"
        "            print('scheduling in', os.getpid(), flush=True)\n"
        "        scheduling = asyncio.ensure_future(schedule())\n"
        "        while True:",
        1,
    )
    server = supervise(source=source, workers=2)
    workers = server.wait_ready(2)
    first = int(server.wait_line(r"scheduling in (\d+)")[1])
    (other,) = set(workers) - {first}
    assert server.text.count("scheduling") == 1
    os.kill(first, signal.SIGKILL)
    server.wait_line(f"scheduling in {other}")


def test_limits_count_in_each_worker(supervise: Supervise) -> None:
    server = supervise("--limit-concurrency", "1", source=NOTED, workers=2)
    server.wait_ready(2)
    begin(server, "/held")
    seen: set[int] = set()

    def are_both_seen() -> bool:
        seen.add(status(server))
        return seen == {200, 503}

    eventually(are_both_seen)


def test_sockets_of_systemd(supervise: Supervise, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # As systemd does it: descriptor 3, and the variables name the process that execs the server.
        (tmp_path / "python").write_text(
            f"#!{sys.executable}\nimport os, sys\n"
            f"os.dup2({listener.fileno()}, 3)\n"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
            f"os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
        )
        (tmp_path / "python").chmod(0o755)
        server = supervise(
            "--bind", "systemd", workers=2, executable=tmp_path / "python", pass_fds=[listener.fileno()]
        )
        old = server.wait_ready(2)
        assert server.port == listener.getsockname()[1]
        assert server.answering() in old
        reload(server)
        new = server.wait_ready(2)
        assert server.answering() in new


@pytest.fixture
def from_file(tmp_path: Path) -> Iterator[Callable[[str], Supervised]]:
    """Give a function that runs ``app.py`` as a ``headrace.toml`` says."""
    processes: list[Supervised] = []

    def start(text: str) -> Supervised:
        (tmp_path / "app.py").write_text(APP)
        (tmp_path / "headrace.toml").write_text(text)
        environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
        processes.append(Supervised(tmp_path, "app:app", "--port", "0", env=environment))
        return processes[-1]

    yield start
    for process in processes:
        process.signal(signal.SIGTERM)
        process.wait_exit()
        process.close()
