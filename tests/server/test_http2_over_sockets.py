"""HTTP/2 over real sockets: how it begins, what the application is told, what the client sees."""

from __future__ import annotations

import importlib.util
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import trustme

import headrace.server.connection
import http2_client as h
from headrace.errors import ConfigError
from headrace.protocol import http2
from http2_client import (
    connect,
    data_frame,
    headers_frame,
    settings_frame,
)
from live import MIB, LiveServer, eventually, read_body, respond

needs_ngh2 = pytest.mark.skipif(not http2.is_available, reason="the extra http2 is not installed")

Serve = Callable[..., LiveServer]

AUTHORITY = trustme.CA()
GET_1 = b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = await read_body(receive)
    await respond(send, body or scope["http_version"].encode())


def tls_context(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    path = tmp_path / "a.pem"
    AUTHORITY.issue_cert("a.test").private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


@needs_ngh2
class TestBeginning:
    def test_prior_knowledge(self, serve: Serve) -> None:
        received = connect(serve(echo)).get()
        assert (received.status, received.body) == (200, b"2")

    def test_preface_byte_by_byte(self, serve: Serve) -> None:
        client = connect(serve(echo), greets=False)
        client.sock.setsockopt(6, 1, 1)
        for byte in h.PREFACE + settings_frame():
            client.send(bytes([byte]))
        assert client.get().body == b"2"

    def test_request_behind_the_preface_in_one_segment(self, serve: Serve) -> None:
        client = connect(serve(echo), greets=False)
        client.send(h.PREFACE + settings_frame() + headers_frame(1))
        assert client.response(1).body == b"2"

    def test_http_1_on_the_same_port(self, serve: Serve) -> None:
        server = serve(echo)
        assert server.get().body == b"1.1"
        assert connect(server).get().body == b"2"
        client = server.connect()
        # The letters with which the preface begins, too.
        client.send(b"PR")
        client.send(b"OPFIND / HTTP/1.1\r\nhost: a.test\r\n\r\n")
        assert client.read_response().body == b"1.1"

    def test_part_of_a_preface(self, serve: Serve) -> None:
        client = serve(echo).connect()
        client.send(b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n")
        assert client.read_response().status == 505
        assert client.is_ended()

    def test_preface_behind_a_request_of_http_1(self, serve: Serve) -> None:
        client = serve(echo).connect()
        client.send(GET_1)
        assert client.read_response().status == 200
        client.send(h.PREFACE)
        assert client.read_response().status == 505

    def test_alpn(self, serve: Serve, certificate: str) -> None:
        client = connect(serve(echo, ssl_certfile=certificate), context=tls_context("h2", "http/1.1"))
        assert client.get().body == b"2"

    @pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
    def test_alpn_of_http_1(self, serve: Serve, certificate: str, protocols: tuple[str, ...]) -> None:
        client = serve(echo, ssl_certfile=certificate).connect(tls_context(*protocols))
        assert client.request().body == b"1.1"

    def test_switched_off(self, serve: Serve, error_log: Any) -> None:
        client = serve(echo, http2=False).connect()
        client.send(h.PREFACE + settings_frame())
        assert client.read_response().status == 505
        assert client.is_ended()
        eventually(lambda: [line for line in error_log.lines() if "it speaks HTTP/2, which is off" in line])

    def test_switched_off_under_tls(self, serve: Serve, certificate: str) -> None:
        client = serve(echo, ssl_certfile=certificate, http2=False).connect(tls_context("h2", "http/1.1"))
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.selected_alpn_protocol() == "http/1.1"
        assert client.request().body == b"1.1"


class TestWithoutTheExtra:
    @pytest.fixture(autouse=True)
    def missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http2, "is_available", False)
        monkeypatch.setattr(headrace.server.connection, "http2_is_available", False)
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *rest: None if name == "ngh2" else find_spec(name, *rest),
        )

    def test_one_clear_sentence(self, serve: Serve, error_log: Any) -> None:
        server = serve(echo)
        client = server.connect()
        client.send(h.PREFACE)
        assert client.read_response().status == 505
        eventually(lambda: [line for line in error_log.lines() if http2.MISSING in line])
        assert server.get().body == b"1.1"

    def test_asked_for(self, serve: Serve) -> None:
        with pytest.raises(ConfigError, match=re.escape("headrace[http2]")):
            serve(echo, http2=True)

    def test_alpn_offers_http_1_alone(self, serve: Serve, certificate: str) -> None:
        client = serve(echo, ssl_certfile=certificate).connect(tls_context("h2", "http/1.1"))
        assert client.request().body == b"1.1"


