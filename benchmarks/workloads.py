"""The workloads: what is asked of a server, which application answers, and which figures come out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks.applications import ECHO_BODY, HELLO, STREAM_BYTES, UPLOAD_BYTES
from benchmarks.clients import (
    Download,
    IdleConnections,
    WrongAnswer,
    check_answer,
    open_connection,
    repeat_until,
    stall,
    upload,
)
from benchmarks.measure import (
    H2loadResult,
    Usage,
    WrkResult,
    parse_h2load,
    parse_wrk,
    usage_between,
    wait_settled_memory,
)
from benchmarks.servers import RunningServer
from benchmarks.websocket_client import (
    BURST,
    COMPRESSED,
    LARGE,
    SMALL,
    EchoLoad,
    IdleWebSockets,
    Load,
)

SCRIPTS = Path(__file__).resolve().parent / "wrk"
WARM_CONNECTIONS = 100
MIB = 1024 * 1024

Figures = dict[str, float]
"""Name of a figure (a `Metric.key`) to its value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run may change about every workload.

    Attributes:
        round_number: from 0; it makes the requests of `varied` differ between rounds.
    """

    duration_s: float
    connections: int
    idle_connections: int
    round_number: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure and its column.

    Attributes:
        key: its name in `Figures` and in the results file.
        label: head of the column, with the unit.
        digits: decimals shown.
    """

    key: str
    label: str
    digits: int


@dataclass(frozen=True, slots=True)
class Kind:
    """Workloads with the same columns.

    Attributes:
        metrics: the columns, as medians of the rounds.
        cost: the figure that is also shown at its best; the lower the better.
        rate: the figure whose ratio to uvicorn is shown, the higher the better; None where there is none.
        has_ratios: whether the cost is shown as ratios; false where a good cost is next to nothing.
    """

    metrics: tuple[Metric, ...]
    cost: Metric
    rate: Metric | None
    has_ratios: bool = True


RATE = Metric("rate_per_s", "requests/s", 0)
REQUEST_CPU = Metric("cpu_us_per_request", "CPU µs/request", 2)
BUSY = Metric("busy_share", "core used", 2)
THROUGHPUT = Metric("mib_per_s", "MiB/s", 0)
MIB_CPU = Metric("cpu_us_per_mib", "CPU µs/MiB", 0)
IDLE_RSS = Metric("rss_kib_per_connection", "RSS KiB/connection", 2)
STALL_RSS = Metric("rss_growth_mib", "RSS growth MiB", 2)

