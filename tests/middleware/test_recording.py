"""What consumers are told of requests, under other servers and under headrace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.middleware.recording import FLUSH_INTERVAL_S, Recorded
from headrace.telemetry.exchange import FinishedExchange
from live import LiveServer, eventually, read_body, respond
from peer_servers import PeerServer


class Told:
    """A consumer that keeps what it is told."""

    def __init__(self) -> None:
        self.exchanges: list[FinishedExchange] = []
        self.flushed = 0

    def add(self, exchange: FinishedExchange) -> None:
        self.exchanges.append(exchange)

    def flush(self) -> None:
        self.flushed = len(self.exchanges)

    def close(self) -> None:
        raise AssertionError("not ours to close")

    def facts(self) -> list[tuple[str, int, int, int, str]]:
        """Path, status, bytes sent, bytes received, kind of error of each."""
        return [
            (scope["path"], status, sent, received, "" if error is None else type(error).__name__)
            for scope, status, sent, _, _, _, received, error in self.exchanges
        ]


class Broken(Exception):
    pass


async def application(scope: Any, receive: Any, send: Any) -> None:
    """What it does is in the path."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    if path == "/echo":
        await respond(send, await read_body(receive), headers=[(b"x-a", b"1")])
    elif path == "/streamed":
        await send({"type": "http.response.start", "status": 201, "headers": []})
        for part in (b"abc", b"de"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})
    elif path == "/broken":
        raise Broken
    elif path == "/broken-within":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        raise Broken
    elif path == "/left":
        while (await receive())["type"] != "http.disconnect":
            pass
    elif path == "/dumb":
        pass


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(params=["uvicorn", "hypercorn", "headrace"])
def server(request: pytest.FixtureRequest, told: Told) -> Iterator[PeerServer | LiveServer]:
    recorded = Recorded(application, told)
    if request.param != "headrace":
        with PeerServer(request.param, recorded) as peer:
            yield peer
        return
    live = LiveServer(recorded, "asyncio", lifespan="on")
    live.start()
    yield live
    live.stop()


def test_under_any_server(server: PeerServer | LiveServer, told: Told) -> None:
    response = server.connect().request("/echo?q=1", "POST", b"x" * 5)
    assert (response.status, response.body, response.get("x-a")) == (200, b"xxxxx", "1")
    assert server.connect().request("/echo", "HEAD").status == 200
    assert server.get("/streamed").body == b"abcde"
    assert server.get("/broken").status == 500
    assert server.get("/dumb").status == 500
    client = server.connect()
    client.send(b"GET /left HTTP/1.1\r\nhost: a\r\n\r\n")
    client.close()
    eventually(lambda: told.flushed == 6, "the flush of six exchanges")
    assert told.facts() == [
        ("/echo", 200, 5, 5, ""),
        ("/echo", 200, 0, 0, ""),
        ("/streamed", 201, 5, 0, ""),
        ("/broken", 500, 0, 0, "Broken"),
        ("/dumb", 500, 0, 0, ""),
        ("/left", 499, 0, 0, ""),
    ]
    scope, _, _, started_s, finished_s, headers, _, _ = told.exchanges[0]
    assert scope["method"] == "POST"
    assert headers == [(b"x-a", b"1")]
    assert started_s <= finished_s
    assert told.exchanges[3][5] is None


