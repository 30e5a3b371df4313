"""Functions of ``--once`` in processes of their own; where signals matter, a process calls ``run_once``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from headrace.config import load
from headrace.errors import WorkerError
from headrace.supervisor.once import run_once
from live import PATIENCE_S, eventually

JOBS = """
    import asyncio
    import os
    import pathlib
    import subprocess
    import sys
    import threading
    import time

    HERE = pathlib.Path(__file__).parent

    def note(text):
        with open(HERE / "notes", "a") as file:
            file.write(text + "\\n")

    def plain():
        note(f"plain {os.getpid()}")

    async def asynchronous():
        await asyncio.sleep(0)
        note(f"asynchronous {type(asyncio.get_running_loop()).__module__}")

    def awaitable():
        return asynchronous()

    def own_loop():
        asyncio.run(asynchronous())

    class Jobs:
        class Inner:
            @staticmethod
            def deep():
                note("deep")

    def printing():
        print("to stdout")
        print("to stderr", file=sys.stderr)

    def variable():
        note(f"variable {os.environ.get('FROM_FILE')} {os.environ.get('NOTIFY_SOCKET')}")

    def failing():
        raise KeyError("the reason")

    async def failing_later():
        await asyncio.sleep(0)
        raise KeyError("the reason")

    def leaving():
        sys.exit(int(os.environ["CODE"]))

    def leaving_with_words():
        sys.exit("no database")

    def vanishing():
        os._exit(7)

    def killed():
        os.kill(os.getpid(), 9)

    number = 5

    def waiting():
        try:
            note("waiting")
            threading.Event().wait()
        finally:
            note("cleaned up")

    async def waiting_asynchronously():
        try:
            note("waiting")
            await asyncio.Event().wait()
        finally:
            note("cleaned up")

    def deaf():
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        note(f"waiting {os.getpid()} {child.pid}")
        threading.Event().wait()

    def leaving_a_child_behind():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
        note(f"{child.pid}")
        os._exit(3)
"""

RUN = """
import sys
from headrace.config import load
from headrace.errors import WorkerError
from headrace.supervisor.once import run_once
try:
    run_once(load({"once": tuple(sys.argv[1:])}, files=False))
except WorkerError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(3)
finally:
    print("the end")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    return tmp_path


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


def once(folder: Path, *names: str, **options: object) -> None:
    run_once(load({"app_dir": str(folder), "once": names, **options}, files=False))


def sentence(folder: Path, name: str) -> str:
    with pytest.raises(WorkerError) as caught:
        once(folder, name)
    text = str(caught.value)
    assert text.startswith(f"--once {name}: ")
    return text.removeprefix(f"--once {name}: ")


