"""What ``ps`` and ``top`` show of a process."""

from __future__ import annotations

import contextlib
import re
import sys

COMMAND_NAME_BYTES = 15
"""proc_pid_comm(5): what the kernel keeps of a process's name."""


def set_title(text: str) -> None:
    """Show a text in the place of the command line; never raises.

    The package ``setproctitle`` (extra ``titles``) does that. With or without it there is, on Linux, the
    short name that ``top``, ``pgrep`` and ``ps -o comm`` show.

    Args:
        text: as "headrace: worker 1 [main:app]".
    """
    with contextlib.suppress(Exception):
        import setproctitle

        setproctitle.setproctitle(text)
    with contextlib.suppress(Exception):
        # Behind it, as the package sets the short name to the title's first letters.
        _set_command_name(short_name(text))


def short_name(text: str) -> bytes:
    """A title as the kernel can keep it: "headrace: worker 1 [main:app]" is "headrace work 1"."""
    found = re.match(r"(\w+): (\w+)( \d+)?", text)
    if found is None:
        return _cut(text)
    program, role, number = found[1], found[2], found[3] or ""
    # The number stays, as it tells one worker from another; what does not fit of the role goes.
    room = COMMAND_NAME_BYTES - len(program) - 1 - len(number)
    return _cut(f"{program} {role[: max(room, 0)]}{number}")


def _cut(text: str) -> bytes:
    """Whole characters."""
    return text.encode(errors="replace")[:COMMAND_NAME_BYTES].decode(errors="ignore").encode()


def _set_command_name(name: bytes) -> None:
    if sys.platform == "linux":
        # Not prctl(2), which names the thread that calls it.
        with open("/proc/self/comm", "wb") as file:
            file.write(name)
