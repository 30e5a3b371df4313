"""Where the control surface listens."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass, field

from headrace.admin.runtime_folder import make_runtime_folder, socket_path
from headrace.config.options import AdminOptions
from headrace.errors import ListenError
from headrace.net import sockets
from headrace.net.addresses import UnixAddress, parse_bind

BACKLOG = 64


@dataclass(frozen=True, slots=True)
class AdminListeners:
    """Bound and listening sockets of the control surface.

    Attributes:
        unix: for the user's own processes; no token is asked there. Empty when it cannot be had.
        tcp: of ``--admin HOST:PORT``.
    """

    unix: list[socket.socket] = field(default_factory=list)
    tcp: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """Close them all; the Unix socket's file goes too."""
        sockets.close([*self.unix, *self.tcp])


def bind_admin(options: AdminOptions, pid: int | None = None) -> AdminListeners:
    """Open what ``--admin`` asks for.

    The Unix socket is for convenience: where it cannot be made (a read-only file system, no folder of our
    own) the server goes without it, and without a word. An address that was asked for is an address that must
    be had.

    Args:
        options: checked, by ``config.load``.
        pid: names the Unix socket; this process's unless given.

    Raises:
        ListenError: HOST:PORT cannot be bound.
    """
    if options.admin == "off":
        return AdminListeners()
    tcp: list[socket.socket] = []
    if options.admin != "auto":
        tcp = sockets.bind(parse_bind(options.admin), backlog=BACKLOG, unix_mode=0o600)
    return AdminListeners(_bind_unix(os.getpid() if pid is None else pid), tcp)


def _bind_unix(pid: int) -> list[socket.socket]:
    folder = make_runtime_folder()
    if folder is not None:
        with contextlib.suppress(ListenError):
            address = UnixAddress(str(socket_path(folder, pid)))
            return sockets.bind(address, backlog=BACKLOG, unix_mode=0o600)
    return []
