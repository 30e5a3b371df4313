"""TLS: certificates by host, of clients, new ones without a restart; the wrong protocol on either port."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from live import MIB, SHORT_S, LiveServer, eventually, numbered, read_body, respond

Serve = Callable[..., LiveServer]

AUTHORITY = trustme.CA()
CLIENTS = trustme.CA()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = await read_body(receive)
    await respond(send, scope["scheme"].encode() + b" " + scope["path"].encode() + b" " + body)


def write(path: Path, issued: trustme.LeafCert) -> str:
    path.write_bytes(b"")
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    return write(tmp_path / "a.pem", AUTHORITY.issue_cert("a.test"))


@pytest.fixture
def context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def test_requests(serve: Serve, certificate: str, context: ssl.SSLContext) -> None:
    server = serve(echo, ssl_certfile=certificate)
    assert server.server.url == f"https://127.0.0.1:{server.server.port}"
    client = server.connect(context)
    assert client.request("/a").body == b"https /a "
    client.send(b"".join(numbered("/", 5)))
    assert [client.read_response().body for _ in range(5)] == [b"https /%d " % n for n in range(5)]
    body = bytes(3 * MIB)
    assert client.request("/b", "POST", body).body == b"https /b " + body


def test_extension(serve: Serve, certificate: str, context: ssl.SSLContext, tmp_path: Path) -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["extensions"]["tls"])
        await respond(send)

    authority = tmp_path / "clients.pem"
    CLIENTS.cert_pem.write_to_path(str(authority))
    server = serve(application, ssl_certfile=certificate, ssl_ca_certs=str(authority), ssl_cert_reqs=1)
    assert server.connect(context).request().status == 200
    assert seen[0]["client_cert_name"] is None
    assert list(seen[0]["client_cert_chain"]) == []
    assert seen[0]["tls_version"] == 0x0304
    CLIENTS.issue_cert("ann@example.org", common_name="Ann").configure_cert(context)
    assert server.connect(context).request().status == 200
    assert "Ann" in seen[1]["client_cert_name"]
    assert seen[1]["client_cert_chain"]


def test_client_certificate_required(
    serve: Serve, certificate: str, context: ssl.SSLContext, tmp_path: Path
) -> None:
    authority = tmp_path / "clients.pem"
    CLIENTS.cert_pem.write_to_path(str(authority))
    server = serve(echo, ssl_certfile=certificate, ssl_ca_certs=str(authority), ssl_cert_reqs=2)
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        # In TLS 1.3 the client learns of the refusal when it reads.
        server.connect(context).request()
    CLIENTS.issue_cert("ann@example.org").configure_cert(context)
    assert server.connect(context).request().status == 200


def test_certificates_by_host(
    serve: Serve, certificate: str, context: ssl.SSLContext, tmp_path: Path
) -> None:
    other = write(tmp_path / "b.pem", AUTHORITY.issue_cert("b.test"))
    server = serve(echo, ssl_certfile=certificate, ssl_sni=(f"b.test={other},{other}",))
    for host in ("a.test", "b.test"):
        # The client checks that the certificate is the host's.
        assert server.connect(context, host).request().status == 200


def test_changed_files_are_taken_without_a_restart(
    serve: Serve, certificate: str, context: ssl.SSLContext, tmp_path: Path, error_log: Any
) -> None:
    server = serve(echo, ssl_certfile=certificate, ssl_reload_interval=SHORT_S, timeout_header=SHORT_S)
    old = server.connect(context)
    assert old.request().status == 200

    def serial() -> Any:
        client = server.connect(context)
        return client.sock.getpeercert()["serialNumber"]  # type: ignore[attr-defined, index]

    before = serial()
    write(tmp_path / "a.pem", AUTHORITY.issue_cert("a.test"))
    eventually(lambda: any("Certificates reloaded" in line for line in error_log.lines()))
    assert serial() != before
    (tmp_path / "a.pem").write_text("broken")
    eventually(lambda: any("The old certificates stay" in line for line in error_log.lines()))
    assert server.connect(context).request().status == 200


def test_plain_http_on_the_tls_port(serve: Serve, certificate: str, context: ssl.SSLContext) -> None:
    server = serve(echo, ssl_certfile=certificate)
    plain = server.connect()
    plain.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert b"HTTP/1.1" not in plain.read_to_end()
    assert server.connect(context).request().status == 200


def test_too_large_body(serve: Serve, certificate: str, context: ssl.SSLContext) -> None:
    client = serve(echo, ssl_certfile=certificate, limit_request_body=10).connect(context)
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\n")
    assert client.read_response().status == 413


def test_stalled_reader_is_cut(serve: Serve, certificate: str, context: ssl.SSLContext) -> None:
    async def flood(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, bytes(30 * MIB))

    server = serve(flood, ssl_certfile=certificate, timeout_write=SHORT_S)
    client = server.connect(context)
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    eventually(lambda: server.server.runtime.connections)
    eventually(lambda: not server.server.runtime.connections)


def test_client_that_leaves_is_told_of(serve: Serve, certificate: str, context: ssl.SSLContext) -> None:
    got: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        got.append(await receive())

    client = serve(application, ssl_certfile=certificate).connect(context)
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    client.close()
    eventually(lambda: got)
    assert got == [{"type": "http.disconnect"}]


def test_proxy_protocol_is_refused_beside_it(serve: Serve, certificate: str) -> None:
    with pytest.raises(Exception, match="exclude each other"):
        serve(echo, ssl_certfile=certificate, proxy_protocol=True)
