"""A stop: open WebSockets are told 1012, and none of them holds it up."""

import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from live import Client, LiveServer, ServerProcess
from websocket_client import CLOSE, Recorder, WebSocketClient, frame, handshake

Spawn = Callable[..., ServerProcess]

APP = """
    import asyncio

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/endless":
            while True:
                await send({"type": "websocket.send", "bytes": bytes(262_144)})
        print("accepted", scope["path"], flush=True)
        message = await receive()
        print("told", message["type"], message.get("code"), flush=True)
        if scope["path"] == "/deaf":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print("cancelled", flush=True)
                raise
        if scope["path"] == "/tidy":
            await asyncio.sleep(0)
            print("tidied up", flush=True)
    """

loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


def start(spawn: Spawn, loop: str, *arguments: str) -> ServerProcess:
    return spawn(APP, "--lifespan", "off", "--loop", loop, *arguments)


def connect(process: ServerProcess, path: str) -> WebSocketClient:
    client = WebSocketClient(process.connect(), path)
    if path != "/endless":
        process.wait_line(f"accepted {path}")
    return client


@loops
def test_client_that_answers(spawn: Spawn, loop: str) -> None:
    # Without a graceful timeout, so what ends it is the sessions' end alone.
    process = start(spawn, loop)
    clients = [connect(process, "/tidy") for _ in range(20)]
    process.signal()
    for client in clients:
        assert client.read_close() == (1012, "")
        client.send_close(1012)
        assert client.is_ended()
    assert process.wait_exit() == -signal.SIGTERM
    assert process.out.count("told websocket.disconnect 1012\n") == 20
    assert process.out.count("tidied up\n") == 20
    assert "Cancel" not in process.text


def test_client_that_does_not_answer(loop_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Neither the time for a closing handshake nor the graceful timeout is waited for.
    monkeypatch.setattr("headrace.server.websocket.CLOSE_TIMEOUT_S", 600.0)
    recorder = Recorder()
    server = LiveServer(recorder, loop_name, timeout_graceful_shutdown=600.0)
    server.start()
    with socket.create_connection(("127.0.0.1", server.server.port)) as sock:
        client = WebSocketClient(Client(sock))
        client.send_text("hello")
        assert client.read_message() == "hello"
        server.stop()
        assert client.read_close() == (1012, "")
    assert recorder.last == {"type": "websocket.disconnect", "code": 1012, "reason": ""}


def test_client_that_has_not_answered_a_close_before(loop_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})

    monkeypatch.setattr("headrace.server.websocket.CLOSE_TIMEOUT_S", 600.0)
    server = LiveServer(application, loop_name, timeout_graceful_shutdown=600.0)
    server.start()
    with socket.create_connection(("127.0.0.1", server.server.port)) as sock:
        client = WebSocketClient(Client(sock))
        assert client.read_close() == (4000, "")
        server.stop()
        assert client.is_ended()


@loops
def test_client_that_takes_nothing(spawn: Spawn, loop: str) -> None:
    process = start(spawn, loop)
    client = connect(process, "/endless")
    assert client.read_message() == bytes(262_144)
    process.signal()
    assert process.wait_exit() == -signal.SIGTERM


@loops
def test_application_that_ignores_the_end(spawn: Spawn, loop: str) -> None:
    process = start(spawn, loop, "--timeout-graceful-shutdown", "0.4")
    client = connect(process, "/deaf")
    process.signal()
    assert client.read_close() == (1012, "")
    client.send_close(1012)
    assert client.is_ended()
    assert process.wait_exit() == -signal.SIGTERM
    assert "told websocket.disconnect 1012\n" in process.out
    assert "cancelled\n" in process.out
    assert "Cancel 1 running task(s), timeout graceful shutdown exceeded" in process.text


@loops
def test_second_signal(spawn: Spawn, loop: str) -> None:
    process = start(spawn, loop, "--timeout-graceful-shutdown", "600")
    client = connect(process, "/deaf")
    process.signal()
    assert client.read_close() == (1012, "")
    process.signal()
    assert process.wait_exit() == -signal.SIGTERM


@loops
def test_accepted_while_it_stops(spawn: Spawn, loop: str) -> None:
    source = """
        import asyncio

        async def app(scope, receive, send):
            await receive()
            if scope["path"] == "/first":
                await send({"type": "websocket.accept"})
                print("accepted /first", flush=True)
                print("told", (await receive())["code"], flush=True)
                stopping.set()
                return
            print("waiting", flush=True)
            await stopping.wait()
            await send({"type": "websocket.accept"})
            print("late told", (await receive())["code"], flush=True)

        stopping = asyncio.Event()
        """
    process = spawn(source, "--lifespan", "off", "--loop", loop)
    first = connect(process, "/first")
    late = process.connect()
    late.send(handshake("/late"))
    process.wait_line("waiting")
    process.signal()
    assert first.read_close() == (1012, "")
    first.send_close(1012)
    assert late.read_response().status == 101
    assert late.read_until(b"\x88\x02\x03\xf4")
    late.send(frame(CLOSE, b"\x03\xf4"))
    assert late.is_ended()
    assert process.wait_exit() == -signal.SIGTERM
    assert "late told 1012\n" in process.out
