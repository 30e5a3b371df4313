"""The handshake over sockets: accepted, refused by the server or by the application, never answered."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import trustme

from live import LiveServer, Records, Response, eventually, read_body, respond
from websocket_client import (
    DEFLATE,
    KEY,
    TEXT,
    Recorder,
    WebSocketClient,
    close_frame,
    connect,
    frame,
    handshake,
)

Serve = Callable[..., LiveServer]

AUTHORITY = trustme.CA()


def ask(server: LiveServer, *headers: str, target: str = "/") -> Response:
    return server.exchange(handshake(target, *headers))


class Caller:
    """Does what the test says to one WebSocket, notes what it receives and what ``send`` raises."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = messages
        self.received: list[Any] = []
        self.errors: list[Exception] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.received.append(await receive())
        for message in self._messages:
            try:
                await send(message)
            except Exception as error:
                self.errors.append(error)
        while self.received[-1]["type"] != "websocket.disconnect":
            self.received.append(await receive())


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, scope["type"].encode() + b" " + await read_body(receive))


def accept(**more: Any) -> dict[str, Any]:
    return {"type": "websocket.accept", **more}


def denial(status: int, **more: Any) -> dict[str, Any]:
    return {"type": "websocket.http.response.start", "status": status, **more}


def denial_body(body: bytes, **more: Any) -> dict[str, Any]:
    return {"type": "websocket.http.response.body", "body": body, **more}


