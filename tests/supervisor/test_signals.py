"""Signals that come at the wrong moment, or to several processes at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from live import PATIENCE_S, eventually
from supervised import APP, Supervised, is_alive

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are read from /proc")

Supervise = Callable[..., Supervised]


@pytest.mark.parametrize("is_supervisor_first", [True, False])
def test_sigterm_to_all_at_once_loses_nothing(supervise: Supervise, is_supervisor_first: bool) -> None:
    # As systemd does it to the whole control group, and pkill.
    server = supervise(workers=2)
    workers = server.wait_ready(2)
    clients = [server.connect() for _ in range(4)]
    for client in clients:
        client.send(b"GET /slow HTTP/1.1\r\nhost: a.test\r\n\r\n")
    everybody = [server.pid, *workers] if is_supervisor_first else [*workers, server.pid]
    for pid in everybody:
        os.kill(pid, signal.SIGTERM)
    assert [client.read_response().status for client in clients] == [200] * 4
    assert server.wait_exit() == 0
    assert server.text.count("Application shutdown complete") >= 2


@pytest.mark.parametrize("workers", [2, 8])
def test_sigterm_while_workers_are_spawned(supervise: Supervise, workers: int) -> None:
    server = supervise(workers=workers)
    server.wait_line("Worker 1 .* is ready")
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0


def test_second_signal_does_not_wait(supervise: Supervise) -> None:
    server = supervise(workers=2)
    server.wait_ready(2)
    client = server.connect()
    client.send(b"GET /held HTTP/1.1\r\nhost: a.test\r\n\r\n")
    server.signal(signal.SIGTERM)
    server.wait_line("Waiting for connections to close")
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0


def test_one_leader_with_preload(supervise: Supervise) -> None:
    source = APP.replace(
        "        while True:",
        "        print('leads', bool(scope['state']['headrace.leader']), flush=True)\n        while True:",
        1,
    )
    server = supervise("--preload", source=source, workers=3)
    eventually(lambda: server.text.count("is ready") == 3)
    assert server.text.count("leads True") == 1
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    forked = [
        int(pid)
        for child in children
        for pid in Path(f"/proc/{child}/task/{child}/children").read_text().split()
    ]
    assert len(forked) == 3
    for pid in forked:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: server.text.count("is ready") == 6)
    assert server.text.count("leads True") == 2


def test_programs_of_the_application_can_be_interrupted(supervise: Supervise) -> None:
    source = "import subprocess\n" + APP.replace(
        'elif path == "/slow":',
        'elif path == "/program":\n'
        '        program = subprocess.Popen(["sleep", "60"])\n'
        "        body = b'%d' % program.pid\n"
        '    elif path == "/slow":',
    )
    server = supervise(source=source, workers=2)
    server.wait_ready(2)
    pid = int(server.connect().request("/program").body)
    os.kill(pid, signal.SIGINT)
    eventually(lambda: not is_alive(pid))


def test_work_in_threads_may_end(supervise: Supervise) -> None:
    source = APP.replace(
        "async def answer(",
        "def work():\n    time.sleep(2.5)\n    print('worked', flush=True)\n\nasync def answer(",
    ).replace(
        'elif path == "/slow":',
        'elif path == "/work":\n'
        "        asyncio.get_running_loop().run_in_executor(None, work)\n"
        '    elif path == "/slow":',
    )
    server = supervise("--timeout-worker-healthcheck", "1", source=source, workers=2)
    server.wait_ready(2)
    assert server.connect().request("/work").status == 200
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    assert "worked" in server.text
    assert "blocked" not in server.text


def test_loop_that_comes_back_loses_nothing(supervise: Supervise) -> None:
    source = APP.replace("time.sleep(120)", "time.sleep(1.6)").replace("asyncio.sleep(1)", "asyncio.sleep(4)")
    server = supervise(
        "--timeout-worker-healthcheck", "1", "--worker-lifetime", "3600", source=source, workers=1
    )
    (old,) = server.wait_ready(1)
    others = [server.connect() for _ in range(3)]
    for client in others:
        client.send(b"GET /slow HTTP/1.1\r\nhost: a.test\r\n\r\n")
    blocking = server.connect()
    blocking.send(b"GET /block HTTP/1.1\r\nhost: a.test\r\n\r\n")
    server.wait_line("its event loop has been blocked")
    assert blocking.read_response().status == 200
    assert [client.read_response().status for client in others] == [200] * 3
    eventually(lambda: not is_alive(old))


def test_process_that_ends_well_at_once_is_not_started_in_a_loop(
    supervise: Supervise, tmp_path: Path
) -> None:
    source = APP + "\nimport threading\nthreading.Timer(0.1, os._exit, (0,)).start()\n"
    server = supervise(source=source, workers=2)
    server.wait_line("another takes its place in 0.8 s")


def test_thread_cannot_supervise(tmp_path: Path) -> None:
    code = (
        "import headrace, threading\n"
        "def serve(): headrace.run('app:app', workers=2, port=0)\n"
        "threading.Thread(target=serve).start()\n"
    )
    (tmp_path / "app.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.stderr == "Error: Several workers need the main thread, as only that is sent signals.\n"


def test_headrace_that_only_the_path_at_run_time_finds(tmp_path: Path) -> None:
    # As in a zipapp or a vendor folder: site-packages come in while the program runs.
    (tmp_path / "app.py").write_text(APP)
    code = (
        f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
        "import headrace\n"
        "headrace.run('app:app', workers=2, port=0)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    ready = 0
    for line in process.stderr:
        ready += "is ready" in line
        if ready == 2:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert (ready, process.returncode) == (2, 0)
