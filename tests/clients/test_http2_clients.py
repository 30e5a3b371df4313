"""Programs that others use for HTTP/2: curl, nghttp, h2load, httpx.

nghttp and h2load are Debian's ``nghttp2-client``. Where a program is missing its tests are skipped, in
continuous integration they fail.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import trustme

from headrace.protocol import http2
from live import MIB, PATIENCE_S, LiveServer, ServerProcess, read_body, respond

pytestmark = pytest.mark.skipif(not http2.is_available, reason="the extra http2 is not installed")

Serve = Callable[..., LiveServer]
Spawn = Callable[..., ServerProcess]

AUTHORITY = trustme.CA()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = await read_body(receive)
    await respond(send, body or f"{scope['http_version']} {scope['path']}".encode())


def program(name: str) -> str:
    """Where it is."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def run(name: str, *arguments: str) -> bytes:
    """Run a program to its end, which must be a good one, and give what it wrote."""
    done = subprocess.run(
        [program(name), *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=4 * PATIENCE_S
    )
    assert done.returncode == 0, (done.stdout[-1000:], done.stderr)
    return done.stdout


class Site(NamedTuple):
    """A running server and how to reach it.

    Attributes:
        url: without a trailing slash.
        authority: file of the certificate authority.
        port: of the listener.
    """

    url: str
    authority: str
    port: int


@pytest.fixture(params=["clear", "tls"])
def site(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> Site:
    certificate, authority = tmp_path / "a.pem", tmp_path / "authority.pem"
    issued = AUTHORITY.issue_cert("a.test", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    AUTHORITY.cert_pem.write_to_path(str(authority))
    if request.param == "clear":
        port = serve(echo).server.port
        return Site(f"http://127.0.0.1:{port}", str(authority), port)
    port = serve(echo, ssl_certfile=str(certificate)).server.port
    return Site(f"https://127.0.0.1:{port}", str(authority), port)


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(bytes(range(256)) * (MIB // 256))
    return path


class TestCurl:
    def curl(self, site: Site, *arguments: str) -> bytes:
        version = "--http2" if site.url.startswith("https") else "--http2-prior-knowledge"
        return run("curl", "-sS", "--fail", version, "--cacert", site.authority, *arguments)

    def test_get(self, site: Site) -> None:
        assert self.curl(site, "-w", " %{http_version}", f"{site.url}/a") == b"2 /a 2"

    def test_post(self, site: Site, body: Path) -> None:
        got = self.curl(site, "--data-binary", f"@{body}", f"{site.url}/")
        assert got == body.read_bytes()

    def test_head(self, site: Site) -> None:
        assert self.curl(site, "-I", f"{site.url}/").startswith(b"HTTP/2 200")

    def test_many_streams(self, site: Site, tmp_path: Path) -> None:
        if site.url.startswith("http:") and b"curl 7.88" in run("curl", "--version"):
            pytest.skip("curl 7.88 cannot reuse connections with prior knowledge (curl issue 10634)")
        self.curl(
            site, "--parallel", "--parallel-max", "50", f"{site.url}/[1-200]", "-o", str(tmp_path / "out_#1")
        )
        got = [(tmp_path / f"out_{number}").read_bytes() for number in range(1, 201)]
        assert got == [b"2 /%d" % number for number in range(1, 201)]

    def test_upgrade_in_clear_text_is_ignored(self, site: Site) -> None:
        # RFC 9113 §3.1: "h2c" by Upgrade is obsolete; the answer is HTTP/1.1.
        if site.url.startswith("http:"):
            got = run("curl", "-sS", "--http2", "-w", " %{http_version}", f"{site.url}/a")
            assert got == b"1.1 /a 1.1"


class TestNghttp:
    def test_get(self, site: Site) -> None:
        assert run("nghttp", "-y", f"{site.url}/a") == b"2 /a"

    def test_post(self, site: Site, body: Path) -> None:
        assert run("nghttp", "-y", "-d", str(body), f"{site.url}/") == body.read_bytes()

    def test_small_window(self, site: Site, body: Path) -> None:
        got = run("nghttp", "-y", "-w", "10", "-W", "10", "-d", str(body), f"{site.url}/")
        assert got == body.read_bytes()

    def test_padding_and_trailers(self, site: Site, body: Path) -> None:
        got = run("nghttp", "-y", "-b", "200", "--trailer", "x-sum: 1", "-d", str(body), f"{site.url}/")
        assert got == body.read_bytes()

    def test_continuation(self, site: Site) -> None:
        assert run("nghttp", "-y", "--continuation", f"{site.url}/a") == b"2 /a"

    def test_many_streams(self, site: Site) -> None:
        assert run("nghttp", "-y", "-m", "100", f"{site.url}/a") == b"2 /a" * 100


class TestH2load:
    def h2load(self, url: str, count: int, *arguments: str) -> str:
        out = run("h2load", "-n", str(count), *arguments, url).decode()
        assert re.search(rf"{count} succeeded, 0 failed, 0 errored, 0 timeout", out), out
        assert f"status codes: {count} 2xx" in out
        return out

    def test_get(self, site: Site) -> None:
        self.h2load(f"{site.url}/a", 5000, "-c", "4", "-m", "50")

    def test_post(self, site: Site, body: Path) -> None:
        self.h2load(f"{site.url}/", 50, "-c", "2", "-m", "10", "-d", str(body))

    @pytest.mark.slow
    def test_a_hundred_thousand_requests_on_one_connection(self, spawn: Spawn) -> None:
        process = spawn(
            """
            async def app(scope, receive, send):
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"hello"})
            """,
            "--no-access-log",
        )
        self.h2load(f"http://127.0.0.1:{process.port}/", 100_000, "-c", "1", "-m", "100")


class TestHttpx:
    """Over TLS alone: httpx has no prior knowledge."""

    @pytest.fixture
    def url(self, serve: Serve, tmp_path: Path) -> str:
        certificate = tmp_path / "a.pem"
        issued = AUTHORITY.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
        return f"https://127.0.0.1:{serve(echo, ssl_certfile=str(certificate)).server.port}"

    @pytest.fixture
    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        return context

    def test_get_and_post(self, url: str, context: ssl.SSLContext, body: Path) -> None:
        with httpx.Client(http1=False, http2=True, verify=context, timeout=PATIENCE_S) as client:
            response = client.get(f"{url}/a")
            assert (response.http_version, response.text) == ("HTTP/2", "2 /a")
            assert client.post(url, content=body.read_bytes()).content == body.read_bytes()
            assert client.head(url).status_code == 200

    def test_many_streams(self, url: str, context: ssl.SSLContext) -> None:
        async def fetch() -> list[str]:
            async with httpx.AsyncClient(
                http1=False,
                http2=True,
                verify=context,
                timeout=PATIENCE_S,
                limits=httpx.Limits(max_connections=1),
            ) as client:
                responses = await asyncio.gather(*(client.get(f"{url}/{number}") for number in range(200)))
                return [response.text for response in responses]

        assert asyncio.run(fetch()) == [f"2 /{number}" for number in range(200)]

    def test_streamed_both_ways(self, url: str, context: ssl.SSLContext) -> None:
        def pieces() -> Any:
            for number in range(100):
                yield b"%d," % number

        with (
            httpx.Client(http1=False, http2=True, verify=context, timeout=PATIENCE_S) as client,
            client.stream("POST", url, content=pieces()) as response,
        ):
            assert b"".join(response.iter_bytes()) == b"".join(pieces())
