"""The folder in which running servers of one user keep their control sockets, ``PID.sock`` each.

The first of these that can be had: ``$XDG_RUNTIME_DIR/headrace``, ``/run/user/UID/headrace``,
``headrace-UID`` in ``$TMPDIR`` or ``/tmp``. It belongs to the user, is open to nobody else (0700) and no
symbolic link, because it may lie where others write; else it is not used. A server and those who look for it
may have different environments, so the search goes through all of them. Nothing here raises for what the file
system says: without a folder there is no control socket, and the server serves all the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

RUN_USER = Path("/run/user")


def make_runtime_folder() -> Path | None:
    """The folder, made if need be; None when none can be had."""
    for folder in _candidates():
        # It may be there already, or not be possible; what counts is what is there then.
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700)
        if _is_private(folder):
            return folder
    return None


def socket_path(folder: Path, pid: int) -> Path:
    """Where the server with this process id has its control socket."""
    return folder / f"{pid}.sock"


def live_sockets() -> dict[int, Path]:
    """The control sockets of this user's running servers, by process id.

    What a dead server left is removed.
    """
    found: dict[int, Path] = {}
    for folder in _candidates():
        if not _is_private(folder):
            continue
        for path in sorted(folder.glob("*.sock")):
            if not (re.fullmatch("[1-9][0-9]*", path.stem) and path.is_socket()):
                continue
            pid = int(path.stem)
            code = _connect(path)
            if code in (0, errno.EAGAIN):
                found.setdefault(pid, path)
            elif code == errno.ECONNREFUSED and not _is_running(pid):
                # A server that has bound but does not listen yet refuses too, and its process is there.
                with contextlib.suppress(OSError):
                    path.unlink()
    return found


def is_answered(path: Path) -> bool:
    """Whether somebody listens on a control socket."""
    return _connect(path) in (0, errno.EAGAIN)


def _candidates() -> Iterator[Path]:
    if not (hasattr(os, "geteuid") and hasattr(socket, "AF_UNIX")):
        return
    uid = os.geteuid()
    named = os.environ.get("XDG_RUNTIME_DIR")
    for parent in (Path(named) if named else None, RUN_USER / str(uid)):
        # A variable may have come along from another user, by su or sudo.
        if parent is not None and parent.is_absolute() and _is_own_folder(parent):
            yield parent / "headrace"
    yield Path(os.environ.get("TMPDIR") or "/tmp") / f"headrace-{uid}"


def _is_own_folder(path: Path) -> bool:
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _is_private(folder: Path) -> bool:
    return _is_own_folder(folder) and not stat.S_IMODE(os.lstat(folder).st_mode) & 0o077


def _connect(path: Path) -> int:
    """The error number of a connection, 0 for none; EAGAIN is a listener whose queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            return probe.connect_ex(str(path))
        except OSError:  # the path is too long
            return errno.ENAMETOOLONG


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
