"""Log lines of a real process: ``headrace run`` with formats, sampling, request ids and a logging.ini."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from live import ServerProcess, eventually

Spawn = Callable[..., ServerProcess]

APP = """
    import logging

    log = logging.getLogger("shop")

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("no lifespan")
        log.warning("looked at %s", scope["path"])
        if scope["path"] == "/broken":
            raise LookupError("nothing there")
        status = 404 if scope["path"] == "/missing" else 200
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": b"hello"})
    """

INI = """
[loggers]
keys = root, access

[handlers]
keys = err, out

[formatters]
keys = record, access

[logger_root]
level = INFO
handlers = err

[logger_access]
level = INFO
handlers = out
qualname = uvicorn.access
propagate = 0

[handler_err]
class = StreamHandler
formatter = record
args = (sys.stderr,)

[handler_out]
class = StreamHandler
formatter = access
args = (sys.stdout,)

[formatter_record]
format = <%(request_id)s> %(name)s %(message)s

[formatter_access]
class = uvicorn.logging.AccessFormatter
format = <%(request_id)s> %(client_addr)s "%(request_line)s" %(status_code)s %(duration_ms)s %(route)s
"""


def test_json(spawn: Spawn) -> None:
    process = spawn(APP, "--access-log-format", "json", "--request-id")
    client = process.connect()
    client.request("/a?x=%22", headers=["x-request-id: r-1", "user-agent: a\\tb\\"])
    made = client.request("/broken", "POST", b"body").get("x-request-id")
    eventually(lambda: len(process.out) == 2)
    first, second = map(json.loads, process.out)
    assert (first["request_id"], first["path"], first["query"]) == ("r-1", "/a", "x=%22")
    assert (first["status"], first["bytes"], first["user_agent"]) == (200, 5, "a\\tb\\")
    assert first["client_port"] == client.sock.getsockname()[1]
    assert (second["request_id"], second["status"]) == (made, 500)
    assert (second["received_bytes"], second["error_type"]) == (4, "LookupError")


def test_workers_are_told_apart(spawn: Spawn) -> None:
    process = spawn(APP, "--access-log-format", "json", "--workers", "2")
    process.connect().request()
    eventually(lambda: process.out)
    assert json.loads(process.out[0])["worker"] in (0, 1, 2)


def test_sampling_and_skipping(spawn: Spawn) -> None:
    process = spawn(
        APP, "--access-log-format", "logfmt", "--access-log-sample", "0", "--access-log-slow", "60",
        "--access-log-skip", "/miss*",
    )  # fmt: skip
    client = process.connect()
    for target in ("/", "/missing", "/broken"):
        client.request(target)
    process.signal()
    process.wait_exit()
    (line,) = process.out
    assert " path=/broken " in line
    assert line.endswith(" sampled=1.0\n")


@pytest.mark.parametrize("log_format", ["json", "logfmt", "ecs", "gcp"])
def test_one_shape_for_every_line(spawn: Spawn, log_format: str) -> None:
    process = spawn(APP, "--log-format", log_format, "--request-id")
    process.connect().request(headers=["x-request-id: r-1"])
    eventually(lambda: process.out)
    process.signal()
    process.wait_exit()
    lines = [line for line in (*process.err, *process.out) if "looked at" not in line]
    assert len(lines) > 4
    if log_format == "logfmt":
        assert all(line.startswith("time=") for line in lines)
        assert "request_id=r-1" in process.out[0]
    else:
        assert all(json.loads(line)["message"] for line in lines)
        assert "r-1" in json.loads(process.out[0]).values()


def test_request_ids_in_a_logging_ini(spawn: Spawn, tmp_path: Path) -> None:
    (tmp_path / "logging.ini").write_text(INI)
    process = spawn(APP, "--log-config", "logging.ini", "--request-id")
    client = process.connect()
    client.request("/a", headers=["x-request-id: r-1"])
    client.request("/broken", headers=["x-request-id: r-2"])
    eventually(lambda: len(process.out) == 2)
    process.signal()
    process.wait_exit()
    assert "<r-1> shop looked at /a\n" in process.err
    # What the server says of the request's error has its id too.
    assert any(line.startswith("<r-2> uvicorn.error Exception in ASGI application") for line in process.err)
    assert any(line.startswith("<-> uvicorn.error ") for line in process.err)
    assert process.out[0].startswith("<r-1> 127.0.0.1:")
    assert ' "GET /a HTTP/1.1" 200 OK ' in process.out[0]
    assert process.out[1].startswith("<r-2> ")
    assert not any("Logging error" in line for line in process.err)


def test_default_lines_stay_uvicorns(spawn: Spawn) -> None:
    process = spawn(APP, "--no-use-colors")
    process.connect().request("/broken", headers=["x-request-id: r-1"])
    eventually(lambda: process.out)
    process.signal()
    process.wait_exit()
    assert "ERROR:    Exception in ASGI application\n" in process.err
    assert not any("r-1" in line for line in (*process.err, *process.out))


def test_default_lines_show_request_ids(spawn: Spawn) -> None:
    process = spawn(APP, "--no-use-colors", "--request-id")
    process.connect().request("/broken", headers=["x-request-id: r-1"])
    eventually(lambda: process.out)
    process.signal()
    process.wait_exit()
    assert "ERROR:    [r-1] Exception in ASGI application\n" in process.err
    assert process.out[0].startswith("INFO:     127.0.0.1:")


TRACED = """
    import asyncio, logging
    from opentelemetry import trace

    log = logging.getLogger("uvicorn.error.shop")
    tracer = trace.get_tracer("shop")

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("no lifespan")
        log.info("outer")
        with tracer.start_as_current_span("inner"):
            await asyncio.to_thread(log.info, "inner")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
    """


def test_lines_and_records_carry_the_trace(spawn: Spawn) -> None:
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    process = spawn(
        TRACED, "--stack", "--tracing", "--log-format", "json", env={"OTEL_TRACES_EXPORTER": "none"}
    )
    process.connect().request(headers=[f"traceparent: 00-{trace_id}-{parent_id}-01"])
    eventually(lambda: process.out)
    process.signal()
    process.wait_exit()
    access = json.loads(process.out[0])
    shop = [json.loads(line) for line in process.err if '"uvicorn.error.shop"' in line]
    outer, inner = shop
    assert {line["trace_id"] for line in (access, outer, inner)} == {trace_id}
    # The trace's id is the request's, if the request brings no other.
    assert {line["request_id"] for line in (access, outer, inner)} == {trace_id}
    assert outer["span_id"] == access["span_id"] != parent_id
    assert inner["span_id"] != outer["span_id"]
    assert not [line for line in process.err if '"trace_id"' in line and '"uvicorn.error.shop"' not in line]
