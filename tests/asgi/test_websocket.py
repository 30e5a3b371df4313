"""The session over a fake handshake and a fake channel: the order of messages, and what ends it."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace.asgi.websocket import HIGH_WATER_BYTES, WebSocketSession
from headrace.errors import ASGIError, ClientDisconnected, LocalProtocolError
from headrace.protocol.events import RequestReceived
from live import PATIENCE_S
from task_runner import run_exchange

CONNECT = {"type": "websocket.connect"}


class FakeEngine:
    """An engine of HTTP and one of WebSocket; records what it is asked to encode."""

    def __init__(self) -> None:
        self.short: bytes | None = None
        self.calls: list[Any] = []
        self.out_bytes = 0
        self.has_unread = False

    def send_headers(
        self, stream_id: int, status: int, headers: Iterable[tuple[bytes, bytes]], has_body: bool
    ) -> None:
        self.calls.append(("headers", status))

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        self.calls.append(("data", data, end_stream))

    def drop_headers(self, stream_id: int) -> None:
        self.calls.append("drop")

    def send_error(self, stream_id: int, status: int, has_body: bool = True, fields: Any = ()) -> None:
        self.calls.append(("error", status))

    def short_text_frame(self, text: object) -> bytes | None:
        return self.short

    def short_binary_frame(self, data: object) -> bytes | None:
        return self.short

    def send_text(self, text: str) -> int:
        if text == "\ud800":
            raise LocalProtocolError("surrogate")
        self.calls.append(text)
        self.out_bytes += len(text)
        return self.out_bytes

    def send_bytes(self, data: bytes) -> int:
        self.calls.append(data)
        self.out_bytes += len(data)
        return self.out_bytes


class FakeTurn:
    """Whose head waits is not asked here."""

    current = held = None
    thread_id = threading.get_ident()

    def hold_head(self, exchange: Any) -> None:
        self.held = exchange


class FakeChannel:
    """Records what the session asks for; the stream of the handshake too."""

    def __init__(self) -> None:
        self.stream_id = 1
        self.engine = FakeEngine()
        self.turn = FakeTurn()
        self.is_writable = True
        self.is_flush_due = False
        self.is_draining = False
        self.told: list[Any] = []
        self.unread: list[Any] = []
        self.session: Any = None
        self.refuses = False

    def accept_websocket(self, session: Any, subprotocol: str | None, headers: Any) -> None:
        if self.refuses:
            raise ValueError("a field that cannot be sent")
        self.told.append(("accept", subprotocol, headers))
        session.open(self)

    def write(self, data: bytes) -> None:
        self.told.append(("write", data))

    def flush(self) -> None:
        self.is_flush_due = False
        self.engine.out_bytes = 0
        self.told.append("flush")

    def finish(self, exchange: Any, is_small: bool) -> None:
        self.flush()
        self.on_response_complete(exchange)

    def write_if_late(self) -> None:
        self.told.append("write if late")

    def flush_later(self) -> None:
        self.is_flush_due = True
        self.told.append("flush later")

    async def wait_writable(self) -> None:
        self.told.append("waited")

    def on_drained(self) -> None:
        self.told.append("drained")
        self.session.feed_messages(self.unread)
        self.engine.has_unread = False

    def close(self, code: int, reason: str) -> None:
        if code == 1006:
            raise LocalProtocolError("not this one")
        self.told.append(("close", code, reason))
        self.session.end(code, reason)

    def on_response_complete(self, exchange: Any) -> None:
        self.told.append("complete")

    def abort(self) -> None:
        self.told.append("abort")


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


def session_for(application: Any = nothing) -> tuple[WebSocketSession, FakeChannel]:
    channel = FakeChannel()
    event = RequestReceived(1, "GET", "/", b"/", b"", [], "1.1", True, False, b"websocket")
    scope = {"type": "websocket", "path": "/", "query_string": b"", "client": ("192.0.2.1", 5)}
    channel.session = WebSocketSession(application, channel, scope, event)
    return channel.session, channel


def run(awaitable: Awaitable[Any]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await awaitable

    return asyncio.run(main())


def receive_all(session: WebSocketSession) -> list[Any]:
    async def main() -> list[Any]:
        messages = [await session.receive()]
        while messages[-1]["type"] != "websocket.disconnect":
            messages.append(await session.receive())
        return messages

    messages: list[Any] = run(main())
    return messages


ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close", "code": 4000, "reason": "bye"}
TEXT = {"type": "websocket.send", "text": "hello"}
START = {"type": "websocket.http.response.start", "status": 404, "headers": []}
BODY = {"type": "websocket.http.response.body", "body": b"no"}
FOREIGN = {"type": "http.response.start", "status": 200}
MESSAGES = [ACCEPT, CLOSE, TEXT, START, BODY, FOREIGN]

STATES: dict[str, Callable[[WebSocketSession], Any]] = {
    "connecting": lambda session: None,
    "left": lambda session: session.disconnect(),
    "half closed": lambda session: session.half_close(),
    "refused": lambda session: session.send(CLOSE),
    "denial begun": lambda session: session.send(START),
    "denied": lambda session: (session.send(START), session.send(BODY)),
    "open": lambda session: session.send(ACCEPT),
    "closed by the application": lambda session: (session.send(ACCEPT), session.send(CLOSE)),
    "closed by the client": lambda session: (session.send(ACCEPT), session.end(1001)),
}

ALLOWED: dict[str, list[Any]] = {
    "connecting": [ACCEPT, CLOSE, START],
    "left": [START],
    "half closed": [START],
    "refused": [],
    "denial begun": [BODY],
    "denied": [],
    "open": [CLOSE, TEXT],
    "closed by the application": [],
    "closed by the client": [CLOSE],
}

GONE = {("left", "websocket.accept"), ("left", "websocket.close"), ("half closed", "websocket.accept")}
GONE |= {("half closed", "websocket.close"), ("closed by the client", "websocket.send")}
"""Where it is the client's doing that nothing can be sent: an OSError, as ASGI says."""


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message["type"])
@pytest.mark.parametrize("state", STATES)
def test_order(state: str, message: dict[str, Any]) -> None:
    session, _ = session_for()
    STATES[state](session)
    if message in ALLOWED[state]:
        run(session.send(message))
        return
    is_gone = (state, message["type"]) in GONE
    with pytest.raises(ClientDisconnected if is_gone else ASGIError) as raised:
        session.send(message)
    assert isinstance(raised.value, OSError if is_gone else RuntimeError)
    # The exchange names a message of a denial as its own.
    assert is_gone or f"'{message['type'].removeprefix('websocket.')}'" in str(raised.value).replace(
        "'websocket.", "'"
    )