def test_broken_within_a_response(server: PeerServer | LiveServer, told: Told) -> None:
    client = server.connect()
    client.send(b"GET /broken-within HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert client.read_to_end().endswith(b"abc")
    eventually(lambda: told.flushed)
    assert told.facts() == [("/broken-within", 200, 3, 0, "Broken")]


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts the timers of the recording."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = 0

    def call_later(self, delay: float, *arguments: Any, **more: Any) -> Any:
        self.timers += delay == FLUSH_INTERVAL_S
        return super().call_later(delay, *arguments, **more)


def scope_of(path: str, method: str = "GET") -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": []}


async def nothing() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def drop(message: Any) -> None:
    pass


def test_a_timer_only_while_something_waits(told: Told) -> None:
    recorded = Recorded(application, told)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        for rounds in (1, 2):
            for _ in range(3):
                await recorded(scope_of("/echo"), nothing, drop)
            assert told.flushed == 3 * (rounds - 1)
            while told.flushed < 3 * rounds:
                await asyncio.sleep(0)
            assert loop.timers == rounds

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(main())


def test_a_loop_that_ended_early_takes_no_timer_along(told: Told) -> None:
    recorded = Recorded(application, told)
    asyncio.run(recorded(scope_of("/echo"), nothing, drop))  # type: ignore[arg-type]

    async def main() -> None:
        await recorded(scope_of("/echo"), nothing, drop)
        while not told.flushed:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert told.flushed == 2


def test_without_an_asyncio_loop_nothing_waits(told: Told) -> None:
    """Hypercorn may run applications on trio."""
    call = Recorded(application, told)(scope_of("/echo"), nothing, drop)
    with pytest.raises(StopIteration):
        call.send(None)
    assert (len(told.exchanges), told.flushed) == (1, 1)


def test_flush_when_the_lifespan_ends(told: Told) -> None:
    async def main() -> None:
        recorded = Recorded(application, told)
        await recorded(scope_of("/echo"), nothing, drop)
        news = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

        async def receive() -> Any:
            return news.pop()

        await recorded({"type": "lifespan"}, receive, drop)
        assert told.flushed == 1

    asyncio.run(main())


def record(
    told: Told, messages: list[Any], scope: Any = None, error: BaseException | None = None, left: bool = False
) -> tuple[int, int, BaseException | None]:
    """What is told of an application that sends these messages and then raises."""
    passed: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if left:
            await receive()
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        passed.append(message)

    async def main() -> None:
        call = Recorded(application, told)(scope or scope_of("/"), receive, send)
        if error is None:
            await call
        else:
            with pytest.raises(type(error)):
                await call

    asyncio.run(main())
    assert passed == messages
    ((_, status, sent, _, _, _, _, told_error),) = told.exchanges
    return status, sent, told_error


START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"abc"}


def test_file(told: Told, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 17)
    assert record(told, [START, {"type": "http.response.pathsend", "path": str(file)}]) == (200, 17, None)


def test_missing_file(told: Told, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert record(told, [START, {"type": "http.response.pathsend", "path": missing}]) == (200, 0, None)


def test_trailers_end_a_response_that_announced_them(told: Told) -> None:
    trailers = {"type": "http.response.trailers", "headers": [(b"a", b"b")]}
    error = Broken()
    messages = [{**START, "trailers": True}, BODY, {**trailers, "more_trailers": True}]
    assert record(told, messages, error=error) == (200, 3, error)
    told.exchanges.clear()
    assert record(told, [*messages, trailers], error=error) == (200, 3, None)


def test_early_hints_are_no_response(told: Told) -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</a>"]}
    error = Broken()
    assert record(told, [hint], error=error) == (500, 0, error)
    told.exchanges.clear()
    assert record(told, [hint, START, BODY]) == (200, 3, None)


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(told: Told, status: int) -> None:
    assert record(told, [{**START, "status": status}, BODY]) == (status, 0, None)


def test_what_comes_behind_the_response_counts_no_more(told: Told) -> None:
    assert record(told, [START, BODY, BODY], error=Broken()) == (200, 3, None)


def test_nothing_is_sent_to_a_client_that_has_left(told: Told) -> None:
    assert record(told, [START, BODY], left=True) == (499, 0, None)
    assert told.exchanges[0][5] is None


def test_an_error_because_the_client_left_is_nobody_s_fault(told: Told) -> None:
    assert record(told, [], left=True, error=OSError()) == (499, 0, None)
    told.exchanges.clear()
    error = Broken()
    assert record(told, [], left=True, error=error) == (499, 0, error)


def test_cancelled(told: Told) -> None:
    assert record(told, [], error=asyncio.CancelledError()) == (499, 0, None)


def test_fields_that_can_be_read_once(told: Told) -> None:
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        fields = iter([(b"x-a", b"1")])
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send(BODY)

    async def keep(message: Any) -> None:
        sent.append(message)

    asyncio.run(Recorded(application, told)(scope_of("/"), nothing, keep))  # type: ignore[arg-type]
    assert sent[0]["headers"] == told.exchanges[0][5] == [(b"x-a", b"1")]


def test_websockets_pass(told: Told) -> None:
    seen: list[Any] = []

    async def application(*arguments: Any) -> None:
        seen.append(arguments)

    scope = {"type": "websocket", "path": "/"}
    asyncio.run(Recorded(application, told)(scope, nothing, drop))  # type: ignore[arg-type]
    assert seen == [(scope, nothing, drop)]
    assert told.exchanges == []
