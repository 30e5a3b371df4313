"""Workers forked from a template, told what a supervisor would tell them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.config import Config, load
from headrace.errors import WorkerError
from headrace.server.loops import loop_factory
from headrace.supervisor import preloaded
from headrace.supervisor.blueprint import pack
from headrace.supervisor.control import Drain, Failed, FrameDecoder, Message, Ready, Start, decode, encode
from headrace.supervisor.preloaded import PreloadedSpawner
from headrace.supervisor.process import Spawned
from live import PATIENCE_S, Client, Records, eventually

APP = """
    import os
    import sys

    IMPORTED_BY = os.getpid()
    with open(os.path.join(os.path.dirname(__file__), "imports"), "a") as file:
        file.write(f"{IMPORTED_BY}\\n")

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        import beside
        import gc
        body = f"{IMPORTED_BY} {os.getpid()} {os.getppid()} {gc.get_freeze_count() > 0} {beside.VERSION}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})
"""


class Answer:
    """What the application of a worker says."""

    def __init__(self, body: bytes) -> None:
        imported_by, pid, parent, is_frozen, self.version = body.decode().split()
        self.imported_by, self.pid, self.parent = int(imported_by), int(pid), int(parent)
        self.is_frozen = is_frozen == "True"


class Worker:
    """One that was spawned, and its pipes."""

    def __init__(self, spawned: Spawned) -> None:
        self.process = spawned.process
        self.pid = spawned.process.pid
        self.control = spawned.control
        self.lifeline = spawned.lifeline
        self.control.setblocking(False)
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.process.watch(self.exit.set_result)
        self._decoder = FrameDecoder()

    async def tell(self, message: Message) -> None:
        await asyncio.get_running_loop().sock_sendall(self.control, encode(message))

    async def hear(self) -> Message:
        """The next message."""
        loop = asyncio.get_running_loop()
        while True:
            for kind, payload in self._decoder.feed(await loop.sock_recv(self.control, 65_536)):
                return decode(kind, payload)

    async def code(self) -> int:
        """How it ended."""
        return await asyncio.wait_for(self.exit, PATIENCE_S)

    def close(self) -> None:
        self.control.close()
        self.lifeline.close()


class Nursery:
    """A spawner, a listener and the workers."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.config = self.load(**options)
        self.spawner = PreloadedSpawner(self.config)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.workers: list[Worker] = []

    def load(self, **options: Any) -> Config:
        options = {"app": "app:app", "app_dir": str(self.folder), "preload": True, **options}
        return load(options, files=False)

    async def spawn(self, *, is_ready: bool = True) -> Worker:
        worker = Worker(await self.spawner.spawn([self.listener.fileno()]))
        self.workers.append(worker)
        number = len(self.workers)
        await worker.tell(Start(number, pack(self.config), [self.listener.fileno()], -1, False, "none"))
        if is_ready:
            message = await asyncio.wait_for(worker.hear(), PATIENCE_S)
            assert isinstance(message, Ready), message
        return worker

    async def ask(self) -> Answer:
        """What one of the workers answers."""

        def get() -> bytes:
            with socket.create_connection(self.listener.getsockname(), PATIENCE_S) as sock:
                return Client(sock).request().body

        return Answer(await asyncio.to_thread(get))

    async def drain(self, worker: Worker) -> int:
        await worker.tell(Drain(5.0, False))
        return await worker.code()

    async def close(self) -> None:
        for worker in self.workers:
            worker.close()
        await self.spawner.close()
        self.listener.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    # Imported by a worker only: the import path of the template is its own too.
    (tmp_path / "beside.py").write_text("VERSION = 1")
    return tmp_path


@contextlib.asynccontextmanager
async def nursery(folder: Path, **options: Any) -> AsyncIterator[Nursery]:
    made = Nursery(folder, **options)
    try:
        yield made
    finally:
        await made.close()


def run(main: Callable[[], Awaitable[None]], loop: str = "uvloop") -> None:
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main())  # type: ignore[arg-type]


async def become_true(condition: Callable[[], object]) -> None:
    """Wait for it, while the loop goes on."""
    await asyncio.to_thread(eventually, condition)


