"""Memory stays bounded whichever side is slow."""

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from live import MIB, LiveServer, ServerProcess, eventually, numbered, respond

Serve = Callable[..., LiveServer]
Spawn = Callable[..., ServerProcess]

GROWTH_BYTES = 4 * MIB
"""Allowed, generously: the server's own marks are 64 KiB, the rest is the allocator."""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

STREAMS = """
    MIB = 1_048_576

    async def app(scope, receive, send):
        piece = bytes(65_536)
        count = 4096 if scope["path"] == "/long" else 32
        await send({"type": "http.response.start", "status": 200})
        for number in range(count):
            if number == 128:
                print("far too far", flush=True)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})
    """


@linux_only
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_reader_that_stops(spawn: Spawn, loop: str) -> None:
    process = spawn(STREAMS, "--lifespan", "off", "--loop", loop)
    # Once through, so that what any response needs is there already.
    assert len(process.connect().request().body) == 2 * MIB
    before = process.memory_bytes()
    client = process.connect()
    client.send(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    # Requests behind it pass through the same loop: when they are answered, the stream has had its turns.
    for _ in range(20):
        assert len(process.connect().request().body) == 2 * MIB
    assert process.memory_bytes() - before < GROWTH_BYTES
    assert "far too far\n" not in process.out


def test_context_of_a_request_whose_reading_paused_ends_with_it(serve: Serve) -> None:
    """asyncio's loop keeps the context in which it was told to read on."""
    held = contextvars.ContextVar("held")
    kept = []

    class Value:
        pass

    async def application(scope: Any, receive: Any, send: Any) -> None:
        value = Value()
        kept.append(weakref.ref(value))
        held.set(value)
        del value
        while (await receive())["more_body"]:
            pass
        await respond(send, b"")

    client = serve(application).connect()
    assert client.request("/", method="POST", body=bytes(4 * MIB)).status == 200
    eventually(lambda: gc.collect() + 1 and kept[0]() is None)


def test_fast_uploader_and_slow_application(serve: Serve) -> None:
    held = asyncio.Event()
    sizes: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await held.wait()
        total = 0
        while True:
            message = await receive()
            total += len(message["body"])
            sizes.append(len(message["body"]))
            if not message["more_body"]:
                break
        await respond(send, b"%d" % total)

    server = serve(application)
    client = server.connect()
    client.sock.setblocking(False)
    client.sock.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (64 * MIB))
    sent = 0
    body = memoryview(bytes(64 * MIB))

    def is_stopped() -> bool:
        nonlocal sent
        try:
            sent += client.sock.send(body[sent:])
        except BlockingIOError:
            running = list(server.server.runtime.running)
            return bool(running) and not next(iter(server.server.runtime.connections)).is_reading
        return False

    eventually(is_stopped, "the read brake")
    exchange = next(iter(server.server.runtime.running))
    # The mark, and one read of the socket above it.
    assert exchange.buffered_bytes <= 65_536 + 262_144
    server.in_loop(held.set)
    client.sock.settimeout(60)
    client.send(body[sent:])  # type: ignore[arg-type]
    assert client.read_response().body == b"%d" % (64 * MIB)
    assert max(sizes) <= 65_536 + 262_144


def test_pipelined_flood(serve: Serve) -> None:
    seen: list[str] = []
    most_pending = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most_pending
        (connection,) = server.server.runtime.connections
        most_pending = max(most_pending, len(connection.engine.pending))
        seen.append(scope["path"])
        await respond(send, scope["path"].encode())

    server = serve(application)
    client = server.connect()
    count = 10_000
    flood = b"".join(numbered("/", count))
    client.sock.setblocking(False)
    sent = 0
    received = b""

    def is_done() -> bool:
        nonlocal sent, received
        try:
            sent += client.sock.send(flood[sent : sent + MIB])
        except BlockingIOError:
            pass
        try:
            received += client.sock.recv(MIB)
        except BlockingIOError:
            pass
        return received.endswith(b"/%d" % (count - 1))

    eventually(is_done, "the last response")
    assert seen == [f"/{number}" for number in range(count)]
    assert received.count(b"HTTP/1.1 200 ") == count
    assert most_pending <= 65_536 + 262_144


def test_pipelining_client_that_reads_nothing(serve: Serve) -> None:
    answered = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal answered
        await respond(send, bytes(100_000))
        answered += 1

    server = serve(application)
    client = server.connect()
    count = 1000
    client.send(b"".join(numbered("/", count)))
    (connection,) = eventually(lambda: list(server.server.runtime.connections))
    eventually(lambda: not connection.is_writable)
    # Everything that could be done has been done when the loop has gone round a few times more.
    for _ in range(10):
        server.get("/other")
        assert server.in_loop(connection.transport.get_write_buffer_size) < MIB
    assert answered < count
    for _ in range(count):
        assert len(client.read_response().body) == 100_000


def test_client_that_sends_on_and_reads_nothing(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, bytes(100_000))

    server = serve(application)
    client = server.connect()
    client.sock.setblocking(False)
    sent = 0
    request = b"GET / HTTP/1.1\r\nhost: a\r\nx: %b\r\n\r\n" % (b"x" * 30_000)

    def is_stopped() -> bool:
        nonlocal sent
        try:
            sent += client.sock.send(request)
        except BlockingIOError:
            return any(not c.is_reading for c in server.server.runtime.connections)
        return sent > 100 * MIB

    eventually(is_stopped, "the read brake")
    assert sent < 100 * MIB
    (connection,) = server.server.runtime.connections
    assert len(connection.engine.pending) <= 65_536 + 262_144


def test_slow_stream_holds_up_no_other(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(1000 if scope["path"] == "/slow" else 1):
            await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})
        await send({"type": "http.response.body"})

    server = serve(application)
    client = server.connect()
    client.send(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    for _ in range(5):
        assert len(server.get("/fast").body) == MIB