class TestAccepted:
    def test_fields(self, serve: Serve) -> None:
        response = connect(serve(Recorder(), server_header=False, date_header=False)).response
        assert (response.version, response.status) == ("HTTP/1.1", 101)
        assert response.headers == [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ]

    def test_default_fields(self, serve: Serve) -> None:
        response = connect(serve(Recorder())).response
        assert response.get("server") == "headrace"
        assert response.get("date")

    def test_subprotocol(self, serve: Serve) -> None:
        recorder = Recorder(subprotocol="v2")
        client = connect(serve(recorder), "/", "sec-websocket-protocol: v1, v2", "sec-websocket-protocol: v3")
        assert client.response.get("sec-websocket-protocol") == "v2"
        assert recorder.scopes[0]["subprotocols"] == ["v1", "v2", "v3"]

    def test_headers_of_the_application(self, serve: Serve) -> None:
        recorder = Recorder(headers=[(b"set-cookie", b"a=1"), (b"x-note", b"y"), (b"set-cookie", b"b=2")])
        headers = connect(serve(recorder)).response.headers
        assert headers[-3:] == [("set-cookie", "a=1"), ("x-note", "y"), ("set-cookie", "b=2")]

    @pytest.mark.parametrize(
        ("offer", "options", "answer"),
        [
            ((DEFLATE,), {}, "permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
            ((DEFLATE,), {"ws_per_message_deflate": False}, None),
            ((), {}, None),
            (("sec-websocket-extensions: x-other, permessage-deflate; unknown",), {}, None),
            (
                (f"{DEFLATE}; client_max_window_bits",),
                {"ws_deflate_context_takeover": "both"},
                "permessage-deflate; client_max_window_bits=12",
            ),
            (
                (f"{DEFLATE}; server_max_window_bits=10",),
                {},
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
                "server_max_window_bits=10",
            ),
        ],
    )
    def test_compression(self, serve: Serve, offer: Any, options: Any, answer: str | None) -> None:
        client = connect(serve(Recorder(), **options), "/", *offer)
        assert client.response.get("sec-websocket-extensions") == answer

    @pytest.mark.parametrize("upgrade", ["WebSocket", "h2c, websocket"])
    def test_names_are_case_insensitive_and_in_lists(self, serve: Serve, upgrade: str) -> None:
        data = handshake().replace(b"upgrade: websocket", b"uPGRADE: " + upgrade.encode())
        data = data.replace(b"connection: Upgrade", b"connection: keep-alive, upgrade")
        assert serve(Recorder()).exchange(data).status == 101

    def test_data_in_the_same_segment(self, serve: Serve) -> None:
        client = connect(serve(Recorder()), behind=frame(TEXT, b"early") + frame(TEXT, b"birds"))
        assert [client.read_message(), client.read_message()] == ["early", "birds"]

    def test_a_whole_session_in_the_same_segment(self, serve: Serve) -> None:
        caller = Caller(accept())
        client = connect(
            serve(caller), behind=frame(TEXT, b"a") + frame(TEXT, b"b") + close_frame(1001, b"c")
        )
        assert client.read_close() == (1001, "")
        assert client.is_ended()
        assert eventually(lambda: caller.received[3:]) == [
            {"type": "websocket.disconnect", "code": 1001, "reason": "c"}
        ]
        assert [message.get("text") for message in caller.received[1:3]] == ["a", "b"]

    def test_data_before_the_answer(self, serve: Serve) -> None:
        go: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                go[0].set()
                await respond(send)
                return
            go.append(asyncio.Event())
            await go[0].wait()
            await Recorder()(scope, receive, send)

        server = serve(application)
        raw = server.connect()
        size = 300_000
        raw.send(handshake())
        eventually(lambda: go)
        client_data = frame(TEXT, b"x" * size) + frame(TEXT, b"y")
        raw.sock.setblocking(False)
        sent = raw.sock.send(client_data)
        raw.sock.setblocking(True)
        assert server.get("/go").status == 200
        raw.send(client_data[sent:])
        response = raw.read_response()
        assert response.status == 101
        assert raw.read_until(b"\x81\x01y").count(b"x") == size


class TestScope:
    def test_whole(self, serve: Serve) -> None:
        recorder = Recorder()
        server = serve(recorder)
        client = connect(server, "/caf%C3%A9?q=%31", "sec-websocket-protocol: a, b", "x-Y: 1")
        assert recorder.scopes == [
            {
                "type": "websocket",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "server": ("127.0.0.1", server.server.port),
                "client": client.sock.getsockname(),
                "scheme": "ws",
                "root_path": "",
                "path": "/café",
                "raw_path": b"/caf%C3%A9",
                "query_string": b"q=%31",
                "headers": [
                    (b"host", b"a.test"),
                    (b"upgrade", b"websocket"),
                    (b"connection", b"Upgrade"),
                    (b"sec-websocket-key", KEY.encode()),
                    (b"sec-websocket-version", b"13"),
                    (b"sec-websocket-protocol", b"a, b"),
                    (b"x-y", b"1"),
                ],
                "subprotocols": ["a", "b"],
                "state": {"headrace.leader": ANY},
                "extensions": {"websocket.http.response": {}},
            }
        ]

    def test_root_path(self, serve: Serve) -> None:
        recorder = Recorder()
        connect(serve(recorder, root_path="/api"), "/x")
        scope = recorder.scopes[0]
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/x", b"/api/x")

    def test_state_is_a_copy(self, serve: Serve) -> None:
        recorder = Recorder()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan":
                seen.append(dict(scope["state"]))
                scope["state"]["mine"] = len(seen)
                await recorder(scope, receive, send)
                return
            scope["state"]["pool"] = pool
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})

        pool = object()
        seen: list[Any] = []
        server = serve(application, lifespan="on")
        for _ in range(2):
            connect(server)
        assert seen == [{"headrace.leader": ANY, "pool": pool}] * 2

    def test_tls(self, serve: Serve, tmp_path: Path) -> None:
        recorder = Recorder()
        path = tmp_path / "a.pem"
        AUTHORITY.issue_cert("a.test").private_key_and_cert_chain_pem.write_to_path(str(path))
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        server = serve(recorder, ssl_certfile=str(path))
        client = WebSocketClient(server.connect(context))
        client.send_text("secret")
        assert client.read_message() == "secret"
        assert recorder.scopes[0]["scheme"] == "wss"
        assert recorder.scopes[0]["extensions"]["tls"]["tls_version"] == 0x0304
        assert "websocket.http.response" in recorder.scopes[0]["extensions"]
        client.send_close(1000)
        assert client.read_close() == (1000, "")
        assert client.is_ended()

    def test_scheme_of_a_trusted_proxy(self, serve: Serve) -> None:
        recorder = Recorder()
        connect(serve(recorder), "/", "x-forwarded-proto: https", "x-forwarded-for: 203.0.113.7")
        assert recorder.scopes[0]["scheme"] == "wss"
        assert recorder.scopes[0]["client"][0] == "203.0.113.7"


