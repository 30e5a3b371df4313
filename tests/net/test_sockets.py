import asyncio
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ListenError
from headrace.net import sockets, systemd
from headrace.net.addresses import BindAddress, DescriptorAddress, SystemdAddress, TCPAddress, UnixAddress
from headrace.net.listen_errors import tcp_sentence, unix_sentence

Bind = Callable[..., list[socket.socket]]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


@pytest.fixture
def bind() -> Iterator[Bind]:
    opened: list[socket.socket] = []

    def bind(address: BindAddress, mode: int = 0o600) -> list[socket.socket]:
        new = sockets.bind(address, backlog=16, unix_mode=mode)
        opened.extend(new)
        return new

    yield bind
    sockets.close(opened)


def refusal(address: BindAddress) -> str:
    with pytest.raises(ListenError) as caught:
        sockets.bind(address, backlog=16, unix_mode=0o600)
    message = str(caught.value)
    assert "\n" not in message
    return message


def is_reachable(family: int, name: Any) -> bool:
    with socket.socket(family) as client:
        client.settimeout(10)
        return client.connect_ex(name) == 0


class TestTCP:
    def test_listens(self, bind: Bind) -> None:
        [sock] = bind(TCPAddress("127.0.0.1", 0))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        assert is_reachable(socket.AF_INET, sock.getsockname())

    @needs_ipv6
    def test_empty_host_is_both_families_on_one_port(self, bind: Bind) -> None:
        opened = bind(TCPAddress("", 0))
        assert [sock.family for sock in opened] == [socket.AF_INET, socket.AF_INET6]
        [port] = {sock.getsockname()[1] for sock in opened}
        assert opened[1].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        assert is_reachable(socket.AF_INET, ("127.0.0.1", port))
        assert is_reachable(socket.AF_INET6, ("::1", port))

    @needs_ipv6
    def test_port_zero_tries_again_when_the_second_family_has_it_taken(
        self, bind: Bind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [taken] = bind(TCPAddress("::", 0))
        port = taken.getsockname()[1]
        listen, asked = sockets._listen, []

        def listen_on_the_taken_port_first(family: Any, name: Any, backlog: int) -> socket.socket:
            asked.append(family)
            return listen(family, (name[0], port, *name[2:]) if len(asked) == 1 else name, backlog)

        monkeypatch.setattr(sockets, "_listen", listen_on_the_taken_port_first)
        opened = bind(TCPAddress("", 0))
        assert len(opened) == 2
        assert len(asked) == 4
        assert port not in {sock.getsockname()[1] for sock in opened}

    def test_name_is_resolved(self, bind: Bind) -> None:
        opened = bind(TCPAddress("localhost", 0))
        assert len({sock.getsockname()[1] for sock in opened}) == 1
        assert is_reachable(opened[0].family, opened[0].getsockname())

    def test_family_the_machine_lacks_is_left_out(self, bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
        listen = sockets._listen

        def without_ipv6(family: Any, name: Any, backlog: int) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported")
            return listen(family, name, backlog)

        monkeypatch.setattr(sockets, "_listen", without_ipv6)
        assert [sock.family for sock in bind(TCPAddress("", 0))] == [socket.AF_INET]

    def test_port_can_be_taken_again_at_once(self, bind: Bind) -> None:
        [first] = bind(TCPAddress("127.0.0.1", 0))
        name = first.getsockname()
        with socket.create_connection(name):
            accepted = wait_accept(first)
        accepted.close()
        sockets.close([first])
        assert bind(TCPAddress(*name))

    def test_in_use(self, bind: Bind) -> None:
        [first] = bind(TCPAddress("127.0.0.1", 0))
        port = first.getsockname()[1]
        message = refusal(TCPAddress("127.0.0.1", port))
        assert f"Port {port} on 127.0.0.1 is already in use" in message
        if sys.platform == "linux":
            assert f"ss -ltnp 'sport = :{port}'" in message

    @needs_ipv6
    def test_nothing_stays_open_when_one_family_is_in_use(self, bind: Bind) -> None:
        [taken] = bind(TCPAddress("::1", 0))
        port = taken.getsockname()[1]
        found = sockets._resolve(TCPAddress("127.0.0.1", port)) + sockets._resolve(TCPAddress("::1", port))
        with pytest.raises(OSError):
            sockets._bind_each(found, TCPAddress("", port), 16)
        assert not is_reachable(socket.AF_INET, ("127.0.0.1", port))

    def test_not_this_machine(self) -> None:
        assert refusal(TCPAddress("192.0.2.1", 0)) == (
            "The address '192.0.2.1' does not belong to this machine."
        )

    @pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "x" * 300])
    def test_name_that_cannot_be_resolved(self, host: str) -> None:
        assert "cannot be resolved" in refusal(TCPAddress(host, 0))

    @pytest.mark.parametrize(
        ("number", "port", "words"),
        [
            (errno.EACCES, 80, "below 1024"),
            (errno.EACCES, 8080, "not permitted"),
            (errno.EADDRINUSE, 0, "No port is free"),
            (errno.ENOBUFS, 8080, "Cannot listen on 1.2.3.4, port 8080: no buffers"),
        ],
    )
    def test_sentences(self, number: int, port: int, words: str) -> None:
        assert words in tcp_sentence(OSError(number, "no buffers"), TCPAddress("1.2.3.4", port))


