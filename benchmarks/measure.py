"""What kernel and load say: CPU time, memory and use of a core from /proc, figures from wrk and h2load.

The parsing functions are pure; the reading functions below them are thin.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MIN_READINGS = 5


# --- processes -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One line of /proc/PID/stat: what belongs to whom, and the time it used.

    Attributes:
        cpu_ticks: user and system time, with that of children that ended and were waited for, so that
            a sum over a tree never falls when one of its processes ends.
    """

    pid: int
    session: int
    cpu_ticks: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident and proportional set of all processes of a server."""

    rss_bytes: int
    pss_bytes: int


def parse_stat(text: str) -> ProcessStat:
    """Reads one /proc/PID/stat; the name in brackets may itself contain blanks and brackets."""
    pid, _, rest = text.partition(" (")
    fields = rest[rest.rindex(")") + 2 :].split()
    # proc_pid_stat(5) counts from 1 and `fields` begins with the third: session is 6, times are 14 to 17.
    return ProcessStat(int(pid), int(fields[3]), sum(int(field) for field in fields[11:15]))


def session_cpu_s(stats: Iterable[ProcessStat], session: int, ticks_per_s: int = TICKS_PER_S) -> float:
    """CPU seconds used by all processes of a session."""
    return sum(stat.cpu_ticks for stat in stats if stat.session == session) / ticks_per_s


def parse_smaps_rollup(text: str) -> Memory:
    """Reads one /proc/PID/smaps_rollup."""
    sizes = {name: int(kib) * 1024 for name, kib in re.findall(r"^(Rss|Pss): +(\d+) kB$", text, re.MULTILINE)}
    return Memory(sizes["Rss"], sizes["Pss"])


def read_process_stats() -> Iterator[ProcessStat]:
    """Every process of the machine; those that end meanwhile are left out."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            yield parse_stat((folder / "stat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue


def read_session_pids(session: int) -> list[int]:
    """The processes of a session: a server's main process, its workers, and what those started."""
    return [stat.pid for stat in read_process_stats() if stat.session == session]


def read_session_cpu_s(session: int) -> float:
    """CPU seconds a server has used so far, all its processes together."""
    return session_cpu_s(read_process_stats(), session)


def read_session_memory(session: int) -> Memory:
    """Memory of a server now, all its processes together."""
    rss_bytes = pss_bytes = 0
    for pid in read_session_pids(session):
        try:
            memory = parse_smaps_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError, KeyError):
            continue  # it ended, or is a zombie, which has no memory
        rss_bytes += memory.rss_bytes
        pss_bytes += memory.pss_bytes
    return Memory(rss_bytes, pss_bytes)


def wait_settled_memory(
    read: Callable[[], Memory], *, window_s: float = 1.0, tolerance_bytes: int = 65_536, limit_s: float = 20.0
) -> tuple[Memory, int]:
    """Waits until memory has stayed within `tolerance_bytes` for `window_s`, at most `limit_s`.

    Returns:
        The last reading, and the highest resident set seen on the way, in bytes.
    """
    readings: list[tuple[float, Memory]] = []
    start = time.monotonic()
    while True:
        now = time.monotonic()
        memory = read()
        readings.append((now, memory))
        recent = [past.rss_bytes for when, past in readings if when > now - window_s]
        # Few readings mean that this process was not let run, and say nothing about the server.
        is_watched = len(recent) >= MIN_READINGS and now - start > window_s
        is_settled = is_watched and max(recent) - min(recent) <= tolerance_bytes
        if is_settled or now - start > limit_s:
            return memory, max(past.rss_bytes for _, past in readings)
        time.sleep(window_s / 10)


# --- a core ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """Seconds of a core since boot: at work, stolen time not included, and stolen by the hypervisor."""

    busy_s: float
    stolen_s: float


