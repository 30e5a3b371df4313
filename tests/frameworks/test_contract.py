"""What an application may rely on, on each framework, with the stack off and with all of it on."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from contract import CLOSE_CODE, GREETING, LARGE_BYTES, STREAM, facts_of
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from processes import PATIENCE_S, HeadraceProcess

HAS_TRACING = importlib.util.find_spec("opentelemetry") is not None and (
    importlib.util.find_spec("opentelemetry.sdk") is not None
)
STACK = ("--stack", "--access-log-format", "json", "--tracing" if HAS_TRACING else "--no-tracing")
"""All of it; the spans go to standard output (see conftest)."""

UVLOOP, ASYNCIO = ("--loop", "uvloop"), ("--loop", "asyncio")
WAYS = {"uvloop": UVLOOP, "uvloop-stack": (*UVLOOP, *STACK)}
MORE_WAYS = {
    "raw": {"asyncio": ASYNCIO},
    "fastapi": {"asyncio": ASYNCIO, "asyncio-stack": (*ASYNCIO, *STACK)},
    "quart": {"asyncio": ASYNCIO},
}


def served(*frameworks: str, with_stack_only: bool = False) -> Any:
    """Run a test on each of these frameworks, on one or both loops, with the stack off and on."""
    ways = [
        pytest.param((framework, arguments), id=f"{framework}-{name}")
        for framework in frameworks
        for name, arguments in {**WAYS, **MORE_WAYS.get(framework, {})}.items()
        if "stack" in name or not with_stack_only
    ]
    return pytest.mark.parametrize("server", ways, indirect=True)


FRAMEWORKS = ("starlette", "fastapi", "django", "litestar", "quart")

every_application = served("raw", *FRAMEWORKS)
every_framework = served(*FRAMEWORKS)
every_application_with_lifespan = served("raw", "starlette", "fastapi", "litestar", "quart")
every_application_with_websockets = every_application_with_lifespan


def curl(*arguments: str, body: bytes = b"") -> bytes:
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        str(PATIENCE_S),
        *arguments,
    ]
    return subprocess.run(command, input=body, capture_output=True, check=True, timeout=PATIENCE_S).stdout


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again and again, each time over the wire, until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came about"


def books(client: httpx.Client) -> dict[str, int]:
    found: dict[str, int] = client.get("/books").json()
    return found


@every_application
def test_json_both_ways(client: httpx.Client) -> None:
    answer = client.get("/json")
    assert (answer.status_code, answer.json()) == (200, GREETING)
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["server"] == "headrace"
    document = {"word": "Grüße", "numbers": [1, 2.5, None, True]}
    assert client.post("/json", json=document).json() == document


@served("raw", *FRAMEWORKS, with_stack_only=True)
def test_stack_is_on(client: httpx.Client, server: HeadraceProcess) -> None:
    trace_id = secrets.token_hex(16)
    fields = {"X-Request-ID": "asked-for", "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    answer = client.get("/json", headers=fields)
    assert answer.headers["x-request-id"] == "asked-for"
    assert "app;dur=" in answer.headers["server-timing"]
    server.wait_line(r'"asked-for"')
    if HAS_TRACING:
        server.wait_line(f'"trace_id": "0x{trace_id}"')
        server.wait_line(r'"kind": "SpanKind.SERVER"')
        # Spans come in their order: a second one of the first request would be there by then.
        client.get("/json", headers={"traceparent": f"00-{'1' * 32}-00f067aa0ba902b7-01"})
        server.wait_line(f'"trace_id": "0x{"1" * 32}"')
        assert server.output.count(f'"trace_id": "0x{trace_id}"') == 1


@every_application
def test_one_connection_serves_many_requests(server: HeadraceProcess) -> None:
    urls = [f"{server.url}/json"] * 5
    report = curl(
        "--write-out", "%{num_connects} ", *(part for url in urls for part in ("-o", os.devnull, url))
    )
    assert report.split() == [b"1", b"0", b"0", b"0", b"0"]


@every_application
def test_json_by_curl(server: HeadraceProcess) -> None:
    assert json.loads(curl(f"{server.url}/json")) == GREETING
    sent = ("--header", "content-type: application/json", "--data", '{"a": 1}')
    assert json.loads(curl(*sent, f"{server.url}/json")) == {"a": 1}


@every_framework
def test_form(client: httpx.Client, server: HeadraceProcess) -> None:
    fields = {"name": "Zoë", "word": "a b&c"}
    assert client.post("/form", data=fields).json() == fields
    sent = ("--data-urlencode", "name=Zoë", "--data-urlencode", "word=a b&c")
    assert json.loads(curl(*sent, f"{server.url}/form")) == fields


@every_framework
def test_file_upload(client: httpx.Client, server: HeadraceProcess, served_file: Path) -> None:
    content = served_file.read_bytes()
    expected = {"name": "facts.bin", "note": "kept", **facts_of(content)}
    answer = client.post("/upload", files={"file": ("facts.bin", content)}, data={"note": "kept"})
    assert answer.json() == expected
    sent = ("--form", f"file=@{served_file}", "--form", "note=kept")
    assert json.loads(curl(*sent, f"{server.url}/upload")) == expected


@every_application
def test_stream(client: httpx.Client, server: HeadraceProcess) -> None:
    with client.stream("GET", "/stream") as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.read().decode() == STREAM
    assert curl("--no-buffer", f"{server.url}/stream").decode() == STREAM
    # An HTTP/1.0 client knows no chunks: the end of the connection is the end of the stream.
    assert curl("--http1.0", f"{server.url}/stream").decode() == STREAM


@every_application
def test_server_sent_events(client: httpx.Client) -> None:
    with client.stream("GET", "/events", headers={"accept": "text/event-stream"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        data = [line for line in answer.iter_lines() if line.startswith("data:")]
    assert data == ["data: 0", "data: 1", "data: 2"]


@every_application_with_lifespan
def test_lifespan_ran_once(client: httpx.Client) -> None:
    assert books(client)["startups"] == 1


@every_application_with_lifespan
def test_background_task_runs_behind_the_response(client: httpx.Client) -> None:
    before = books(client)["background_runs"]
    assert client.get("/background").json() == {"queued": True}
    wait_until(lambda: books(client)["background_runs"] == before + 1)


@every_application
def test_file(client: httpx.Client, server: HeadraceProcess, served_file: Path) -> None:
    content = served_file.read_bytes()
    answer = client.get("/file")
    assert answer.content == content
    assert answer.headers["content-length"] == str(len(content))
    assert curl(f"{server.url}/file") == content
    assert client.head("/file").content == b""


@served("starlette", "fastapi")
def test_range_of_a_file(client: httpx.Client, served_file: Path) -> None:
    answer = client.get("/file", headers={"range": "bytes=100-299"})
    assert answer.status_code == 206
    assert answer.content == served_file.read_bytes()[100:300]


@served("starlette")
def test_static_folder(client: httpx.Client, served_file: Path) -> None:
    answer = client.get("/static/facts.bin")
    assert answer.content == served_file.read_bytes()
    unchanged = client.get("/static/facts.bin", headers={"if-none-match": answer.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert client.get("/static/absent").status_code == 404


@served("starlette")
def test_base_http_middleware_sees_every_kind_of_response(client: httpx.Client) -> None:
    for path in ("/json", "/stream", "/events", "/file", "/large", "/nowhere"):
        assert client.get(path).headers["x-marked"] == "yes", path


@every_application
def test_redirect(client: httpx.Client, server: HeadraceProcess) -> None:
    answer = client.get("/redirect")
    assert answer.is_redirect
    assert answer.headers["location"] in ("/json", f"{server.url}/json")
    assert client.get("/redirect", follow_redirects=True).json() == GREETING
    assert json.loads(curl("--location", f"{server.url}/redirect")) == GREETING


@every_application
def test_redirect_behind_a_prefix(client: httpx.Client) -> None:
    forwarded = {"X-Forwarded-For": "10.0.0.7", "X-Forwarded-Prefix": "/shop"}
    location = client.get("/redirect", headers=forwarded).headers["location"]
    assert httpx.URL(location).path == "/shop/json"


@every_application
def test_exception_is_answered_with_500(client: httpx.Client, server: HeadraceProcess) -> None:
    assert client.get("/error").status_code == 500
    # The connection, or the next one, works on.
    assert client.get("/json").json() == GREETING


@every_application
def test_path_with_slash_and_utf8(client: httpx.Client, server: HeadraceProcess) -> None:
    expected = {"path": "/path/a/b/grün ☂", "raw_path": "/path/a%2Fb/gr%C3%BCn%20%E2%98%82"}
    assert client.get("/path/a%2Fb/gr%C3%BCn%20%E2%98%82").json() == expected
    assert json.loads(curl(f"{server.url}/path/a%2Fb/gr%C3%BCn%20%E2%98%82?q=1")) == expected


@every_application
def test_large_bodies_both_ways(client: httpx.Client, server: HeadraceProcess) -> None:
    body = os.urandom(LARGE_BYTES)
    assert client.post("/body", content=body).json() == facts_of(body)
    large = client.get("/large").content
    assert len(large) == LARGE_BYTES
    assert not large.strip(b"x")


@every_application
@pytest.mark.parametrize("how", [(), ("--header", "transfer-encoding: chunked"), ("--header", "expect:")])
def test_large_body_by_curl(server: HeadraceProcess, how: tuple[str, ...]) -> None:
    # Without a further header curl asks for "100 Continue" first.
    body = os.urandom(2_000_000)
    sent = ("--header", "content-type: application/octet-stream", *how, "--data-binary", "@-")
    assert json.loads(curl(*sent, f"{server.url}/body", body=body)) == facts_of(body)


@every_application
def test_head_has_no_body(client: httpx.Client, server: HeadraceProcess) -> None:
    answer = client.head("/json")
    assert (answer.status_code, answer.content) == (200, b"")
    head = curl("--head", f"{server.url}/json")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")


@every_application
def test_not_found(client: httpx.Client, server: HeadraceProcess) -> None:
    assert client.get("/nowhere").status_code == 404
    code = curl("--output", os.devnull, "--write-out", "%{http_code}", f"{server.url}/nowhere")
    assert code == b"404"


@every_application
def test_application_notices_that_the_client_left(client: httpx.Client, server: HeadraceProcess) -> None:
    before = books(client)["left"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as sock:
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: test\r\n\r\n")
        received = b""
        while b"again" not in received:
            received += sock.recv(4096)
    wait_until(lambda: books(client)["left"] == before + 1)


@every_application_with_websockets
def test_websocket(server: HeadraceProcess) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/socket", proxy=None, open_timeout=PATIENCE_S) as socket:
        for text in ("first", "Grüße", "x" * 100_000):
            socket.send(text)
            assert socket.recv(PATIENCE_S) == text
        socket.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == CLOSE_CODE


@pytest.mark.parametrize(
    "server",
    [
        pytest.param((framework, (*ASYNCIO, "--root-path", "/shop", *stack)), id=framework + state)
        for framework in ("starlette", "django", "litestar")
        for state, stack in (("", ()), ("-stack", STACK))
    ],
    indirect=True,
)
def test_root_path(client: httpx.Client) -> None:
    # As nginx with "proxy_pass http://127.0.0.1:8000/;": the prefix has been cut off.
    assert client.get("/json").json() == GREETING
    assert httpx.URL(client.get("/redirect").headers["location"]).path == "/shop/json"
    assert client.get("/path/x").json()["raw_path"] == "/shop/path/x"


def test_traceback_of_an_exception_is_logged(served_file: Path) -> None:
    folder, variables = Path(__file__).parent, {"FRAMEWORK_TEST_FILE": str(served_file)}
    with HeadraceProcess("raw_application:app", folder=folder, variables=variables) as process:
        assert httpx.get(f"{process.url}/error", trust_env=False).text == "Internal Server Error"
        process.wait_line("LookupError: on purpose")
        process.wait_line(r'"GET /error HTTP/1.1" 500')
        output: Any = process.output
    assert "Exception in ASGI application" in output
