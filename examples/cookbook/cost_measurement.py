"""Measures what layers around an application cost: CPU time of the server's process for each request.

``python cost_measurement.py`` prints the figures as JSON. It starts a process for each variant and sends
requests to them in turns, so that what else the machine does meets all of them. Its own time, which is the
client's, does not count.
"""

from __future__ import annotations

import asyncio
import json
import platform
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Histogram
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.types import Receive, Scope, Send

import headrace

try:
    from uvloop import run
except ImportError:  # Windows
    from asyncio import run  # type: ignore[assignment]

CONNECTIONS = 16
"""That have a request under way at once."""

REQUESTS = 320
"""Of one round to one variant."""

ROUNDS = 8
"""The figure is the cheapest of them: what disturbs a round only makes it dearer. The first warms up."""

_REQUEST = (
    b"GET /order/1 HTTP/1.1\r\nhost: localhost\r\nuser-agent: cookbook\r\naccept: application/json\r\n\r\n"
)
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class TimingRecipe(BaseHTTPMiddleware):
    """The usual recipe for ``X-Process-Time``."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Time one request."""
        started_s = time.perf_counter()
        response = await call_next(request)
        response.headers["X-Process-Time"] = f"{time.perf_counter() - started_s:.6f}"
        return response


_duration = Histogram(
    "http_request_duration_seconds",
    "Duration of requests.",
    ["method", "endpoint", "status"],
    registry=CollectorRegistry(),
)


class HistogramRecipe(BaseHTTPMiddleware):
    """The usual recipe for a histogram of durations."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Observe one request."""
        started_s = time.perf_counter()
        response = await call_next(request)
        endpoint = getattr(request.scope.get("route"), "path", "unmatched")
        labels = _duration.labels(request.method, endpoint, response.status_code)
        labels.observe(time.perf_counter() - started_s)
        return response


class Variant(NamedTuple):
    """One way to serve the same endpoint.

    Attributes:
        name: what is around it.
        middleware: of the application.
        options: of the server.
    """

    name: str
    middleware: tuple[Middleware, ...] = ()
    options: dict[str, Any] = {}


VARIANTS = (
    Variant("nothing"),
    Variant("headrace --stack: request id, timing, metrics", options={"stack": True}),
    Variant("timing in a BaseHTTPMiddleware", (Middleware(TimingRecipe),)),
    Variant(
        "timing, and a histogram in a second BaseHTTPMiddleware",
        (Middleware(HistogramRecipe), Middleware(TimingRecipe)),
    ),
)


def measure() -> dict[str, Any]:
    """Measure every variant; takes some seconds.

    Returns:
        ``figures``: name and CPU time in microseconds of each variant; and how they were measured.
    """
    with ExitStack() as resources:
        servers = [resources.enter_context(ServerProcess(number)) for number in range(len(VARIANTS))]
        for server in servers:
            server.connect()
        rounds = [[server.cpu_us() for server in servers] for _ in range(ROUNDS)]
    figures = [min(taken) for taken in zip(*rounds, strict=True)]
    return {
        "figures": [
            {"name": variant.name, "cpu_us": round(cpu_us, 1)}
            for variant, cpu_us in zip(VARIANTS, figures, strict=True)
        ],
        "python": platform.python_version(),
        "connections": CONNECTIONS,
        "requests": REQUESTS,
        "rounds": ROUNDS,
    }


class ServerProcess:
    """Serves one variant; use it as a context manager.

    Args:
        number: of the variant.
    """

    def __init__(self, number: int) -> None:
        command = [sys.executable, __file__, "--serve", str(number)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._connections: list[socket.socket] = []

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()  # upon which it ends

    def connect(self) -> None:
        """Wait until it serves, and open all connections."""
        assert self._process.stdout is not None
        port, self._clock_port = json.loads(self._process.stdout.readline())
        for _ in range(CONNECTIONS):
            self._connections.append(socket.create_connection(("127.0.0.1", port)))

    def cpu_us(self) -> float:
        """Its CPU time for one request, over one round."""
        before_s = _read_clock(self._clock_port)
        _load(self._connections)
        return (_read_clock(self._clock_port) - before_s) / REQUESTS * 1e6


def _read_clock(port: int) -> float:
    connection = HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/")
        return float(connection.getresponse().read())
    finally:
        connection.close()


def _load(connections: list[socket.socket]) -> None:
    """Send the requests of one round."""
    for _ in range(REQUESTS // len(connections)):
        for connection in connections:
            connection.sendall(_REQUEST)
        for connection in connections:
            _read_response(connection)


def _read_response(connection: socket.socket) -> None:
    data = connection.recv(65_536)
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    assert length is not None, head
    left = int(length[1]) - len(body)
    while left > 0:
        left -= len(_more(connection))


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise ConnectionError("The server has closed the connection")
    return data


async def _serve(variant: Variant) -> None:
    """Serve a variant and the clock, tell their ports, and stop when standard input ends."""
    app = FastAPI(middleware=variant.middleware)
    app.add_api_route("/order/{order_id}", _show_order)
    async with (
        headrace.serve(app, port=0, access_log=False, **variant.options) as server,
        headrace.serve(_clock, port=0, access_log=False, lifespan="off") as clock,
    ):
        print(json.dumps([server.port, clock.port]), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _show_order(order_id: int) -> dict[str, int | str]:
    return {"order_id": order_id, "item": "tea"}


async def _clock(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell the CPU time that this process has taken, in seconds."""
    body = repr(time.process_time()).encode("ascii")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        run(_serve(VARIANTS[int(sys.argv[2])]))
    else:
        print(json.dumps(measure()))
