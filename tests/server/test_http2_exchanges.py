"""Responses over HTTP/2: their fields, faults of the application, and clients that leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

import http2_client as h
from headrace.protocol import http2
from http2_client import HTTP2Client, Received, connect, data_frame, reset_frame
from live import MIB, LiveServer, eventually, read_body, respond

pytestmark = pytest.mark.skipif(not http2.is_available, reason="the extra http2 is not installed")

Serve = Callable[..., LiveServer]


class TestResponseFields:
    def answering(self, serve: Serve, fields: Any, **options: Any) -> HTTP2Client:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"abc", headers=fields)

        return connect(serve(application, **options))

    def test_defaults(self, serve: Serve) -> None:
        received = self.answering(serve, [(b"X-A", b"b")], headers=(("X-B", "c"),)).get()
        assert [name for name, _ in received.headers] == [":status", "date", "server", "x-b", "x-a"]
        assert received.get("server") == "headrace"

    def test_own_date_and_server(self, serve: Serve) -> None:
        received = self.answering(serve, [(b"Server", b"x"), (b"Date", b"now")]).get()
        assert (received.get("server"), received.get("date")) == ("x", "now")

    def test_without_them(self, serve: Serve) -> None:
        received = self.answering(serve, [], server_header=False, date_header=False).get()
        assert received.headers == [(":status", "200")]

    def test_of_the_connection_are_left_out(self, serve: Serve) -> None:
        fields = [
            (b"Connection", b"close"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Upgrade", b"x"),
            (b"Proxy-Connection", b"close"),
            (b"x", b" y "),
        ]
        client = self.answering(serve, fields)
        received = client.get()
        assert received.headers[3:] == [("x", "y")]
        assert received.body == b"abc"
        # They are remembered, and left out again.
        assert client.get().headers[3:] == [("x", "y")]

    @pytest.mark.parametrize(
        "field", [(b"x", b"a\r\nb: c"), (b"x\n", b"a"), (b"x", b"a\0"), (b"x y", b"a"), (b"", b"a")]
    )
    def test_that_cannot_be_sent(self, serve: Serve, error_log: Any, field: tuple[bytes, bytes]) -> None:
        client = self.answering(serve, [field])
        assert client.get().status == 500
        eventually(lambda: [line for line in error_log.lines(logging.ERROR) if "Exception in ASGI" in line])

    def test_large_head(self, serve: Serve) -> None:
        fields = [(b"x-%d" % number, b"v" * 1000) for number in range(300)]
        client = self.answering(serve, fields)
        client._decoder.max_header_list_size = MIB
        received = client.get()
        assert (received.status, received.body, received.is_ended) == (200, b"abc", True)
        assert received.headers[3:] == [(name.decode(), value.decode()) for name, value in fields]

    def test_as_lists(self, serve: Serve) -> None:
        assert self.answering(serve, [[b"x", b"y"]]).get().get("x") == "y"


class TestFaults:
    """A fault of one stream's application is that stream's alone."""

    def beside(self, serve: Serve, faulty: Any) -> Received:
        """The response of ``/`` to a fault, while another stream is held over it.

        The fault may wait for its third argument: until the client has what was sent before.
        """
        go = asyncio.Event()
        has_left = asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/other":
                await go.wait()
                await respond(send, b"whole")
            else:
                await faulty(receive, send, has_left.wait)

        server = serve(application)
        client = connect(server)
        other = client.start(b"/other")
        faulty_stream = client.start()
        received = client.stream(faulty_stream)
        client.wait(lambda: received.status > 0 or received.reset is not None)
        server.in_loop(has_left.set)
        client.response(faulty_stream)
        server.in_loop(go.set)
        assert client.response(other).body == b"whole"
        assert not client.goaways
        return received

    def test_raises_before_the_head(self, serve: Serve, error_log: Any) -> None:
        async def faulty(receive: Any, send: Any, has_left: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            raise ValueError("mine")

        received = self.beside(serve, faulty)
        assert (received.status, received.body, received.is_ended) == (500, b"Internal Server Error", True)
        assert received.get("connection") is None
        assert [line for line in error_log.lines(logging.ERROR) if "Exception in ASGI" in line]

    def test_raises_behind_the_head(self, serve: Serve) -> None:
        async def faulty(receive: Any, send: Any, has_left: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
            await has_left()
            raise ValueError("mine")

        received = self.beside(serve, faulty)
        assert (received.status, received.reset, received.is_ended) == (200, h.INTERNAL_ERROR, False)
        assert received.body == b"abc"

    def test_raises_in_the_turn_of_the_head(self, serve: Serve) -> None:
        async def faulty(receive: Any, send: Any, has_left: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
            raise ValueError("mine")

        received = self.beside(serve, faulty)
        assert (received.reset, received.is_ended) == (h.INTERNAL_ERROR, False)

    def test_returns_without_an_answer(self, serve: Serve) -> None:
        async def faulty(receive: Any, send: Any, has_left: Any) -> None:
            return

        assert self.beside(serve, faulty).status == 500

    @pytest.mark.parametrize("rest", [b"b", b"bcd"])
    def test_length_that_is_not_kept(self, serve: Serve, rest: bytes) -> None:
        raised: list[BaseException] = []

        async def faulty(receive: Any, send: Any, has_left: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await has_left()
            try:
                await send({"type": "http.response.body", "body": rest})
            except RuntimeError as error:
                raised.append(error)

        received = self.beside(serve, faulty)
        assert (received.status, received.body, received.reset) == (200, b"a", h.INTERNAL_ERROR)
        assert "Content-Length" in str(raised[0])

    def test_answer_before_the_body_has_come(self, serve: Serve) -> None:
        # RFC 9113 §8.1: the rest is not wanted, and NO_ERROR says that it did not fail.
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"enough")

        client = connect(serve(application))
        stream_id = client.start(method=b"POST", end_stream=False)
        client.send(data_frame(stream_id, b"abc"))
        received = client.response(stream_id)
        client.wait(lambda: received.reset is not None)
        assert (received.status, bytes(received.body), received.reset) == (200, b"enough", h.NO_ERROR)
        assert client.get().status == 200


class TestClientsThatLeave:
    def waiting(self, told: list[Any]) -> Any:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/":
                await respond(send)
                return
            try:
                await read_body(receive)
                told.append(await receive())
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append("cancelled")
                raise

        return application

    def test_reset_in_the_middle(self, serve: Serve, access_records: Any) -> None:
        told: list[Any] = []
        server = serve(self.waiting(told), timeout_graceful_shutdown=0.1)
        client = connect(server)
        stream_id = client.start(b"/wait")
        eventually(lambda: server.server.runtime.running)
        client.send(reset_frame(stream_id))
        eventually(lambda: told)
        assert told == [{"type": "http.disconnect"}]
        assert client.get().status == 200
        eventually(lambda: len(access_records.lines()) == 2)
        assert access_records.lines()[0].endswith('"GET /wait HTTP/2" 499')

    def test_reset_in_the_body(self, serve: Serve) -> None:
        got: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            got.append(await receive())
            got.append(await receive())

        client = connect(serve(application))
        stream_id = client.start(method=b"POST", end_stream=False)
        client.send(data_frame(stream_id, b"abc"))
        eventually(lambda: got)
        client.send(reset_frame(stream_id))
        eventually(lambda: len(got) == 2)
        assert [message["type"] for message in got] == ["http.request", "http.disconnect"]

    def test_cancelled_when_asked_for(self, serve: Serve) -> None:
        told: list[Any] = []
        server = serve(self.waiting(told), on_disconnect="cancel")
        client = connect(server)
        stream_id = client.start(b"/wait", b"POST", end_stream=False)
        eventually(lambda: server.server.runtime.running)
        client.send(reset_frame(stream_id))
        eventually(lambda: "cancelled" in told)
        assert client.get().status == 200

    @pytest.mark.parametrize("how", ["close", "end"])
    def test_end_of_the_connection(self, serve: Serve, how: str) -> None:
        told: list[Any] = []
        server = serve(self.waiting(told), on_disconnect="cancel")
        client = connect(server)
        for _ in range(5):
            client.start(b"/wait", b"POST", end_stream=False)
        eventually(lambda: len(server.server.runtime.running) == 5)
        if how == "close":
            client.close()
        else:
            client.sock.shutdown(1)
        eventually(lambda: not server.server.runtime.running and not server.server.runtime.connections)
        assert told == ["cancelled"] * 5

    def test_send_behind_it_does_nothing(self, serve: Serve, error_log: Any) -> None:
        done: list[bool] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            await respond(send, bytes(MIB))
            done.append(True)

        client = connect(serve(application))
        client.send(reset_frame(client.start(method=b"POST", end_stream=False)))
        stream_id = client.start(method=b"POST", end_stream=False)
        client.round_trip()
        client.send(reset_frame(stream_id))
        eventually(lambda: done)
        assert not error_log.lines(logging.ERROR)
