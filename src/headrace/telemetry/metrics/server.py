"""What a server says of itself beside its requests; whoever counts declares them in its registry."""

from __future__ import annotations

from headrace.telemetry.metrics.family import Family, Kind, Merge

CONNECTIONS = Family(
    "headrace_connections", Kind.GAUGE, "Connections of clients that are open.", merge=Merge.LIVESUM
)
SHED = Family(
    "headrace_requests_shed",
    Kind.COUNTER,
    "Requests answered with 503 because there was too much work, by what there was too much of.",
    ("reason",),
)
LIMITED = Family(
    "headrace_requests_limited",
    Kind.COUNTER,
    "Requests answered with 429 because a client had too many, by what it had too many of.",
    ("reason",),
)