@needs_ngh2
class TestScope:
    def scope_of(self, serve: Serve, frames: bytes | None = None, **options: Any) -> dict[str, Any]:
        scopes: list[dict[str, Any]] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)
            await respond(send)

        client = connect(serve(application, **options))
        if frames is None:
            client.get(b"/a%20b?c=d%20e", more=[(b"x", b"y"), (b"x", b"z")])
        else:
            client.send(frames)
            client.response(1)
        scopes[0]["own"] = client.sock.getsockname(), client.sock.getpeername()
        return scopes[0]

    def test_whole(self, serve: Serve) -> None:
        scope = self.scope_of(serve)
        client, server = scope.pop("own")
        assert scope == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": "GET",
            "scheme": "http",
            "path": "/a b",
            "raw_path": b"/a%20b",
            "query_string": b"c=d%20e",
            "root_path": "",
            "headers": [(b"host", b"a.test"), (b"x", b"y"), (b"x", b"z")],
            "client": client,
            "server": server,
            "state": {"headrace.leader": ANY},
            "extensions": {
                "http.response.early_hint": {},
                "http.response.pathsend": {},
                "http.response.trailers": {},
            },
        }

    def test_root_path(self, serve: Serve) -> None:
        scope = self.scope_of(serve, root_path="/p")
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/p", "/p/a b", b"/p/a%20b")

    def test_tls(self, serve: Serve, certificate: str) -> None:
        scopes: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)
            await respond(send)

        server = serve(application, ssl_certfile=certificate)
        connect(server, context=tls_context("h2")).get()
        assert scopes[0]["scheme"] == "https"
        assert scopes[0]["extensions"]["tls"]["tls_version"] == 0x0304

    def test_each_request_has_its_own(self, serve: Serve) -> None:
        found: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            found.append((list(scope["headers"]), dict(scope["state"]), dict(scope["extensions"])))
            scope["headers"].append((b"x", b"y"))
            scope["state"]["seen"] = True
            scope["extensions"]["own"] = {}
            await respond(send)

        client = connect(serve(application))
        # The second is the first again, to the byte.
        assert [client.get().status for _ in range(3)] == [200] * 3
        assert found[0] == found[1] == found[2]

    def test_forwarded(self, serve: Serve) -> None:
        fields = h.request_fields(more=[(b"x-forwarded-for", b"192.0.2.9"), (b"x-forwarded-proto", b"https")])
        scope = self.scope_of(serve, headers_frame(1, fields))
        assert (scope["client"][0], scope["scheme"]) == ("192.0.2.9", "https")


@needs_ngh2
class TestAccessLine:
    def test_says_http_2(self, serve: Serve, access_records: Any) -> None:
        client = connect(serve(echo))
        client.get(b"/a?b")
        eventually(lambda: access_records.lines())
        host, port = client.sock.getsockname()
        assert access_records.lines() == [f'{host}:{port} - "GET /a?b HTTP/2" 200']


