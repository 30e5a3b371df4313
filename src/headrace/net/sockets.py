"""Listeners: from an address to bound, listening, non-blocking sockets, and back to words.

Every error of the kernel leaves here as one sentence in a ``ListenError``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from headrace.errors import ListenError
from headrace.net import systemd
from headrace.net.addresses import BindAddress, DescriptorAddress, TCPAddress, UnixAddress
from headrace.net.listen_errors import IN_USE, NO_SUCH_ADDRESS, tcp_sentence, unix_sentence
from headrace.net.unix_listener import UnixListener
from headrace.types import Address

_PORT_ZERO_ATTEMPTS = 20
"""How often a free port is asked for when a later family finds the first one's port taken."""

Resolved = tuple[socket.AddressFamily, tuple[Any, ...]]


class Transport(Protocol):
    """The one method of an asyncio transport that is needed here."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Answer ``peername`` and ``sockname``."""


def bind(address: BindAddress, *, backlog: int, unix_mode: int) -> list[socket.socket]:
    """Open the listeners of one address.

    Args:
        address: what ``parse_bind`` or ``addresses_of`` gave.
        backlog: connections the kernel queues, 1 or more.
        unix_mode: permissions of a Unix socket, set before it can be connected to.

    Returns:
        Bound and listening, non-blocking, closed on exec. Several for an empty host (IPv4 and IPv6, the same
        port), for a name with several addresses, and for systemd. Give them to ``close`` in the end.

    Raises:
        ListenError: one sentence for the operator; nothing stays open.
    """
    if isinstance(address, TCPAddress):
        return _bind_tcp(address, backlog)
    if isinstance(address, UnixAddress):
        return [_bind_unix(address.path, backlog, unix_mode)]
    if isinstance(address, DescriptorAddress):
        return [_inherit(address.fd, backlog)]
    fds = systemd.listen_fds()
    if not fds:
        raise ListenError(
            "systemd passed no socket to this process (LISTEN_FDS and LISTEN_PID do not name it); "
            "start it by its .socket unit, or try it with systemd-socket-activate."
        )
    opened: list[socket.socket] = []
    with _close_on_error(opened):
        # extend keeps what came before an error, so that it is closed.
        opened.extend(_inherit(fd, backlog) for fd in fds)
    return opened


def close(sockets: Iterable[socket.socket]) -> None:
    """Close listeners; the path of a Unix socket goes with it if it is still the one bound here."""
    for sock in sockets:
        if isinstance(sock, UnixListener):
            sock.unlink()
        sock.close()


def describe(sock: socket.socket) -> str:
    """Say where a socket listens: ``127.0.0.1:8000``, ``[::1]:8000`` or ``unix socket /path``."""
    name = sock.getsockname()
    if isinstance(name, tuple):
        return _host_and_port(name[0], name[1])
    return f"unix socket {_path_text(name)}"


def announce(address: BindAddress, sock: socket.socket, scheme: str) -> str:
    """Say where a listener is, as uvicorn's start-up line does behind "running on".

    Args:
        address: what the operator asked for; its host is shown as written.
        sock: one of the sockets that came of it; it knows the port.
        scheme: "http" or "https".
    """
    name = sock.getsockname()
    if isinstance(address, DescriptorAddress):
        return f"socket {name}"
    if not isinstance(name, tuple):
        return describe(sock)
    host = address.host if isinstance(address, TCPAddress) and address.host else name[0]
    return f"{scheme}://{_host_and_port(host, name[1])}"


def peer_address(transport: Transport) -> Address | None:
    """Give ``scope["client"]``: (host, port), or None for a Unix socket. IPv6 flow numbers are dropped."""
    name = transport.get_extra_info("peername")
    if isinstance(name, (tuple, list)) and len(name) >= 2:
        return (str(name[0]), int(name[1]))
    return None


def local_address(transport: Transport) -> Address | None:
    """Give ``scope["server"]``: (host, port), or (path, None) for a Unix socket."""
    name = transport.get_extra_info("sockname")
    if isinstance(name, (tuple, list)) and len(name) >= 2:
        return (str(name[0]), int(name[1]))
    if isinstance(name, (str, bytes)) and name:
        return (_path_text(name), None)
    return None