class TestRefusedByTheServer:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (f"sec-websocket-key: {KEY}\r\n", ""),
            (KEY, "dG9vIHNob3J0"),
            (KEY, "!" * 22 + "=="),
            (KEY, f"{KEY}\r\nsec-websocket-key: {KEY}"),
            ("version: 13", "version: 13\r\nsec-websocket-version: 13"),
            ("version: 13", "version: 13\r\nsec-websocket-protocol: a b"),
            ("version: 13", "version: 13\r\nsec-websocket-protocol: a, a"),
            ("GET", "POST"),
        ],
    )
    def test_400(self, serve: Serve, error_log: Records, old: str, new: str) -> None:
        recorder = Recorder()
        server = serve(recorder)
        client = server.connect()
        client.send(handshake().replace(old.encode(), new.encode()) + frame(TEXT, b"never read"))
        response = client.read_response()
        assert (response.status, response.get("connection")) == (400, "close")
        assert client.is_ended()
        assert recorder.scopes == []
        assert any("127.0.0.1" in line for line in error_log.lines(30))

    @pytest.mark.parametrize("version", ["12", "13, 8", "0"])
    def test_426(self, serve: Serve, version: str) -> None:
        recorder = Recorder()
        data = handshake().replace(b"version: 13", b"version: " + version.encode())
        response = serve(recorder).exchange(data)
        assert (response.status, response.get("sec-websocket-version")) == (426, "13")
        assert recorder.scopes == []

    def test_none_ignores_the_upgrade(self, serve: Serve) -> None:
        client = serve(plain, ws="none").connect()
        client.send(handshake())
        response = client.read_response()
        assert (response.status, response.body, response.get("upgrade")) == (200, b"http ", None)
        assert client.request().body == b"http "

    def test_http_1_0_has_no_upgrade(self, serve: Serve) -> None:
        # RFC 9110 section 7.8: the field is ignored there.
        data = handshake().replace(b"HTTP/1.1", b"HTTP/1.0")
        assert serve(plain).exchange(data).body == b"http "

    def test_with_a_body_it_is_a_plain_request(self, serve: Serve) -> None:
        # The body's bytes would be taken for frames.
        data = handshake("/", "content-length: 5") + b"frame"
        assert serve(plain).exchange(data).body == b"http frame"


