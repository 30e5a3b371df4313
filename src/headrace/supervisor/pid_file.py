"""``--pid``: a file that holds the process number while the server runs."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time

from headrace.errors import ConfigError

MODE = 0o644
_MOST_BYTES = 32
"""More than a process number and its line end are; what is longer is something else."""

_SAME_TIME_S = 2.0
"""By how much a process must have begun after a file was written to have nothing to do with it."""


class PidFile:
    """The file of one server.

    Args:
        path: a relative one is kept as the absolute one, so that a later chdir does no harm.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._fd = -1

    def check(self) -> None:
        """See that no other server holds the file; to be asked before anything starts.

        Raises:
            ConfigError: the process that it names lives, or it is no pid file.
        """
        try:
            found = os.stat(self._path)
        except OSError:
            # Nothing there, or nothing to be reached: writing tells which.
            return
        shown = _shown(self._path)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{shown} exists and is no plain file, so --pid leaves it alone; take another.")
        try:
            with open(self._path, "rb") as file:
                content = file.read(_MOST_BYTES + 1).strip()
        except OSError as error:
            raise ConfigError(f"The pid file {shown} cannot be read: {error.strerror}.") from error
        if not content:
            return
        if not content.isdigit() or len(content) > _MOST_BYTES:
            raise ConfigError(
                f"{shown} exists and holds no process number, so --pid leaves it alone; take another."
            )
        pid = int(content)
        if pid != os.getpid() and _lives(pid, found.st_mtime):
            raise ConfigError(
                f"The pid file {shown} names process {pid}, which is running; stop it, or take another file."
            )

    def write(self) -> None:
        """Put this process's number there, whole or not at all; call it when the listeners are bound.

        Raises:
            ConfigError: as ``check``, or it cannot be written.
        """
        self.check()
        # In the same folder, because only there a file can take another's place in one step.
        draft = f"{self._path}.{os.getpid()}.new"
        with contextlib.suppress(OSError):
            # Of one that was killed right here and had our number.
            os.unlink(draft)
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            # What the umask has taken is given back.
            os.chmod(draft, MODE)
            os.write(fd, f"{os.getpid()}\n".encode())
            os.replace(draft, self._path)
        except OSError as error:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise self._unwritable(error) from error
        self._fd = fd

    def remove(self) -> None:
        """Take the file away if it still holds our number; never raises.

        Where the folder may no longer be written, as the process has become another user, the file is
        emptied: nobody is stopped by that, and nobody sends signals to a number that others may get.
        """
        if self._fd < 0:
            return
        try:
            if self._is_ours():
                os.unlink(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
        finally:
            os.close(self._fd)
            self._fd = -1

    def _is_ours(self) -> bool:
        with open(self._path, "rb") as file:
            return file.read(_MOST_BYTES).strip() == str(os.getpid()).encode()

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(f"The pid file {_shown(self._path)} cannot be written: {error.strerror}.")


def _shown(path: str) -> str:
    return repr(path if len(path) <= 80 else "..." + path[-77:])


def _lives(pid: int, written_at: float) -> bool:
    """Whether a process runs that may have written the file.

    Args:
        pid: its number.
        written_at: the file's time, in seconds since the epoch.
    """
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (OSError, OverflowError):
        return False
    # Numbers come again: in a container that starts anew nearly the same ones each time.
    began_at = _began_at(pid)
    return pid > 0 and (began_at is None or began_at <= written_at + _SAME_TIME_S)


def _began_at(pid: int) -> float | None:
    """When a process began, in seconds since the epoch; None where it cannot be told (Linux can)."""
    if sys.platform != "linux":
        return None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # proc_pid_stat(5): field 22, in clock ticks since the boot; the name before may hold anything.
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
