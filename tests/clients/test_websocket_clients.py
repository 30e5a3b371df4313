"""Libraries that others use as WebSocket clients: ``websockets`` and ``wsproto``."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from live import MIB, PATIENCE_S, LiveServer, eventually
from websocket_client import Recorder

Serve = Callable[..., LiveServer]

COMPRESSIONS: dict[str, dict[str, Any]] = {
    "plain": {"compression": None},
    "deflate": {"compression": "deflate"},
    "small windows": {
        "compression": None,
        "extensions": [
            ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
            ClientPerMessageDeflateFactory(client_max_window_bits=True),
        ],
    },
}

TAKEOVERS = ["none", "server", "client", "both"]

MESSAGES: list[str | bytes] = ["", b"", "é€😀" * 100, bytes(range(256)) * 300, "x" * MIB, b"\x00" * MIB]


def talk(server: LiveServer, body: Callable[[ClientConnection], Awaitable[None]], **options: Any) -> None:
    """Run ``body`` with one connection of ``websockets``."""

    async def main() -> None:
        scheme = "wss" if "ssl" in options else "ws"
        url = f"{scheme}://127.0.0.1:{server.server.port}/talk?x=1"
        async with asyncio.timeout(PATIENCE_S), connect(url, proxy=None, **options) as client:
            await body(client)

    asyncio.run(main())


class TestWebsockets:
    @pytest.mark.parametrize("takeover", TAKEOVERS)
    @pytest.mark.parametrize("compression", COMPRESSIONS)
    def test_messages_come_back(self, serve: Serve, compression: str, takeover: str) -> None:
        async def body(client: ClientConnection) -> None:
            assert bool(client.protocol.extensions) is (compression != "plain")
            # Twice, as with context takeover later messages refer to earlier ones.
            for message in MESSAGES * 2:
                await client.send(message)
                assert await client.recv() == message

        server = serve(Recorder(), ws_deflate_context_takeover=takeover)
        talk(server, body, max_size=None, **COMPRESSIONS[compression])

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    def test_fragments(self, serve: Serve, compression: str) -> None:
        async def pieces() -> AsyncIterator[str]:
            for number in range(50):
                yield f"{number} é " * 50
                await asyncio.sleep(0)

        async def body(client: ClientConnection) -> None:
            await client.send(pieces())
            await client.send([b"a", b"", b"b" * 70_000])
            text, data = await client.recv(), await client.recv()
            assert text == "".join(f"{number} é " * 50 for number in range(50))
            assert data == b"a" + b"b" * 70_000

        talk(serve(Recorder()), body, **COMPRESSIONS[compression])

    def test_many_under_way(self, serve: Serve) -> None:
        async def body(client: ClientConnection) -> None:
            async def send() -> None:
                for number in range(5000):
                    await client.send(str(number))

            sending = asyncio.create_task(send())
            assert [await client.recv() for _ in range(5000)] == [str(number) for number in range(5000)]
            await sending

        talk(serve(Recorder()), body)

    def test_handshake(self, serve: Serve) -> None:
        async def body(client: ClientConnection) -> None:
            assert client.subprotocol == "v2"
            assert client.response is not None
            assert client.response.headers["x-note"] == "yes"

        recorder = Recorder(subprotocol="v2", headers=[(b"x-note", b"yes")])
        talk(
            serve(recorder), body, subprotocols=["v1", "v2"], additional_headers={"authorization": "Bearer x"}
        )
        assert (b"authorization", b"Bearer x") in recorder.scopes[0]["headers"]
        assert (recorder.scopes[0]["path"], recorder.scopes[0]["query_string"]) == ("/talk", b"x=1")

    @pytest.mark.parametrize(
        ("messages", "status", "body"),
        [
            ([{"type": "websocket.close"}], 403, b""),
            (
                [
                    {"type": "websocket.http.response.start", "status": 401, "headers": []},
                    {"type": "websocket.http.response.body", "body": b"who ", "more_body": True},
                    {"type": "websocket.http.response.body", "body": b"are you?"},
                ],
                401,
                b"who are you?",
            ),
        ],
    )
    def test_refused(self, serve: Serve, messages: Any, status: int, body: bytes) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            for message in messages:
                await send(message)

        async def unreached(client: ClientConnection) -> None:
            raise AssertionError

        with pytest.raises(InvalidStatus) as raised:
            talk(serve(application), unreached)
        assert (raised.value.response.status_code, raised.value.response.body) == (status, body)

    def test_pings(self, serve: Serve) -> None:
        async def body(client: ClientConnection) -> None:
            waiters = [await client.ping(payload) for payload in (b"a", b"b" * 125, None)]
            for waiter in waiters:
                assert await waiter >= 0

        # The server's own are answered by the library.
        talk(serve(Recorder(), ws_ping_interval=0.02), body)

    def test_its_close(self, serve: Serve) -> None:
        async def body(client: ClientConnection) -> None:
            await client.close(4001, "enough")

        recorder = Recorder()
        talk(serve(recorder), body)
        expected = {"type": "websocket.disconnect", "code": 4001, "reason": "enough"}
        assert eventually(lambda: recorder.received[1:]) == [expected]

    @pytest.mark.parametrize(
        ("ending", "error", "code", "reason"),
        [
            ({"type": "websocket.close", "code": 1000, "reason": "done"}, ConnectionClosedOK, 1000, "done"),
            ({"type": "websocket.close", "code": 4002}, ConnectionClosedError, 4002, ""),
            (None, ConnectionClosedError, 1011, ""),
        ],
    )
    def test_our_close(self, serve: Serve, ending: Any, error: Any, code: int, reason: str) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            if ending is None:
                raise ValueError
            await send(ending)

        async def body(client: ClientConnection) -> None:
            with pytest.raises(error) as raised:
                await client.recv()
            assert raised.value.rcvd is not None
            assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (code, reason)
            assert raised.value.rcvd_then_sent

        talk(serve(application), body)

    def test_tls(self, serve: Serve, tmp_path: Path) -> None:
        async def body(client: ClientConnection) -> None:
            for message in MESSAGES:
                await client.send(message)
                assert await client.recv() == message

        authority = trustme.CA()
        path = tmp_path / "a.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        talk(serve(Recorder(), ssl_certfile=str(path)), body, ssl=context, max_size=None)


class WSProto:
    """A client made of ``wsproto`` and a socket."""

    def __init__(self, server: LiveServer, **request: Any) -> None:
        self._sock = server.connect().sock
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        self.send(Request(host="a.test", target="/", **request))

    def send(self, *events: Event) -> None:
        """All in one segment."""
        self._sock.sendall(b"".join(self._connection.send(event) for event in events))

    def read(self) -> Event:
        """The next event."""
        while not self._events:
            data = self._sock.recv(65_536)
            self._connection.receive_data(data or None)
            self._events.extend(self._connection.events())
        return self._events.pop(0)

    def read_message(self) -> str | bytes:
        """A whole message."""
        parts: list[Any] = []
        while True:
            event = self.read()
            assert isinstance(event, Message), event
            parts.append(event.data)
            if event.message_finished:
                return "".join(parts) if isinstance(event, TextMessage) else b"".join(parts)


class TestWSProto:
    @pytest.mark.parametrize("takeover", TAKEOVERS)
    @pytest.mark.parametrize("compressed", [False, True])
    def test_messages_come_back(self, serve: Serve, compressed: bool, takeover: str) -> None:
        extensions = [PerMessageDeflate()] if compressed else []
        client = WSProto(serve(Recorder(), ws_deflate_context_takeover=takeover), extensions=extensions)
        accepted = client.read()
        assert isinstance(accepted, AcceptConnection)
        assert bool(accepted.extensions) is compressed
        for message in MESSAGES * 2:
            client.send(TextMessage(message) if isinstance(message, str) else BytesMessage(message))
            assert client.read_message() == message

    def test_fragments_with_a_ping_between_in_one_segment(self, serve: Serve) -> None:
        client = WSProto(serve(Recorder()), subprotocols=["v1"])
        assert isinstance(client.read(), AcceptConnection)
        client.send(
            TextMessage("é", message_finished=False),
            Ping(b"p"),
            TextMessage("", message_finished=False),
            TextMessage("!"),
            BytesMessage(b"next"),
        )
        assert client.read() == Pong(b"p")
        assert [client.read_message(), client.read_message()] == ["é!", b"next"]

    def test_compressed_fragments_that_are_mostly_empty(self, serve: Serve) -> None:
        # wsproto does not flush its compressor between fragments: nearly all of these come empty.
        client = WSProto(serve(Recorder()), extensions=[PerMessageDeflate()])
        assert isinstance(client.read(), AcceptConnection)
        line = b"2026-11-25 22:00:00 INFO worker-1 request served in 12 ms path=/api/v1/items\n" * 13
        client.send(*(BytesMessage(line, message_finished=number == 2999) for number in range(3000)))
        assert client.read_message() == line * 3000

    def test_close(self, serve: Serve) -> None:
        recorder = Recorder()
        client = WSProto(serve(recorder))
        assert isinstance(client.read(), AcceptConnection)
        client.send(CloseConnection(3000, "bye"))
        assert client.read() == CloseConnection(3000, "")
        expected = {"type": "websocket.disconnect", "code": 3000, "reason": "bye"}
        assert eventually(lambda: recorder.received[1:]) == [expected]

    def test_refused(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"no such room"})

        client = WSProto(serve(application))
        rejection = client.read()
        assert isinstance(rejection, RejectConnection)
        assert rejection.status_code == 404
        data = client.read()
        assert isinstance(data, RejectData)
        assert data.data == b"no such room"
