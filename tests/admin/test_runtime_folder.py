"""Where control sockets are: found by those who may, silent where they cannot be."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.admin import runtime_folder
from headrace.admin.runtime_folder import is_answered, live_sockets, make_runtime_folder, socket_path

UID = os.geteuid()

Listen = Callable[[Path], socket.socket]


class Places:
    """The three folders that may hold it, none of which exists yet."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.xdg, self.run, self.tmp = root / "x", root / "r" / str(UID), root / "t"
        self.tmp.mkdir()
        monkeypatch.setattr(runtime_folder, "RUN_USER", root / "r")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(self.xdg))
        monkeypatch.setenv("TMPDIR", str(self.tmp))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    return Places(tmp_path, monkeypatch)


@pytest.fixture
def dead_pid() -> int:
    """Of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Give a function that listens on a path."""
    sockets: list[socket.socket] = []

    def start(path: Path) -> socket.socket:
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(str(path))
        sockets[-1].listen(0)
        return sockets[-1]

    yield start
    for sock in sockets:
        sock.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestFolder:
    def test_first_place_that_can_be_had(self, places: Places) -> None:
        assert make_runtime_folder() == places.tmp / f"headrace-{UID}"
        places.run.mkdir(parents=True)
        assert make_runtime_folder() == places.run / "headrace"
        places.xdg.mkdir()
        assert make_runtime_folder() == places.xdg / "headrace"
        assert make_runtime_folder() == places.xdg / "headrace"

    def test_open_to_nobody_else(self, places: Places) -> None:
        before = os.umask(0)
        try:
            folder = make_runtime_folder()
        finally:
            os.umask(before)
        assert folder is not None
        assert mode_of(folder) == 0o700

    def test_without_variables(self, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        places.run.mkdir(parents=True)
        assert make_runtime_folder() == places.run / "headrace"
        monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
        assert make_runtime_folder() == places.run / "headrace"

    @pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
    def test_one_that_others_can_enter_is_not_used(self, places: Places, mode: int) -> None:
        folder = places.tmp / f"headrace-{UID}"
        folder.mkdir()
        folder.chmod(mode)
        assert make_runtime_folder() is None
        assert mode_of(folder) == mode

    def test_symbolic_link_is_not_followed(self, places: Places, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (places.tmp / f"headrace-{UID}").symlink_to(tmp_path / "elsewhere")
        assert make_runtime_folder() is None

    def test_file_in_its_place(self, places: Places) -> None:
        (places.tmp / f"headrace-{UID}").touch(0o600)
        assert make_runtime_folder() is None

    def test_nowhere(self, places: Places) -> None:
        places.tmp.rmdir()
        assert make_runtime_folder() is None
        assert live_sockets() == {}

    def test_of_another_user(self, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
        places.xdg.mkdir()
        (places.tmp / f"headrace-{UID + 1}").mkdir(mode=0o700)
        monkeypatch.setattr(os, "geteuid", lambda: UID + 1)
        assert make_runtime_folder() is None
        assert not (places.xdg / "headrace").exists()


class TestSockets:
    def test_live_ones_of_every_place(self, places: Places, listen: Listen) -> None:
        made = {}
        for pid, parent in ((11, places.tmp), (12, places.run), (13, places.xdg)):
            parent.mkdir(parents=True, exist_ok=True)
            folder = make_runtime_folder()
            assert folder is not None
            made[pid] = socket_path(folder, pid)
            listen(made[pid])
        assert live_sockets() == made

    def test_one_whose_queue_is_full(self, places: Places, listen: Listen) -> None:
        folder = make_runtime_folder()
        assert folder is not None
        path = socket_path(folder, 5)
        listen(path)
        waiting = []
        while True:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            if waiting[-1].connect_ex(str(path)):
                break
        assert live_sockets() == {5: path}
        assert is_answered(path)
        for sock in waiting:
            sock.close()

    def test_what_the_dead_left_is_removed(self, places: Places, listen: Listen, dead_pid: int) -> None:
        folder = make_runtime_folder()
        assert folder is not None
        left = [socket_path(folder, dead_pid), socket_path(folder, 2**40)]
        for path in left:
            listen(path).close()
        assert not is_answered(left[0])
        assert live_sockets() == {}
        assert [path.exists() for path in left] == [False, False]

    def test_one_that_does_not_listen_yet_stays(self, places: Places) -> None:
        folder = make_runtime_folder()
        assert folder is not None
        path = socket_path(folder, os.getpid())
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            assert live_sockets() == {}
            assert path.exists()

    def test_what_is_no_control_socket_stays(self, places: Places, listen: Listen, dead_pid: int) -> None:
        folder = make_runtime_folder()
        assert folder is not None
        for name in ("x.sock", "007.sock", "1.txt", f"{dead_pid}.sock.bak"):
            listen(folder / name).close()
        (folder / f"{dead_pid}.sock").touch()
        before = sorted(folder.iterdir())
        assert live_sockets() == {}
        assert sorted(folder.iterdir()) == before

    def test_path_that_is_too_long(self, tmp_path: Path) -> None:
        assert not is_answered(tmp_path / ("x" * 200))