def parse_core_times(text: str, core: int, ticks_per_s: int = TICKS_PER_S) -> CoreTimes:
    """Reads a core's line of /proc/stat."""
    line = re.search(rf"^cpu{core} +(.+)$", text, re.MULTILINE)
    if line is None:
        raise ValueError(f"/proc/stat has no core {core}")
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line[1].split()[:8])
    return CoreTimes((user + nice + system + irq + softirq) / ticks_per_s, steal / ticks_per_s)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server used between two moments.

    Attributes:
        foreign_share: part of the wall time in which its core worked for somebody else, 0 to 1.
        stolen_share: part of the wall time in which the hypervisor gave its core to another machine, 0 to 1;
            some kernels count that time as the server's. A figure is worth little while either is high.
    """

    cpu_s: float
    wall_s: float
    foreign_share: float
    stolen_share: float

    @property
    def busy_share(self) -> float:
        """Part of the wall time in which the server computed; 1 is a whole core."""
        return self.cpu_s / self.wall_s


@dataclass(frozen=True, slots=True)
class Moment:
    """The clocks at one moment: of a server, of its core, and of the wall."""

    cpu_s: float
    core: CoreTimes
    wall_s: float


def usage_between(before: Moment, after: Moment) -> Usage:
    """The arithmetic of a measurement."""
    cpu_s = after.cpu_s - before.cpu_s
    wall_s = after.wall_s - before.wall_s
    foreign_s = after.core.busy_s - before.core.busy_s - cpu_s
    stolen_s = after.core.stolen_s - before.core.stolen_s
    return Usage(cpu_s, wall_s, max(0.0, foreign_s) / wall_s, stolen_s / wall_s)


def read_moment(session: int, core: int) -> Moment:
    """The clocks now."""
    core_times = parse_core_times(Path("/proc/stat").read_text(), core)
    return Moment(read_session_cpu_s(session), core_times, time.monotonic())


# --- wrk -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WrkResult:
    """What one run of ``wrk --latency`` printed."""

    requests: int
    rate_per_s: float
    p50_ms: float
    p99_ms: float
    refused: int
    socket_errors: int


_UNIT_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}


def parse_wrk(text: str) -> WrkResult:
    """Reads wrk's text.

    Raises:
        ValueError: a figure is missing, so this is not the output of ``wrk --latency``.
    """
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return WrkResult(
        requests=int(_find(r"(\d+) requests in ", text)[1]),
        rate_per_s=float(_find(r"Requests/sec: +([\d.]+)", text)[1]),
        p50_ms=_percentile_ms("50", text),
        p99_ms=_percentile_ms("99", text),
        refused=int(refused[1]) if refused else 0,
        socket_errors=sum(map(int, errors.groups())) if errors else 0,
    )


def _percentile_ms(percent: str, text: str) -> float:
    found = _find(rf"^ +{percent}% +([\d.]+)(us|ms|s|m|h)$", text)
    return float(found[1]) * _UNIT_MS[found[2]]


def _find(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"the load printed nothing like {pattern!r}: {text.strip()[:80]!r}")
    return found


# --- h2load ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class H2loadResult:
    """What one run of h2load printed.

    Attributes:
        succeeded: answered with a status of 2xx.
        failed: the rest, whatever h2load calls it: failed (which contains errored), or timed out.
    """

    rate_per_s: float
    succeeded: int
    failed: int


def parse_h2load(text: str) -> H2loadResult:
    """Reads h2load's text.

    Raises:
        ValueError: a figure is missing, so this is not the output of h2load.
    """
    counts = _find(
        r"^requests: .+ (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$",
        text,
    )
    refused = _find(r"^status codes: \d+ 2xx, (\d+) 3xx, ", text)
    succeeded, failed, errored, timed_out = map(int, counts.groups())
    return H2loadResult(
        rate_per_s=float(_find(r"^finished in .+?, ([\d.]+) req/s", text)[1]),
        succeeded=succeeded - int(refused[1]),
        failed=max(failed, errored, timed_out) + int(refused[1]),
    )