def imports(folder: Path) -> list[int]:
    """Processes that have imported the application."""
    return [int(line) for line in (folder / "imports").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_are_forked_from_one_import(folder: Path, loop_name: str) -> None:
    async def main() -> None:
        async with nursery(folder) as one:
            # Asked for at once: the second waits for the first one's template.
            first, second = await asyncio.gather(one.spawn(), one.spawn())
            answer = await one.ask()
            (template,) = imports(folder)
            assert answer.imported_by == answer.parent == template
            assert answer.pid in (first.pid, second.pid)
            assert len({template, first.pid, second.pid, os.getpid()}) == 4
            assert answer.is_frozen
            assert await one.drain(first) == 0
            assert (await one.ask()).pid == second.pid
            second.process.signal(signal.SIGKILL)
            assert await second.code() == -signal.SIGKILL
            # A signal to one that has ended goes nowhere.
            second.process.signal(signal.SIGKILL)
        assert not is_alive(template)
        assert "app" not in sys.modules

    run(main, loop_name)


def test_the_end_is_learnt_also_behind_it(folder: Path) -> None:
    async def main() -> None:
        async with nursery(folder) as one:
            worker = await one.spawn()
            worker.process.signal(signal.SIGKILL)
            await worker.code()
            again: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            worker.process.watch(again.set_result)
            assert await again == -signal.SIGKILL

    run(main)


def test_pipes_end_with_their_worker(folder: Path) -> None:
    """Neither the template nor another worker holds them open."""

    async def main() -> None:
        async with nursery(folder) as one:
            first = await one.spawn()
            await one.spawn()
            first.process.signal(signal.SIGKILL)
            loop = asyncio.get_running_loop()
            first.lifeline.setblocking(False)
            assert await asyncio.wait_for(loop.sock_recv(first.lifeline, 1), PATIENCE_S) == b""
            # And the worker ends when the supervisor's end does.
            second = one.workers[1]
            second.close()
            assert await second.code() in (0, 1)

    run(main)


class TestImport:
    @pytest.mark.parametrize(
        ("source", "sentence", "has_traceback"),
        [
            ("raise KeyError('the reason')", "Importing app failed: KeyError: 'the reason'", True),
            ("other = 1", "Module 'app' has no attribute 'app'", False),
            (
                "import sys; sys.exit(4)",
                "The application ended its process while it was imported (4).",
                False,
            ),
            (
                "import os; os._exit(7)",
                "The template of --preload ended with exit code 7 while it imported the application.",
                False,
            ),
        ],
    )
    def test_failure(
        self, folder: Path, source: str, sentence: str, has_traceback: bool, error_log: Records
    ) -> None:
        (folder / "app.py").write_text(source)

        async def main() -> None:
            async with nursery(folder) as one:
                with pytest.raises(WorkerError) as caught:
                    await one.spawn()
                assert str(caught.value).startswith(sentence)
                assert any("Traceback" in line for line in error_log.lines()) is has_traceback

        run(main)

    def test_after_a_failure_it_is_tried_again(self, folder: Path) -> None:
        (folder / "app.py").write_text("raise KeyError")

        async def main() -> None:
            async with nursery(folder) as one:
                with pytest.raises(WorkerError):
                    await one.spawn()
                (folder / "app.py").write_text(textwrap.dedent(APP))
                await one.spawn()

        run(main)

    def test_no_process(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", str(folder))

        async def main() -> None:
            async with nursery(folder) as one:
                with pytest.raises(WorkerError, match="No process can be started for the template"):
                    await one.spawn()

        run(main)

    def test_no_time_for_it(self, folder: Path) -> None:
        (folder / "app.py").write_text("import threading; threading.Event().wait()")

        async def main() -> None:
            async with nursery(folder, timeout_worker_startup=0.2) as one:
                with pytest.raises(WorkerError, match=r"not imported within 0\.2 s"):
                    await one.spawn()

        run(main)

    def test_a_stop_meanwhile(self, folder: Path) -> None:
        (folder / "app.py").write_text(
            "import os, threading\n"
            f"open({str(folder / 'imports')!r}, 'w').write(str(os.getpid()))\n"
            "threading.Event().wait()"
        )

        async def main() -> None:
            async with nursery(folder) as one:
                spawning = asyncio.ensure_future(one.spawn())
                await become_true(lambda: (folder / "imports").exists() and imports(folder))
                (template,) = imports(folder)
                spawning.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await spawning
            eventually(lambda: not is_alive(template))

        run(main)

    def test_what_a_fork_does_not_carry_over(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        more = """
            import socket
            import threading
            left = socket.create_server(("127.0.0.1", 0))
            made = socket.create_connection(left.getsockname())
            lone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            threading.Thread(target=threading.Event().wait, name="the-reporter", daemon=True).start()
            PORT = left.getsockname()[1]
            with open(__file__.replace("app.py", "port"), "w") as file:
                file.write(str(PORT))
        """
        (folder / "app.py").write_text(textwrap.dedent(APP) + textwrap.dedent(more))

        async def main() -> None:
            async with nursery(folder) as one:
                await one.spawn()

        run(main)
        port = (folder / "port").read_text()
        lines = [line for line in capfd.readouterr().err.splitlines() if "--preload" in line]
        assert len(lines) == 4
        assert f"importing app:app opened a listener on 127.0.0.1:{port} (descriptor " in lines[0]
        assert f"importing app:app opened a connection to 127.0.0.1:{port} (descriptor " in lines[1]
        assert "importing app:app opened a socket (descriptor " in lines[2]
        assert "importing app:app started the thread 'the-reporter', which no worker will have" in lines[3]


class TestRenewal:
    def test_kept(self, folder: Path) -> None:
        async def main() -> None:
            async with nursery(folder) as one:
                old = await one.spawn()
                (folder / "beside.py").write_text("VERSION = 'new'")
                await one.spawner.renew(one.config)
                one.spawner.keep()
                first, second = imports(folder)
                new = await one.spawn()
                # The old template lives as long as its worker, and reports of it.
                assert is_alive(first)
                assert await one.drain(old) == 0
                await become_true(lambda: not is_alive(first))
                answer = await one.ask()
                assert (answer.imported_by, answer.pid, answer.version) == (second, new.pid, "new")

        run(main)

    def test_gone_back_on(self, folder: Path) -> None:
        async def main() -> None:
            async with nursery(folder) as one:
                await one.spawner.renew(one.config)
                old = await one.spawn()
                await one.spawner.renew(one.config)
                first, second = imports(folder)
                one.spawner.go_back()
                await become_true(lambda: not is_alive(second))
                assert await one.drain(old) == 0
                await one.spawn()
                assert (await one.ask()).imported_by == first

        run(main)

    def test_failed(self, folder: Path) -> None:
        async def main() -> None:
            async with nursery(folder) as one:
                await one.spawn()
                (folder / "app.py").write_text("raise KeyError")
                with pytest.raises(WorkerError):
                    await one.spawner.renew(one.config)
                one.spawner.go_back()
                await one.spawn()
                assert len(imports(folder)) == 1

        run(main)


class TestTemplateDies:
    def test_its_workers_serve_on(self, folder: Path, error_log: Records) -> None:
        async def main() -> None:
            async with nursery(folder) as one:
                worker = await one.spawn()
                os.kill(imports(folder)[0], signal.SIGKILL)
                await become_true(lambda: any("was ended by SIGKILL" in line for line in error_log.lines()))
                assert (await one.ask()).pid == worker.pid
                new = await one.spawn()
                assert len(imports(folder)) == 2
                worker.process.signal(signal.SIGKILL)
                assert await worker.code() in (-signal.SIGKILL, preloaded.UNKNOWN_CODE)
                assert (await one.ask()).pid == new.pid

        run(main)

    @pytest.mark.parametrize("has_pidfd", [True, False])
    def test_an_orphan_that_came_to_us_is_reaped(
        self, has_pidfd: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not has_pidfd:
            monkeypatch.delattr(os, "pidfd_open", raising=False)
        pid = os.spawnv(os.P_NOWAIT, "/bin/sh", ["sh", "-c", "exit 7"])
        assert preloaded._wait_for_orphan(pid) == 7
        assert preloaded._wait_for_orphan(pid) == preloaded.UNKNOWN_CODE
        assert not preloaded._lives(pid)
        assert preloaded._lives(1)


def test_a_worker_that_cannot_start_says_so(folder: Path) -> None:
    failing = 'await send({"type": "lifespan.startup.failed", "message": "no database"})'
    (folder / "app.py").write_text(textwrap.dedent(APP).replace("        return", f"        {failing}", 1))

    async def main() -> None:
        async with nursery(folder) as one:
            worker = await one.spawn(is_ready=False)
            message = await asyncio.wait_for(worker.hear(), PATIENCE_S)
            assert isinstance(message, Failed)
            assert await worker.code() == 3

    run(main)


SUPERVISOR = """
import asyncio, socket, sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_preloaded import nursery

async def main():
    async with nursery(Path({folder!r})) as one:
        worker = await one.spawn()
        print(worker.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_nobody_survives_the_supervisor(folder: Path) -> None:
    here = os.path.dirname(__file__)
    code = SUPERVISOR.format(path=[here, os.path.dirname(here)], folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        (template,) = imports(folder)
        process.kill()
    eventually(lambda: not is_alive(worker) and not is_alive(template))