class TestHandshake:
    def test_accept(self) -> None:
        session, channel = session_for()
        headers = [[b"x", bytearray(b"1")]]
        run(session.send({**ACCEPT, "subprotocol": "v1", "headers": headers}))
        assert channel.told == [("accept", "v1", [(b"x", b"1")])]
        assert channel.engine.calls == []

    @pytest.mark.parametrize(
        "more",
        [
            {"subprotocol": ""},
            {"subprotocol": "a b"},
            {"subprotocol": "é"},
            {"subprotocol": 5},
            {"headers": [(b"Connection", b"close")]},
            {"headers": [(b"sec-websocket-accept", b"x")]},
        ],
    )
    def test_a_bad_acceptance_can_be_mended(self, more: dict[str, Any]) -> None:
        session, channel = session_for()
        with pytest.raises(ASGIError):
            session.send({**ACCEPT, **more})
        run(session.send(ACCEPT))
        assert len(channel.told) == 1

    def test_a_field_that_cannot_be_sent(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "uvicorn.error")
        session, channel = session_for()
        channel.refuses = True
        with pytest.raises(ASGIError, match="cannot be sent"):
            session.send(ACCEPT)
        assert caplog.messages == []
        run(session.send(CLOSE))
        assert channel.engine.calls == [("headers", 403), ("data", b"", True)]
        assert caplog.messages == ['192.0.2.1:5 - "WebSocket /" 403']

    @pytest.mark.parametrize(
        ("lead", "expected"),
        [
            ([], [CONNECT]),
            ([CLOSE], [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]),
            ([START, BODY], [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]),
        ],
    )
    def test_receive(self, lead: list[Any], expected: list[Any]) -> None:
        session, _ = session_for()
        for message in lead:
            session.send(message)
        assert [run(session.receive())] == expected

    def test_client_leaves(self) -> None:
        session, _ = session_for()
        session.disconnect()
        session.half_close()
        assert receive_all(session) == [
            CONNECT,
            {"type": "websocket.disconnect", "code": 1006, "reason": ""},
        ]

    @pytest.mark.parametrize(
        ("lead", "calls"),
        [
            ([], ["drop", ("error", 500)]),
            ([START], [("headers", 404), "drop", ("error", 500)]),
            ([START, BODY], [("headers", 404), ("data", b"no", True)]),
            ([CLOSE], [("headers", 403), ("data", b"", True)]),
        ],
    )
    @pytest.mark.parametrize("raises", [False, True])
    def test_application_ends(self, lead: list[Any], calls: list[Any], raises: bool) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            for message in lead:
                await send(message)
            if raises:
                raise KeyError

        session, channel = session_for(application)
        asyncio.run(run_exchange(session))
        assert channel.engine.calls == calls

    @pytest.mark.parametrize("error", [None, ClientDisconnected("x"), OSError("y")])
    def test_application_ends_behind_a_client_that_sent_its_end(
        self, error: Exception | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            session.half_close()
            if error is not None:
                raise error

        session, channel = session_for(application)
        asyncio.run(run_exchange(session))
        # Else the connection would stay for ever.
        assert channel.told == ["abort"]
        assert [record for record in caplog.records if record.levelno > logging.INFO] == []

    def test_without_a_client_address(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "uvicorn.error")
        session, _ = session_for()
        session.scope.update(client=None, path="/é", query_string=b"a=%20")
        session.send(ACCEPT)
        assert caplog.messages == [' - "WebSocket /%C3%A9?a=%20" [accepted]']


def opened(application: Any = nothing) -> tuple[WebSocketSession, FakeChannel]:
    session, channel = session_for(application)
    session.messages.clear()
    session.send(ACCEPT)
    channel.told.clear()
    return session, channel


class TestReceive:
    def test_messages_in_order_then_the_end_for_ever(self) -> None:
        session, _ = opened()
        session.feed_messages(["a", b"b"])
        session.end(1001, "away")
        session.end(1006)
        messages = receive_all(session)
        end = {"type": "websocket.disconnect", "code": 1001, "reason": "away"}
        assert messages == [
            {"type": "websocket.receive", "text": "a"},
            {"type": "websocket.receive", "bytes": b"b"},
            end,
        ]
        assert run(session.receive()) == end
        assert session.is_over

    def test_asks_for_what_the_engine_holds_when_all_is_taken(self) -> None:
        session, channel = opened()
        session.feed_messages(["a", "b"])
        channel.engine.has_unread = True
        channel.unread = ["c"]
        taken = [run(session.receive())["text"] for _ in range(2)]
        assert (taken, channel.told) == (["a", "b"], [])
        assert run(session.receive())["text"] == "c"
        assert channel.told == ["drained"]

    def test_two_that_wait(self) -> None:
        async def main() -> list[Any]:
            waiting = [asyncio.ensure_future(session.receive()) for _ in range(2)]
            await asyncio.sleep(0)
            session.feed_messages(["a"])
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            session.feed_messages(["b"])
            return sorted([(await future)["text"] for future in waiting])

        session, _ = opened()
        assert asyncio.run(main()) == ["a", "b"]

    def test_one_that_is_cancelled_takes_nothing(self) -> None:
        async def main() -> Any:
            waiting = asyncio.ensure_future(session.receive())
            await asyncio.sleep(0)
            session.feed_messages(["a"])
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            return await session.receive()

        session, _ = opened()
        assert asyncio.run(main())["text"] == "a"

    def test_size_of_what_waits(self) -> None:
        session, _ = opened()
        session.feed_messages(["abc", b"", b"12345", ""])
        assert session.waiting_bytes == 8


class TestSend:
    def test_a_turn_is_flushed_once(self) -> None:
        session, channel = opened()
        for message in (TEXT, {"type": "websocket.send", "bytes": b"x", "text": None}, TEXT):
            run(session.send(message))
        assert channel.engine.calls == ["hello", b"x", "hello"]
        assert channel.told == ["flush later", "write if late", "write if late"]
        assert session.has_traffic

    @pytest.mark.parametrize(
        ("short", "told"), [(b"frame", [("write", b"frame")]), (None, ["flush"])], ids=["short", "long"]
    )
    def test_an_answer_on_its_own_goes_at_once(self, short: bytes | None, told: list[Any]) -> None:
        session, channel = opened()
        channel.engine.short = short
        session.feed_messages(["a"])
        run(session.receive())
        run(session.send(TEXT))
        assert channel.told == told
        assert session.has_traffic
        run(session.send(TEXT))
        assert channel.told == [*told, "flush later"]

    def test_an_answer_before_the_last_question_waits_for_the_others(self) -> None:
        session, channel = opened()
        channel.engine.short = b"frame"
        session.feed_messages(["a", "b"])
        run(session.receive())
        run(session.send(TEXT))
        assert channel.told == ["flush later"]

    def test_much_goes_at_once(self) -> None:
        session, channel = opened()
        run(session.send({"type": "websocket.send", "bytes": bytes(HIGH_WATER_BYTES)}))
        assert channel.told == ["flush later"]
        run(session.send({"type": "websocket.send", "bytes": b"x"}))
        assert channel.told == ["flush later", "flush"]

    def test_waits_for_the_client(self) -> None:
        session, channel = opened()
        channel.is_writable = False
        run(session.send(TEXT))
        assert channel.told == ["flush later", "waited"]

    @pytest.mark.parametrize(
        "message",
        [
            {"type": "websocket.send"},
            {"type": "websocket.send", "text": b"x"},
            {"type": "websocket.send", "text": "\ud800"},
            {"type": "websocket.close", "code": 1006},
        ],
    )
    def test_invalid(self, message: Any) -> None:
        session, channel = opened()
        with pytest.raises(ASGIError):
            session.send(message)
        run(session.send(TEXT))
        assert channel.told == ["flush later"]

    def test_close(self) -> None:
        session, channel = opened()
        session.feed_messages(["unread"])
        run(session.send({"type": "websocket.close", "reason": None}))
        assert channel.told == [("close", 1000, "")]
        # What the client had sent is not the application's any more.
        assert receive_all(session) == [{"type": "websocket.disconnect", "code": 1000, "reason": ""}]


class TestEnd:
    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (None, [("close", 1000, "")]),
            (ValueError("x"), [("close", 1011, "")]),
            (OSError("x"), [("close", 1011, "")]),
        ],
    )
    def test_of_the_application(
        self, error: Exception | None, told: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            channel.told.clear()
            if error is not None:
                raise error

        session, channel = session_for(application)
        asyncio.run(run_exchange(session))
        assert channel.told == told
        faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert [record.getMessage() for record in faults] == ["Exception in ASGI application\n"] * (
            error is not None
        )

    @pytest.mark.parametrize(
        ("error", "is_logged"), [(None, False), (ClientDisconnected("x"), False), (ValueError("x"), True)]
    )
    def test_of_the_application_behind_the_clients(
        self, error: Exception | None, is_logged: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            session.end(1001)
            channel.told.clear()
            if error is not None:
                raise error

        session, channel = session_for(application)
        asyncio.run(run_exchange(session))
        assert channel.told == []
        assert any(record.levelno >= logging.ERROR for record in caplog.records) is is_logged

    def test_by_cancellation(self) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send(ACCEPT)
            channel.told.clear()
            await asyncio.Event().wait()

        async def main() -> None:
            running = asyncio.create_task(run_exchange(session))
            while session.task is None:
                await asyncio.sleep(0)
            session.cancel("the server stops")
            await running

        session, channel = session_for(application)
        asyncio.run(main())
        assert channel.told == [("close", 1001, "")]
        assert receive_all(session)[-1]["code"] == 1001


def test_what_a_thread_sends_is_sent_where_it_is_awaited() -> None:
    session, channel = opened()
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(session.send, TEXT).result()
    assert channel.engine.calls == []
    run(sent)
    assert channel.engine.calls == ["hello"]
