"""``headrace status``, ``reload`` and ``stop`` against a control surface with stand-in controls."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control_host import FakeControls, PlainHost
from headrace.admin.application import AdminApplication
from headrace.admin.listeners import bind_admin
from headrace.admin.runtime_folder import make_runtime_folder, socket_path
from headrace.config.options import AdminOptions
from headrace.errors import ControlRefused, WorkerError
from live import PATIENCE_S, eventually

Start = Callable[..., FakeControls]
Spawn = Callable[[], "subprocess.Popen[str]"]

NONE_HERE = "; servers of other users, or with --admin off, have none here.\n"
HOST = Path(__file__).parents[1] / "control_host.py"


@pytest.fixture(autouse=True)
def runtime_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where no other server's socket is."""
    monkeypatch.setattr("headrace.admin.runtime_folder.RUN_USER", folder)
    for variable, name in (("XDG_RUNTIME_DIR", "x"), ("TMPDIR", "t")):
        (folder / name).mkdir()
        monkeypatch.setenv(variable, str(folder / name))
    made = make_runtime_folder()
    assert made is not None
    return made


@pytest.fixture
def start() -> Iterator[Start]:
    """Give a function that serves stand-in controls under a process id."""
    hosts: list[PlainHost] = []

    def serve(pid: int | None = None) -> FakeControls:
        controls = FakeControls()
        sockets = bind_admin(AdminOptions(), pid).unix
        hosts.append(PlainHost(AdminApplication(controls, None), sockets, "asyncio"))
        hosts[-1].start()
        return controls

    yield serve
    for host in hosts:
        host.stop()


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Give a function that does so in a process of its own, which ends when it is told to stop."""
    processes: list[subprocess.Popen[str]] = []

    def serve() -> subprocess.Popen[str]:
        command = [sys.executable, str(HOST)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        assert processes[-1].stdout.readline() == f"{processes[-1].pid}\n"
        return processes[-1]

    yield serve
    for process in processes:
        process.kill()
        process.wait(PATIENCE_S)
        assert process.stdout is not None
        process.stdout.close()


class TestStatus:
    def test_table(self, headrace: Any, start: Start) -> None:
        start()
        result = headrace("status")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == (
            "headrace 9.9, process 4711: shop:app, running, up 3d 4h\n"
            "  on http://127.0.0.1:8000\n"
            "  on unix socket /run/shop.sock\n"
            "  workers: 2, wanted 2\n"
            "\n"
            "worker  pid   state     up     connections  running  requests  memory    lag\n"
            "2*      4712  ready     2m 5s  12           3        40000     32.0 MiB  12 ms\n"
            "11      4713  starting  0s     12           3        40000     32.0 MiB  12 ms\n"
        )

    def test_without_workers(self, headrace: Any, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        controls = start()
        status = {**controls.status(), "workers": [], "uptime_s": 59.9}
        monkeypatch.setattr(controls, "status", lambda: status)
        output = headrace("status").stdout
        assert ", up 59s\n" in output
        assert output.endswith("  workers: 0, wanted 2\n")

    def test_json(self, headrace: Any, start: Start) -> None:
        controls = start()
        result = headrace("status", "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout) == controls.status()


class TestWhichServer:
    def test_none(self, headrace: Any) -> None:
        for command in ("status", "reload", "stop"):
            result = headrace(command)
            assert (result.exit_code, result.stdout) == (3, "")
            assert result.stderr == f"Error: No control socket of a running server was found{NONE_HERE}"
            result = headrace(command, "123")
            assert (result.exit_code, result.stdout) == (3, "")
            assert result.stderr == f"Error: Process 123 has no control socket{NONE_HERE}"

    def test_several(self, headrace: Any, start: Start) -> None:
        first, second = start(7), start(12)
        result = headrace("reload")
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr == "Error: More than one server is running; say which: 7, 12.\n"
        assert headrace("reload", "12").exit_code == 0
        assert (first.calls, second.calls) == ([], [("reload", None)])

    @pytest.mark.parametrize("pid", ["x", "0", "-1"])
    def test_no_process_id(self, headrace: Any, pid: str) -> None:
        assert headrace("status", "--", pid).exit_code == 2

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
            b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}",
            b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n[]",
        ],
    )
    def test_one_that_answers_otherwise(self, headrace: Any, runtime_folder: Path, answer: bytes) -> None:
        def serve() -> None:
            # The first only looks whether somebody listens.
            listener.accept()[0].close()
            connection = listener.accept()[0]
            connection.recv(10_000)
            connection.sendall(answer)
            connection.close()

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(socket_path(runtime_folder, 7)))
            listener.listen()
            thread = threading.Thread(target=serve)
            thread.start()
            result = headrace("status")
            thread.join(PATIENCE_S)
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr.startswith("Error: Process 7 does not answer as a server does (")
        assert result.stderr.count("\n") == 1


class TestReload:
    def test_waits(self, headrace: Any, start: Start) -> None:
        controls = start(7)
        result = headrace("reload")
        assert (result.exit_code, result.output) == (0, "Process 7 has reloaded.\n")
        assert controls.calls == [("reload", None)]

    def test_does_not_wait(self, headrace: Any, start: Start) -> None:
        controls = start(7)
        controls.waits = True
        result = headrace("reload", "--no-wait")
        assert (result.exit_code, result.output) == (0, "Process 7 is reloading.\n")
        assert controls.calls == [("reload", None)]
        controls.go.set()

    @pytest.mark.parametrize("kind", [ControlRefused, WorkerError])
    def test_failure(self, headrace: Any, start: Start, kind: Any) -> None:
        start().failure = kind("The new worker did not come up.")
        result = headrace("reload")
        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr == "Error: The new worker did not come up.\n"


class TestStop:
    def test_waits_until_it_has_gone(self, headrace: Any, spawn: Spawn, runtime_folder: Path) -> None:
        process = spawn()
        result = headrace("stop")
        assert (result.exit_code, result.output) == (0, f"Process {process.pid} has stopped.\n")
        # It is over already, not only about to be.
        assert process.poll() == 0
        assert list(runtime_folder.iterdir()) == []

    def test_does_not_wait(self, headrace: Any, start: Start) -> None:
        controls = start(7)
        result = headrace("stop", "7", "--no-wait")
        assert (result.exit_code, result.output) == (0, "Process 7 is stopping.\n")
        assert controls.calls == [("stop", None)]

    def test_waits_where_processes_cannot_be_watched(
        self, headrace: Any, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        process = spawn()
        assert headrace("stop", str(process.pid)).exit_code == 0
        assert eventually(lambda: process.poll() is not None)


def test_help(headrace: Any) -> None:
    output = headrace("--help").output
    for command in ("status", "reload", "stop"):
        assert f"  {command} " in output
        assert "[PID]" in headrace(command, "--help").output
