"""What ``--admin`` opens."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from headrace.admin.listeners import AdminListeners, bind_admin
from headrace.admin.runtime_folder import live_sockets
from headrace.config.options import AdminOptions
from headrace.errors import ListenError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path / "run" / "headrace"


def test_auto_is_the_unix_socket_alone(folder: Path) -> None:
    listeners = bind_admin(AdminOptions())
    (sock,) = listeners.unix
    path = folder / f"{os.getpid()}.sock"
    assert sock.getsockname() == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert listeners.tcp == []
    assert not sock.get_inheritable()
    assert live_sockets()[os.getpid()] == path
    listeners.close()
    assert not path.exists()


def test_address_is_beside_it() -> None:
    listeners = bind_admin(AdminOptions(admin="127.0.0.1:0"), 7)
    assert [sock.getsockname()[0] for sock in listeners.tcp] == ["127.0.0.1"]
    assert listeners.unix[0].getsockname().endswith("/7.sock")
    listeners.close()
    assert [sock.fileno() for sock in (*listeners.tcp, *listeners.unix)] == [-1, -1]


def test_off(folder: Path) -> None:
    assert bind_admin(AdminOptions(admin="off")) == AdminListeners()
    assert not folder.exists()


def test_silent_without_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o755)
    monkeypatch.setattr("headrace.admin.runtime_folder.RUN_USER", folder)
    monkeypatch.setenv("TMPDIR", str(folder / "nowhere"))
    assert bind_admin(AdminOptions()) == AdminListeners()


def test_silent_where_the_socket_cannot_be(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "7.sock").write_text("not ours")
    assert bind_admin(AdminOptions(), 7) == AdminListeners()
    assert (folder / "7.sock").read_text() == "not ours"


def test_address_that_is_taken(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"^Port {port} on 127.0.0.1 is already in use"):
            bind_admin(AdminOptions(admin=f"127.0.0.1:{port}"))
    assert not folder.exists()
