"""The kernel's errors on binding, as sentences an operator can act on."""

from __future__ import annotations

import errno
import sys

from headrace.net.addresses import TCPAddress

IN_USE = (errno.EADDRINUSE,)
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_WHO_LISTENS = {
    "linux": "ss -ltnp 'sport = :{port}'",
    "darwin": "lsof -nP -iTCP:{port} -sTCP:LISTEN",
    "win32": "netstat -ano",
}


def tcp_sentence(error: OSError, address: TCPAddress) -> str:
    """Say why a host and port cannot be bound."""
    where = f"{address.host or 'all addresses'}, port {address.port}"
    code = error.errno
    if code in IN_USE and address.port == 0:
        return f"No port is free on {address.host or 'all addresses'}."
    if code in IN_USE:
        who = _WHO_LISTENS.get(sys.platform, _WHO_LISTENS["linux"]).format(port=address.port)
        return (
            f"Port {address.port} on {address.host or 'all addresses'} is already in use; see by whom: {who}"
        )
    if code in (errno.EACCES, errno.EPERM) and 0 < address.port < 1024:
        return (
            f"Port {address.port} may not be bound by this user: ports below 1024 need root or the "
            "capability CAP_NET_BIND_SERVICE; take a higher port, or let systemd pass the socket."
        )
    if code in (errno.EACCES, errno.EPERM):
        return f"This process is not permitted to listen on {where}."
    if code in NO_SUCH_ADDRESS:
        return f"The address {address.host!r} does not belong to this machine."
    return f"Cannot listen on {where}: {error.strerror or error}."


def unix_sentence(error: OSError | ValueError, path: str) -> str:
    """Say why a Unix socket cannot be bound."""
    shown = repr(path if len(path) <= 80 else path[:77] + "...")
    if isinstance(error, ValueError):
        return f"{shown} is no path for a Unix socket: {error}."
    if error.errno is None and "too long" in str(error):
        # Python refuses it before the kernel does, without a number.
        return f"The path {shown} is too long for a Unix socket: at most 107 bytes (103 on macOS)."
    sentences = {
        errno.ENOENT: f"The folder of the Unix socket {shown} does not exist.",
        errno.ENOTDIR: f"The folder of the Unix socket {shown} is no folder.",
        errno.EACCES: f"This user may not make or reach the Unix socket {shown}.",
        errno.EPERM: f"This user may not make or reach the Unix socket {shown}.",
        errno.EROFS: f"The Unix socket {shown} cannot be made on a read-only file system.",
        errno.EADDRINUSE: f"The Unix socket {shown} is already in use by a running server.",
        errno.ENOTSOCK: f"{shown} exists and is no socket, so it is left alone; take another path.",
    }
    return sentences.get(error.errno or 0, f"Cannot listen on {shown}: {error.strerror or error}.")