def start(folder: Path, *names: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *names],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # One that nobody has waited for yet is gone as well.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class TestCalls:
    def test_one_behind_the_other(self, folder: Path) -> None:
        once(
            folder,
            "jobs:plain",
            "jobs:asynchronous",
            "jobs:awaitable",
            "jobs:own_loop",
            "jobs:Jobs.Inner.deep",
        )
        first, second, third, fourth, last = notes(folder)
        assert first.startswith("plain ")
        assert int(first.split()[1]) != os.getpid()
        assert second == third == "asynchronous uvloop"
        assert fourth == "asynchronous asyncio.unix_events"
        assert last == "deep"
        assert "jobs" not in sys.modules

    def test_the_loop_of_the_server(self, folder: Path) -> None:
        once(folder, "jobs:asynchronous", loop="asyncio")
        assert notes(folder) == ["asynchronous asyncio.unix_events"]

    def test_nothing(self, folder: Path) -> None:
        once(folder)

    def test_what_is_printed_passes_through(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        once(folder, "jobs:printing")
        assert capfd.readouterr() == ("to stdout\n", "to stderr\n")

    def test_variables(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "env").write_text("FROM_FILE=7\n")
        monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent")
        once(folder, "jobs:variable", env_file=str(folder / "env"))
        assert notes(folder) == ["variable 7 None"]
        assert "FROM_FILE" not in os.environ

    def test_an_application_that_is_an_object(self, folder: Path) -> None:
        once(folder, "jobs:plain", app=lambda scope: None, ssl_context_factory=lambda config, make: make())
        assert len(notes(folder)) == 1


class TestFailures:
    @pytest.mark.parametrize("name", ["jobs:failing", "jobs:failing_later"])
    def test_exception(self, folder: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
        assert sentence(folder, name) == "It failed: KeyError: 'the reason'"
        lines = capfd.readouterr().err.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[1].startswith(f'  File "{folder}/jobs.py"')
        assert lines[-1] == "KeyError: 'the reason'"

    def test_not_found(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert sentence(folder, "jobs:plan") == "Module 'jobs' has no attribute 'plan'; did you mean 'plain'?"
        assert sentence(folder, "job:plain") == "There is no module 'job'; did you mean 'jobs'?"
        assert sentence(folder, "jobs:number") == "It is of type int, not a function."
        assert capfd.readouterr().err == ""

    def test_import_fails(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        (folder / "broken.py").write_text("raise KeyError('the reason')\n")
        assert sentence(folder, "broken:x") == "Importing broken failed: KeyError: 'the reason'"
        assert capfd.readouterr().err.splitlines()[1].startswith(f'  File "{folder}/broken.py"')

    def test_exit_codes(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CODE", "5")
        assert sentence(folder, "jobs:leaving") == "It ended with exit code 5."
        assert sentence(folder, "jobs:leaving_with_words") == "no database"
        assert sentence(folder, "jobs:vanishing") == "The process ended with exit code 7."
        monkeypatch.setenv("CODE", "0")
        once(folder, "jobs:leaving")

    def test_signal(self, folder: Path) -> None:
        assert sentence(folder, "jobs:killed") == "The process was ended by SIGKILL (out of memory?)."

    def test_no_process(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", str(folder))
        assert sentence(folder, "jobs:plain").startswith("No process can be started for it: ")

    def test_those_behind_it_are_not_called(self, folder: Path) -> None:
        with pytest.raises(WorkerError):
            once(folder, "jobs:failing", "jobs:plain")
        assert notes(folder) == []

    def test_a_process_left_behind_is_not_waited_for(self, folder: Path) -> None:
        assert sentence(folder, "jobs:leaving_a_child_behind") == "The process ended with exit code 3."
        os.kill(int(notes(folder)[0]), signal.SIGKILL)


class TestSignals:
    @pytest.mark.parametrize(
        ("name", "number"),
        [
            ("jobs:waiting", signal.SIGINT),
            ("jobs:waiting", signal.SIGQUIT),
            ("jobs:waiting_asynchronously", signal.SIGTERM),
        ],
    )
    def test_a_stop_lets_it_clean_up(self, folder: Path, name: str, number: signal.Signals) -> None:
        process = start(folder, name, "jobs:plain")
        eventually(lambda: notes(folder))
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out, err) == (128 + number, "the end\n", "")
        assert notes(folder) == ["waiting", "cleaned up"]

    def test_the_second_kills(self, folder: Path) -> None:
        process = start(folder, "jobs:deaf")
        eventually(lambda: notes(folder))
        _, pid, child = notes(folder)[0].split()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
        eventually(lambda: is_gone(int(pid)) and is_gone(int(child)))

    def test_patience_ends(self, folder: Path) -> None:
        code = f"import headrace.supervisor.once as once; once.END_S = 0.1\n{RUN}"
        process = subprocess.Popen([sys.executable, "-c", code, "jobs:deaf"], cwd=folder)
        eventually(lambda: notes(folder))
        _, pid, child = notes(folder)[0].split()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        eventually(lambda: is_gone(int(pid)) and is_gone(int(child)))

    @pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
    def test_it_ends_with_the_server(self, folder: Path) -> None:
        process = start(folder, "jobs:waiting")
        eventually(lambda: notes(folder))
        process.kill()
        process.communicate(timeout=PATIENCE_S)
        eventually(lambda: notes(folder) == ["waiting", "cleaned up"])
