from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from headrace.errors import ConfigError
from headrace.telemetry import AccessLog, FinishedExchange, Sampling

MakeEntry = Callable[..., FinishedExchange]
MakeLog = Callable[..., AccessLog]


def test_all_by_default(make_entry: MakeEntry) -> None:
    sampling = Sampling()
    assert sampling.keeps_all
    assert not sampling.draws
    assert len(sampling.kept([make_entry(), make_entry(status=503)])) == 2


@pytest.mark.parametrize("status", [400, 404, 429, 499, 500, 503])
def test_errors_are_always_kept(make_entry: MakeEntry, status: int) -> None:
    sampling = Sampling(0.0)
    assert sampling.kept([make_entry(status=status)])
    assert sampling.share_of(status, 0.001) == 1.0


@pytest.mark.parametrize("status", [101, 200, 204, 302, 304])
def test_a_share_of_none(make_entry: MakeEntry, status: int) -> None:
    sampling = Sampling(0.0, slow_s=0.5)
    assert not sampling.kept([make_entry(status=status, duration_s=0.499)])
    assert sampling.kept([make_entry(status=status, duration_s=0.5)])


def test_what_is_kept_stands_for_what_is_not(make_entry: MakeEntry) -> None:
    sampling = Sampling(0.25)
    entries = [make_entry(state={"request_id": f"id-{number}"}) for number in range(4000)]
    kept = sampling.kept(entries)
    assert 900 < len(kept) < 1100
    # The same requests anywhere, at any time.
    assert Sampling(0.25).kept(entries) == kept
    assert set(map(id, kept)) < set(map(id, Sampling(0.5).kept(entries)))


def test_traces_are_drawn_by_opentelemetrys_rule(make_entry: MakeEntry) -> None:
    trace = pytest.importorskip("opentelemetry.sdk.trace.sampling")
    sampler = trace.TraceIdRatioBased(0.3)
    numbers = [(number * 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835) % 2**128 for number in range(1, 500)]
    entries = [
        make_entry(**{"headrace.span": SimpleNamespace(trace_id=number), "state": {"request_id": "the same"}})
        for number in numbers
    ]
    kept = Sampling(0.3).kept(entries)
    recorded = [sampler.should_sample(None, number, "").decision.is_sampled() for number in numbers]
    assert [entry in kept for entry in entries] == recorded


def test_without_ids_chance_decides(make_entry: MakeEntry) -> None:
    kept = Sampling(0.5).kept([make_entry(state={}) for _ in range(2000)])
    assert 800 < len(kept) < 1200


@pytest.mark.parametrize(
    ("path", "has_line"),
    [
        ("/healthz", False),
        ("/healthz/", True),
        ("/health", True),
        ("/static/a.css", False),
        ("/static", True),
    ],
)
def test_skipped_paths(make_entry: MakeEntry, path: str, has_line: bool) -> None:
    sampling = Sampling(skip=("/healthz", "/static/*"))
    assert bool(sampling.kept([make_entry(path, status=503)])) is has_line


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_wrong_shares(share: float) -> None:
    with pytest.raises(ConfigError, match="is not between 0 and 1"):
        Sampling(share)


def test_wrong_durations() -> None:
    with pytest.raises(ConfigError, match="is negative"):
        Sampling(slow_s=-1.0)


@pytest.mark.parametrize("is_plain", [True, False])
def test_the_log_says_what_each_line_stands_for(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry, is_plain: bool
) -> None:
    if not is_plain:
        logger.addFilter(lambda record: True)
    sampling = Sampling(0.5, skip=("/healthz",))
    log = make_log("json", sampling=sampling)
    entries = [make_entry(f"/{number}", state={"request_id": str(number)}) for number in range(100)]
    for entry in entries:
        log.add(entry)
        log.add(make_entry("/healthz"))
    log.add(make_entry("/slow", duration_s=1.0))
    log.add(make_entry("/bad", status=404))
    log.flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    drawn, (slow, bad) = lines[:-2], lines[-2:]
    assert len(drawn) == len(Sampling(0.5).kept(entries))
    assert {line["sampled"] for line in drawn} == {0.5}
    assert (slow["sampled"], bad["sampled"]) == (1.0, 1.0)


def test_a_broken_scope_costs_its_own_line(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry
) -> None:
    log = make_log(sampling=Sampling(skip=("/healthz",)))
    log.add(make_entry("/a"))
    broken = make_entry()
    del broken[0]["path"]
    log.add(broken)
    log.flush()
    assert stream.getvalue().count("\n") == 1
