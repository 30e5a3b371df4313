"""``--limit-concurrency``, ``--limit-max-requests``, ``--limit-connections``."""

import asyncio
from collections.abc import Callable
from typing import Any

from live import MIB, LiveServer, ServerProcess, eventually, respond

Serve = Callable[..., LiveServer]
Spawn = Callable[..., ServerProcess]

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"

HELLO = """
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})
    """


class Held:
    """An application that answers when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/held":
            await self.go.wait()
        await respond(send, scope["path"].encode())


class TestConcurrency:
    def test_503_above_it(self, serve: Serve) -> None:
        held = Held()
        server = serve(held, limit_concurrency=2)
        running = [server.connect() for _ in range(2)]
        for client in running:
            client.send(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n")
        eventually(lambda: len(server.server.runtime.running) == 2)
        refused = server.connect()
        response = refused.request()
        assert response.status == 503
        assert response.get("retry-after") == "1"
        assert response.get("connection") == "close"
        assert refused.is_ended()
        server.in_loop(held.go.set)
        assert [client.read_response().body for client in running] == [b"/held"] * 2
        assert server.get("/after").body == b"/after"

    def test_one_is_enough_for_one(self, serve: Serve) -> None:
        # uvicorn refuses everything with a limit of 1.
        client = serve(Held(), limit_concurrency=1).connect()
        for _ in range(3):
            assert client.request().status == 200

    def test_idle_connections_do_not_count(self, serve: Serve) -> None:
        server = serve(Held(), limit_concurrency=1)
        idle = [server.connect() for _ in range(5)]
        assert [client.request().status for client in idle] == [200] * 5

    def test_refused_client_that_still_sends_reads_the_answer(self, serve: Serve) -> None:
        held = Held()
        server = serve(held, limit_concurrency=1)
        running = server.connect()
        running.send(b"GET /held HTTP/1.1\r\nhost: a\r\n\r\n")
        eventually(lambda: server.server.runtime.running)
        refused = server.connect()
        refused.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (20 * MIB))
        for _ in range(20):
            refused.send(bytes(MIB))
        response = refused.read_response()
        assert (response.status, response.is_whole) == (503, True)
        server.in_loop(held.go.set)

    def test_application_that_works_on_behind_its_response_counts(self, serve: Serve) -> None:
        go = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"x")
            await go.wait()

        server = serve(application, limit_concurrency=1)
        client = server.connect()
        assert client.request().status == 200
        assert client.request().status == 503
        server.in_loop(go.set)


class TestMaxRequests:
    def test_ends_with_0_behind_the_last(self, spawn: Spawn) -> None:
        process = spawn(HELLO, "--limit-max-requests", "3")
        client = process.connect()
        assert [client.request().get("connection") for _ in range(3)] == [None, None, "close"]
        assert client.is_ended()
        assert process.wait_exit() == 0
        assert "Maximum request limit of 3 exceeded. Terminating process." in process.text

    def test_idle_connections_do_not_hold_it_up(self, spawn: Spawn) -> None:
        process = spawn(HELLO, "--limit-max-requests", "2")
        idle = process.connect()
        assert idle.request().status == 200
        assert process.connect().request().get("connection") == "close"
        assert idle.is_ended()
        assert process.wait_exit() == 0


class TestConnections:
    def test_later_ones_wait(self, serve: Serve) -> None:
        server = serve(Held(), limit_connections=2)
        served = [server.connect() for _ in range(2)]
        assert [client.request().status for client in served] == [200, 200]
        waiting = [server.connect() for _ in range(3)]
        for client in waiting:
            client.send(GET)
        # Those that are served stay so while others wait, and only they count.
        for client in served:
            assert client.request().status == 200
        assert server.in_loop(lambda: server.server.runtime.total_requests) == 4
        for leaving, admitted in zip([*served, waiting[0]], waiting, strict=True):
            leaving.close()
            assert admitted.read_response().status == 200

    def test_stop_while_some_wait(self, serve: Serve) -> None:
        server = serve(Held(), limit_connections=1)
        first = server.connect()
        assert first.request().status == 200
        for _ in range(3):
            server.connect().send(GET)

    def test_many_short_ones(self, serve: Serve) -> None:
        server = serve(Held(), limit_connections=3)
        for number in range(30):
            client = server.connect()
            assert client.request(f"/{number}").body == f"/{number}".encode()
            client.close()

    def test_behind_a_proxy_header_too(self, serve: Serve) -> None:
        held = Held()
        server = serve(held, limit_connections=1, proxy_protocol=True)
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /held HTTP/1.1\r\nhost: a\r\n\r\n")
        eventually(lambda: server.server.runtime.running)
        server.in_loop(held.go.set)
        # Whoever is first is answered; each that leaves lets in the next.
        for client in clients:
            assert client.read_response().status == 200
            assert server.in_loop(lambda: len(server.server.runtime.running)) <= 1
            client.close()
