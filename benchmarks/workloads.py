"""The workloads: what is asked of a server, which application answers, and which figures come out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
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
from benchmarks.figures import (
    DEFLATED_MESSAGES,
    HTTP2_REQUESTS,
    IDLE,
    MESSAGES,
    MIB,
    REQUESTS,
    STALL,
    TRANSFER,
    Figures,
    Kind,
    Settings,
    Workload,
    usage_figures,
)
from benchmarks.http2_client import check_http2, run_h2load
from benchmarks.measure import WrkResult, parse_wrk, usage_between, wait_settled_memory
from benchmarks.servers import RunningServer
from benchmarks.websocket_client import EchoLoad, IdleSessions, check_echoes
from benchmarks.websocket_messages import IDLE_MESSAGES, LARGE, LARGE_DEFLATED, SMALL, Messages

SCRIPTS = Path(__file__).resolve().parent / "wrk"
WARM_CONNECTIONS = 100
WARM_UP_S = 1
FIRST_REQUESTS = 2048
SESSIONS = 32


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
    run_wrk(server.port, settings, script, duration_s=WARM_UP_S)
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


# --- requests over HTTP/2: h2load -------------------------------------------------------------------------


def measure_http2(server: RunningServer, settings: Settings) -> Figures:
    """Checks one answer, warms up, and has h2load make as many requests as fill the duration."""
    check_http2(server.port, HELLO)
    first = run_h2load(server.port, FIRST_REQUESTS)
    warm = run_h2load(server.port, requests_in(WARM_UP_S, first.rate_per_s))
    requests = requests_in(settings.duration_s, warm.rate_per_s)
    before = server.moment()
    result = run_h2load(server.port, requests)
    usage = usage_between(before, server.moment())
    server.check_alive()
    return usage_figures(usage) | {
        "rate_per_s": result.rate_per_s,
        "cpu_us_per_request": usage.cpu_s * 1e6 / requests,
        "requests": requests,
    }


def requests_in(duration_s: float, rate_per_s: float) -> int:
    """How many requests take that long at that rate; enough at least to use all streams a few times."""
    return max(FIRST_REQUESTS, round(duration_s * rate_per_s))


# --- messages: WebSockets --------------------------------------------------------------------------------


def measure_messages(
    server: RunningServer, settings: Settings, *, messages: Messages, in_flight: int | None = None
) -> Figures:
    """Checks the echoes, warms up, and exchanges messages for the duration; checks the echoes again.

    Args:
        in_flight: on each WebSocket; None for as many as the settings say.
    """
    check_echoes(server.port, messages)
    load = EchoLoad(server.port, messages, sessions=SESSIONS, in_flight=in_flight or settings.in_flight)
    try:
        load.run(WARM_UP_S)
        before = server.moment()
        echoes = load.run(settings.duration_s)
        usage = usage_between(before, server.moment())
    finally:
        load.close()
    server.check_alive()
    check_echoes(server.port, messages)
    return usage_figures(usage) | {
        "messages_per_s": echoes.messages / usage.wall_s,
        "cpu_us_per_message": usage.cpu_s * 1e6 / echoes.messages,
        "bytes_per_message": echoes.received_bytes / echoes.messages,
        "messages": echoes.messages,
        "load_share": echoes.load_share,
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
    server: RunningServer, settings: Settings, *, make: Callable[[int], IdleConnections | IdleSessions]
) -> Figures:
    """Growth by connections that were used once each, over a server that has served some already.

    Args:
        make: from the server's port to connections that are still to be opened.
    """
    warm = make(server.port)
    idle = make(server.port)
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
    program: Literal["", "wrk"] = "",
) -> Workload:
    """A workload on one of the raw applications, whose floor has the same name."""
    path = f"benchmarks.applications:{application}"
    return Workload(name, title, path, application, kind, measure, program=program)


def _websocket(
    name: str, title: str, kind: Kind, measure: Callable[[RunningServer, Settings], Figures]
) -> Workload:
    """A workload on the echo over WebSocket."""
    path = "benchmarks.applications:websocket"
    return Workload(name, title, path, "websocket", kind, measure, protocol="websocket")


WORKLOADS = {
    workload.name: workload
    for workload in (
        _raw(
            *("small", "HTTP/1.1, 13 bytes, bare request", "hello", REQUESTS),
            partial(measure_requests, check=check_hello),
            program="wrk",
        ),
        _raw(
            *("browser", "HTTP/1.1, 13 bytes, a browser's 12 request headers", "hello", REQUESTS),
            partial(measure_requests, check=check_hello, script="browser.lua"),
            program="wrk",
        ),
        _raw(
            *("varied", "HTTP/1.1, 13 bytes, each target and one header unique", "hello", REQUESTS),
            partial(measure_requests, check=check_hello, script="varied.lua"),
            program="wrk",
        ),
        Workload(
            *("fastapi", "FastAPI, a small JSON response", "benchmarks.fastapi_application:app", "json"),
            REQUESTS,
            partial(measure_requests, check=check_json),
            program="wrk",
        ),
        _raw(
            *("echo", "POST of 10 KiB, sent back", "echo", REQUESTS),
            partial(measure_requests, check=check_echo, script="echo.lua"),
            program="wrk",
        ),
        _raw("upload", "Upload of 256 MiB, counted", "count", TRANSFER, measure_upload),
        _raw("stream", "10 MiB streamed in 64 KiB chunks", "stream", TRANSFER, measure_stream),
        _raw(
            "idle", "Idle keep-alive connections", "hello", IDLE, partial(measure_idle, make=IdleConnections)
        ),
        _raw("stall", "1 GiB streamed to a reader that stopped", "flood", STALL, measure_stall),
        Workload(
            *("http2", "HTTP/2 in cleartext, 13 bytes, 16 connections with 32 streams"),
            *("benchmarks.applications:hello", "http2"),
            HTTP2_REQUESTS,
            measure_http2,
            protocol="http/2",
            program="h2load",
        ),
        _websocket(
            *("ws-echo-32", "WebSocket, 32 bytes echoed"),
            MESSAGES,
            partial(measure_messages, messages=SMALL),
        ),
        _websocket(
            *("ws-echo-32-single", "WebSocket, 32 bytes echoed, one in flight"),
            MESSAGES,
            partial(measure_messages, messages=SMALL, in_flight=1),
        ),
        _websocket(
            *("ws-echo-16k", "WebSocket, 16 KiB echoed"),
            MESSAGES,
            partial(measure_messages, messages=LARGE),
        ),
        _websocket(
            *("ws-echo-16k-deflate", "WebSocket, 16 KiB of JSON echoed, compressed"),
            DEFLATED_MESSAGES,
            partial(measure_messages, messages=LARGE_DEFLATED),
        ),
        _websocket(
            *("ws-idle", "Idle WebSockets, compression offered"),
            IDLE,
            partial(measure_idle, make=partial(IdleSessions, messages=IDLE_MESSAGES)),
        ),
    )
}