@needs_ngh2
class TestBodies:
    @pytest.mark.parametrize("size", [1, 16_384, 16_385, 131_072, 131_073, 3 * MIB])
    def test_both_ways(self, serve: Serve, size: int) -> None:
        body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        received = connect(serve(echo)).post(b"/", body)
        assert bytes(received.body) == body
        assert received.get("content-length") is None

    def test_over_tls(self, serve: Serve, certificate: str) -> None:
        client = connect(serve(echo, ssl_certfile=certificate), context=tls_context("h2"))
        assert client.post(b"/", bytes(3 * MIB)).body == bytes(3 * MIB)

    def test_many_streams_at_once(self, serve: Serve) -> None:
        client = connect(serve(echo))
        ids = [client.start(method=b"POST", end_stream=False) for _ in range(100)]
        for number, stream_id in enumerate(ids):
            client.send_body(stream_id, b"%d" % number * 1000)
        assert [client.response(stream_id).body for stream_id in ids] == [
            b"%d" % number * 1000 for number in range(100)
        ]

    def test_in_pieces_as_they_come(self, serve: Serve) -> None:
        got: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            while True:
                got.append(await receive())
                if not got[-1]["more_body"]:
                    break
            await respond(send)

        client = connect(serve(application))
        stream_id = client.start(method=b"POST", end_stream=False)
        client.send(data_frame(stream_id, b"abc"))
        eventually(lambda: len(got) == 1)
        client.send(data_frame(stream_id, b"d"))
        eventually(lambda: len(got) == 2)
        client.send(data_frame(stream_id, b"", True))
        client.response(stream_id)
        assert [(message["body"], message["more_body"]) for message in got] == [
            (b"abc", True),
            (b"d", True),
            (b"", False),
        ]

    def test_trailers_of_a_request(self, serve: Serve) -> None:
        got: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            got.append(scope["headers"])
            while len(got) == 1 or got[-1]["more_body"]:
                got.append(await receive())
            await respond(send)

        client = connect(serve(application))
        stream_id = client.start(method=b"POST", more=[(b"trailer", b"x")], end_stream=False)
        # Host does not belong there, and is left out.
        trailers = headers_frame(stream_id, [(b"x", b"1"), (b"host", b"b.test"), (b"x", b"2")])
        client.send(data_frame(stream_id, b"abc"), trailers)
        assert client.response(stream_id).status == 200
        assert b"".join(message["body"] for message in got[1:]) == b"abc"
        assert got[-1]["headrace.trailers"] == [(b"x", b"1"), (b"x", b"2")]
        assert not [field for field in got[0] if field[0] == b"x"]

    def test_trailers_of_a_response(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "trailers": True})
            await send({"type": "http.response.body", "body": b"abc"})
            await send({"type": "http.response.trailers", "headers": [(b"X-Sum", b"6")]})

        received = connect(serve(application)).get()
        assert (received.body, received.trailers) == (b"abc", [("x-sum", "6")])

    @pytest.mark.parametrize("status", [204, 304])
    def test_status_without_a_body(self, serve: Serve, status: int) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"abc", status, [(b"content-length", b"3")])

        client = connect(serve(application))
        received = client.get()
        assert (received.status, bytes(received.body), received.is_ended) == (status, b"", True)
        assert received.get("content-length") == (None if status == 204 else "3")
        assert client.get().status == status

    def test_head(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
            await send({"type": "http.response.body", "body": b"def"})

        client = connect(serve(application))
        received = client.response(client.start(method=b"HEAD"))
        assert (received.status, bytes(received.body), received.get("content-length")) == (200, b"", "6")

    def test_pathsend(self, serve: Serve, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(bytes(range(256)) * 4096)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.pathsend", "path": str(file)})

        client = connect(serve(application))
        assert bytes(client.get().body) == file.read_bytes()
        assert client.response(client.start(method=b"HEAD")).body == b""
        file.write_bytes(b"")
        received = client.get()
        assert (received.status, bytes(received.body), received.is_ended) == (200, b"", True)


@needs_ngh2
class TestInformational:
    def test_continue_when_the_application_reads(self, serve: Serve) -> None:
        client = connect(serve(echo))
        stream_id = client.start(method=b"POST", more=[(b"expect", b"100-continue")], end_stream=False)
        client.wait(lambda: bool(client.stream(stream_id).early))
        client.send(data_frame(stream_id, b"abc", True))
        received = client.response(stream_id)
        assert received.early == [[(":status", "100")]]
        assert received.body == b"abc"

    def test_no_continue_when_nobody_reads(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"no")

        client = connect(serve(application))
        stream_id = client.start(method=b"POST", more=[(b"expect", b"100-continue")], end_stream=False)
        received = client.response(stream_id)
        assert (received.early, received.body) == ([], b"no")

    def test_no_continue_when_the_body_is_there(self, serve: Serve) -> None:
        client = connect(serve(echo))
        fields = h.request_fields(method=b"POST", more=[(b"expect", b"100-continue")])
        client.send(headers_frame(1, fields, end_stream=False) + data_frame(1, b"abc", True))
        assert (client.response(1).early, client.response(1).body) == ([], b"abc")

    def test_early_hints(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.early_hint", "links": [b"</a.css>", b"</b.js>"]})
            await respond(send, b"x")

        received = connect(serve(application)).get()
        assert received.early == [[(":status", "103"), ("link", "</a.css>"), ("link", "</b.js>")]]
        assert (received.status, received.body) == (200, b"x")
