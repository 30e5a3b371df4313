"""``PlainServer``: serves, says nothing, holds little, and stops in time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from control_host import PlainHost, loopback
from headrace.server import plain_server
from headrace.server.loops import loop_factory
from headrace.server.plain_server import PlainServer
from live import MIB, PATIENCE_S, Records, eventually, read_body, respond

Host = Callable[[Any], PlainHost]


@pytest.fixture
def host(loop_name: str) -> Iterator[Host]:
    hosts: list[PlainHost] = []

    def start(application: Any) -> PlainHost:
        hosts.append(PlainHost(application, [loopback()], loop_name))
        hosts[-1].start()
        return hosts[-1]

    yield start
    for host in hosts:
        host.stop()


class Echo:
    """Answers with the path, or the body; ``/held`` when it is let go, and it counts who waits there."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.held = 0
        self.cancelled = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/held":
            self.held += 1
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        body = await read_body(receive)
        await respond(send, body or scope["path"].encode())


@pytest.fixture
def echo() -> Echo:
    return Echo()


HELD = b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n"


def test_serves_without_a_word(host: Host, echo: Echo, error_log: Records, access_records: Records) -> None:
    server = host(echo)
    client = server.connect()
    response = client.request("/a")
    assert (response.status, response.body) == (200, b"/a")
    assert response.get("server") is None
    assert client.request("/", "POST", b"x" * 1000).body == b"x" * 1000
    bad = server.connect()
    bad.send(b"nonsense\r\n\r\n")
    assert bad.read_response().status == 400
    server.stop()
    assert (error_log.lines(), access_records.lines()) == ([], [])


def test_no_websocket_and_no_http2(host: Host, echo: Echo) -> None:
    server = host(echo)
    upgrade = ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"]
    headers = [*upgrade, "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="]
    assert server.connect().request("/a", headers=headers).status == 200
    client = server.connect()
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert client.read_to_end().startswith(b"HTTP/1.1 ")


def test_large_requests(host: Host, echo: Echo) -> None:
    server = host(echo)
    assert server.connect().request("/" + "a" * 10_000).status == 414
    assert server.connect().request("/", headers=[f"x: {'a' * 20_000}"]).status == 431
    client = server.connect()
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % MIB)
    assert client.read_response().status == 413


def test_too_many_connections_wait(host: Host, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_server, "MAX_CONNECTIONS", 2)
    server = host(echo)
    served = [server.connect() for _ in range(2)]
    assert [client.request().status for client in served] == [200, 200]
    waiting = server.connect()
    waiting.send(b"GET /w HTTP/1.1\r\nhost: a\r\n\r\n")
    assert served[0].request().status == 200
    served[1].close()
    assert waiting.read_response().body == b"/w"


def test_running_requests_end_at_a_stop(host: Host, echo: Echo) -> None:
    server = host(echo)
    idle, running = server.connect(), server.connect()
    assert idle.request().status == 200
    running.send(HELD)
    eventually(lambda: echo.held)
    server.begin_stop()
    assert idle.is_ended()
    server.in_loop(echo.go.set)
    response = running.read_response()
    assert (response.status, response.get("connection")) == (200, "close")


def test_those_that_do_not_are_cut(host: Host, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_server, "GRACE_S", 0.05)
    server = host(echo)
    silent, running = server.connect(), server.connect()
    running.send(HELD)
    eventually(lambda: echo.held)
    server.begin_stop()
    assert running.read_response().status == 503
    assert silent.is_ended()
    assert echo.cancelled == 1


@pytest.mark.parametrize("passes", range(8))
def test_connection_of_the_last_moment_is_closed(loop_name: str, echo: Echo, passes: int) -> None:
    async def run() -> tuple[set[str], bytes]:
        loop = asyncio.get_running_loop()
        listener = loopback()
        server = PlainServer(echo, [listener])
        await server.start()
        with socket.create_connection(listener.getsockname()) as client:
            for _ in range(passes):
                await asyncio.sleep(0)
            await server.stop()
            left = {repr(task) for task in asyncio.all_tasks() - {asyncio.current_task()}}
            # It waits in the kernel still, or was accepted: then the server has closed it.
            listener.close()
            client.setblocking(False)
            try:
                return left, await asyncio.wait_for(loop.sock_recv(client, 1), PATIENCE_S)
            except ConnectionResetError:
                return left, b""

    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        assert runner.run(run()) == (set(), b"")
