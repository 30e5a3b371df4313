"""Requests and responses as a client sees them: framing, order, 1xx, half-closed clients, refusals."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from live import MIB, SHORT_S, LiveServer, eventually, numbered, read_body, respond

Serve = Callable[..., LiveServer]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with method, path and body."""
    body = await read_body(receive)
    await respond(send, f"{scope['method']} {scope['path']} ".encode() + body)


async def in_pieces(scope: Any, receive: Any, send: Any) -> None:
    """Streams two pieces, without a length."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"one ", "more_body": True})
    await send({"type": "http.response.body", "body": b"two"})


async def unread(scope: Any, receive: Any, send: Any) -> None:
    """Answers without reading the body."""
    await respond(send, scope["path"].encode())


class TestConnections:
    def test_keep_alive(self, serve: Serve) -> None:
        client = serve(echo).connect()
        for number in range(3):
            assert client.request(f"/{number}").body == f"GET /{number} ".encode()

    def test_defaults_stand_first(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"x", headers=[(b"X-Upper", b"1")])

        response = serve(application).get()
        assert [name for name, _ in response.headers] == ["date", "server", "x-upper", "content-length"]
        assert response.get("server") == "headrace"

    def test_pipelined_in_order(self, serve: Serve) -> None:
        async def slow_first(scope: Any, receive: Any, send: Any) -> None:
            for _ in range(5 if scope["path"] == "/0" else 0):
                await asyncio.sleep(0)
            await respond(send, scope["path"].encode())

        client = serve(slow_first).connect()
        client.send(b"".join(numbered("/", 10)))
        assert [client.read_response().body for _ in range(10)] == [f"/{n}".encode() for n in range(10)]

    def test_pipelined_behind_a_body(self, serve: Serve) -> None:
        client = serve(echo).connect()
        post = b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"
        client.send(post + b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n")
        assert [client.read_response().body for _ in range(2)] == [b"POST /a abc", b"GET /b "]

    def test_byte_by_byte(self, serve: Serve) -> None:
        client = serve(echo).connect()
        for byte in b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
            client.send(bytes([byte]))
        assert client.read_response().body == b"POST /a abc"

    @pytest.mark.parametrize("header", ["connection: close", "Connection: Close, x"])
    def test_client_says_close(self, serve: Serve, header: str) -> None:
        client = serve(echo).connect()
        assert client.request(headers=[header]).get("connection") == "close"
        assert client.is_ended()

    def test_application_says_close(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"x", headers=[(b"connection", b"close")])

        client = serve(application).connect()
        assert client.request().get("connection") == "close"
        assert client.is_ended()

    def test_http_1_0(self, serve: Serve) -> None:
        client = serve(in_pieces).connect()
        client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        response = client.read_response()
        # No chunks for a client that cannot know them: the body ends with the connection.
        assert response.get("transfer-encoding") is None
        assert response.get("connection") == "close"
        assert response.body == b"one two"

    def test_empty_lines_before_a_request(self, serve: Serve) -> None:
        assert serve(echo).exchange(b"\r\n\r\nGET /a HTTP/1.1\r\nhost: a\r\n\r\n").body == b"GET /a "

    def test_reset_in_the_middle(self, serve: Serve) -> None:
        server = serve(echo)
        client = server.connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc")
        client.reset()
        assert server.get("/next").body == b"GET /next "


class TestBodies:
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_streamed_is_chunked(self, serve: Serve, method: str) -> None:
        client = serve(in_pieces).connect()
        response = client.request(method=method)
        assert response.get("transfer-encoding") == "chunked"
        assert response.get("content-length") is None
        assert response.body == b"one two"
        assert client.request().body == b"one two"

    @pytest.mark.parametrize("application", [echo, in_pieces])
    def test_head_has_no_body(self, serve: Serve, application: Any) -> None:
        client = serve(application).connect()
        client.send(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert client.read_response("HEAD").status == 200
        assert client.read_response().status == 200

    @pytest.mark.parametrize("status", [204, 304])
    def test_status_without_body(self, serve: Serve, status: int) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"not to be seen", status)

        client = serve(application).connect()
        for _ in range(2):
            response = client.request()
            assert response.status == status
            assert response.get("transfer-encoding") is None
            assert response.get("content-length") is None

    def test_chunked_request(self, serve: Serve) -> None:
        head = b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        assert (
            serve(echo).exchange(head + b"3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n").body == b"POST /a abcdefg"
        )

    def test_trailers_of_a_request(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            messages = [await receive()]
            while messages[-1]["more_body"]:
                messages.append(await receive())
            await respond(send, repr(messages[-1].get("headrace.trailers")).encode())

        head = b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        response = serve(application).exchange(head + b"3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n")
        assert response.body == b"[(b'x-sum', b'9')]"

    @pytest.mark.parametrize("more", [b"piece", b""])
    def test_trailers_of_a_response(self, serve: Serve, more: bytes) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "trailers": True})
            await send({"type": "http.response.body", "body": more, "more_body": True})
            await send({"type": "http.response.body"})
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"9")]})

        client = serve(application).connect()
        for _ in range(2):
            response = client.request()
            assert (response.body, response.trailers) == (more, [("x-sum", "9")])

    def test_whole_large_body_is_one_length(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"x" * (3 * MIB))

        response = serve(application).get()
        assert response.get("content-length") == str(3 * MIB)
        assert len(response.body) == 3 * MIB


class TestContinue:
    HEAD = b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n"

    def test_sent_when_the_application_reads(self, serve: Serve) -> None:
        client = serve(echo).connect()
        client.send(self.HEAD)
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
        assert client.read_response().body == b"POST /a abc"
        assert client.request("/b").body == b"GET /b "

    def test_not_sent_when_nobody_reads(self, serve: Serve) -> None:
        client = serve(unread).connect()
        client.send(self.HEAD)
        response = client.read_response()
        # Whether the body still comes is open, so the connection cannot be used again.
        assert (response.status, response.get("connection")) == (200, "close")
        client.half_close()
        assert client.is_ended()

    def test_not_sent_when_the_body_is_there(self, serve: Serve) -> None:
        assert serve(echo).exchange(self.HEAD + b"abc").status == 200

    def test_not_for_http_1_0(self, serve: Serve) -> None:
        client = serve(echo).connect()
        client.send(self.HEAD.replace(b"1.1", b"1.0"))
        client.send(b"abc")
        assert client.read_response().status == 200


def test_early_hints(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert "http.response.early_hint" in scope["extensions"]
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await respond(send, b"done")

    server = serve(application)
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    hint = client.read_response()
    assert (hint.status, hint.headers) == (103, [("link", "</a.css>; rel=preload")])
    assert client.read_response().body == b"done"
    assert server.exchange(b"GET / HTTP/1.0\r\n\r\n").status == 200


def test_head_leaves_before_the_first_body(serve: Serve) -> None:
    held = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await held.wait()
        await send({"type": "http.response.body", "body": b"late"})

    server = serve(application)
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert b" 200 " in client.read_until(b"\r\n\r\n")
    server.in_loop(held.set)
    assert b"late" in client.read_until(b"0\r\n\r\n")


def test_absolute_form(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        host = dict(scope["headers"])[b"host"]
        await respond(send, b"|".join((scope["path"].encode(), scope["query_string"], host)))

    request = b"GET http://b.test:81/p?q=1 HTTP/1.1\r\nhost: a.test\r\n\r\n"
    assert serve(application).exchange(request).body == b"/p|q=1|b.test:81"


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "x"])
def test_upgrade_is_ignored_and_the_body_kept(serve: Serve, protocol: str) -> None:
    client = serve(echo).connect()
    head = f"POST /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n"
    client.send(head.encode() + b"content-length: 3\r\n\r\nabc")
    assert client.read_response().body == b"POST /a abc"
    client.send(b"GET /b HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
    assert client.read_response().body == b"GET /b "
    assert client.request("/c").body == b"GET /c "


class TestClientsThatLeave:
    def test_half_closed_is_answered(self, serve: Serve) -> None:
        got: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            body = await read_body(receive)
            got.append((await receive())["type"])
            await respond(send, body)

        client = serve(application).connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc")
        client.half_close()
        assert client.read_response().body == b"abc"
        assert client.is_ended()
        assert got == ["http.disconnect"]

    def test_half_closed_with_pipelined_requests(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await read_body(receive)
            assert (await receive())["type"] == "http.disconnect"
            await respond(send, scope["path"].encode())

        client = serve(application).connect()
        client.send(b"".join(numbered("/", 3)))
        client.half_close()
        assert [client.read_response().body for _ in range(3)] == [b"/0", b"/1", b"/2"]
        assert client.is_ended()

    def test_half_closed_in_the_body(self, serve: Serve) -> None:
        got: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            got.append(await read_body(receive))
            got.append(await receive())
            await respond(send, b"nobody reads this")

        client = serve(application).connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab")
        client.half_close()
        assert client.is_ended()
        eventually(lambda: len(got) == 2)
        assert got[-1] == {"type": "http.disconnect"}

    def test_half_closed_in_the_head(self, serve: Serve) -> None:
        client = serve(echo).connect()
        client.send(b"GET / HT")
        client.half_close()
        assert client.is_ended()

    def test_receive_after_the_response(self, serve: Serve) -> None:
        got: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"x")
            got.append(await receive())

        assert serve(application).get().body == b"x"
        eventually(lambda: got)
        assert got == [{"type": "http.disconnect"}]


class TestUnreadBodies:
    def test_rest_is_dropped_and_the_connection_kept(self, serve: Serve) -> None:
        client = serve(unread).connect()
        client.send(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")
        assert client.read_response().body == b"/a"
        client.send(b"x" * 100_000)
        assert client.request("/b").body == b"/b"

    def test_rest_of_chunks_is_dropped(self, serve: Serve) -> None:
        client = serve(unread).connect()
        client.send(b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab")
        assert client.read_response().body == b"/a"
        client.send(b"c\r\n0\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n")
        assert client.read_response().body == b"/b"

    def test_connection_is_idle_behind_it(self, serve: Serve) -> None:
        # The timer that runs is that of the next request, not that of the body.
        client = serve(unread, timeout_keep_alive=0.05, timeout_body=0).connect()
        client.send(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n")
        assert client.read_response().body == b"/a"
        client.send(b"abc")
        assert client.is_ended()

    def test_too_much_of_known_length_closes(self, serve: Serve) -> None:
        client = serve(unread).connect()
        client.send(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (2 * MIB))
        response = client.read_response()
        assert (response.body, response.is_whole) == (b"/a", True)
        assert client.is_ended()

    def test_too_many_chunks_close(self, serve: Serve) -> None:
        client = serve(unread, timeout_body=0).connect()
        client.send(b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        assert client.read_response().body == b"/a"
        client.send(b"%x\r\n" % (2 * MIB))
        client.send(b"x" * (MIB + 1))
        assert client.is_ended()

    def test_client_that_still_sends_reads_the_answer(self, serve: Serve) -> None:
        client = serve(unread).connect()
        client.send(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (20 * MIB))
        for _ in range(20):
            client.send(b"x" * MIB)
        assert client.read_response().body == b"/a"


REFUSED = [
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nhost: a\r\nbad name: x\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
    (413, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1001\r\n\r\n"),
    (414, b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % (b"x" * 600)),
    (414, b"GET /" + b"x" * 600),
    (417, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: tea\r\n\r\n"),
    (431, b"GET / HTTP/1.1\r\nhost: a\r\nx: %b\r\n\r\n" % (b"x" * 1100)),
    (431, b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: 1\r\n" * 10 + b"\r\n"),
    (501, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n"),
    (400, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n"),
    (501, b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n"),
    (501, b"BREW / HTTP/1.1\r\nhost: a\r\n\r\n"),
    (505, b"GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
    (505, b"GET / HTTP/3.1\r\nhost: a\r\n\r\n"),
]


@pytest.mark.parametrize(("status", "request_bytes"), REFUSED)
def test_refused_before_the_application(serve: Serve, status: int, request_bytes: bytes) -> None:
    called: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope["path"])

    server = serve(
        application,
        limit_request_line=512,
        limit_request_head=1024,
        limit_request_fields=8,
        limit_request_body=1000,
    )
    client = server.connect()
    client.send(request_bytes)
    response = client.read_response()
    assert response.status == status
    assert response.get("connection") == "close"
    assert response.get("content-type") == "text/plain; charset=utf-8"
    assert client.is_ended()
    assert not called


class TestTooLargeBodies:
    LIMIT = {"limit_request_body": 1000}

    def test_declared_while_the_client_still_sends(self, serve: Serve) -> None:
        client = serve(echo, **self.LIMIT).connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (20 * MIB))
        for _ in range(20):
            client.send(b"x" * MIB)
        response = client.read_response()
        assert (response.status, response.is_whole) == (413, True)

    def test_chunked_while_the_client_still_sends(self, serve: Serve, error_log: Any) -> None:
        client = serve(echo, **self.LIMIT).connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(20):
            client.send(b"%x\r\n" % MIB + b"x" * MIB + b"\r\n")
        response = client.read_response()
        assert (response.status, response.is_whole) == (413, True)
        # The application was told, and what it sent then was dropped: the client's fault is no error of ours.
        assert not [line for line in error_log.lines() if "Exception" in line]

    def test_behind_the_head_of_the_response(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await read_body(receive)
            await send({"type": "http.response.body", "body": b"not to be seen"})

        client = serve(application, **self.LIMIT).connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        assert b"begun" in client.read_until(b"begun\r\n")
        client.send(b"%x\r\n" % 2000 + b"x" * 2000 + b"\r\n")
        # Too late for 413: the response is cut, without its last chunk.
        assert client.is_ended()

    def test_behind_the_head_of_a_response_that_ends_with_the_connection(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await read_body(receive)

        client = serve(application, timeout_body=SHORT_S).connect()
        client.send(b"POST / HTTP/1.0\r\ncontent-length: 9\r\n\r\n")
        assert client.read_until(b"begun")
        # A clean end would say that "begun" was all.
        with pytest.raises(ConnectionResetError):
            client.sock.recv(1)

    def test_just_fits(self, serve: Serve) -> None:
        assert serve(echo, **self.LIMIT).connect().request(method="POST", body=b"x" * 1000).status == 200


def test_bad_request_behind_a_good_one(serve: Serve) -> None:
    client = serve(echo).connect()
    client.send(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\nNONSENSE\r\n\r\n")
    assert client.read_response().body == b"GET /a "
    assert client.read_response().status == 400
    assert client.is_ended()


def test_bad_chunk_behind_the_first(serve: Serve) -> None:
    client = serve(echo).connect()
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    client.send(b"not a size\r\n")
    assert client.read_response().status == 400
    assert client.is_ended()
