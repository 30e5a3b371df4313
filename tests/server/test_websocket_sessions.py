"""Open WebSockets over sockets: messages, the end from each side, loss, broken peers, faulty applications."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace.errors import ClientDisconnected
from live import MIB, SHORT_S, LiveServer, Records, eventually
from websocket_client import (
    BINARY,
    CONTINUATION,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    Recorder,
    WebSocketClient,
    close_frame,
    connect,
    deflated,
    frame,
)

Serve = Callable[..., LiveServer]
Body = Callable[[Any, Any], Awaitable[None]]

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, MIB]


def accepted(body: Body) -> Any:
    """An application that accepts and goes on with ``body(receive, send)``."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await body(receive, send)

    return application


def gone(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


async def until_disconnect(receive: Any) -> list[Any]:
    """Everything to the end."""
    messages = [await receive()]
    while messages[-1]["type"] != "websocket.disconnect":
        messages.append(await receive())
    return messages


class TestMessages:
    @pytest.mark.parametrize("headers", [(), (DEFLATE,)])
    def test_every_size_comes_back(self, serve: Serve, headers: tuple[str, ...]) -> None:
        client = connect(serve(Recorder()), "/", *headers)
        for size in SIZES:
            client.send_bytes(b"\x00\xff" * (size // 2) + b"x" * (size % 2))
            client.send_text("é" * (size // 2) + "x" * (size % 2))
            assert client.read_message() == b"\x00\xff" * (size // 2) + b"x" * (size % 2)
            assert client.read_message() == "é" * (size // 2) + "x" * (size % 2)

    def test_compressed_ones_come_in(self, serve: Serve) -> None:
        client = connect(serve(Recorder()), "/", DEFLATE)
        client.send(frame(TEXT, deflated(b"abc" * 10_000), rsv=4) + frame(TEXT, b"plain"))
        assert client.read_message() == "abc" * 10_000
        assert client.read_message() == "plain"

    def test_many_in_one_segment_keep_their_order(self, serve: Serve) -> None:
        client = connect(serve(Recorder()))
        client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(3000)))
        assert [client.read_message() for _ in range(3000)] == [str(number) for number in range(3000)]

    def test_fragments_and_pings_in_one_segment(self, serve: Serve) -> None:
        client = connect(serve(Recorder()))
        parts = [
            frame(TEXT, "é".encode()[:1], fin=False),
            frame(PING, b"one"),
            frame(CONTINUATION, "é".encode()[1:], fin=False),
            frame(CONTINUATION, b"", fin=False),
            frame(PING, b"two"),
            frame(CONTINUATION, b"!"),
            frame(BINARY, b"next"),
        ]
        client.send(b"".join(parts))
        assert [client.read_frame() for _ in range(4)] == [
            (PONG, b"one"),
            (PONG, b"two"),
            (TEXT, "é!".encode()),
            (BINARY, b"next"),
        ]

    def test_byte_by_byte(self, serve: Serve) -> None:
        client = connect(serve(Recorder()))
        for byte in frame(TEXT, b"slow") + frame(BINARY, b"er" * 100):
            client.send(bytes([byte]))
        assert [client.read_message(), client.read_message()] == ["slow", b"er" * 100]

    def test_what_may_be_sent(self, serve: Serve) -> None:
        async def body(receive: Any, send: Any) -> None:
            data = bytearray(b"bytearray")
            await send({"type": "websocket.send", "bytes": data})
            data[:] = b"123456789"
            await send({"type": "websocket.send", "bytes": memoryview(b"memoryview"), "text": None})
            await send({"type": "websocket.send", "bytes": None, "text": "text"})
            await send({"type": "websocket.send", "bytes": b"", "text": None})

        client = connect(serve(accepted(body)))
        messages = [client.read_message() for _ in range(4)]
        assert messages == [b"bytearray", b"memoryview", "text", b""]

    @pytest.mark.parametrize(
        "message",
        [
            {"type": "websocket.send"},
            {"type": "websocket.send", "text": None, "bytes": None},
            {"type": "websocket.send", "text": b"bytes"},
            {"type": "websocket.send", "text": "\ud800"},
            {"type": "websocket.accept"},
            {"type": "websocket.http.response.start", "status": 403},
            {"type": "http.response.start", "status": 200},
            {"type": "websocket.close", "code": 999},
            {"type": "websocket.close", "code": 1004},
            {"type": "websocket.close", "code": 1006},
            {"type": "websocket.close", "code": 1015},
            {"type": "websocket.close", "code": 2999},
            {"type": "websocket.close", "code": 5000},
            {"type": "websocket.close", "code": 1008.0},
            {"type": "websocket.close", "code": "1008"},
            {"type": "websocket.close", "code": 1008, "reason": ValueError("bad token")},
            {"type": "websocket.close", "code": 1008, "reason": b"bytes"},
        ],
    )
    def test_what_may_not(self, serve: Serve, message: Any) -> None:
        async def body(receive: Any, send: Any) -> None:
            try:
                await send(message)
            except RuntimeError as error:
                await send({"type": "websocket.send", "text": str(error)})

        client = connect(serve(accepted(body)))
        assert len(str(client.read_message())) > 10
        assert client.read_close() == (1000, "")

    def test_a_cancelled_receive_loses_nothing(self, serve: Serve) -> None:
        async def body(receive: Any, send: Any) -> None:
            for _ in range(3):
                waiting = asyncio.ensure_future(receive())
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
            await send({"type": "websocket.send", "text": "ready"})
            received.extend(await until_disconnect(receive))

        received: list[Any] = []
        client = connect(serve(accepted(body)))
        assert client.read_message() == "ready"
        client.send(frame(TEXT, b"a") + frame(TEXT, b"b"))
        client.send_close()
        assert client.read_close() == (1000, "")
        assert eventually(lambda: received) == [
            {"type": "websocket.receive", "text": "a"},
            {"type": "websocket.receive", "text": "b"},
            gone(1000),
        ]

    def test_pings_are_answered_while_the_application_does_something_else(self, serve: Serve) -> None:
        async def body(receive: Any, send: Any) -> None:
            await go.wait()

        go = asyncio.Event()
        server = serve(accepted(body))
        client = connect(server)
        for payload in (b"", b"x" * 125):
            client.send(frame(PING, payload))
            assert client.read_frame() == (PONG, payload)
        server.in_loop(go.set)

    def test_pongs_that_nobody_asked_for_hold_nothing_up(self, serve: Serve) -> None:
        client = connect(serve(Recorder()))
        client.send(frame(PONG, b"x") * 1000 + frame(TEXT, b"behind"))
        assert client.read_message() == "behind"


class TestClosedByTheClient:
    @pytest.mark.parametrize(
        ("code", "reason", "told"),
        [
            (1000, b"", 1000),
            (1001, b"going", 1001),
            (3000, "é".encode() * 61, 3000),
            (4999, b"", 4999),
            (None, b"", 1005),
        ],
    )
    def test_code_and_reason(self, serve: Serve, code: int | None, reason: bytes, told: int) -> None:
        recorder = Recorder()
        client = connect(serve(recorder))
        client.send_close(code, reason)
        assert client.read_close() == (code, "")
        assert client.is_ended()
        assert eventually(lambda: recorder.received[1:]) == [gone(told, reason.decode())]

    def test_messages_before_it_come_first(self, serve: Serve) -> None:
        async def body(receive: Any, send: Any) -> None:
            await go.wait()
            received.extend(await until_disconnect(receive))

        go = asyncio.Event()
        received: list[Any] = []
        server = serve(accepted(body))
        client = connect(server)
        client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(100)) + close_frame(1001))
        server.in_loop(go.set)
        assert client.read_close() == (1001, "")
        eventually(lambda: received)
        assert [message.get("text") for message in received] == [*map(str, range(100)), None]
        assert received[-1] == gone(1001)

    def test_receive_repeats_the_end_and_send_raises(self, serve: Serve, error_log: Records) -> None:
        async def body(receive: Any, send: Any) -> None:
            seen.extend([await receive() for _ in range(3)])
            # Closing what is closed is what every clean-up does.
            await send({"type": "websocket.close", "code": 4000})
            try:
                await send({"type": "websocket.send", "text": "late"})
            except OSError as error:
                seen.append(error)
                raise

        seen: list[Any] = []
        client = connect(serve(accepted(body)))
        client.send_close(1001)
        assert client.read_close() == (1001, "")
        assert client.is_ended()
        eventually(lambda: len(seen) == 4)
        assert seen[:3] == [gone(1001)] * 3
        assert isinstance(seen[3], ClientDisconnected)
        assert error_log.lines(30) == []


class TestClosedByTheApplication:
    @pytest.mark.parametrize(
        ("message", "code", "reason"),
        [
            ({}, 1000, ""),
            ({"code": None, "reason": None}, 1000, ""),
            ({"code": 4001, "reason": "bye"}, 4001, "bye"),
            ({"code": 1012, "reason": None}, 1012, ""),
            ({"code": 1005, "reason": "dropped"}, None, ""),
            ({"reason": "x" * 124}, 1000, "x" * 123),
            ({"reason": "x" + "é" * 62}, 1000, "x" + "é" * 61),
            ({"reason": "xx" + "é" * 62}, 1000, "xx" + "é" * 60),
        ],
    )
    def test_code_and_reason(self, serve: Serve, message: Any, code: int | None, reason: str) -> None:
        async def body(receive: Any, send: Any) -> None:
            await send({"type": "websocket.close", **message})
            received.append(await receive())

        received: list[Any] = []
        client = connect(serve(accepted(body)))
        assert client.read_close() == (code, reason)
        client.send_close(code)
        assert client.is_ended()
        assert received[0]["type"] == "websocket.disconnect"
        assert received[0]["code"] == (message.get("code") or 1000)

    def test_what_was_sent_before_it_arrives(self, serve: Serve) -> None:
        async def body(receive: Any, send: Any) -> None:
            for _ in range(40):
                await send({"type": "websocket.send", "bytes": bytes(65_536)})
            await send({"type": "websocket.close"})

        client = connect(serve(accepted(body)))
        assert {client.read_message() for _ in range(40)} == {bytes(65_536)}
        assert client.read_close() == (1000, "")

    @pytest.mark.parametrize("kind", ["websocket.send", "websocket.close"])
    def test_nothing_follows(self, serve: Serve, kind: str) -> None:
        async def body(receive: Any, send: Any) -> None:
            await send({"type": "websocket.close"})
            try:
                await send({"type": kind, "text": "late"})
            except RuntimeError as error:
                errors.append(str(error))

        errors: list[str] = []
        client = connect(serve(accepted(body)))
        assert client.read_close() == (1000, "")
        client.send_close()
        assert client.is_ended()
        assert errors == [f"Unexpected ASGI message '{kind}', after sending 'websocket.close'."]

    def test_what_the_client_sends_meanwhile_is_dropped(self, serve: Serve) -> None:
        async def body(receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.close", "code": 4002})
            received.extend([await receive(), await receive()])

        received: list[Any] = []
        client = connect(serve(accepted(body)))
        client.send(frame(TEXT, b"a") + frame(BINARY, bytes(100_000)) * 40)
        assert client.read_close() == (4002, "")
        client.send(frame(TEXT, b"late") + frame(PING, b"alive"))
        assert client.read_frame() == (PONG, b"alive")
        client.send_close(1000)
        assert client.is_ended()
        assert received == [gone(4002)] * 2

    def test_both_at_once(self, serve: Serve) -> None:
        async def body(receive: Any, send: Any) -> None:
            await send({"type": "websocket.close", "code": 4003})
            ends.append(await receive())

        ends: list[Any] = []
        # The client's stands in the engine before the application's is sent.
        client = connect(serve(accepted(body)), behind=frame(TEXT, b"x") * 40 + close_frame(1001))
        assert client.read_close() == (4003, "")
        assert client.is_ended()
        assert ends == [gone(4003)]

    def test_a_client_that_does_not_answer(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("headrace.server.websocket.CLOSE_TIMEOUT_S", SHORT_S)

        async def body(receive: Any, send: Any) -> None:
            await send({"type": "websocket.close"})

        client = connect(serve(accepted(body), ws_send_timeout=SHORT_S))
        assert client.read_close() == (1000, "")
        client.send_text("I do not listen")
        assert client.is_ended()

    def test_a_reason_of_another_type_ends_it_all_the_same(self, serve: Serve, error_log: Records) -> None:
        async def body(receive: Any, send: Any) -> None:
            await send({"type": "websocket.close", "code": 1008, "reason": ValueError("bad token")})

        client = connect(serve(accepted(body)))
        assert client.read_close() == (1011, "")
        client.send_close(1011)
        assert client.is_ended()
        (record,) = [record for record in error_log.records if record.exc_info]
        assert "A close reason is a str" in str(record.exc_info[1])  # type: ignore[index]

    def test_an_end_without_a_deadline_gets_one(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("headrace.server.websocket.CLOSE_TIMEOUT_S", 1000.0)

        async def body(receive: Any, send: Any) -> None:
            await send({"type": "websocket.close"})

        server = serve(accepted(body), ws_send_timeout=SHORT_S)
        client = connect(server)
        assert client.read_close() == (1000, "")
        (channel,) = server.in_loop(lambda: list(server.server.runtime.connections))
        monkeypatch.setattr("headrace.server.websocket.CLOSE_TIMEOUT_S", SHORT_S)
        server.in_loop(lambda: setattr(channel, "_deadline", 0.0))
        assert client.is_ended()


class TestEndOfTheApplication:
    def test_returns(self, serve: Serve, error_log: Records) -> None:
        async def body(receive: Any, send: Any) -> None:
            await send({"type": "websocket.send", "text": "last words"})

        client = connect(serve(accepted(body)))
        assert client.read_message() == "last words"
        assert client.read_close() == (1000, "")
        client.send_close()
        assert client.is_ended()
        assert error_log.lines(30) == []

    def test_raises(self, serve: Serve, error_log: Records) -> None:
        async def body(receive: Any, send: Any) -> None:
            await send({"type": "websocket.send", "text": "last words"})
            raise ValueError("the reason")

        client = connect(serve(accepted(body)))
        assert client.read_message() == "last words"
        assert client.read_close() == (1011, "")
        client.send_close(1011)
        assert client.is_ended()
        (record,) = [record for record in error_log.records if record.exc_info]
        assert record.getMessage() == "Exception in ASGI application\n"
        assert "the reason" in str(record.exc_info[1])  # type: ignore[index]

    def test_raises_an_os_error_of_its_own(self, serve: Serve, error_log: Records) -> None:
        async def body(receive: Any, send: Any) -> None:
            raise ConnectionError("database")

        assert connect(serve(accepted(body))).read_close() == (1011, "")
        assert len([record for record in error_log.records if record.exc_info]) == 1


class TestLoss:
    @pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
    def test_1005_behind_what_came_before(self, serve: Serve, error_log: Records, leave: str) -> None:
        async def body(receive: Any, send: Any) -> None:
            received.append(await receive())
            await go.wait()
            received.extend(await until_disconnect(receive))
            received.append(await receive())
            await send({"type": "websocket.send", "text": "late"})

        go = asyncio.Event()
        received: list[Any] = []
        server = serve(accepted(body))
        client = connect(server)
        client.send(frame(TEXT, b"a") + frame(TEXT, b"b"))
        eventually(lambda: received)
        getattr(client, leave)()
        eventually(lambda: not server.server.runtime.connections)
        server.in_loop(go.set)
        eventually(lambda: not server.server.runtime.running)
        assert [message.get("text") for message in received] == ["a", "b", None, None]
        assert received[2:] == [gone(1005)] * 2
        assert error_log.lines(30) == []

    def test_more_than_the_queue_holds(self, serve: Serve, error_log: Records) -> None:
        async def body(receive: Any, send: Any) -> None:
            received.append(await receive())
            await go.wait()
            # Nothing is read while so much waits, so only a write finds out that the client is gone.
            await send({"type": "websocket.send", "text": "are you there?"})
            await gone_by.wait()
            received.extend(await until_disconnect(receive))

        go, gone_by = asyncio.Event(), asyncio.Event()
        received: list[Any] = []
        server = serve(accepted(body))
        client = connect(server)
        client.send(b"".join(frame(TEXT, b"%d" % number) for number in range(100)) + close_frame(1001))
        eventually(lambda: received)
        client.reset()
        server.in_loop(go.set)
        eventually(lambda: not server.server.runtime.connections)
        server.in_loop(gone_by.set)
        eventually(lambda: not server.server.runtime.running)
        assert [message.get("text") for message in received] == [*map(str, range(100)), None]
        assert received[-1] == gone(1001)
        assert error_log.lines(30) == []

    def test_wakes_who_waits_in_send(self, serve: Serve, error_log: Records) -> None:
        async def body(receive: Any, send: Any) -> None:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(MIB)})
                sent.append(1)

        sent: list[int] = []
        server = serve(accepted(body))
        client = connect(server)
        assert len(client.read_message()) == MIB
        (channel,) = server.in_loop(lambda: list(server.server.runtime.connections))
        eventually(lambda: not channel.is_writable)
        client.reset()
        eventually(lambda: not server.server.runtime.running)
        assert error_log.lines(30) == []


class TestBrokenPeers:
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (frame(TEXT, b"\xff"), 1007),
            (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"("), 1007),
            (close_frame(1000, b"\xff"), 1007),
            (frame(TEXT, b"x", mask=None), 1002),
            (frame(0x3, b""), 1002),
            (frame(TEXT, b"x", rsv=2), 1002),
            (frame(TEXT, b"x", rsv=4), 1002),
            (frame(CONTINUATION, b"x"), 1002),
            (frame(PING, b"x", fin=False), 1002),
            (close_frame(1005), 1002),
            (b"\x88\x81\x00\x00\x00\x00\x00", 1002),
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 1002),
            (frame(BINARY, bytes(1001)), 1009),
            (frame(TEXT, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 401), 1009),
        ],
    )
    def test_codes(self, serve: Serve, error_log: Records, data: bytes, code: int) -> None:
        recorder = Recorder()
        client = connect(serve(recorder, ws_max_size=1000))
        client.send_text("good")
        assert client.read_message() == "good"
        client.send(data)
        sent, reason = client.read_close()
        assert sent == code
        assert reason
        assert client.is_ended()
        assert eventually(lambda: recorder.received[2:]) == [gone(code, reason)]
        assert error_log.lines(30) == []

    def test_too_big_when_decompressed(self, serve: Serve) -> None:
        recorder = Recorder()
        client = connect(serve(recorder, ws_max_size=1000), "/", DEFLATE)
        client.send(frame(BINARY, deflated(bytes(1000)), rsv=4))
        assert client.read_message() == bytes(1000)
        client.send(frame(BINARY, deflated(bytes(1001)), rsv=4))
        assert client.read_close()[0] == 1009
        assert eventually(lambda: recorder.received[2:])[0]["code"] == 1009

    def test_corrupt_compression(self, serve: Serve) -> None:
        client = connect(serve(Recorder()), "/", DEFLATE)
        client.send(frame(BINARY, b"\xff\xff\xff\xff", rsv=4))
        assert client.read_close()[0] == 1007

    def test_the_largest_passes(self, serve: Serve) -> None:
        client = connect(serve(Recorder(), ws_max_size=1000))
        client.send_bytes(bytes(1000))
        assert client.read_message() == bytes(1000)

    def test_who_still_sends_reads_the_close(self, serve: Serve) -> None:
        client = connect(serve(Recorder(), ws_max_size=1000))
        client.send(frame(BINARY, bytes(20 * MIB)))
        assert client.read_close()[0] == 1009


class TestContext:
    def test_variables_stay_in_their_session(self, serve: Serve) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

        async def body(receive: Any, send: Any) -> None:
            while (message := await receive())["type"] == "websocket.receive":
                before = variable.get()
                variable.set(message["text"])
                await send({"type": "websocket.send", "text": before})

        server = serve(accepted(body))
        clients = [connect(server) for _ in range(2)]

        def say(client: WebSocketClient, text: str) -> str | bytes:
            client.send_text(text)
            return client.read_message()

        assert [say(clients[0], "a"), say(clients[1], "b"), say(clients[0], "c")] == ["unset", "unset", "a"]
        assert say(connect(server), "d") == "unset"


def test_a_close_is_seen_behind_messages_that_nobody_took(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that only the client's own Close can end the connection in time.
    monkeypatch.setattr("headrace.server.websocket.CLOSE_TIMEOUT_S", 1000.0)

    async def body(receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "text": "enough"})

    client = connect(serve(accepted(body)), behind=frame(TEXT, b"x") * 100)
    assert client.read_frame() == (TEXT, b"enough")
    assert client.read_close() == (1000, "")
    client.send(frame(TEXT, b"y") * 1000 + close_frame(1000))
    assert client.is_ended()
