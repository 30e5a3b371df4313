"""How many CPUs this process may use: what ``--workers auto`` means."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


def cpu_count() -> int:
    """The CPUs that this process may use: its affinity, bounded by the quota of its control groups.

    Returns:
        1 or more; a quota of one and a half is two.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return bounded(usable, quota(Path("/")))


def bounded(usable: int, quota_cpus: float | None) -> int:
    """So many CPUs, but no more than a quota gives, rounded up; at least 1."""
    return max(1, usable if quota_cpus is None else min(usable, math.ceil(quota_cpus)))


def quota(root: Path) -> float | None:
    """The CPUs' worth of time that the control groups grant this process.

    Each group up to the root bounds those below it, so the smallest quota counts, of version 1 and 2 alike.

    Args:
        root: where ``proc`` and ``sys`` are; tests have their own.

    Returns:
        CPUs, above 0; None where nothing bounds them, or nothing can be read (other systems than Linux).
    """
    quotas = [found for folder, reads in _groups(root) if (found := reads(folder)) is not None]
    return min(quotas, default=None)


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted hierarchy of control groups: proc_pid_mountinfo(5).

    Attributes:
        group: the group whose folder the mount point is; "/" but in containers.
    """

    group: str
    mount_point: str
    kind: str
    options: tuple[str, ...]


def _groups(root: Path) -> Iterator[tuple[Path, Callable[[Path], float | None]]]:
    """The folders of this process's groups and of all above them, and what reads the quota there."""
    mounts = list(_mounts(root))
    # Lines are "number:controllers:path", cgroups(7); a path may hold colons.
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for mount in mounts:
            if number == "0" and not controllers and mount.kind == "cgroup2":
                yield from ((folder, _quota_v2) for folder in _folders(root, mount, path))
            elif "cpu" in controllers.split(",") and mount.kind == "cgroup" and "cpu" in mount.options:
                yield from ((folder, _quota_v1) for folder in _folders(root, mount, path))


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _read(root / "proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        # Behind the dash, which a varying number of fields stands before: kind, source, options.
        dash = fields.index("-") if "-" in fields else len(fields)
        if len(fields) < dash + 4 or dash < 6 or not fields[dash + 1].startswith("cgroup"):
            continue
        yield _Mount(
            _unescaped(fields[3]),
            _unescaped(fields[4]),
            fields[dash + 1],
            tuple(fields[dash + 3].split(",")),
        )


def _folders(root: Path, mount: _Mount, path: str) -> Iterator[Path]:
    """The folder of a group and those above it, up to the mount point."""
    top = root / mount.mount_point.lstrip("/")
    group, above = PurePosixPath(path), PurePosixPath(mount.group)
    # A group outside of what is mounted: a container that sees its host's names, or a namespace's ``/..``.
    inside = group.is_relative_to(above) and ".." not in group.parts
    folder = top / group.relative_to(above) if inside else top
    while folder != top:
        yield folder
        folder = folder.parent
    yield top


def _quota_v2(folder: Path) -> float | None:
    """``cpu.max``: "quota period", or "max period"."""
    quota_us, _, period_us = _read(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota_us, period_us)


def _quota_v1(folder: Path) -> float | None:
    """``cpu.cfs_quota_us``, which is -1 without a quota."""
    return _ratio(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _ratio(quota_us: str, period_us: str) -> float | None:
    if not (quota_us.isdecimal() and period_us.isdecimal()) or not int(quota_us) or not int(period_us):
        return None
    return int(quota_us) / int(period_us)


def _unescaped(text: str) -> str:
    r"""Space, tab, line feed and backslash stand in mountinfo as ``\040`` and the like."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
