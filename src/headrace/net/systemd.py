"""What systemd passes to a service and wants to hear from it: ``LISTEN_FDS`` and ``NOTIFY_SOCKET``.

Written after the manual pages sd_listen_fds(3) and sd_notify(3); no library is needed.
"""

from __future__ import annotations

import contextlib
import os
import socket

FIRST_FD = 3
"""The first descriptor systemd passes, sd_listen_fds(3)."""

_NOTIFY_TIMEOUT_S = 1.0
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def listen_fds() -> list[int]:
    """Take the descriptors systemd passed to this very process.

    The variables are removed from the environment and the descriptors are closed on exec, so that no child
    takes them for its own. A second call therefore finds nothing.

    Returns:
        The descriptors in systemd's order; empty without systemd, or when they are meant for another process.
    """
    variables = {name: os.environ.pop(name, "") for name in _VARIABLES}
    count = _number(variables["LISTEN_FDS"])
    if count == 0 or _number(variables["LISTEN_PID"]) != os.getpid():
        return []
    fds = list(range(FIRST_FD, FIRST_FD + count))
    for fd in fds:
        # A descriptor that is not open is reported when it is bound, with its number.
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, False)
    return fds


def notify(state: str) -> None:
    """Tell the service manager a state; silent without one, and never raises.

    Args:
        state: lines of ``NAME=value``: ``READY=1``, ``STOPPING=1``, ``STATUS=text``, ...
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    # ValueError: a path or a state that cannot be encoded. A notice must never stop a server.
    with (
        contextlib.suppress(OSError, ValueError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        # A full queue of the manager is waited for, because READY=1 must not be lost; but not for ever.
        sock.settimeout(_NOTIFY_TIMEOUT_S)
        sock.sendto(state.encode(), path)


def _number(text: str) -> int:
    """A count or a process id; 0 when it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0
