import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.errors import ConfigError
from headrace.supervisor.pid_file import PidFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pid"


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the test ends it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def sentence(path: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        PidFile(str(path)).write()
    return str(caught.value)


def test_life(path: Path) -> None:
    before = os.umask(0o077)
    try:
        file = PidFile(str(path))
        file.check()
        file.write()
    finally:
        os.umask(before)
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["a.pid"]
    file.remove()
    assert os.listdir(path.parent) == []
    # And once more: nothing happens.
    file.remove()


def test_no_descriptor_stays_open(path: Path) -> None:
    before = os.listdir("/dev/fd")
    file = PidFile(str(path))
    file.write()
    file.remove()
    assert os.listdir("/dev/fd") == before


def test_a_running_server_is_left_alone(path: Path, other: subprocess.Popen[bytes]) -> None:
    path.write_text(f"{other.pid}\n")
    assert sentence(path) == (
        f"The pid file {str(path)!r} names process {other.pid}, which is running; "
        "stop it, or take another file."
    )
    assert path.read_text() == f"{other.pid}\n"
    with pytest.raises(ConfigError, match="which is running"):
        PidFile(str(path)).check()


def test_a_dead_server_is_followed(path: Path, other: subprocess.Popen[bytes]) -> None:
    path.write_text(f"{other.pid}\n")
    other.kill()
    other.wait()
    PidFile(str(path)).write()
    assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="when a process began is read from /proc")
def test_a_number_that_came_again_is_stale(path: Path, other: subprocess.Popen[bytes]) -> None:
    path.write_text(f"{other.pid}\n")
    os.utime(path, (0, path.stat().st_mtime - 3600))
    PidFile(str(path)).write()
    assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", [str(os.getpid()), "", "\n", "0", "9" * 32])
def test_what_names_nobody_else_is_replaced(path: Path, content: str) -> None:
    path.write_text(content)
    PidFile(str(path)).write()
    assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["import os", "-1", "1 2", "1" * 33])
def test_another_file_is_left_alone(path: Path, content: str) -> None:
    path.write_text(content)
    assert sentence(path).startswith(f"{str(path)!r} exists and holds no process number")
    assert path.read_text() == content


def test_no_plain_file(tmp_path: Path) -> None:
    assert sentence(tmp_path).startswith(f"{str(tmp_path)!r} exists and is no plain file")
    assert sentence("/dev/null").startswith("'/dev/null' exists and is no plain file")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_unwritable(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.pid"
    assert sentence(path) == f"The pid file {str(path)!r} cannot be written: No such file or directory."
    (tmp_path / "file").touch()
    assert sentence(tmp_path / "file" / "a.pid").endswith("cannot be written: Not a directory.")
    assert sentence(tmp_path / ("x" * 300)).endswith("cannot be written: File name too long.")


def test_a_successor_keeps_its_file(path: Path) -> None:
    file = PidFile(str(path))
    file.write()
    path.write_text("1\n")
    file.remove()
    assert path.read_text() == "1\n"


def test_a_file_that_is_gone(path: Path) -> None:
    file = PidFile(str(path))
    file.write()
    path.unlink()
    file.remove()
    assert not path.exists()


def test_chdir_does_no_harm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    file = PidFile("a.pid")
    file.write()
    monkeypatch.chdir("/")
    file.remove()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_the_file_is_emptied_where_it_cannot_be_removed(path: Path) -> None:
    code = (
        "import os, sys; from headrace.supervisor.pid_file import PidFile; file = PidFile(sys.argv[1]); "
        "file.write(); os.setuid(65534); file.remove()"
    )
    path.parent.chmod(0o755)
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.read_text() == ""
