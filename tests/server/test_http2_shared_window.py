"""Streams that share one narrow window of the connection: nobody is blamed for what goes before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from test_http2_websocket import CONNECT
from wsproto.frame_protocol import Opcode

import http2_client as h
from headrace.protocol import http2
from http2_client import HTTP2Client, connect, data_frame, headers_frame, window_frame
from live import MIB, SHORT_S, LiveServer, eventually, respond

pytestmark = pytest.mark.skipif(not http2.is_available, reason="the extra http2 is not installed")

Serve = Callable[..., LiveServer]

WIDE = {h.INITIAL_WINDOW_SIZE: 2**31 - 1}
TIMEOUTS = {"timeout_header": 0, "timeout_body": 0, "timeout_keep_alive": 600}
LOOKS = 12
"""Of the server's, several of its timeouts."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await respond(send, bytes(2 * MIB))
        return
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    await send({"type": "websocket.send", "bytes": bytes(MIB)})
    await receive()


def look(server: LiveServer) -> None:
    """Wait until the server has looked at its streams again."""
    seen = server.server.runtime.now
    eventually(lambda: server.server.runtime.now > seen)


def take(client: HTTP2Client, stream_id: int, size: int = 16_384) -> None:
    """Open the connection's window, and wait until somebody's data has come for it."""
    had = sum(len(stream.body) for stream in client.streams.values())
    client.send(window_frame(0, size))
    client.wait(lambda: sum(len(stream.body) for stream in client.streams.values()) >= had + size)
    assert client.stream(stream_id).reset is None


def open_tunnel(client: HTTP2Client, more: h.Fields = ()) -> int:
    stream_id = client.next_stream_id()
    fields = [*CONNECT, (b":path", b"/"), (b"sec-websocket-version", b"13"), *more]
    client.send(headers_frame(stream_id, fields, end_stream=False))
    client.wait(lambda: bool(client.stream(stream_id).headers))
    return stream_id


def message(payload: bytes) -> bytes:
    """A small binary message of a client's, masked with zeros."""
    return bytes([0x80 | Opcode.BINARY, 0x80 | len(payload)]) + bytes(4) + payload


class TestDownloads:
    @pytest.mark.parametrize("priorities", [(b"u=3", b"u=3"), (b"u=1", b"u=5")])
    def test_the_one_behind_waits_for_its_turn(self, serve: Serve, priorities: tuple[bytes, bytes]) -> None:
        server = serve(application, timeout_write=2 * SHORT_S, **TIMEOUTS)
        client = connect(server, WIDE, takes=False)
        first, second = [client.start(more=[(b"priority", priority)]) for priority in priorities]
        client.wait(lambda: len(client.stream(first).body) == 65_535)
        for _ in range(LOOKS):
            take(client, second)
            look(server)
        assert not client.stream(second).body
        client.send(window_frame(0, 4 * MIB))
        assert [len(client.response(stream_id).body) for stream_id in (first, second)] == [2 * MIB] * 2

    def test_window_that_stays_shut(self, serve: Serve) -> None:
        server = serve(application, timeout_write=2 * SHORT_S, **TIMEOUTS)
        client = connect(server, WIDE, takes=False)
        ids = [client.start(), client.start()]
        assert [client.response(stream_id).reset for stream_id in ids] == [h.CANCEL] * 2


class TestTunnels:
    def test_goes_before_a_download(self, serve: Serve) -> None:
        client = connect(serve(application, **TIMEOUTS), WIDE, takes=False)
        download = client.start()
        client.wait(lambda: len(client.stream(download).body) == 65_535)
        tunnel = open_tunnel(client)
        client.send(data_frame(tunnel, message(b"go")))
        client.round_trip()
        take(client, tunnel, 100_000)
        assert len(client.stream(tunnel).body) >= 65_536

    def test_as_urgent_as_the_client_says(self, serve: Serve) -> None:
        server = serve(application, ws_send_timeout=2 * SHORT_S, **TIMEOUTS)
        client = connect(server, WIDE, takes=False)
        tunnel = open_tunnel(client, [(b"priority", b"u=6")])
        download = client.start()
        client.wait(lambda: len(client.stream(download).body) == 65_535)
        client.send(data_frame(tunnel, message(b"go")))
        for _ in range(LOOKS):
            take(client, tunnel)
            look(server)
        assert not client.stream(tunnel).body
        client.send(window_frame(0, 4 * MIB))
        client.wait(lambda: len(client.stream(tunnel).body) >= MIB)
        client.round_trip()
        # The whole message, and no Close behind it.
        assert len(client.stream(tunnel).body) == 10 + MIB
