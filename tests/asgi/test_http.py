"""The exchange over a fake stream: the order of messages, against the table that is its theory."""

import asyncio
import logging
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asgiref.sync
import pytest

from headrace.asgi.http import HTTPExchange
from headrace.asgi.response_state import MESSAGES, ResponseState
from headrace.errors import ASGIError, RemoteProtocolError
from headrace.protocol.events import RequestReceived
from task_runner import run_exchange

STATES = list(ResponseState)
KINDS = sorted({kind for _, kind in MESSAGES} | {"http.response.nonsense", "http.request", "websocket.send"})


class FakeEngine:
    """Records what it is asked to encode."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def send_headers(
        self, stream_id: int, status: int, headers: Iterable[tuple[bytes, bytes]], has_body: bool
    ) -> int | None:
        self.calls.append(("headers", status, has_body))
        lengths = [int(value) for name, value in headers if name == b"content-length"]
        return lengths[0] if lengths else None

    def drop_headers(self, stream_id: int) -> None:
        self.calls.append("drop")

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        self.calls.append(("data", data, end_stream))

    def send_trailers(self, stream_id: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.calls.append(("trailers", list(headers)))

    def send_informational(self, stream_id: int, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.calls.append(("informational", status, list(headers)))

    def send_continue(self, stream_id: int) -> None:
        self.calls.append("continue")

    def send_error(self, stream_id: int, status: int, has_body: bool = True, fields: Any = ()) -> None:
        self.calls.append(("error", status))


class FakeTurn:
    """Records whose head waits."""

    def __init__(self) -> None:
        self.current = self.held = None
        self.thread_id = threading.get_ident()

    def hold_head(self, exchange: Any) -> None:
        self.held = exchange


class FakeStream:
    """Records what it is told."""

    def __init__(self) -> None:
        self.stream_id = 1
        self.engine = FakeEngine()
        self.is_writable = True
        self.is_draining = False
        self.told: list[str] = []
        self.turn = FakeTurn()
        self.file_bytes: int | None = None

    def flush(self) -> None:
        pass

    def finish(self, exchange: Any, is_small: bool) -> None:
        self.on_response_complete(exchange)

    async def wait_writable(self) -> None:
        self.told.append("waited")

    def on_consumed(self) -> None:
        self.told.append("consumed")

    def on_body_wanted(self) -> None:
        self.told.append("wanted")

    def on_response_complete(self, exchange: Any) -> None:
        self.told.append("complete")

    async def send_file(self, file: int, offset: int, count: int) -> int:
        return count if self.file_bytes is None else self.file_bytes

    def abort(self) -> None:
        self.told.append("abort")


def in_a_thread(function: Callable[[], Any]) -> Any:
    """What a function gives that another thread calls."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function).result()


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


def exchange_for(
    application: Any = nothing, method: str = "GET", end_stream: bool = True
) -> tuple[HTTPExchange, FakeStream]:
    stream = FakeStream()
    event = RequestReceived(1, method, "/", b"/", b"", [], "1.1", end_stream, False, b"")
    return HTTPExchange(application, stream, {"method": method}, event), stream


