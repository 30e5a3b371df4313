"""``http.response.pathsend``: files by sendfile and by copy, and clients that leave in the middle."""

import asyncio
import contextlib
import logging
import os
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from live import MIB, PATIENCE_S, SHORT_S, LiveServer, eventually

Serve = Callable[..., LiveServer]

LARGE = os.urandom(MIB) * 8


def sends_file(path: Path | str, *headers: tuple[bytes, bytes], **start: Any) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert "http.response.pathsend" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "headers": list(headers), **start})
        await send({"type": "http.response.pathsend", "path": str(path)})

    return application


@pytest.fixture(params=[0, 10, 100_000, len(LARGE)])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(LARGE[: request.param])
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    return path


def with_length(path: Path) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % path.stat().st_size)


@pytest.mark.parametrize("is_length_given", [False, True])
def test_whole_file(serve: Serve, file: Path, is_length_given: bool) -> None:
    headers = [with_length(file)] if is_length_given else []
    client = serve(sends_file(file, *headers)).connect()
    for _ in range(2):
        response = client.request()
        assert response.is_whole
        assert response.body == file.read_bytes()


def test_http_1_0(serve: Serve, file: Path) -> None:
    assert serve(sends_file(file)).exchange(b"GET / HTTP/1.0\r\n\r\n").body == file.read_bytes()


def test_head(serve: Serve, large: Path) -> None:
    client = serve(sends_file(large, with_length(large))).connect()
    for _ in range(2):
        assert client.request(method="HEAD").get("content-length") == str(len(LARGE))


def test_behind_a_response_that_is_still_being_written(serve: Serve, large: Path) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/file":
            await sends_file(large, with_length(large))(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": LARGE})

    client = serve(application).connect()
    client.send(
        b"".join(b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % name for name in (b"body", b"file", b"body"))
    )
    for _ in range(3):
        assert client.read_response().body == LARGE


def test_two_at_once(serve: Serve, large: Path) -> None:
    server = serve(sends_file(large, with_length(large)))
    clients = [server.connect() for _ in range(4)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert all(client.read_response().body == LARGE for client in clients)


def test_under_tls(serve: Serve, file: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("a.test")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = serve(sends_file(file, with_length(file)), ssl_certfile=str(tmp_path / "cert.pem"))
    assert server.connect(context).request().body == file.read_bytes()


@pytest.mark.parametrize("path", ["/no/such/file", "relative", "/"])
def test_what_is_no_file_is_500(serve: Serve, error_log: Any, path: str) -> None:
    assert serve(sends_file(path)).get().status == 500
    assert error_log.lines(logging.ERROR)


def test_other_length_is_500(serve: Serve, large: Path) -> None:
    assert serve(sends_file(large, (b"content-length", b"5"))).get().status == 500


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_client_leaves_in_the_middle(
    serve: Serve, large: Path, error_log: Any, access_records: Any, leave: str
) -> None:
    server = serve(sends_file(large, with_length(large)))
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    getattr(client, leave)()
    eventually(lambda: not server.server.runtime.connections)
    eventually(lambda: not server.server.runtime.running)
    server.in_loop(lambda: server.server.runtime.consumers[0].flush())
    assert not error_log.lines(logging.WARNING)
    (record,) = access_records.records
    assert record.body_bytes < len(LARGE)


def test_stalled_reader_is_cut(serve: Serve, large: Path) -> None:
    server = serve(sends_file(large, with_length(large)), timeout_write=SHORT_S)
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    eventually(lambda: not server.server.runtime.connections)
    eventually(lambda: not server.server.runtime.running)


def test_file_that_shrinks_is_cut(serve: Serve, tmp_path: Path, error_log: Any) -> None:
    path = tmp_path / "large"
    path.write_bytes(LARGE * 4)
    client = serve(sends_file(path, with_length(path))).connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    os.truncate(path, 0)
    assert len(client.read_to_end()) < len(LARGE) * 4
    assert error_log.lines(logging.ERROR)


@pytest.mark.parametrize(
    "then",
    [
        {"type": "http.response.pathsend"},
        {"type": "http.response.body", "body": bytes(len(LARGE))},
        {"type": "http.response.body", "body": b""},
    ],
)
@pytest.mark.parametrize("has_length", [True, False])
def test_nothing_follows_a_file_whose_sending_was_given_up(
    serve: Serve, large: Path, then: dict[str, Any], has_length: bool
) -> None:
    given_up = threading.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [with_length(large)] if has_length else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(send({"type": "http.response.pathsend", "path": str(large)}), SHORT_S)
        given_up.set()
        await send({"path": str(large), **then})

    client = serve(application).connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    assert given_up.wait(PATIENCE_S)
    taken = client.read_to_end()
    assert len(taken) < len(LARGE)
    assert not taken.endswith(b"0\r\n\r\n")
