"""Lines about bad requests, and the access log, over a real server."""

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from typing import Any

from live import LiveServer, ServerProcess, eventually, read_body, respond

Serve = Callable[..., LiveServer]
Spawn = Callable[..., ServerProcess]

APP = """
    import asyncio

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 201})
        await send({"type": "http.response.body", "body": b"hello"})
    """


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await read_body(receive)
    await respond(send, b"hello")


class TestBadRequests:
    def test_line_has_peer_reason_and_first_bytes(self, serve: Serve, error_log: Any) -> None:
        client = serve(hello).connect()
        client.send(b"GET /\x1b[31m\n HTTP/1.1\r\n\r\n" + b"x" * 1000)
        assert client.read_response().status == 400
        (line,) = error_log.lines(logging.WARNING)
        host, port = client.sock.getsockname()
        assert line.startswith(f"Invalid HTTP request received from {host}:{port}: ")
        assert r"'GET /\x1b[31m\n HTTP/1.1\r\n" in line
        # What a client sends must neither break the line nor colour the terminal, nor fill the disk.
        assert line.isprintable()
        assert len(line) < 300

    def test_flood_stays_short(self, serve: Serve, error_log: Any) -> None:
        server = serve(hello)
        for _ in range(100):
            assert server.exchange(b"nonsense\r\n\r\n").status == 400
        # In-between sweeps may have come, each of which lets ten more pass.
        lines = error_log.lines(logging.WARNING)
        assert len([line for line in lines if "it began with" in line]) < 100
        server.in_loop(server.server.runtime.bad_requests.sweep)
        assert any("more invalid HTTP requests received." in line for line in error_log.lines())

    def test_tls_to_a_plain_port_is_named(self, serve: Serve, error_log: Any) -> None:
        server = serve(hello)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            server.connect(context)
        except (ssl.SSLError, OSError):
            pass
        eventually(lambda: error_log.lines(logging.WARNING))
        assert "it speaks TLS to a port without TLS" in error_log.lines(logging.WARNING)[0]


class TestAccessLog:
    def test_default_text(self, spawn: Spawn) -> None:
        process = spawn(APP, "--no-use-colors")
        client = process.connect()
        client.request("/p%20q?x=1")
        host, port = client.sock.getsockname()
        process.wait_line("p%20q")
        assert process.out == [f'INFO:     {host}:{port} - "GET /p%20q?x=1 HTTP/1.1" 201 Created\n']

    def test_nothing_is_lost_at_exit(self, spawn: Spawn) -> None:
        process = spawn(APP)
        client = process.connect()
        for _ in range(200):
            client.request()
        process.signal()
        process.wait_exit()
        assert len(process.out) == 200

    def test_off(self, spawn: Spawn) -> None:
        process = spawn(APP, "--no-access-log")
        process.connect().request()
        process.signal()
        process.wait_exit()
        assert process.out == []

    def test_json_has_duration_and_bytes(self, spawn: Spawn) -> None:
        process = spawn(APP, "--access-log-format", "json")
        process.connect().request()
        process.wait_line("201")
        line = json.loads(process.out[0])
        assert (line["status"], line["bytes"]) == (201, 5)

    def test_line_comes_at_the_end(self, serve: Serve, access_records: Any) -> None:
        go = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await go.wait()
            await send({"type": "http.response.body", "body": b"done"})

        server = serve(application)
        client = server.connect()
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        client.read_until(b"begun")
        flush = lambda: server.in_loop(lambda: server.server.runtime.consumers[0].flush())  # noqa: E731
        flush()
        assert not access_records.records
        server.in_loop(go.set)
        client.read_until(b"0\r\n\r\n")
        eventually(lambda: (flush(), access_records.records)[1])
        (record,) = access_records.records
        assert record.args[1:] == ("GET", "/", "1.1", 200)
        assert record.body_bytes == 9

    def test_499_when_the_client_left_first(self, serve: Serve, access_records: Any) -> None:
        client = serve(hello).connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\na")
        client.close()
        eventually(lambda: access_records.records)
        assert [record.args[4] for record in access_records.records] == [499]

    def test_our_own_answers_are_there(self, serve: Serve, access_records: Any) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            raise KeyError("x")

        serve(application).get()
        eventually(lambda: access_records.records)
        assert [record.args[4] for record in access_records.records] == [500]

    def test_one_line_for_each_of_a_pipeline(self, serve: Serve, access_records: Any) -> None:
        client = serve(hello).connect()
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % number for number in range(5)))
        for _ in range(5):
            client.read_response()
        eventually(lambda: len(access_records.records) == 5)
        assert [record.args[2] for record in access_records.records] == [f"/{number}" for number in range(5)]
