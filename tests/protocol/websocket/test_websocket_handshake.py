"""The opening handshake: what is asked, what is refused and how, and websockets' client as the peer."""

from __future__ import annotations

import pytest
from websocket_vectors import run
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import State as ClientState
from websockets.uri import parse_uri

from headrace.errors import RemoteProtocolError
from headrace.protocol.events import RequestReceived
from headrace.protocol.websocket import (
    UPGRADE_REQUIRED_FIELDS,
    DeflateOptions,
    Handshake,
    WebSocketEngine,
    accept_fields,
    is_websocket,
    negotiate_deflate,
    read_handshake,
)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455 §1.3."""
FIELDS = {b"sec-websocket-key": KEY, b"sec-websocket-version": b"13"}


def request(
    *more: tuple[bytes, bytes],
    method: str = "GET",
    version: str = "1.1",
    upgrade: bytes = b"websocket",
    **changes: bytes | None,
) -> RequestReceived:
    fields: dict[bytes, bytes | None] = {b"host": b"a"} | FIELDS  # type: ignore[assignment]
    for name, value in changes.items():
        fields[name.replace("_", "-").encode()] = value
    headers = [(name, value) for name, value in fields.items() if value is not None]
    return RequestReceived(
        1, method, "/", b"/", b"", [*headers, *more], version, True, False, upgrade
    )  # fmt: skip


def http2_request(
    *fields: tuple[bytes, bytes], method: str = "CONNECT", protocol: bytes = b"websocket"
) -> RequestReceived:
    return RequestReceived(
        1, method, "/", b"/", b"", list(fields), "2", False, False, protocol
    )  # fmt: skip


# Recognising


@pytest.mark.parametrize(
    ("upgrade", "expected"),
    [
        (b"", False),
        (b"websocket", True),
        (b"WebSocket", True),
        (b"h2c, WEBSOCKET", True),
        (b"websocket ,\th2c", True),
        (b"h2c", False),
        (b"websockets", False),
        (b"websocket/13", False),
        (b"x-websocket, y", False),
    ],
)
def test_is_websocket(upgrade: bytes, expected: bool) -> None:
    assert is_websocket(request(upgrade=upgrade)) is expected


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (b"websocket", True),
        (b"WebSocket", True),
        (b"foo, websocket", False),
        (b"websocket,", False),
        (b" websocket", False),
        (b"websockets", False),
        (b"connect-udp", False),
        (b"", False),
    ],
)
def test_is_websocket_over_http2(protocol: bytes, expected: bool) -> None:
    assert is_websocket(http2_request(protocol=protocol)) is expected


# Reading


def test_the_rfcs_own_handshake() -> None:
    assert read_handshake(request()) == Handshake(ACCEPT, [], b"")


def test_lists_may_come_in_several_fields() -> None:
    event = request(
        (b"sec-websocket-protocol", b"graphql-ws , chat,,"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"sec-websocket-protocol", b"Chat"),
        (b"sec-websocket-extensions", b"x; y=1"),
    )
    assert read_handshake(event) == Handshake(
        ACCEPT, ["graphql-ws", "chat", "Chat"], b"permessage-deflate, x; y=1"
    )


def test_an_empty_list_of_subprotocols_is_none() -> None:
    assert read_handshake(request((b"sec-websocket-protocol", b""))).subprotocols == []


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (request(upgrade=b"h2c"), 400),
        (request(upgrade=b""), 400),
        (request(method="POST"), 400),
        (request(method="CONNECT"), 400),
        (request(version="1.0"), 400),
        (request(sec_websocket_version=None), 426),
        (request(sec_websocket_version=b""), 426),
        (request(sec_websocket_version=b"8"), 426),
        (request(sec_websocket_version=b"14"), 426),
        (request(sec_websocket_version=b"13, 8"), 426),
        (request(sec_websocket_version=b"013"), 426),
        (request((b"sec-websocket-version", b"13")), 400),
        (request((b"sec-websocket-version", b"8")), 400),
        (request(sec_websocket_key=None), 400),
        (request((b"sec-websocket-key", KEY)), 400),
        (request(sec_websocket_key=b""), 400),
        (request(sec_websocket_key=b"dGhlIHNhbXBsZSBub25jZ"), 400),
        (request(sec_websocket_key=b"dGhlIHNhbXBsZSBub25jZQ="), 400),
        (request(sec_websocket_key=KEY + KEY), 400),
        (request(sec_websocket_key=b"dGhlIHNhbXBsZSBub25j"), 400),
        (request(sec_websocket_key=b"dGhlIHNhbXBsZSBub25jZWU="), 400),
        (request(sec_websocket_key=b"dGhlIHNhbXBsZSBub25_ZQ=="), 400),
        (request((b"sec-websocket-protocol", b"chat, chat")), 400),
        (request((b"sec-websocket-protocol", b"chat"), (b"sec-websocket-protocol", b"chat")), 400),
        (request((b"sec-websocket-protocol", b"two words")), 400),
        (request((b"sec-websocket-protocol", b"a/b")), 400),
        (request((b"sec-websocket-protocol", b"\xc3\xa4")), 400),
        (http2_request(method="GET"), 400),
        (http2_request((b"sec-websocket-version", b"8")), 426),
        (http2_request((b"sec-websocket-version", b"13"), (b"sec-websocket-version", b"13")), 400),
        (http2_request((b"sec-websocket-protocol", b"a,a")), 400),
    ],
)
def test_refused(event: RequestReceived, status: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read_handshake(event)
    assert caught.value.status == status
    assert len(str(caught.value)) < 200


def test_http2() -> None:
    assert read_handshake(http2_request()) == Handshake(b"", [], b"")
    event = http2_request(
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-protocol", b"chat"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
    )
    assert is_websocket(event)
    assert read_handshake(event) == Handshake(b"", ["chat"], b"permessage-deflate")


# Answering


def test_accept_fields() -> None:
    handshake = read_handshake(request())
    upgrade = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", ACCEPT)]
    assert accept_fields(handshake, None, None) == upgrade
    agreement = negotiate_deflate(b"permessage-deflate", DeflateOptions())
    assert agreement is not None
    more = [
        (b"sec-websocket-protocol", b"chat"),
        (b"sec-websocket-extensions", agreement.response),
    ]
    assert accept_fields(handshake, agreement, "chat") == upgrade + more
    assert accept_fields(read_handshake(http2_request()), agreement, "chat") == more
    assert accept_fields(read_handshake(http2_request()), None, None) == []
    with pytest.raises(ValueError):
        accept_fields(handshake, None, "\u00e4")


def test_what_426_carries() -> None:
    assert UPGRADE_REQUIRED_FIELDS == [(b"sec-websocket-version", b"13")]


# The client of websockets


def test_websockets_shakes_hands_and_talks() -> None:
    client = ClientProtocol(
        parse_uri("ws://example.org/"),
        subprotocols=["chat", "other"],  # type: ignore[list-item]
        extensions=[ClientPerMessageDeflateFactory(client_max_window_bits=True)],
    )
    client.send_request(client.connect())
    head = b"".join(client.data_to_send())
    lines = [line.split(b": ", 1) for line in head.rstrip(b"\r\n").split(b"\r\n")[1:]]
    headers = [(name.lower(), value) for name, value in lines]
    event = RequestReceived(
        1, "GET", "/", b"/", b"", headers, "1.1", True, False, dict(headers)[b"upgrade"]
    )  # fmt: skip
    handshake = read_handshake(event)
    assert handshake.subprotocols == ["chat", "other"]
    agreement = negotiate_deflate(handshake.extensions, DeflateOptions())
    assert agreement is not None
    fields = accept_fields(handshake, agreement, "other")
    lines_back = b"".join(b"%b: %b\r\n" % field for field in fields)
    client.receive_data(b"HTTP/1.1 101 Switching Protocols\r\n" + lines_back + b"\r\n")
    client.events_received()
    assert client.handshake_exc is None
    assert client.state is ClientState.OPEN
    assert client.subprotocol == "other"

    engine = WebSocketEngine(10_000, agreement)
    client.send_text(b"question" * 100)
    client.send_ping(b"p")
    seen = run(engine, client.data_to_send())
    assert seen.events == ["question" * 100]
    engine.send_text("answer" * 100)
    engine.send_close(1001, "bye")
    client.receive_data(seen.out + engine.data_to_send())
    received = [event for event in client.events_received() if isinstance(event, Frame)]
    assert [(frame.opcode, bytes(frame.data)) for frame in received] == [
        (Opcode.PONG, b"p"),
        (Opcode.TEXT, b"answer" * 100),
        (Opcode.CLOSE, b"\x03\xe9bye"),
    ]
    seen = run(engine, client.data_to_send())
    assert [tuple(event) for event in seen.events] == [(1001, "bye")]  # type: ignore[arg-type]
    assert seen.out == b""