def wait_accept(listener: socket.socket) -> socket.socket:
    listener.settimeout(10)
    return listener.accept()[0]


class TestUnix:
    def test_listens_with_the_mode_whatever_the_umask(self, bind: Bind, tmp_path: Path) -> None:
        path = tmp_path / "s"
        before = os.umask(0o077)
        try:
            [sock] = bind(UnixAddress(str(path)), mode=0o666)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert not sock.getblocking()
        assert is_reachable(socket.AF_UNIX, str(path))

    def test_close_removes_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        opened = sockets.bind(UnixAddress("s"), backlog=1, unix_mode=0o600)
        monkeypatch.chdir("/")
        sockets.close(opened)
        assert not (tmp_path / "s").exists()
        sockets.close(opened)

    def test_close_leaves_a_successors_file(self, bind: Bind, tmp_path: Path) -> None:
        path = tmp_path / "s"
        opened = bind(UnixAddress(str(path)))
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
            sockets.close(opened)
            assert path.exists()

    def test_stale_file_is_replaced(self, bind: Bind, tmp_path: Path) -> None:
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        inode = path.stat().st_ino
        assert not is_reachable(socket.AF_UNIX, str(path))
        bind(UnixAddress(str(path)))
        assert is_reachable(socket.AF_UNIX, str(path))
        assert inode

    def test_live_server_is_left_alone(self, bind: Bind, tmp_path: Path) -> None:
        path = str(tmp_path / "s")
        bind(UnixAddress(path))
        assert "already in use" in refusal(UnixAddress(path))
        assert is_reachable(socket.AF_UNIX, path)

    def test_live_server_with_a_full_backlog_is_left_alone(self, tmp_path: Path) -> None:
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen(0)
            waiting = []
            while True:
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                waiting.append(client)
                if client.connect_ex(path):
                    break
            assert "already in use" in refusal(UnixAddress(path))
            for client in waiting:
                client.close()

    def test_datagram_socket_is_left_alone(self, tmp_path: Path) -> None:
        path = str(tmp_path / "s")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(path)
            assert "already in use" in refusal(UnixAddress(path))

    @pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")])
    def test_other_files_are_never_deleted(self, tmp_path: Path, make: Any) -> None:
        path = tmp_path / "s"
        make(path)
        assert "is no socket" in refusal(UnixAddress(str(path)))
        assert path.exists() or path.is_symlink()

    def test_path_too_long(self, tmp_path: Path) -> None:
        assert "too long" in refusal(UnixAddress(str(tmp_path / ("x" * 200))))

    def test_missing_folder(self, tmp_path: Path) -> None:
        assert "does not exist" in refusal(UnixAddress(str(tmp_path / "none" / "s")))

    def test_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "is no folder" in refusal(UnixAddress(str(tmp_path / "file" / "s")))

    def test_no_path(self) -> None:
        assert "is no path" in refusal(UnixAddress("a\0b"))

    def test_failure_after_binding_removes_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any) -> None:
            raise PermissionError(errno.EPERM, "no")

        monkeypatch.setattr(os, "chmod", refuse)
        assert "may not" in refusal(UnixAddress(str(tmp_path / "s")))
        assert not (tmp_path / "s").exists()

    def test_no_permission_to_probe(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
        # root may connect to everything, so that the kernel's answer is put in here.
        monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.EACCES)
        assert "may not" in refusal(UnixAddress(str(path)))
        assert path.exists()

    def test_other_errors_keep_their_words(self) -> None:
        assert unix_sentence(OSError(errno.EIO, "disk gone"), "/s") == "Cannot listen on '/s': disk gone."