class TestRefusedByTheApplication:
    def test_403_on_close_before_accept(self, serve: Serve, error_log: Records) -> None:
        caller = Caller({"type": "websocket.close", "code": 4000, "reason": "unused"}, accept())
        client = serve(caller).connect()
        client.send(handshake("/a%20b?x=1"))
        response = client.read_response()
        assert (response.status, response.body, response.get("content-length")) == (403, b"", "0")
        assert response.get("connection") == "close"
        assert client.is_ended()
        assert [isinstance(error, RuntimeError) for error in caller.errors] == [True]
        assert eventually(lambda: caller.received[1:]) == [
            {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        ]
        port = client_port(error_log)
        assert f'127.0.0.1:{port} - "WebSocket /a%20b?x=1" 403' in error_log.lines()

    def test_denial_in_one_message(self, serve: Serve, error_log: Records) -> None:
        caller = Caller(denial(401, headers=[(b"x-why", b"no token")]), denial_body(b"who are you?"))
        response = ask(serve(caller))
        assert (response.status, response.get("x-why"), response.body) == (401, "no token", b"who are you?")
        assert eventually(lambda: caller.received[1:])[0]["code"] == 1006
        assert caller.errors == []
        assert any(line.endswith('- "WebSocket /" 401') for line in error_log.lines())

    def test_denial_in_several_messages(self, serve: Serve) -> None:
        bodies = [
            denial_body(b"a" * 70_000, more_body=True),
            denial_body(b"b", more_body=True),
            denial_body(b""),
        ]
        client = serve(Caller(denial(404), *bodies)).connect()
        client.send(handshake())
        response = client.read_response()
        assert (response.status, response.body) == (404, b"a" * 70_000 + b"b")
        assert response.is_whole
        assert client.is_ended()

    @pytest.mark.parametrize(
        ("messages", "status"),
        [
            ([denial_body(b"too early")], 500),
            ([{"type": "websocket.send", "text": "too early"}], 500),
            ([{"type": "http.response.start", "status": 200}], 500),
            ([accept(subprotocol="not a token")], 500),
            ([accept(headers=[(b"x", b"1\r\ny: 2")])], 500),
            ([denial(200, headers=[(b"bad name", b"")])], 500),
            ([denial(403), accept(), denial_body(b"")], 403),
            ([denial(403), {"type": "websocket.close"}, denial_body(b"")], 403),
        ],
    )
    def test_messages_out_of_order(self, serve: Serve, messages: list[Any], status: int) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            for message in messages:
                try:
                    await send(message)
                except Exception as error:
                    errors.append(error)

        errors: list[Exception] = []
        assert ask(serve(application)).status == status
        assert len(errors) == 1
        assert isinstance(errors[0], RuntimeError)

    @pytest.mark.parametrize(
        "name",
        [
            b"connection",
            b"Upgrade",
            b"content-length",
            b"transfer-encoding",
            b"sec-websocket-accept",
            b"Sec-WebSocket-Extensions",
        ],
    )
    def test_fields_of_the_servers_own(self, serve: Serve, name: bytes) -> None:
        caller = Caller(accept(headers=[(name, b"1")]), accept())
        assert ask(serve(caller)).status == 101
        assert [isinstance(error, RuntimeError) for error in caller.errors] == [True]
        assert name.decode() in str(caller.errors[0])

    def test_raises(self, serve: Serve, error_log: Records) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            raise ValueError("the reason")

        client = serve(application).connect()
        client.send(handshake())
        assert client.read_response().status == 500
        assert client.is_ended()
        faults = [record for record in error_log.records if record.exc_info]
        assert "the reason" in str(faults[0].exc_info[1])  # type: ignore[index]
        assert any(line.endswith('- "WebSocket /" 500') for line in error_log.lines())

    def test_returns(self, serve: Serve, error_log: Records) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()

        assert ask(serve(application)).status == 500
        assert "ASGI callable returned without sending handshake." in error_log.lines(40)


class TestClientLeavesBeforeTheAnswer:
    @pytest.mark.parametrize("leave", ["close", "reset", "half_close"])
    def test_1006_and_os_error(self, serve: Serve, error_log: Records, leave: str) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            received.append(await receive())
            received.append(await receive())
            received.append(await receive())
            await send(accept())

        received: list[Any] = []
        server = serve(application)
        client = server.connect()
        client.send(handshake())
        eventually(lambda: received)
        getattr(client, leave)()
        gone = {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        eventually(lambda: len(received) == 3)
        assert received == [{"type": "websocket.connect"}, gone, gone]
        eventually(lambda: not server.server.runtime.running)
        eventually(lambda: not server.server.runtime.connections)
        # The application's OSError is not its fault.
        assert error_log.lines(30) == []


class TestLog:
    def test_lines(self, serve: Serve, error_log: Records, access_records: Records) -> None:
        client = connect(serve(Recorder()), "/a%20b?x=%31")
        client.send_close()
        assert client.read_close() == (1000, "")
        port = client.sock.getsockname()[1]
        lines = [line for line in error_log.lines(20) if "WebSocket" in line]
        assert lines == [f'127.0.0.1:{port} - "WebSocket /a%20b?x=%31" [accepted]']
        assert access_records.records == []

    def test_not_accepted_when_it_could_not_be(self, serve: Serve, error_log: Records) -> None:
        assert ask(serve(Caller(accept(headers=[(b"x", b"\n")]), {"type": "websocket.close"}))).status == 403
        assert not any("[accepted]" in line for line in error_log.lines())


def client_port(log: Records) -> int:
    (line,) = [line for line in log.lines() if "WebSocket" in line]
    return int(line.split(" ")[0].rpartition(":")[2])
