"""``headrace.serve`` and ``headrace.Server`` inside other programs."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import headrace
from headrace.config import load
from headrace.server.loops import loop_factory
from headrace.telemetry.metrics.exposition import Format
from headrace.telemetry.metrics.page import PageKind, process_pages
from live import PATIENCE_S, eventually, respond


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"hello")


def server_for(application: Any, **options: Any) -> headrace.Server:
    return headrace.Server(load({"app": application, "port": 0, "lifespan": "off", **options}, files=False))


@pytest.fixture
def run(loop_name: str) -> Callable[[Any], Any]:
    async def bounded(coroutine: Any) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await coroutine

    def run(coroutine: Any) -> Any:
        with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
            return runner.run(bounded(coroutine))

    return run


async def get(server: headrace.Server) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(server.url)


def test_context_manager(run: Any) -> None:
    async def main() -> None:
        handler = signal.getsignal(signal.SIGTERM)
        async with headrace.serve(hello, port=0) as server:
            assert server.started
            assert server.url == f"http://127.0.0.1:{server.port}"
            assert (await get(server)).text == "hello"
            assert signal.getsignal(signal.SIGTERM) is handler
            port = server.port
        assert not server.started
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_error_in_the_block_stops_the_server(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(KeyError):
            async with headrace.serve(hello, port=0) as server:
                raise KeyError
        assert not server.started

    run(main())


def test_two_side_by_side(run: Any) -> None:
    async def main() -> None:
        async with headrace.serve(hello, port=0) as one, headrace.serve(hello, port=0) as other:
            assert one.port != other.port
            assert [(await get(server)).text for server in (one, other)] == ["hello"] * 2

    run(main())


def test_two_side_by_side_count_on_one_page(run: Any) -> None:
    requests = 'http_request_duration_seconds_count{method="GET",endpoint="unmatched",status="200"}'

    async def page() -> str:
        return (await process_pages().page(PageKind(Format.TEXT, False))).decode()

    async def main() -> None:
        async with headrace.serve(hello, port=0, metrics=True) as one:
            async with headrace.serve(hello, port=0, metrics=True) as other:
                for server in (one, other, one):
                    assert (await get(server)).text == "hello"
            while f"{requests} 3" not in await page():
                await asyncio.sleep(0.01)
            with pytest.raises(headrace.ConfigError, match="counts in another way"):
                await headrace.serve(hello, port=0, metrics=True, metrics_buckets="1,2").__aenter__()
        # What comes behind them begins anew.
        async with headrace.serve(hello, port=0, metrics=True):
            assert requests not in await page()

    run(main())


def test_start_that_fails_leaves_nothing(run: Any) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(headrace.ListenError):
            async with headrace.serve(hello, port=taken.getsockname()[1]):
                pass
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_lifespan_failure_raises(run: Any) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main() -> None:
        with pytest.raises(headrace.WorkerError, match="no database"):
            async with headrace.serve(application, port=0):
                pass

    run(main())


def test_should_exit_from_a_task(run: Any) -> None:
    async def main() -> None:
        server = server_for(hello)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        assert (await get(server)).text == "hello"
        server.should_exit = True
        await serving
        assert not server.started

    run(main())


def test_should_exit_before_the_start(run: Any) -> None:
    server = server_for(hello)
    server.should_exit = True
    run(server.serve())
    assert not server.started


def test_cancelled_serve_stops(run: Any) -> None:
    async def main() -> None:
        server = server_for(hello)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not server.started
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_cancelled_while_the_application_starts(run: Any) -> None:
    starting = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        starting.set()
        await asyncio.Event().wait()

    async def main() -> None:
        serving = asyncio.create_task(server_for(application, lifespan="on").serve())
        await starting.wait()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_in_a_thread(loop_name: str) -> None:
    server = server_for(hello, loop=loop_name)
    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    eventually(lambda: server.started)
    assert httpx.get(server.url).text == "hello"
    # Only the main thread can take signals; the server does without.
    assert signal.getsignal(signal.SIGTERM) is handler
    server.should_exit = True
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_signals_are_taken_by_a_bound_method(run: Any) -> None:
    # What sse-starlette looks for: the handler's owner has ``should_exit``.
    async def main() -> None:
        before = signal.getsignal(signal.SIGINT)
        server = server_for(hello)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            handler: Any = signal.getsignal(number)
            assert handler.__self__ is server
            assert handler == server.handle_exit
        server.should_exit = True
        await serving
        assert signal.getsignal(signal.SIGINT) is before

    run(main())


def test_captured_signal_is_raised_again(run: Any) -> None:
    taken: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: taken.append(number))

    async def main() -> None:
        server = server_for(hello)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        signal.raise_signal(signal.SIGTERM)
        await serving

    try:
        run(main())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert taken == [signal.SIGTERM]


def test_given_sockets_stay_open(run: Any) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = server_for(hello)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0)
            assert server.port == listener.getsockname()[1]
            assert (await get(server)).text == "hello"
            server.should_exit = True
            await serving
            assert listener.fileno() >= 0

    run(main())


def test_logging_is_left_alone(run: Any) -> None:
    logger = logging.getLogger("uvicorn")
    before = (list(logger.handlers), logger.level)

    async def main() -> None:
        async with headrace.serve(hello, port=0) as server:
            await get(server)

    run(main())
    assert (list(logger.handlers), logger.level) == before


def test_background_work_ends_within_the_graceful_timeout(run: Any) -> None:
    ended: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"x")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("yes")

    async def main() -> None:
        with contextlib.suppress(httpx.HTTPError):
            async with headrace.serve(
                application, port=0, lifespan="off", timeout_graceful_shutdown=0.1
            ) as server:
                await get(server)
        assert ended == ["yes"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