def run(awaitable: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await awaitable

    return asyncio.run(main())


def message(kind: str, tmp_path: Path, more: bool) -> dict[str, Any]:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    more_facts: dict[str, dict[str, Any]] = {
        "http.response.start": {"status": 200, "trailers": True},
        "http.response.body": {"body": b"x", "more_body": more},
        "http.response.pathsend": {"path": str(path)},
        "http.response.early_hint": {"links": [b"</a>"]},
    }
    return {"type": kind, **more_facts.get(kind, {})}


def exchange_in(state: ResponseState, tmp_path: Path) -> HTTPExchange:
    """Bring an exchange into a state by the messages that lead there."""
    exchange, _ = exchange_for()
    ways = {
        ResponseState.EXPECT_START: [],
        ResponseState.HEAD_HELD: [("http.response.start", False)],
        ResponseState.BODY: [("http.response.start", False)],
        ResponseState.TRAILERS: [("http.response.start", False), ("http.response.body", False)],
        ResponseState.COMPLETE: [
            ("http.response.start", False), ("http.response.body", False), ("http.response.trailers", False),
        ],
    }  # fmt: skip
    for kind, more in ways[state]:
        run(exchange.send(message(kind, tmp_path, more)))
    if state is ResponseState.BODY:
        exchange.flush_head()
    assert exchange.state == state
    return exchange


class TestTable:
    """``send`` is ``MESSAGES`` flattened."""

    @pytest.mark.parametrize("state", STATES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_what_may_come(self, tmp_path: Path, state: ResponseState, kind: str) -> None:
        exchange = exchange_in(state, tmp_path)
        if (state, kind) not in MESSAGES:
            with pytest.raises(ASGIError, match=kind):
                exchange.send(message(kind, tmp_path, True))
            assert exchange.state == state
            return
        run(exchange.send(message(kind, tmp_path, True)))
        # Trailers come in one message, so theirs is always the last.
        expected = ResponseState.COMPLETE if kind == "http.response.trailers" else MESSAGES[state, kind]
        assert exchange.state == expected

    @pytest.mark.parametrize("state", [ResponseState.HEAD_HELD, ResponseState.BODY])
    @pytest.mark.parametrize("trailers", [False, True])
    def test_the_last_body(self, state: ResponseState, trailers: bool) -> None:
        exchange, stream = exchange_for()
        run(exchange.send({"type": "http.response.start", "status": 200, "trailers": trailers}))
        if state is ResponseState.BODY:
            run(exchange.send({"type": "http.response.body", "more_body": True}))
        run(exchange.send({"type": "http.response.body", "body": b"x"}))
        assert exchange.state == (ResponseState.TRAILERS if trailers else ResponseState.COMPLETE)
        # The engine ends the body only where nothing follows.
        assert stream.engine.calls[-1] == ("data", b"x", not trailers)

    @pytest.mark.parametrize("state", STATES)
    @pytest.mark.parametrize("kind", sorted({kind for _, kind in MESSAGES}))
    def test_disconnected_sends_do_nothing(self, tmp_path: Path, state: ResponseState, kind: str) -> None:
        if (state, kind) not in MESSAGES:
            return
        exchange = exchange_in(state, tmp_path)
        exchange.disconnect()
        before = list(exchange._engine.calls)  # type: ignore[attr-defined]
        run(exchange.send(message(kind, tmp_path, True)))
        assert exchange._engine.calls == before  # type: ignore[attr-defined]


class TestBody:
    @pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
    def test_left_out(self, method: str, status: int) -> None:
        exchange, stream = exchange_for(method=method)
        run(exchange.send({"type": "http.response.start", "status": status}))
        run(exchange.send({"type": "http.response.body", "body": b"x", "more_body": True}))
        run(exchange.send({"type": "http.response.body", "body": b"x"}))
        assert stream.engine.calls == [("headers", status, False), ("data", b"", False), ("data", b"", True)]
        assert exchange.sent_bytes == 0

    def test_waits_while_the_brake_is_on(self) -> None:
        exchange, stream = exchange_for()
        stream.is_writable = False
        run(exchange.send({"type": "http.response.start", "status": 200}))
        run(exchange.send({"type": "http.response.body", "body": b"x", "more_body": True}))
        assert stream.told == ["waited"]

    @pytest.mark.parametrize("sizes", [[4], [2, 2], [1, 1]])
    def test_promise_broken(self, sizes: list[int]) -> None:
        exchange, _ = exchange_for()
        headers = [(b"content-length", b"3")]
        run(exchange.send({"type": "http.response.start", "status": 200, "headers": headers}))
        for size in sizes[:-1]:
            run(exchange.send({"type": "http.response.body", "body": b"x" * size, "more_body": True}))
        with pytest.raises(ASGIError, match="longer than" if sum(sizes) > 3 else "shorter than"):
            exchange.send({"type": "http.response.body", "body": b"x" * sizes[-1]})
        assert exchange.state == ResponseState.COMPLETE

    def test_head_leaves_when_asked(self) -> None:
        exchange, stream = exchange_for()
        run(exchange.send({"type": "http.response.start", "status": 200}))
        assert stream.turn.held is exchange
        exchange.flush_head()
        exchange.flush_head()
        assert stream.engine.calls[1:] == [("data", b"", False)]

    def test_file_cut_short_is_a_disconnect(self, tmp_path: Path) -> None:
        exchange, stream = exchange_for()
        stream.file_bytes = 2
        run(exchange.send({"type": "http.response.start", "status": 200}))
        run(exchange.send(message("http.response.pathsend", tmp_path, False)))
        assert (exchange.sent_bytes, exchange.is_disconnected) == (2, True)
        assert "complete" not in stream.told


class TestReceive:
    def test_buffered_pieces_come_as_one(self) -> None:
        exchange, stream = exchange_for(end_stream=False)
        exchange.feed(b"ab", False)
        exchange.feed(b"cd", False)
        assert run(exchange.receive()) == {"type": "http.request", "body": b"abcd", "more_body": True}
        assert exchange.buffered_bytes == 0
        assert stream.told == ["consumed"]
        exchange.feed(b"", True)
        assert run(exchange.receive()) == {"type": "http.request", "body": b"", "more_body": False}

    def test_continue_is_asked_for_only_when_waiting(self) -> None:
        exchange, stream = exchange_for(end_stream=False)
        exchange.feed(b"ab", False)
        run(exchange.receive())
        assert "continue" not in stream.engine.calls

        async def main() -> Any:
            waiting = asyncio.create_task(exchange.receive())
            await asyncio.sleep(0)
            assert stream.engine.calls == ["continue"]
            assert exchange.waits_for_body
            exchange.feed(b"c", True)
            return await waiting

        assert run(main()) == {"type": "http.request", "body": b"c", "more_body": False}
        assert not exchange.waits_for_body

    def test_trailers_come_with_the_last_piece(self) -> None:
        exchange, _ = exchange_for(end_stream=False)
        exchange.feed(b"a", False)
        exchange.feed_trailers([(b"x", b"y")])
        assert run(exchange.receive())["headrace.trailers"] == [(b"x", b"y")]

    @pytest.mark.parametrize(
        "cause", [HTTPExchange.disconnect, HTTPExchange.half_close, HTTPExchange.tell_to_end]
    )
    def test_every_waiter_is_woken(self, cause: Callable[[HTTPExchange], None]) -> None:
        exchange, _ = exchange_for()

        async def main() -> Any:
            await exchange.receive()
            waiting = [asyncio.create_task(exchange.receive()) for _ in range(2)]
            await asyncio.sleep(0)
            cause(exchange)
            return await asyncio.gather(*waiting)

        assert run(main()) == [{"type": "http.disconnect"}] * 2

    def test_cancelled_waiter_waits_no_more(self) -> None:
        exchange, _ = exchange_for(end_stream=False)

        async def main() -> None:
            waiting = asyncio.create_task(exchange.receive())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        run(main())
        assert not exchange.waits_for_body

    def test_half_closed_body_first(self) -> None:
        exchange, _ = exchange_for(end_stream=False)
        exchange.feed(b"a", True)
        exchange.half_close()
        assert [run(exchange.receive())["type"] for _ in range(2)] == ["http.request", "http.disconnect"]


class TestRun:
    def test_client_fault_in_the_body(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "http.disconnect"
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x"})

        exchange, stream = exchange_for(application, end_stream=False)
        exchange.fail(RemoteProtocolError("too large", 413))
        run(run_exchange(exchange))
        assert stream.engine.calls == ["drop", ("error", 413)]
        assert exchange.status == 413
        assert stream.told == []
        assert not caplog.records

    @pytest.mark.parametrize("is_told", [False, True])
    def test_stream_that_ends_because_the_server_stops(
        self, is_told: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

        exchange, stream = exchange_for(application)
        stream.is_draining = True
        if is_told:
            exchange.tell_to_end()
        run(run_exchange(exchange))
        assert stream.engine.calls[-1] == ("data", b"", True)
        assert stream.told == ["complete"]
        assert not caplog.records

    def test_stream_that_ends_because_the_client_left(self, caplog: pytest.LogCaptureFixture) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

        exchange, stream = exchange_for(application)
        exchange.half_close()
        run(run_exchange(exchange))
        assert stream.told == ["abort"]
        assert not caplog.records

    @pytest.mark.parametrize("error", [KeyError("x"), SystemExit(1), asyncio.CancelledError()])
    def test_error_is_logged_and_answered(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            raise error

        exchange, stream = exchange_for(application)
        run(run_exchange(exchange))
        assert stream.engine.calls[-1] == ("error", 500)
        assert (exchange.status, exchange.sent_bytes) == (500, len(b"Internal Server Error"))
        assert stream.told == ["complete"]
        (record,) = caplog.records
        assert record.levelno == logging.ERROR

    def test_cancelled_by_the_server(self) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.Event().wait()

        exchange, stream = exchange_for(application)

        async def main() -> None:
            running = asyncio.create_task(run_exchange(exchange))
            while exchange.task is None:
                await asyncio.sleep(0)
            exchange.cancel("the server stops")
            await running

        run(main())
        assert stream.engine.calls[-1] == ("error", 503)


def test_event_stream_is_recognised() -> None:
    exchange, _ = exchange_for()
    headers = [(b"Content-Type", b"Text/Event-Stream; charset=utf-8")]
    run(exchange.send({"type": "http.response.start", "status": 200, "headers": headers}))
    assert not exchange.is_event_stream
    exchange.flush_head()
    assert exchange.is_event_stream


def test_what_a_thread_sends_is_sent_where_it_is_awaited() -> None:
    """asgiref calls ``send`` in its thread, and awaits what it gives in the loop."""
    exchange, stream = exchange_for()
    start = in_a_thread(lambda: exchange.send({"type": "http.response.start", "status": 200}))
    assert exchange.state == ResponseState.EXPECT_START
    run(start)
    assert exchange.state == ResponseState.HEAD_HELD
    body = in_a_thread(lambda: exchange.send({"type": "http.response.body", "body": b"x"}))
    assert stream.told == []
    run(body)
    assert stream.told == ["complete"]


def test_send_passes_for_a_coroutine_function() -> None:
    exchange, _ = exchange_for()
    assert asgiref.sync.iscoroutinefunction(exchange.send)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asgiref.sync.async_to_sync(exchange.send)