class TestInherited:
    def test_family_is_found(self, bind: Bind, tmp_path: Path) -> None:
        for address in (TCPAddress("127.0.0.1", 0), UnixAddress(str(tmp_path / "s"))):
            [original] = bind(address)
            [sock] = bind(DescriptorAddress(original.fileno()))
            assert (sock.family, sock.getsockname()) == (original.family, original.getsockname())
            assert not sock.getblocking()

    def test_who_passed_it_keeps_its_own(self, bind: Bind) -> None:
        [original] = bind(TCPAddress("127.0.0.1", 0))
        sockets.close(bind(DescriptorAddress(original.fileno())))
        assert is_reachable(socket.AF_INET, original.getsockname())

    def test_file_of_an_inherited_unix_listener_stays(self, bind: Bind, tmp_path: Path) -> None:
        [original] = bind(UnixAddress(str(tmp_path / "s")))
        sockets.close(bind(DescriptorAddress(original.fileno())))
        assert (tmp_path / "s").exists()

    def test_bound_one_is_made_to_listen(self, bind: Bind) -> None:
        with socket.socket() as original:
            original.bind(("127.0.0.1", 0))
            bind(DescriptorAddress(original.fileno()))
            assert is_reachable(socket.AF_INET, original.getsockname())

    def test_not_open(self) -> None:
        assert "File descriptor 1000000 is no socket" in refusal(DescriptorAddress(1_000_000))

    def test_file(self, tmp_path: Path) -> None:
        with (tmp_path / "f").open("w") as file:
            assert "is no socket" in refusal(DescriptorAddress(file.fileno()))

    def test_datagram(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            assert "no stream socket" in refusal(DescriptorAddress(sock.fileno()))

    def test_connection(self) -> None:
        one, other = socket.socketpair()
        with one, other:
            assert "it is a connection" in refusal(DescriptorAddress(one.fileno()))

    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
    def test_unbound(self, family: int) -> None:
        with socket.socket(family) as sock:
            assert "not bound" in refusal(DescriptorAddress(sock.fileno()))

    def test_kernel_refuses(self, bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any) -> str:
            raise OSError(errno.EIO, "broken")

        [original] = bind(TCPAddress("127.0.0.1", 0))
        monkeypatch.setattr(sockets, "_why_no_listener", refuse)
        assert "cannot listen (broken)" in refusal(DescriptorAddress(original.fileno()))


class TestSystemd:
    def test_all_that_were_passed(self, bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
        passed = [bind(TCPAddress("127.0.0.1", 0))[0] for _ in range(2)]
        monkeypatch.setattr(systemd, "listen_fds", lambda: [sock.fileno() for sock in passed])
        names = [sock.getsockname() for sock in bind(SystemdAddress())]
        assert names == [sock.getsockname() for sock in passed]

    def test_one_of_them_bad(self, bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
        good = bind(TCPAddress("127.0.0.1", 0))[0].fileno()
        monkeypatch.setattr(systemd, "listen_fds", lambda: [good, 1_000_000])
        assert "File descriptor 1000000" in refusal(SystemdAddress())

    def test_none_passed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(systemd, "listen_fds", list)
        assert "systemd passed no socket" in refusal(SystemdAddress())


class TestWords:
    def test_tcp(self, bind: Bind) -> None:
        [sock] = bind(TCPAddress("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert sockets.describe(sock) == f"127.0.0.1:{port}"
        assert sockets.announce(TCPAddress("127.0.0.1", 0), sock, "http") == f"http://127.0.0.1:{port}"
        assert sockets.announce(TCPAddress("localhost", 0), sock, "https") == f"https://localhost:{port}"
        assert sockets.announce(TCPAddress("", 0), sock, "http") == f"http://127.0.0.1:{port}"
        assert sockets.announce(DescriptorAddress(3), sock, "http") == f"socket ('127.0.0.1', {port})"
        assert sockets.announce(SystemdAddress(), sock, "http") == f"http://127.0.0.1:{port}"

    @needs_ipv6
    def test_ipv6(self, bind: Bind) -> None:
        [sock] = bind(TCPAddress("::1", 0))
        port = sock.getsockname()[1]
        assert sockets.describe(sock) == f"[::1]:{port}"
        assert sockets.announce(TCPAddress("::1", 0), sock, "http") == f"http://[::1]:{port}"

    def test_unix(self, bind: Bind, tmp_path: Path) -> None:
        address = UnixAddress(str(tmp_path / "s"))
        [sock] = bind(address)
        assert sockets.describe(sock) == f"unix socket {address.path}"
        assert sockets.announce(address, sock, "http") == f"unix socket {address.path}"

    @pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
    def test_abstract(self) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"\0headrace-{os.getpid()}")
            assert sockets.describe(sock) == f"unix socket @headrace-{os.getpid()}"


class Extra:
    """A transport that knows nothing but its names."""

    def __init__(self, **names: Any) -> None:
        self.names = names

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.names.get(name, default)


def test_addresses_a_transport_does_not_know() -> None:
    assert sockets.peer_address(Extra()) is None
    assert sockets.local_address(Extra()) is None
    assert sockets.local_address(Extra(sockname="")) is None
    assert sockets.local_address(Extra(sockname=b"\0name")) == ("@name", None)
    assert sockets.peer_address(Extra(peername=("fe80::1%eth0", 5, 0, 2))) == ("fe80::1%eth0", 5)


def loops() -> list[Any]:
    uvloop = pytest.importorskip("uvloop")
    return [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("new_loop", loops())
class TestScopeAddresses:
    """What real transports answer, under both loops."""

    def ask(self, new_loop: Any, listener: socket.socket, client: socket.socket, name: Any) -> Any:
        async def main() -> Any:
            loop = asyncio.get_running_loop()
            found: asyncio.Future[Any] = loop.create_future()

            class Asking(asyncio.Protocol):
                def connection_made(self, transport: Any) -> None:
                    found.set_result((sockets.peer_address(transport), sockets.local_address(transport)))
                    transport.close()

            create = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
            server = await create(Asking, sock=listener)
            client.connect(name)
            try:
                return await found
            finally:
                server.close()
                await server.wait_closed()

        loop = new_loop()
        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]
    )  # fmt: skip
    def test_tcp(self, bind: Bind, new_loop: Any, host: str) -> None:
        [listener] = bind(TCPAddress(host, 0))
        name = listener.getsockname()
        with socket.socket(listener.family) as client:
            peer, local = self.ask(new_loop, listener, client, name)
            assert peer == client.getsockname()[:2]
        assert local == name[:2]

    def test_unix(self, bind: Bind, new_loop: Any, tmp_path: Path) -> None:
        path = str(tmp_path / "s")
        [listener] = bind(UnixAddress(path))
        with socket.socket(socket.AF_UNIX) as client:
            assert self.ask(new_loop, listener, client, path) == (None, (path, None))
