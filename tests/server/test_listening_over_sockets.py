"""Where clients come from: Unix sockets, inherited descriptors, PROXY protocol, several addresses."""

import ipaddress
import signal
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from live import SHORT_S, Client, LiveServer, ServerProcess, respond

Serve = Callable[..., LiveServer]
Spawn = Callable[..., ServerProcess]

APP = """
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": repr((scope["client"], scope["server"])).encode()})
    """


async def addresses(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, repr((scope["client"], scope["server"])).encode())


def connect_unix(path: Path) -> Client:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return Client(sock)


class TestUnixSockets:
    @pytest.mark.parametrize(("arguments", "mode"), [((), 0o666), (("--uds-mode", "0600"), 0o600)])
    def test_served_and_removed(
        self, spawn: Spawn, tmp_path: Path, arguments: tuple[str, ...], mode: int
    ) -> None:
        path = tmp_path / "a.sock"
        process = spawn(APP, "--uds", str(path), "--lifespan", "off", *arguments)
        process.wait_line(f"Uvicorn running on unix socket {path} ")
        assert stat.S_IMODE(path.stat().st_mode) == mode
        client = connect_unix(path)
        assert client.request().body.decode() == repr((None, (str(path), None)))
        client.close()
        process.signal()
        assert process.wait_exit() == -signal.SIGTERM
        assert not path.exists()

    def test_stale_file_is_replaced(self, spawn: Spawn, tmp_path: Path) -> None:
        path = tmp_path / "a.sock"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        process = spawn(APP, "--bind", f"unix:{path}", "--lifespan", "off")
        process.wait_line("Uvicorn running")
        client = connect_unix(path)
        assert client.request().status == 200
        client.close()

    def test_living_server_is_not_replaced(self, spawn: Spawn, tmp_path: Path) -> None:
        path = tmp_path / "a.sock"
        with socket.socket(socket.AF_UNIX) as living:
            living.bind(str(path))
            living.listen()
            assert spawn(APP, "--uds", str(path), "--lifespan", "off").wait_exit() == 3
            assert path.exists()

    def test_file_that_is_no_socket_is_left(self, spawn: Spawn, tmp_path: Path) -> None:
        path = tmp_path / "a.sock"
        path.write_text("precious")
        assert spawn(APP, "--uds", str(path), "--lifespan", "off").wait_exit() == 3
        assert path.read_text() == "precious"

    def test_limit_of_connections(self, serve: Serve, tmp_path: Path) -> None:
        # Accepting pauses and resumes; the path must outlive that.
        path = tmp_path / "a.sock"
        serve(addresses, uds=str(path), limit_connections=1)
        for _ in range(3):
            client = connect_unix(path)
            assert client.request().status == 200
            client.close()


@pytest.mark.parametrize("form", ["--fd {}", "--bind fd://{}"])
def test_inherited_descriptor(spawn: Spawn, form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        process = spawn(APP, *form.format(fd).split(), "--lifespan", "off", pass_fds=[fd])
        client = Client(socket.create_connection(listener.getsockname()))
        assert client.request().status == 200
        client.close()
        process.signal()
        assert process.wait_exit() == -signal.SIGTERM


def test_several_addresses(spawn: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    arguments = ("--bind", "127.0.0.1:0", "--bind", "[::1]:0", "--bind", f"unix:{path}")
    process = spawn(APP, *arguments, "--lifespan", "off")
    four = int(process.wait_line(r"running on http://127\.0\.0\.1:(\d+)")[1])
    six = int(process.wait_line(r"running on http://\[::1\]:(\d+)")[1])
    process.wait_line("running on unix socket")
    clients = [
        Client(socket.create_connection(("127.0.0.1", four))),
        Client(socket.create_connection(("::1", six))),
        connect_unix(path),
    ]
    bodies = [client.request().body.decode() for client in clients]
    assert bodies[0].endswith(f"('127.0.0.1', {four}))")
    assert bodies[1].endswith(f"('::1', {six}))")
    for client in clients:
        client.close()


V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 5678 443\r\n"
V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11"
    + struct.pack("!H", 12)
    + ipaddress.IPv4Address("192.0.2.7").packed
    + ipaddress.IPv4Address("198.51.100.1").packed
    + struct.pack("!HH", 5678, 443)
)
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
SAID = b"(('192.0.2.7', 5678), ('198.51.100.1', 443))"


class TestProxyProtocol:
    @pytest.mark.parametrize("header", [V1, V2])
    @pytest.mark.parametrize("is_whole", [True, False])
    def test_addresses_of_a_trusted_proxy(self, serve: Serve, header: bytes, is_whole: bool) -> None:
        client = serve(addresses, proxy_protocol=True).connect()
        data = header + GET
        for piece in [data] if is_whole else [data[i : i + 1] for i in range(len(data))]:
            client.send(piece)
        assert client.read_response().body == SAID
        # For the whole connection.
        assert client.request().body == SAID

    @pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"])
    def test_health_check_of_the_proxy_itself(self, serve: Serve, header: bytes) -> None:
        server = serve(addresses, proxy_protocol=True)
        client = server.connect()
        client.send(header + GET)
        assert client.read_response().body.decode() == repr(
            (client.sock.getsockname(), ("127.0.0.1", server.server.port))
        )

    def test_untrusted_peer_is_cut(self, serve: Serve, error_log: Any) -> None:
        client = serve(addresses, proxy_protocol=True, forwarded_allow_ips="192.0.2.1").connect()
        assert client.is_ended()
        assert any("not a trusted proxy" in line for line in error_log.lines())

    @pytest.mark.parametrize("start", [GET, b"PROXY TCP4 x\r\n", b"PROXY TCP9"])
    def test_anything_else_is_cut(self, serve: Serve, start: bytes) -> None:
        client = serve(addresses, proxy_protocol=True).connect()
        client.send(start)
        assert client.is_ended()

    def test_header_that_does_not_come_is_cut(self, serve: Serve) -> None:
        client = serve(addresses, proxy_protocol=True, timeout_header=SHORT_S).connect()
        client.send(b"PROXY ")
        assert client.is_ended()
