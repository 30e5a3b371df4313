"""Whether the stack did what its figures are for: lines in the file, the metrics' count, spans that came."""

from __future__ import annotations

import http.client
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.clients import HOST, WrongAnswer, open_connection
from benchmarks.servers import RunningServer
from benchmarks.stack.rows import EXPORT_DELAY_S, Evidence, Ports
from benchmarks.stack.sink import Sink

LIMIT_S = 10.0
LOOK_S = 0.05
FLUSH_S = 0.1
"""Time in which a line or a count that waits for others is written at the latest."""
SIGMAS = 6.0
"""Chance takes a share of the requests as samples; further from the mean than that it is no chance."""
SAMPLED_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""A traceparent whose sender samples: the samplers here follow it, whatever their share."""
COUNT = re.compile(
    r"""^http_request_duration_seconds_count\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\} (\S+)""", re.MULTILINE
)
"""A count of a histogram: its labels, whose values may hold brackets, and its value."""


@dataclass(frozen=True, slots=True)
class Left:
    """What requests have left behind so far; what is not looked at is 0.

    Attributes:
        lines: of the log.
        counted: by the metrics, requests for the metrics themselves left out.
        spans: of kind SERVER.
        other_spans: made beside those.
    """

    lines: int = 0
    counted: int = 0
    spans: int = 0
    other_spans: int = 0

    def since(self, before: Left) -> Left:
        """What has come since then."""
        return Left(
            self.lines - before.lines,
            self.counted - before.counted,
            self.spans - before.spans,
            self.other_spans - before.other_spans,
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """How many of each there may be."""

    lowest: int
    highest: int

    def check(self, what: str, count: int) -> None:
        """Raises WrongAnswer unless the count is between the two."""
        if not self.lowest <= count <= self.highest:
            raise WrongAnswer(f"{count} {what}, expected {self.lowest} to {self.highest}")


def expect(requests: int, connections: int, share: float = 1.0) -> Expected:
    """How many traces requests leave when this share of them leaves one.

    Args:
        requests: that the load counted. At its end each connection had one under way, which is not among
            them, and the answer to one before may have been on its way.
        share: 0 to 1.
    """
    chance = SIGMAS * math.sqrt(requests * share * (1 - share))
    lowest = requests * share - chance
    highest = (requests + 2 * connections) * share + chance
    return Expected(math.floor(max(0.0, lowest)), math.ceil(highest))


def count_requests(page: str) -> int:
    """Reads the number of requests from a page of metrics, those for such pages left out."""
    found = COUNT.findall(page)
    return round(sum(float(value) for labels, value in found if '"/metrics"' not in labels))


def check_left(evidence: Evidence, left: Left, requests: int, connections: int) -> None:
    """Raises WrongAnswer unless so many requests left what they must."""
    every = expect(requests, connections)
    if evidence.lines:
        every.check("lines in the log", left.lines)
    if evidence.metrics:
        every.check("requests in the metrics", left.counted)
    if evidence.sampled is not None:
        expected = expect(requests, connections, evidence.sampled)
        expected.check("server spans in the sink", left.spans)


class Witness:
    """Looks at what one server's requests leave behind.

    Args:
        evidence: what is looked for; nothing else is looked at.
    """

    def __init__(self, evidence: Evidence, server: RunningServer, sink: Sink, ports: Ports) -> None:
        self._evidence = evidence
        self._server = server
        self._sink = sink
        self._metrics_port = ports.admin if evidence.metrics == "admin" else server.port

    def settle(self) -> None:
        """Wait until nothing more comes, at most `LIMIT_S`; the server computes nothing for it."""
        # Metrics cannot be asked without work for the server: they get the time in which a flush is due.
        is_traced = self._evidence.sampled is not None
        has_flushes = self._evidence.lines or bool(self._evidence.metrics)
        quiet_s = 2 * EXPORT_DELAY_S if is_traced else 3 * FLUSH_S if has_flushes else 0.0
        wait_unchanged(self._look_from_outside, quiet_s)

    def look(self) -> Left:
        """What has come so far; the server renders its metrics for it, if it has any."""
        lines, spans, other_spans = self._look_from_outside()
        counted = count_requests(self._read_metrics()) if self._evidence.metrics else 0
        return Left(lines, counted, spans, other_spans)

    def check_answer(self) -> None:
        """Raises WrongAnswer unless a response has the fields, and a sampled parent's request a span."""
        spans = self._sink.counts().server
        connection = open_connection(self._server.port)
        try:
            connection.request("GET", "/", headers={"traceparent": SAMPLED_PARENT})
            response = connection.getresponse()
            response.read()
        finally:
            connection.close()
        for field in self._evidence.fields:
            if response.headers.get(field) is None:
                raise WrongAnswer(f"answered without {field}")
        if self._evidence.sampled is not None:
            # Where nothing else is sampled this alone shows that there is tracing.
            self._wait_span(spans + 1)

    def _wait_span(self, wanted: int) -> None:
        deadline = time.monotonic() + LIMIT_S
        while self._sink.counts().server < wanted:
            if time.monotonic() > deadline:
                raise WrongAnswer("made no span of a request with a sampled parent")
            time.sleep(LOOK_S)

    def _look_from_outside(self) -> tuple[int, int, int]:
        lines = spans = other_spans = 0
        if self._evidence.lines:
            with self._server.log.open("rb") as log:
                lines = sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))
        if self._evidence.sampled is not None:
            counts = self._sink.counts()
            spans, other_spans = counts.server, counts.other
        return lines, spans, other_spans

    def _read_metrics(self) -> str:
        connection = http.client.HTTPConnection(HOST, self._metrics_port, timeout=LIMIT_S)
        try:
            connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
            response = connection.getresponse()
            page = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            raise WrongAnswer(f"answered {response.status} for /metrics")
        return page


def wait_unchanged(read: Callable[[], object], quiet_s: float) -> None:
    """Waits until what is read has stayed the same for a time, at most `LIMIT_S`."""
    deadline = time.monotonic() + LIMIT_S
    last, since_s = read(), time.monotonic()
    while time.monotonic() - since_s < quiet_s and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        now = read()
        if now != last:
            last, since_s = now, time.monotonic()
