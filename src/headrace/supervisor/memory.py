"""How much memory a process holds."""

from __future__ import annotations

import sys

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def memory_bytes() -> int:
    """The resident set of this process; where the system does not say, the most it has ever been, else 0."""
    if resource is None:
        return 0
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # macOS counts bytes, the others KiB.
        return most if sys.platform == "darwin" else most * 1024
