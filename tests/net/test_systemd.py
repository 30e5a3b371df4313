import os
import socket
from pathlib import Path

import pytest

from headrace.net import systemd


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