REQUESTS = Kind(
    (RATE, Metric("p50_ms", "p50 ms", 2), Metric("p99_ms", "p99 ms", 2), REQUEST_CPU, BUSY),
    cost=REQUEST_CPU,
    rate=RATE,
)
HTTP2_REQUESTS = Kind((RATE, REQUEST_CPU, BUSY), cost=REQUEST_CPU, rate=RATE)
MESSAGE_RATE = Metric("messages_per_s", "messages/s", 0)
MESSAGE_CPU = Metric("cpu_us_per_message", "CPU µs/message", 2)
MESSAGES = Kind((MESSAGE_RATE, MESSAGE_CPU, BUSY), cost=MESSAGE_CPU, rate=MESSAGE_RATE)
TRANSFER = Kind((THROUGHPUT, MIB_CPU, BUSY), cost=MIB_CPU, rate=THROUGHPUT)
IDLE = Kind(
    (
        IDLE_RSS,
        Metric("pss_kib_per_connection", "PSS KiB/connection", 2),
        Metric("rss_growth_mib", "RSS growth MiB", 1),
        Metric("rss_before_mib", "RSS before MiB", 1),
    ),
    cost=IDLE_RSS,
    rate=None,
)
STALL = Kind(
    (STALL_RSS, Metric("rss_peak_growth_mib", "at its peak MiB", 2)),
    cost=STALL_RSS,
    rate=None,
    has_ratios=False,
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One table.

    Attributes:
        application: module:attribute, for every server but the floor.
        floor: the floor's kind.
        protocol: ``http1``, ``http2`` or ``websocket``.
    """

    name: str
    title: str
    application: str
    floor: str
    kind: Kind
    measure: Callable[[RunningServer, Settings], Figures]
    protocol: str = "http1"


# --- requests: wrk ---------------------------------------------------------------------------------------


def check_hello(port: int) -> None:
    check_answer(port, "/", HELLO)


def check_json(port: int) -> None:
    check_answer(port, "/", b'{"message":"Hello, world!"}')


def check_echo(port: int) -> None:
    check_answer(port, "/", ECHO_BODY, body=ECHO_BODY)


def measure_requests(
    server: RunningServer, settings: Settings, *, check: Callable[[int], None], script: str = ""
) -> Figures:
    """Checks one answer, warms up, and runs wrk for the duration."""
    check(server.port)
    run_wrk(server.port, settings, script, duration_s=1)
    before = server.moment()
    result = run_wrk(server.port, settings, script, duration_s=settings.duration_s)
    usage = usage_between(before, server.moment())
    server.check_alive()
    if result.requests == 0:
        raise WrongAnswer("answered no request under load")
    if result.refused:
        raise WrongAnswer(f"answered {result.refused} of {result.requests} with another status")
    return usage_figures(usage) | {
        "rate_per_s": result.rate_per_s,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "cpu_us_per_request": usage.cpu_s * 1e6 / result.requests,
        "requests": result.requests,
        "socket_errors": result.socket_errors,
    }


def run_wrk(port: int, settings: Settings, script: str, *, duration_s: float) -> WrkResult:
    """One thread, on the load's core, which it inherits from the harness."""
    whole_s = max(1, round(duration_s))  # wrk takes whole seconds only
    arguments = ["wrk", "--threads", "1", "--connections", str(settings.connections), "--latency"]
    arguments += ["--duration", f"{whole_s}s"]
    if script:
        arguments += ["--script", str(SCRIPTS / script)]
    arguments += [f"http://127.0.0.1:{port}/", "--", str(settings.round_number)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=whole_s + 30)
    if done.returncode != 0:
        raise WrongAnswer(f"wrk ended with status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return parse_wrk(done.stdout)


def usage_figures(usage: Usage) -> Figures:
    return {
        "busy_share": usage.busy_share,
        "foreign_share": usage.foreign_share,
        "stolen_share": usage.stolen_share,
        "cpu_s": usage.cpu_s,
        "wall_s": usage.wall_s,
    }


# --- HTTP/2: h2load ---------------------------------------------------------------------------------------

H2LOAD_CONNECTIONS = 16
H2LOAD_STREAMS = 32
H2LOAD_WARM = 20_000


def measure_http2(server: RunningServer, settings: Settings) -> Figures:
    """A number of requests that takes about the duration, by what a first run of them took."""
    warm = run_h2load(server.port, H2LOAD_WARM)
    count = max(H2LOAD_WARM, round(warm.rate_per_s * settings.duration_s))
    before = server.moment()
    result = run_h2load(server.port, count)
    usage = usage_between(before, server.moment())
    server.check_alive()
    return usage_figures(usage) | {
        "rate_per_s": result.rate_per_s,
        "cpu_us_per_request": usage.cpu_s * 1e6 / count,
        "requests": count,
    }


def run_h2load(port: int, requests: int) -> H2loadResult:
    """One thread, on the load's core, which it inherits from the harness.

    Raises:
        WrongAnswer: not every request was answered well.
    """
    arguments = ["h2load", "--clients", str(H2LOAD_CONNECTIONS), "--max-concurrent-streams"]
    arguments += [str(H2LOAD_STREAMS), "--requests", str(requests), f"http://127.0.0.1:{port}/"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise WrongAnswer(f"h2load ended with status {done.returncode}: {done.stderr.strip()[:80]}")
    result = parse_h2load(done.stdout)
    if result.failed:
        raise WrongAnswer(f"did not answer {result.failed} of {requests} requests")
    if result.body_bytes != len(HELLO) * requests:
        raise WrongAnswer(f"answered {result.body_bytes} bytes to {requests} requests")
    return result


# --- WebSocket: our own client ---------------------------------------------------------------------------

WEBSOCKETS = 32


def measure_websocket(server: RunningServer, settings: Settings, *, load: Load) -> Figures:
    """Echoes on 32 connections; the first on each is compared, the others are counted."""
    echoes = EchoLoad(server.port, load, WEBSOCKETS)
    try:
        echoes.run(min(1.0, settings.duration_s))
    finally:
        echoes.close()
    echoes = EchoLoad(server.port, load, WEBSOCKETS)
    try:
        before = server.moment()
        messages = echoes.run(settings.duration_s)
        usage = usage_between(before, server.moment())
    finally:
        echoes.close()
    server.check_alive()
    return usage_figures(usage) | {
        "messages_per_s": messages / usage.wall_s,
        "cpu_us_per_message": usage.cpu_s * 1e6 / messages,
        "messages": messages,
    }


# --- bodies: our own client ------------------------------------------------------------------------------


def measure_upload(server: RunningServer, settings: Settings) -> Figures:
    """256 MiB as often as the duration allows, at least once after one that warms up."""
    connection = open_connection(server.port)
    try:
        upload(connection)
        return measure_transfer(server, settings, lambda: upload(connection), UPLOAD_BYTES)
    finally:
        connection.close()


def measure_stream(server: RunningServer, settings: Settings) -> Figures:
    """The 10 MiB stream as often as the duration allows, over one connection."""
    download = Download(server.port)
    try:
        download.fetch()
        return measure_transfer(server, settings, download.fetch, STREAM_BYTES)
    finally:
        download.close()


def measure_transfer(
    server: RunningServer, settings: Settings, transfer: Callable[[], None], size_bytes: int
) -> Figures:
    before = server.moment()
    times = repeat_until(settings.duration_s, transfer)
    usage = usage_between(before, server.moment())
    mib = times * size_bytes / MIB
    return usage_figures(usage) | {
        "mib_per_s": mib / usage.wall_s,
        "cpu_us_per_mib": usage.cpu_s * 1e6 / mib,
        "transfers": times,
    }


# --- memory ----------------------------------------------------------------------------------------------


def measure_idle(
    server: RunningServer, settings: Settings, *, client: type[IdleConnections | IdleWebSockets]
) -> Figures:
    """Growth by connections that were used once each, over a server that has served some already."""
    warm = client(server.port)
    idle = client(server.port)
    try:
        warm.open(WARM_CONNECTIONS)
        warm.close()
        before, _ = wait_settled_memory(server.memory)
        idle.open(settings.idle_connections)
        after, _ = wait_settled_memory(server.memory)
        server.check_alive()
        closed = idle.count_closed()
    finally:
        warm.close()
        idle.close()
    if closed:
        raise WrongAnswer(f"closed {closed} of {settings.idle_connections} idle connections")
    growth_bytes = after.rss_bytes - before.rss_bytes
    return {
        "rss_kib_per_connection": growth_bytes / 1024 / settings.idle_connections,
        "pss_kib_per_connection": (after.pss_bytes - before.pss_bytes) / 1024 / settings.idle_connections,
        "rss_growth_mib": growth_bytes / MIB,
        "rss_before_mib": before.rss_bytes / MIB,
    }


def measure_stall(server: RunningServer, settings: Settings) -> Figures:
    """Growth by one client that stopped reading a 1 GiB response after its head."""
    for _ in range(WARM_CONNECTIONS):
        check_hello(server.port)
    before, _ = wait_settled_memory(server.memory)
    reader = stall(server.port)
    try:
        # Wide enough that a server which still buffers is not taken for one that has settled.
        after, peak_rss_bytes = wait_settled_memory(server.memory, window_s=2.0)
        server.check_alive()
    finally:
        reader.close()
    return {
        "rss_growth_mib": (after.rss_bytes - before.rss_bytes) / MIB,
        "rss_peak_growth_mib": (peak_rss_bytes - before.rss_bytes) / MIB,
        "rss_before_mib": before.rss_bytes / MIB,
    }


# --- the table -------------------------------------------------------------------------------------------


def _raw(
    name: str,
    title: str,
    application: Literal["hello", "echo", "count", "stream", "flood"],
    kind: Kind,
    measure: Callable[[RunningServer, Settings], Figures],
) -> Workload:
    """A workload on one of the raw applications, whose floor has the same name."""
    return Workload(name, title, f"benchmarks.applications:{application}", application, kind, measure)


def _websocket(name: str, title: str, kind: Kind, *, load: Load) -> Workload:
    floor = "ws-small" if load.payload == SMALL.payload else "ws-large"
    measure = partial(measure_websocket, load=load)
    return Workload(name, title, "benchmarks.applications:websocket", floor, kind, measure, "websocket")


WORKLOADS = {
    workload.name: workload
    for workload in (
        _raw(
            *("small", "HTTP/1.1, 13 bytes, bare request", "hello", REQUESTS),
            partial(measure_requests, check=check_hello),
        ),
        _raw(
            *("browser", "HTTP/1.1, 13 bytes, a browser's 12 request headers", "hello", REQUESTS),
            partial(measure_requests, check=check_hello, script="browser.lua"),
        ),
        _raw(
            *("varied", "HTTP/1.1, 13 bytes, each target and one header unique", "hello", REQUESTS),
            partial(measure_requests, check=check_hello, script="varied.lua"),
        ),
        Workload(
            *("fastapi", "FastAPI, a small JSON response", "benchmarks.fastapi_application:app", "json"),
            REQUESTS,
            partial(measure_requests, check=check_json),
        ),
        _raw(
            *("echo", "POST of 10 KiB, sent back", "echo", REQUESTS),
            partial(measure_requests, check=check_echo, script="echo.lua"),
        ),
        _raw("upload", "Upload of 256 MiB, counted", "count", TRANSFER, measure_upload),
        _raw("stream", "10 MiB streamed in 64 KiB chunks", "stream", TRANSFER, measure_stream),
        _raw(
            *("idle", "Idle keep-alive connections", "hello", IDLE),
            partial(measure_idle, client=IdleConnections),
        ),
        _raw("stall", "1 GiB streamed to a reader that stopped", "flood", STALL, measure_stall),
        Workload(
            *(
                "http2",
                "HTTP/2, 13 bytes, 16 connections of 32 streams",
                "benchmarks.applications:hello",
                "hello",
            ),
            HTTP2_REQUESTS,
            measure_http2,
            "http2",
        ),
        _websocket("ws-small", "WebSocket echo of 32 bytes", MESSAGES, load=SMALL),
        _websocket("ws-burst", "The same, 8 messages under way on each connection", MESSAGES, load=BURST),
        _websocket("ws-large", "WebSocket echo of 16 KiB", MESSAGES, load=LARGE),
        _websocket("ws-deflate", "WebSocket echo of 16 KiB of JSON, compressed", MESSAGES, load=COMPRESSED),
        Workload(
            *("ws-idle", "Idle WebSockets", "benchmarks.applications:websocket", "ws-small"),
            IDLE,
            partial(measure_idle, client=IdleWebSockets),
            "websocket",
        ),
    )
}
