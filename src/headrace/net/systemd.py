"""What systemd passes to a service and wants to hear from it: ``LISTEN_FDS`` and ``NOTIFY_SOCKET``.

Written after the manual pages sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3); no library is
needed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

FIRST_FD = 3
"""The first descriptor systemd passes, sd_listen_fds(3)."""

_NOTIFY_TIMEOUT_S = 1.0
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_ONLY_FOR_ONE = (*_VARIABLES, "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


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


def ready(status: str = "") -> None:
    """Tell that the start, or a reload, is done.

    Args:
        status: what ``systemctl status`` shows from now on, one line; empty leaves what it shows.
    """
    notify("READY=1" + (f"\n{_status_line(status)}" if status else ""))


def reloading() -> None:
    """Tell that a reload begins; ``ready`` must follow, also when the reload came to nothing.

    With the time it was received at, without which a service of ``Type=notify-reload`` is not taken to have
    heard the signal: systemd.service(5).
    """
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def status(text: str) -> None:
    """Tell how everything is, in one line for ``systemctl status``."""
    notify(_status_line(text))


def watchdog_interval_s() -> float | None:
    """How often ``watchdog`` is to be called: half of ``WatchdogSec=``; None where nobody waits for it."""
    timeout_us = _number(os.environ.get("WATCHDOG_USEC", ""), max_digits=18)
    pid = os.environ.get("WATCHDOG_PID", "")
    if timeout_us == 0 or (pid and _number(pid) != os.getpid()):
        return None
    return timeout_us / 2_000_000


def watchdog() -> None:
    """Tell that the service lives."""
    notify("WATCHDOG=1")


def without_systemd(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child, without what systemd means for this process alone.

    A worker that had it would tell of its own state as if it were the service's.
    """
    return {name: value for name, value in environ.items() if name not in _ONLY_FOR_ONE}


def _status_line(text: str) -> str:
    # A line's end would begin another assignment.
    return "STATUS=" + " ".join(text.splitlines())


def _number(text: str, max_digits: int = 9) -> int:
    """A count, a process id or a duration; 0 when it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= max_digits else 0
