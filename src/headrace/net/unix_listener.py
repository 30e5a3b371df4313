"""A listener on a path: replaces what a dead server left, leaves alone what is not its own."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat


class UnixListener(socket.socket):
    """A Unix listener that knows which file it made."""

    __slots__ = ("_file", "_path")

    _path: str
    _file: tuple[int, int]
    """Device and inode of the socket's file."""

    @classmethod
    def open(cls, path: str, *, backlog: int, mode: int) -> UnixListener:
        """Bind and listen; a socket file nobody listens on is removed first.

        Args:
            path: where; a relative one is kept as the absolute one, so that a later chdir does no harm.
            backlog: connections the kernel queues.
            mode: permissions of the file.

        Raises:
            OSError: as the kernel gave it; EADDRINUSE when a server listens there, ENOTSOCK when something
                other than a socket has the path, no number when the path is too long.
            ValueError: the path holds a NUL.
        """
        _remove_stale(path)
        sock = cls(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(path)
            sock._path = os.path.abspath(path)
            sock._file = _identity(path)
            # No listen before chmod: until it listens nobody can connect, whatever the umask gave.
            os.chmod(path, mode)
            sock.listen(backlog)
        except BaseException:
            sock.unlink()
            sock.close()
            raise
        return sock

    def unlink(self) -> None:
        """Remove the file if it is still the one this listener made."""
        if not hasattr(self, "_file"):
            return
        # A successor may have replaced it, and the folder may be gone.
        with contextlib.suppress(OSError):
            if _identity(self._path) == self._file:
                os.unlink(self._path)


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return (found.st_dev, found.st_ino)


def _remove_stale(path: str) -> None:
    """Remove a socket file that refuses connections; say nothing when there is no file.

    Raises:
        OSError: EADDRINUSE, ENOTSOCK, or what the kernel says of the folder.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        # Nothing there, or no folder: bind tells which.
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    if _is_answered(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    with contextlib.suppress(FileNotFoundError):
        # Another server may have replaced it since it was probed.
        if _identity(path) == (found.st_dev, found.st_ino):
            os.unlink(path)


def _is_answered(path: str) -> bool:
    """Whether somebody listens on a socket file.

    Raises:
        OSError: it cannot be told (no permission to connect).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code in (errno.ECONNREFUSED, errno.ENOENT):
        return False
    if code in (errno.EACCES, errno.EPERM):
        raise OSError(code, os.strerror(code))
    # 0: accepted. EAGAIN: its backlog is full. EPROTOTYPE: somebody's datagram socket.
    return True
