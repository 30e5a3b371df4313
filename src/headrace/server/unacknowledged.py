"""What the kernel holds for a peer that has not taken it yet.

A socket is writable again only when about a third of its send buffer is free, and that buffer grows to
megabytes: of a client that takes 1 MB/s a transport may see nothing for more than a second, of a slower one
for minutes.
"""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType

fcntl: ModuleType | None
termios: ModuleType | None
try:
    import fcntl
    import termios
except ImportError:  # not a Unix
    fcntl = termios = None


def unacknowledged_bytes(transport: asyncio.BaseTransport) -> int:
    """Bytes written to a transport's socket that the peer has not acknowledged; 0 where nobody tells.

    0.9 us (2 vCPU x86-64, Linux, 2026-11).
    """
    sock = transport.get_extra_info("socket")
    if sock is None or fcntl is None or termios is None:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0  # closed, or of a kind that has no such number
