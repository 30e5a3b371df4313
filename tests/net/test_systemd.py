import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.net import systemd
from live import PATIENCE_S


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    # Set first, so that monkeypatch puts back what the code removes.
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.setenv(name, "")
    return monkeypatch


def test_listen_fds_are_taken_once(variables: pytest.MonkeyPatch) -> None:
    with socket.socket() as first, socket.socket() as second:
        variables.setattr(systemd, "FIRST_FD", min(first.fileno(), second.fileno()))
        os.set_inheritable(systemd.FIRST_FD, True)
        variables.setenv("LISTEN_PID", str(os.getpid()))
        variables.setenv("LISTEN_FDS", "1")
        variables.setenv("LISTEN_FDNAMES", "http")
        assert systemd.listen_fds() == [systemd.FIRST_FD]
        assert not os.get_inheritable(systemd.FIRST_FD)
    assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & os.environ.keys()
    assert systemd.listen_fds() == []


@pytest.mark.parametrize(
    ("pid", "count"),
    [
        ("1", "1"),
        ("", "1"),
        ("me", "1"),
        (str(os.getpid()), "0"),
        (str(os.getpid()), "-1"),
        (str(os.getpid()), "x"),
    ],
)
def test_listen_fds_for_nobody(variables: pytest.MonkeyPatch, pid: str, count: str) -> None:
    variables.setenv("LISTEN_PID", pid)
    variables.setenv("LISTEN_FDS", count)
    assert systemd.listen_fds() == []
    assert "LISTEN_FDS" not in os.environ


def test_listen_fds_that_are_not_open_are_still_named(variables: pytest.MonkeyPatch) -> None:
    variables.setattr(systemd, "FIRST_FD", 1_000_000)
    variables.setenv("LISTEN_PID", str(os.getpid()))
    variables.setenv("LISTEN_FDS", "2")
    assert systemd.listen_fds() == [1_000_000, 1_000_001]


def test_notify_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        systemd.notify("READY=1\nSTATUS=Serving")
        assert manager.recv(100) == b"READY=1\nSTATUS=Serving"


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="abstract names are Linux's")
def test_notify_by_abstract_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"headrace-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        systemd.notify("STOPPING=1")
        assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("path", ["", "relative", "vsock:2:1234", "/nonexistent/socket", "/" + "x" * 500])
def test_notify_is_silent(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    systemd.notify("READY=1")


def test_notify_without_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield sock


def test_ready_and_status(manager: socket.socket) -> None:
    systemd.ready()
    systemd.ready("4 workers serve")
    systemd.status("3 workers\nREADY=1\r\nserve")
    systemd.watchdog()
    assert [manager.recv(1000) for _ in range(4)] == [
        b"READY=1",
        b"READY=1\nSTATUS=4 workers serve",
        b"STATUS=3 workers READY=1 serve",
        b"WATCHDOG=1",
    ]


def test_a_reload_tells_when_it_was_received(manager: socket.socket) -> None:
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.reloading()
    after_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    found = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", manager.recv(1000))
    assert found is not None
    assert before_us <= int(found[1]) <= after_us


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", str(os.getpid()), 15.0),
        ("30000000", "", 15.0),
        ("3600000000", "", 1800.0),
        ("1", "", 0.000_000_5),
        ("30000000", "1", None),
        ("30000000", "me", None),
        ("0", "", None),
        ("", "", None),
        ("-1", "", None),
        ("9" * 19, "", None),
    ],
)
def test_watchdog(monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, expected: float | None) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert systemd.watchdog_interval_s() == expected
    monkeypatch.delenv("WATCHDOG_PID")
    monkeypatch.delenv("WATCHDOG_USEC")
    assert systemd.watchdog_interval_s() is None


def test_a_child_gets_nothing_of_it() -> None:
    environ = {
        "PATH": "/bin", "INVOCATION_ID": "1", "NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1", "LISTEN_PID": "1", "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "a", "LISTEN_PIDFDID": "1",
    }  # fmt: skip
    assert systemd.without_systemd(environ) == {"PATH": "/bin", "INVOCATION_ID": "1"}
    assert "NOTIFY_SOCKET" in environ
