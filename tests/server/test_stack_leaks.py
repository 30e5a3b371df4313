"""Ten thousand clients that leave in the middle: nothing of them may stay behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from live import LiveServer, eventually

trace = pytest.importorskip("opentelemetry.trace")
once = pytest.importorskip("opentelemetry.util._once")

Serve = Callable[..., LiveServer]

DISCONNECTS = 10_000
BATCH = 200
WATCHED = {
    "HTTPExchange",
    "HTTPConnection",
    "Task",
    "Future",
    "ServerSpan",
    "UnsampledSpan",
    "RequestReceived",
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Wait for the client to leave; every second has had the beginning of an answer."""
    if scope["path"] == "/begun":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


def disconnect(server: LiveServer, count: int) -> None:
    """Send requests, wait until their applications run, and leave, every second by a reset."""
    sockets = []
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", server.server.port))
        path = b"/begun" if number % 2 else b"/waiting/%d" % number
        sock.sendall(b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf" % path)
        sockets.append(sock)
    eventually(lambda: len(server.server.runtime.running) >= count)
    for number, sock in enumerate(sockets):
        if number % 4 > 1:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    eventually(lambda: not server.server.runtime.running and not server.server.runtime.connections)


def census(server: LiveServer) -> Counter[str]:
    """How many objects there are of each kind that is watched, when all consumers have done their work."""

    def count() -> Counter[str]:
        for consumer in server.server.runtime.consumers:
            consumer.flush()
        gc.collect()
        found: Counter[str] = Counter()
        for thing in gc.get_objects():
            name = type(thing).__name__
            if name in WATCHED:
                found[name] += 1
        found["tasks"] = len(asyncio.all_tasks())
        return found

    return server.in_loop(count)


def series_bytes(server: LiveServer) -> int:
    observation = server.server._observation
    assert observation is not None
    assert observation.registry is not None
    return observation.registry.store.used_bytes


def test_nothing_stays_behind(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    # The provider that is made here is the process's, and other tests want none.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", once.Once())
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    server = serve(application, stack=True, tracing=True, access_log=True, access_log_format="json")
    for _ in range(2):
        disconnect(server, BATCH)
    before, bytes_before = census(server), series_bytes(server)
    for _ in range(DISCONNECTS // BATCH):
        disconnect(server, BATCH)
    after = census(server)
    # What the loop itself, the last batch and other tests' objects come and go with, and no more.
    grown = {name: after[name] - before[name] for name in after if after[name] - before[name] > 20}
    assert not grown
    assert series_bytes(server) == bytes_before