@contextlib.contextmanager
def _close_on_error(opened: list[socket.socket]) -> Iterator[None]:
    """All of them or none: an error inside closes what the list holds by then."""
    try:
        yield
    except BaseException:
        close(opened)
        raise


def _bind_tcp(address: TCPAddress, backlog: int) -> list[socket.socket]:
    resolved = _resolve(address)
    for _ in range(_PORT_ZERO_ATTEMPTS if address.port == 0 else 1):
        try:
            return _bind_each(resolved, address, backlog)
        except OSError as exc:
            error = exc
            # With port 0 and two families the first one's port may be taken in the second.
            if exc.errno not in IN_USE:
                break
    raise ListenError(tcp_sentence(error, address)) from error


def _resolve(address: TCPAddress) -> list[Resolved]:
    try:
        found = socket.getaddrinfo(
            address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as exc:
        raise ListenError(
            f"The host {address.host[:80]!r} cannot be resolved to an address of this machine ({exc})."
        ) from exc
    families = (socket.AF_INET, socket.AF_INET6)
    # getaddrinfo may name an address twice (two lines of /etc/hosts); IPv4 goes first so that its port shows.
    unique = dict.fromkeys((family, name) for family, _, _, _, name in found if family in families)
    return sorted(unique, key=lambda item: families.index(item[0]))


def _bind_each(resolved: list[Resolved], address: TCPAddress, backlog: int) -> list[socket.socket]:
    """Bind every resolved address; one whose family the machine lacks is left out while another remains.

    Raises:
        OSError: as the kernel gave it.
    """
    opened: list[socket.socket] = []
    missing: list[OSError] = []
    port = address.port
    with _close_on_error(opened):
        for family, name in resolved:
            try:
                opened.append(_listen(family, (name[0], port, *name[2:]), backlog))
            except OSError as exc:
                if exc.errno not in NO_SUCH_ADDRESS:
                    raise
                missing.append(exc)
            else:
                port = opened[-1].getsockname()[1]
    if not opened:
        raise missing[0]
    return opened


def _listen(family: socket.AddressFamily, name: tuple[Any, ...], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            # There SO_REUSEADDR would let two servers share a port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Else the IPv4 listener of the same port could not be bound, or clients were ::ffff:1.2.3.4.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(name)
        # A second server that was bound but not yet listening shows only here.
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(path: str, backlog: int, mode: int) -> UnixListener:
    if not hasattr(socket, "AF_UNIX"):
        raise ListenError("This system has no Unix sockets; listen on a host and port.")
    try:
        return UnixListener.open(path, backlog=backlog, mode=mode)
    except (OSError, ValueError) as exc:
        raise ListenError(unix_sentence(exc, path)) from exc


def _inherit(fd: int, backlog: int) -> socket.socket:
    """Take a duplicate of an inherited listener, so that who passed it keeps the right to close its own."""
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError as exc:
        raise ListenError(f"File descriptor {fd} is no socket ({exc.strerror or exc}).") from exc
    try:
        sock.setblocking(False)
        reason = _why_no_listener(sock)
        if reason:
            raise ListenError(f"File descriptor {fd} is no listener: {reason}.")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            # Bound but not yet listening: uvicorn takes those too.
            sock.listen(backlog)
    except OSError as exc:
        sock.close()
        raise ListenError(f"File descriptor {fd} cannot listen ({exc.strerror or exc}).") from exc
    except ListenError:
        sock.close()
        raise
    return sock


def _why_no_listener(sock: socket.socket) -> str:
    """Say in a few words why an inherited socket cannot be listened on; empty when it can."""
    if sock.type != socket.SOCK_STREAM:
        return "it is no stream socket"
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return ""
    with contextlib.suppress(OSError):
        sock.getpeername()
        return "it is a connection"
    name = sock.getsockname()
    if not name or (isinstance(name, tuple) and name[1] == 0):
        return "it is not bound to an address"
    return ""


def _host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _path_text(name: str | bytes) -> str:
    """A Unix socket's name; an abstract one, which begins with NUL, is written with ``@``."""
    text = os.fsdecode(name)
    return "@" + text[1:] if text.startswith("\0") else text
