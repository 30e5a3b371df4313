"""What a workload is, and the columns that its table has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.measure import Usage
from benchmarks.servers import RunningServer

MIB = 1024 * 1024

Figures = dict[str, float]
"""Name of a figure (a `Metric.key`) to its value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run may change about every workload.

    Attributes:
        connections: that wrk keeps open.
        in_flight: messages under way on each WebSocket.
        round_number: from 0; it makes the requests of `varied` differ between rounds.
    """

    duration_s: float
    connections: int
    idle_connections: int
    in_flight: int
    round_number: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure and its column.

    Attributes:
        key: its name in `Figures` and in the results file.
        label: head of the column, with the unit.
        digits: decimals shown.
    """

    key: str
    label: str
    digits: int


@dataclass(frozen=True, slots=True)
class Kind:
    """Workloads with the same columns.

    Attributes:
        metrics: the columns, as medians of the rounds.
        cost: the figure that is also shown at its best; the lower the better.
        rate: the figure whose ratio to uvicorn is shown, the higher the better; None where there is none.
        has_ratios: whether the cost is shown as ratios; false where a good cost is next to nothing.
    """

    metrics: tuple[Metric, ...]
    cost: Metric
    rate: Metric | None
    has_ratios: bool = True


RATE = Metric("rate_per_s", "requests/s", 0)
REQUEST_CPU = Metric("cpu_us_per_request", "CPU µs/request", 2)
BUSY = Metric("busy_share", "core used", 2)
THROUGHPUT = Metric("mib_per_s", "MiB/s", 0)
MIB_CPU = Metric("cpu_us_per_mib", "CPU µs/MiB", 0)
MESSAGE_RATE = Metric("messages_per_s", "messages/s", 0)
MESSAGE_CPU = Metric("cpu_us_per_message", "CPU µs/message", 2)
IDLE_RSS = Metric("rss_kib_per_connection", "RSS KiB/connection", 2)
STALL_RSS = Metric("rss_growth_mib", "RSS growth MiB", 2)

REQUESTS = Kind(
    (RATE, Metric("p50_ms", "p50 ms", 2), Metric("p99_ms", "p99 ms", 2), REQUEST_CPU, BUSY),
    cost=REQUEST_CPU,
    rate=RATE,
)
HTTP2_REQUESTS = Kind((RATE, REQUEST_CPU, BUSY), cost=REQUEST_CPU, rate=RATE)
TRANSFER = Kind((THROUGHPUT, MIB_CPU, BUSY), cost=MIB_CPU, rate=THROUGHPUT)
MESSAGES = Kind((MESSAGE_RATE, MESSAGE_CPU, BUSY), cost=MESSAGE_CPU, rate=MESSAGE_RATE)
DEFLATED_MESSAGES = Kind(
    # How much it bought with its time: a server may compress less, and so more cheaply.
    (MESSAGE_RATE, MESSAGE_CPU, Metric("bytes_per_message", "bytes/message back", 0), BUSY),
    cost=MESSAGE_CPU,
    rate=MESSAGE_RATE,
)
IDLE = Kind(
    (
        IDLE_RSS,
        Metric("pss_kib_per_connection", "PSS KiB/connection", 2),
        Metric("rss_growth_mib", "RSS growth MiB", 1),
        Metric("rss_before_mib", "RSS before MiB", 1),
    ),
    cost=IDLE_RSS,
    rate=None,
)
STALL = Kind(
    (STALL_RSS, Metric("rss_peak_growth_mib", "at its peak MiB", 2)),
    cost=STALL_RSS,
    rate=None,
    has_ratios=False,
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One table.

    Attributes:
        application: module:attribute, for every server but the floor.
        floor: the floor's kind.
        protocol: over which it goes; some servers are started otherwise for HTTP/2.
        program: that makes the load, to be found on PATH; empty where that is the harness itself.
    """

    name: str
    title: str
    application: str
    floor: str
    kind: Kind
    measure: Callable[[RunningServer, Settings], Figures]
    protocol: Literal["http/1.1", "http/2", "websocket"] = "http/1.1"
    program: Literal["", "wrk", "h2load"] = ""


def usage_figures(usage: Usage) -> Figures:
    """What every workload under load keeps of a server's use of its core."""
    return {
        "busy_share": usage.busy_share,
        "foreign_share": usage.foreign_share,
        "stolen_share": usage.stolen_share,
        "cpu_s": usage.cpu_s,
        "wall_s": usage.wall_s,
    }
