import subprocess
import sys

import pytest

from headrace.supervisor import process_title
from headrace.supervisor.process_title import set_title, short_name

linux = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")

SHOW = """
import sys
if sys.argv[1] == "without":
    sys.modules["setproctitle"] = None
from headrace.supervisor.process_title import set_title
set_title("headrace: worker 12 [main:app]")
print(open("/proc/self/comm").read(), open("/proc/self/cmdline").read(), sep="", end="")
"""


def shown(package: str) -> tuple[str, str]:
    """The short name and the command line of a process with a title."""
    done = subprocess.run([sys.executable, "-c", SHOW, package], capture_output=True, text=True, check=True)
    name, _, command = done.stdout.partition("\n")
    return name, command


@linux
def test_with_the_package() -> None:
    name, command = shown("with")
    assert name == "headrace wor 12"
    assert command.rstrip("\0") == "headrace: worker 12 [main:app]"


@linux
def test_without_the_package() -> None:
    name, command = shown("without")
    assert name == "headrace wor 12"
    assert command.startswith(sys.executable)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("headrace: worker 1 [main:app]", b"headrace work 1"),
        ("headrace: worker 1024 [main:app]", b"headrace w 1024"),
        ("headrace: supervisor [main:app]", b"headrace superv"),
        ("headrace: once main:migrate", b"headrace once"),
        ("another title altogether", b"another title a"),
        ("größer als fünfzehn", "größer als f".encode()),
    ],
)
def test_short_names(text: str, expected: bytes) -> None:
    assert short_name(text) == expected
    assert len(expected) <= 15


def test_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "setproctitle", None)

    def fail(name: bytes) -> None:
        raise PermissionError

    monkeypatch.setattr(process_title, "_set_command_name", fail)
    set_title("x")
    set_title(None)  # type: ignore[arg-type]
