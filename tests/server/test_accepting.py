"""Workers that share listeners: who takes a connection, and that none is stranded, reset or leaked."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from accepting_workers import Bench, Greeting, child, tcp_listener, until
from headrace.config import load
from headrace.server import acceptor as acceptor_module
from headrace.server.listening import Listeners
from headrace.server.load_board import BoardSlot
from headrace.server.loops import loop_factory
from live import PATIENCE_S, Records

AUTHORITY = trustme.CA()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


Scene = Callable[[Bench], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(loop_name: str) -> Play:
    """Give a function that runs a scene, and fails on descriptors, tasks or errors that it leaves."""

    async def run(scene: Scene, listeners: tuple[socket.socket, ...], errors: list[Any]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        bench = Bench(*listeners)
        try:
            await scene(bench)
        finally:
            await bench.end()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    # uvloop's first loop of a process opens descriptors for all.
    loop_factory(loop_name)().close()

    def start(scene: Scene, *listeners: socket.socket, expected_errors: int = 0) -> None:
        errors: list[Any] = []
        gc.collect()
        before = descriptors()
        given = len(listeners)
        with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
            runner.run(run(scene, listeners or (tcp_listener(),), errors))
        assert len(errors) == expected_errors, errors
        del errors[:]
        gc.collect()
        assert descriptors() == before - given

    return start


class TestSpread:
    def test_each_gets_half(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            bench.add(b"a")
            bench.add(b"b")
            names = [await bench.ask() for _ in range(12)]
            # Whoever is first, the second of each pair goes to the other.
            assert [len({*names[at : at + 2]}) for at in range(0, 12, 2)] == [2] * 6

        play(scene)

    def test_burst(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            for name in (b"a", b"b", b"c", b"d"):
                bench.add(name)
            clients = [bench.connect() for _ in range(64)]
            names = [await bench.greeting(client) for client in clients]
            assert max(names.count(name) for name in set(names)) <= 1.3 * 16

        play(scene)

    def test_who_lost_connections_is_next(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            first, second = bench.add(b"a"), bench.add(b"b")
            for _ in range(8):
                await bench.ask()
            assert len(first.open) == len(second.open) == 4
            for connection in list(second.open):
                connection.transport.abort()
            await until(lambda: not second.open)
            # The first connection wakes it, and then the board knows.
            await bench.ask()
            assert [await bench.ask() for _ in range(3)] == [b"b"] * 3

        play(scene)

    def test_alone_it_takes_all(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            bench.add(b"a")
            clients = [bench.connect() for _ in range(40)]
            assert {await bench.greeting(client) for client in clients} == {b"a"}
            assert await bench.ask() == b"a"
            await until(lambda: bench.board.counts() == [-1, 41])

        play(scene)

    def test_several_listeners(self, play: Play, tmp_path: Path) -> None:
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(tmp_path / "a.sock"))
        unix.listen(64)
        tcp = tcp_listener()

        async def scene(bench: Bench) -> None:
            bench.add(b"a")
            bench.add(b"b")
            for _ in range(4):
                pair = {await bench.greeting(bench.connect(listener)) for listener in (unix, tcp)}
                assert pair == {b"a", b"b"}

        play(scene, unix, tcp)


class TestNoStranding:
    def test_least_one_is_dead(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            worker = bench.add(b"a")
            # What a killed worker left behind.
            bench.board.set(2, 0)
            assert await bench.ask() == b"a"
            assert worker.slot.set(1)
            assert await bench.ask() == b"a"
            # It is not waited for again, until it shows itself.
            assert not worker.slot.set(2)
            clients = [bench.connect() for _ in range(20)]
            assert {await bench.greeting(client) for client in clients} == {b"a"}
            bench.board.set(2, 0)
            assert worker.slot.set(2)

        play(scene)

    def test_least_one_lives_and_never_takes(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            bench.add(b"a")
            await bench.ask()
            loop = asyncio.get_running_loop()

            def show() -> None:
                nonlocal timer
                bench.board.set(2, 0)
                timer = loop.call_later(0.001, show)

            timer = loop.call_soon(show)
            assert await bench.ask() == b"a"
            timer.cancel()

        play(scene)

    def test_least_one_is_stopped(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            bench.add(b"a")
            with child(bench) as process:
                await until(lambda: len(bench.board.counts()) == 3)
                while await bench.ask() != b"x":
                    pass
                process.send_signal(signal.SIGSTOP)
                try:
                    assert [await bench.ask() for _ in range(6)] == [b"a"] * 6
                finally:
                    process.send_signal(signal.SIGCONT)
                # It wakes up, and is waited for again.
                while await bench.ask() != b"x":
                    pass

        play(scene)

    def test_process_killed(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            bench.add(b"a")
            with child(bench) as process:
                await until(lambda: len(bench.board.counts()) == 3)
                process.kill()
                process.wait(PATIENCE_S)
                assert [await bench.ask() for _ in range(6)] == [b"a"] * 6

        play(scene)


class TestPause:
    def test_others_take_what_comes(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            first, second = bench.add(b"a"), bench.add(b"b")
            first.acceptor.pause()
            assert bench.board.counts() == [-1, -1, 0]
            assert [await bench.ask() for _ in range(5)] == [b"b"] * 5
            first.acceptor.start()
            assert bench.board.counts()[1] == 0
            assert [await bench.ask() for _ in range(5)] == [b"a"] * 5
            assert len(second.open) == 5

        play(scene)

    def test_while_it_waits_for_others(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            worker = bench.add(b"a")
            await bench.ask()
            bench.board.set(2, 0)
            client = bench.connect()
            # One turn: it has seen the connection and left it to the other.
            await asyncio.sleep(0)
            worker.acceptor.pause()
            other = bench.add(b"b")
            assert await bench.greeting(client) == b"b"
            assert bench.board.counts()[1] == -1
            other.acceptor.pause()
            worker.acceptor.start()
            assert await bench.ask() == b"a"

        play(scene)

    def test_queue_outlives_a_close(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            leaving = bench.add(b"a")
            other = bench.add(b"b", starts=False)
            leaving.acceptor.pause()
            clients = [bench.connect() for _ in range(10)]
            leaving.acceptor.close()
            await leaving.acceptor.settle()
            leaving.acceptor.start()
            assert bench.board.counts()[1] == -1
            other.acceptor.start()
            assert {await bench.greeting(client) for client in clients} == {b"b"}
            assert not leaving.open

        play(scene)

    def test_accepted_before_the_close_is_served(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            worker = bench.add(b"a")
            client = bench.connect()
            while bench.board.counts() != [-1, 1]:
                await asyncio.sleep(0)
            worker.acceptor.close()
            await worker.acceptor.settle()
            assert len(worker.open) == 1
            assert await bench.greeting(client) == b"a"

        play(scene)


@pytest.fixture(scope="module")
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("a.test").configure_cert(context)
    return context


class TestTLS:
    def test_handshake(self, play: Play, server_context: ssl.SSLContext) -> None:
        client_context = ssl.create_default_context()
        AUTHORITY.configure_trust(client_context)

        async def scene(bench: Bench) -> None:
            options = {"ssl": server_context, "ssl_handshake_timeout": PATIENCE_S}
            bench.add(b"a", **options)
            bench.add(b"b", **options)
            names = []
            for _ in range(4):
                reader, writer = await asyncio.open_connection(
                    sock=bench.connect(), ssl=client_context, server_hostname="a.test"
                )
                names.append(await reader.readexactly(1))
                assert writer.get_extra_info("ssl_object") is not None
                writer.transport.abort()
                bench.clients.pop()
            assert set(names) <= {b"a", b"b"}

        play(scene)

    def test_handshake_under_way_counts(self, play: Play, server_context: ssl.SSLContext) -> None:
        async def scene(bench: Bench) -> None:
            options = {"ssl": server_context, "ssl_handshake_timeout": PATIENCE_S}
            bench.add(b"a", **options)
            bench.add(b"b", **options)
            for _ in range(6):
                bench.connect()
            await until(lambda: bench.board.counts() == [-1, 3, 3])

        play(scene)

    def test_failed_handshake(self, play: Play, server_context: ssl.SSLContext) -> None:
        async def scene(bench: Bench) -> None:
            worker = bench.add(b"a", ssl=server_context, ssl_handshake_timeout=PATIENCE_S)
            client = bench.connect()
            await until(lambda: bench.board.counts() == [-1, 1])
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            loop = asyncio.get_running_loop()
            while await loop.sock_recv(client, 100):
                pass
            # The next one finds the first gone.
            bench.connect()
            await until(lambda: bench.board.counts() == [-1, 1])
            assert not worker.open

        play(scene)

    def test_late_handshake_is_cut(self, play: Play, server_context: ssl.SSLContext) -> None:
        async def scene(bench: Bench) -> None:
            worker = bench.add(b"a", ssl=server_context, ssl_handshake_timeout=10 * PATIENCE_S)
            client = bench.connect()
            await until(lambda: bench.board.counts() == [-1, 1])
            worker.acceptor.close()
            await asyncio.wait_for(worker.acceptor.settle(0.01), PATIENCE_S)
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""

        play(scene)


class TestErrors:
    @pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO])
    def test_fault_of_one_connection(
        self, play: Play, monkeypatch: pytest.MonkeyPatch, error_log: Records, number: int
    ) -> None:
        refuse_once(monkeypatch, number)

        async def scene(bench: Bench) -> None:
            bench.add(b"a")
            assert await bench.ask() == b"a"
            assert error_log.lines() == []

        play(scene)

    def test_out_of_memory(self, play: Play, monkeypatch: pytest.MonkeyPatch, error_log: Records) -> None:
        monkeypatch.setattr(acceptor_module, "RETRY_S", 1_000.0)
        refused = refuse_once(monkeypatch, errno.ENOMEM)

        async def scene(bench: Bench) -> None:
            worker = bench.add(b"a")
            client = bench.connect()
            await until(lambda: refused)
            assert bench.board.counts() == [-1, -1]
            # Others may take it meanwhile. A resume tries at once.
            worker.acceptor.start()
            assert await bench.greeting(client) == b"a"
            assert len(error_log.lines()) == 1

        play(scene)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_no_protocol(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            worker = bench.add(b"a", starts=False)
            make = worker.acceptor._factory
            failed: list[bool] = []

            def fail_once() -> asyncio.Protocol:
                if not failed:
                    failed.append(True)
                    raise RuntimeError("no protocol")
                return make()

            worker.acceptor._factory = fail_once
            worker.acceptor.start()
            bench.connect()
            assert await bench.ask() == b"a"

        play(scene, expected_errors=1)

    def test_out_of_descriptors(self, play: Play) -> None:
        async def scene(bench: Bench) -> None:
            with child(bench, descriptors=4) as process:
                await until(lambda: len(bench.board.counts()) == 3)
                clients = [bench.connect() for _ in range(8)]
                assert {await bench.greeting(client) for client in clients[:4]} == {b"x"}
                await until(lambda: bench.board.counts()[2] == -1)
                # It tries again, and says so once.
                lines = [process.read_line() for _ in range(4)]
                assert sum("Cannot accept connections" in line for line in lines) == 1, lines
                for client in clients[:4]:
                    client.close()
                assert {await bench.greeting(client) for client in clients[4:]} == {b"x"}
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE_S) == 0

        play(scene)


class TestListeners:
    def test_life(self, play: Play) -> None:
        options = load({"app": "a:b"}, files=False).listen

        async def scene(bench: Bench) -> None:
            worker = bench.add(b"a", starts=False)
            given = bench.listeners
            listeners = Listeners(options, "http", given, BoardSlot(bench.board, 5))
            await listeners.accept(partial(Greeting, worker), None, worker.open.__len__)
            assert listeners.servers == []
            assert await bench.ask() == b"a"
            listeners.pause()
            assert bench.board.counts()[5] == -1
            client = bench.connect()
            await listeners.resume()
            assert await bench.greeting(client) == b"a"
            listeners.close()
            await listeners.settle()
            await listeners.resume()
            assert bench.board.counts()[5] == -1
            assert given[0].fileno() >= 0

        play(scene)

    def test_without_a_slot_nothing_is_to_settle(self, play: Play) -> None:
        options = load({"app": "a:b"}, files=False).listen

        async def scene(bench: Bench) -> None:
            worker = bench.add(b"a", starts=False)
            listeners = Listeners(options, "http", bench.listeners)
            await listeners.accept(partial(Greeting, worker), None)
            assert len(listeners.servers) == 1
            assert await bench.ask() == b"a"
            listeners.close()
            await listeners.settle()

        play(scene)


def refuse_once(monkeypatch: pytest.MonkeyPatch, number: int) -> list[bool]:
    """The next ``accept`` fails; the list is then no longer empty."""
    refused: list[bool] = []
    accept = socket.socket.accept

    def refuse(sock: socket.socket) -> Any:
        if not refused:
            refused.append(True)
            raise OSError(number, os.strerror(number))
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", refuse)
    return refused
