"""How HTTP/2 ends what is still on its way: nothing is cut, nothing stays."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from test_http2_websocket import CONNECT, Echo, Tunnel
from wsproto.events import TextMessage

import http2_client as h
from headrace.protocol import http2
from headrace.server import http2_connection
from http2_client import connect, data_frame, headers_frame
from live import MIB, SHORT_S, LiveServer, eventually, respond

pytestmark = pytest.mark.skipif(not http2.is_available, reason="the extra http2 is not installed")

Serve = Callable[..., LiveServer]
AUTHORITY = trustme.CA()


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    path = tmp_path / "server.pem"
    AUTHORITY.issue_cert("a.test").private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    return context


async def large(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"x" * 6_000_000)


@pytest.mark.parametrize("is_tls", [False, True])
def test_last_response_arrives_whole(
    serve: Serve, certificate: str, tls: ssl.SSLContext, is_tls: bool
) -> None:
    options = {"ssl_certfile": certificate} if is_tls else {}
    server = serve(large, timeout_keep_alive=0, **options)
    # Windows that hold all of it: it lies in the transport when the server closes.
    client = connect(server, {4: 2**31 - 1}, tls if is_tls else None)
    client.send(h.window_frame(0, 10_000_000))
    assert len(client.get().body) == 6_000_000


def test_limit_of_connections_counts_those_by_alpn(
    serve: Serve, certificate: str, tls: ssl.SSLContext
) -> None:
    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"hello")

    server = serve(hello, ssl_certfile=certificate, limit_connections=1)
    first = connect(server, context=tls)
    assert first.get().body == b"hello"
    limit = server.server.runtime.connection_limit
    assert limit is not None
    assert server.in_loop(lambda: limit._is_paused)
    first.close()
    assert connect(server, context=tls).get().body == b"hello"


def test_limit_of_the_body_is_none_of_a_tunnel(serve: Serve) -> None:
    tunnel = Tunnel(connect(serve(Echo(), limit_request_body=1000)))
    for _ in range(5):
        tunnel.send(TextMessage("x" * 900))
        assert tunnel.read() == TextMessage("x" * 900)


def test_end_of_a_tunnel_before_it_is_accepted(serve: Serve) -> None:
    told: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await scope["state"]["ended"]()
        await send({"type": "websocket.accept"})
        told.append(await receive())

    client = connect(serve(_waiting_for_the_end(application)))
    fields = [*CONNECT, (b":path", b"/"), (b"sec-websocket-version", b"13")]
    client.send(headers_frame(1, fields, end_stream=False), data_frame(1, b"", end_stream=True))
    eventually(lambda: bool(told), "the end")
    assert told[0]["type"] == "websocket.disconnect"


def _waiting_for_the_end(application: Any) -> Any:
    """Give the application a way to wait until the client's end has arrived behind its handshake."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        session = receive.__self__

        async def ended() -> None:
            while not session.has_body_ended:
                await asyncio.sleep(0)

        scope["state"]["ended"] = ended
        await application(scope, receive, send)

    return wrapped


def test_steady_reader_is_not_reset(serve: Serve) -> None:
    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": b"x" * 16_384, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    server = serve(stream, timeout_write=SHORT_S * 2)
    client = connect(server, takes=False)
    stream_id = client.start()
    received = client.stream(stream_id)
    looks = 0
    while not received.is_ended:
        had, before = len(received.body), server.server.runtime.now
        client.send(h.window_frame(stream_id, 32_768), h.window_frame(0, 32_768))
        client.wait(lambda had=had: len(received.body) > had or received.is_ended)  # type: ignore[misc]
        assert received.reset is None
        if looks < 20:
            # It takes a little between any two looks at it, and goes on so for longer than the timeout.
            eventually(lambda before=before: server.server.runtime.now > before)  # type: ignore[misc]
            looks += 1
    assert len(received.body) == 64 * 16_384


QUICK = {"timeout_header": 0, "timeout_body": 0, "timeout_keep_alive": 600, "timeout_write": 2 * SHORT_S}


def wide(server: LiveServer) -> h.HTTP2Client:
    """A client whose windows let in more than its kernel."""
    client = connect(server, {h.INITIAL_WINDOW_SIZE: 2**31 - 1}, takes=False)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.send(h.window_frame(0, 2**30))
    client.round_trip()
    return client


def test_braked_connection_that_has_failed_goes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_connection, "LINGER_S", SHORT_S)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, bytes(24 * MIB))

    server = serve(application, **QUICK | {"timeout_write": 600, "timeout_body": SHORT_S})
    client = wide(server)
    stream_id = client.start()
    runtime = server.server.runtime
    eventually(lambda: any(not connection.is_writable for connection in runtime.connections))
    client.send(h.ping_frame() * 2_000)
    eventually(lambda: all(connection.is_closing for connection in runtime.connections))
    # Its last moment passes while the client still has something to take, which it then does.
    for _ in range(4):
        seen = runtime.now
        eventually(lambda seen=seen: runtime.now > seen + SHORT_S)  # type: ignore[misc]
    client.wait(lambda: bool(client.goaways))
    assert client.goaways == [(1, h.ENHANCE_YOUR_CALM)]
    # No body was put before it that had waited until then.
    assert len(client.stream(stream_id).body) < 24 * MIB
    eventually(lambda: not runtime.connections)


def test_half_closed_connection_that_takes_nothing_goes(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_connection, "LINGER_S", SHORT_S)
    told: list[Any] = []
    left: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        (connection,) = server.server.runtime.connections
        await send({"type": "http.response.start", "status": 200})
        # As much as the kernel takes, and less than would brake the transport.
        while not connection.transport.get_write_buffer_size():
            await send({"type": "http.response.body", "body": bytes(8_000), "more_body": True})
            for _ in range(3):
                await asyncio.sleep(0)
        left.append(connection.transport.get_write_buffer_size())
        told.append(await receive())

    server = serve(application, **QUICK)
    client = wide(server)
    client.start()
    eventually(lambda: bool(left))
    client.sock.shutdown(socket.SHUT_WR)
    eventually(lambda: told == [{"type": "http.disconnect"}], "the end is told")
    eventually(lambda: not server.server.runtime.connections, "the connection goes")
