"""The arithmetic of the benchmarks: wrk's text, /proc, and the ratios of a table. The rest of them runs."""

from __future__ import annotations

import pytest
from benchmarks.measure import (
    CoreTimes,
    Memory,
    Moment,
    ProcessStat,
    parse_core_times,
    parse_h2load,
    parse_smaps_rollup,
    parse_stat,
    parse_wrk,
    session_cpu_s,
    usage_between,
    wait_settled_memory,
)
from benchmarks.report import Table, render_table
from benchmarks.servers import SERVERS, ServerFailed
from benchmarks.websocket_client import COMPRESSED, LARGE, SMALL, FrameCounter, client_frame, frame_head
from benchmarks.workloads import REQUEST_CPU, WORKLOADS, Figures

from headrace.protocol.websocket import DeflateOptions, WebSocketEngine, negotiate_deflate

WRK = """\
Running 2s test @ http://127.0.0.1:9000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.77ms    1.06ms  24.41ms   86.07%
    Req/Sec    35.84k     2.11k   38.37k    75.00%
  Latency Distribution
     50%  411.00us
     75%    2.07ms
     90%    2.75ms
     99%    1.02s
  71723 requests in 2.00s, 8.96MB read
"""
WRK_ERRORS = """\
  Socket errors: connect 1, read 20, write 300, timeout 4000
  Non-2xx or 3xx responses: 17
"""
WRK_TOTALS = """\
Requests/sec:  35803.21
Transfer/sec:      4.47MB
"""


def test_wrk_output_of_a_clean_run() -> None:
    result = parse_wrk(WRK + WRK_TOTALS)
    assert (result.requests, result.rate_per_s) == (71_723, 35_803.21)
    assert result.p50_ms == pytest.approx(0.411)
    assert result.p99_ms == pytest.approx(1020.0)
    assert (result.refused, result.socket_errors) == (0, 0)


def test_wrk_output_with_errors_counts_them() -> None:
    result = parse_wrk(WRK + WRK_ERRORS + WRK_TOTALS)
    assert (result.refused, result.socket_errors) == (17, 4321)


def test_wrk_output_without_latency_is_refused() -> None:
    with pytest.raises(ValueError, match="50%"):
        parse_wrk("  10 requests in 2.00s, 1.00KB read\nRequests/sec:   5.00\n")


@pytest.mark.parametrize("name", ["python", "a b", "(sd-pam)", "x) R 1 2 ("])
def test_stat_line_with_any_process_name(name: str) -> None:
    line = f"4321 ({name}) S 1 4300 4242 0 -1 4194560 500 0 0 0 150 50 7 3 20 0 4 0 99 1000 200"
    assert parse_stat(line) == ProcessStat(pid=4321, session=4242, cpu_ticks=210)


def test_cpu_time_is_the_sum_over_a_session() -> None:
    stats = [ProcessStat(1, 7, 150), ProcessStat(2, 7, 50), ProcessStat(3, 8, 1000)]
    assert session_cpu_s(stats, session=7, ticks_per_s=100) == 2.0


def test_core_times_keep_stolen_time_apart() -> None:
    text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 20 30 4000 50 6 7 80 0 0\ncpu1 1 2 3 4 5 6 7 8 0 0\n"
    assert parse_core_times(text, 0, ticks_per_s=100) == CoreTimes(busy_s=1.63, stolen_s=0.8)
    with pytest.raises(ValueError, match="no core 2"):
        parse_core_times(text, 2)


def test_smaps_rollup_in_bytes() -> None:
    text = "55d0-7fff ---p 00000000 00:00 0 [rollup]\nRss:   2048 kB\nPss:   1024 kB\nPss_Dirty:  9 kB\n"
    assert parse_smaps_rollup(text) == Memory(2048 * 1024, 1024 * 1024)


def test_usage_tells_the_server_from_others_on_its_core() -> None:
    before = Moment(1.0, CoreTimes(10.0, 0.5), 100.0)
    usage = usage_between(before, Moment(2.5, CoreTimes(11.7, 0.7), 102.0))
    assert (usage.cpu_s, usage.busy_share) == (1.5, 0.75)
    assert usage.foreign_share == pytest.approx(0.1)
    assert usage.stolen_share == pytest.approx(0.1)


def test_usage_is_never_negative_for_others() -> None:
    # The two clocks are read one after the other and tick in hundredths, so they may contradict.
    before = Moment(1.0, CoreTimes(10.0, 0.0), 100.0)
    assert usage_between(before, Moment(2.0, CoreTimes(10.9, 0.0), 101.0)).foreign_share == 0.0


def test_settled_memory_is_the_last_and_keeps_the_peak() -> None:
    readings = iter([10_000_000, 90_000_000, *[40_000_000] * 1000])

    def read() -> Memory:
        return Memory(next(readings), 0)

    settled, peak_bytes = wait_settled_memory(read, window_s=0.01, tolerance_bytes=1000)
    assert (settled.rss_bytes, peak_bytes) == (40_000_000, 90_000_000)


def figures(cpu_us: float, rate: float) -> Figures:
    return {
        "rate_per_s": rate,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "cpu_us_per_request": cpu_us,
        "busy_share": 1.0,
        "foreign_share": 0.3,
    }


def make_table() -> Table:
    """Three rounds; the machine was half as fast in the second; headrace failed in the last."""
    table = Table(WORKLOADS["small"])
    for number, slowness in enumerate([1.0, 2.0, 1.0]):
        table.add("uvicorn", number, figures(24.0 * slowness, 40_000 / slowness))
        if number < 2:
            table.add("headrace", number, figures(12.0 * slowness, 80_000 / slowness))
    table.failures["headrace"] = "ended with status 1"
    table.failures["m0serve"] = "m0serve is not installed in this environment"
    return table


def test_ratios_are_taken_within_rounds() -> None:
    table = make_table()
    assert table.ratio("headrace", "uvicorn", REQUEST_CPU) == 0.5
    assert table.ratio("headrace", "floor", REQUEST_CPU) is None
    assert table.median("headrace", REQUEST_CPU) == 18.0
    assert table.best("headrace", REQUEST_CPU) == 12.0


def test_table_shows_figures_reasons_and_disturbance() -> None:
    text = render_table(make_table(), ["headrace", "m0serve", "floor"])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert rows[2] == "| headrace | 60,000 | 1.00 | 2.00 | 18.00 | 1.00 | 12.00 | - | 0.50 | 2.00 |"
    assert rows[3].startswith("| m0serve | m0serve is not installed")
    assert rows[4].startswith("| floor | not measured")
    assert "headrace failed in a round: ended with status 1." in text
    assert "with other processes for up to 30% of a sample" in text


H2LOAD = """\
starting benchmark...
progress: 100% done

finished in 3.26s, 92098.13 req/s, 3.51MB/s
requests: 300000 total, 300000 started, 300000 done, 299990 succeeded, 4 failed, 6 errored, 0 timeout
status codes: 299990 2xx, 0 3xx, 4 4xx, 0 5xx
traffic: 11.45MB (12002688) total, 2.58MB (2701712) headers (space savings 90.52%), 3.72MB (3899870) data
"""


def test_h2load_output() -> None:
    result = parse_h2load(H2LOAD)
    assert (result.rate_per_s, result.succeeded, result.failed) == (92_098.13, 299_990, 10)
    assert result.body_bytes == 3_899_870
    with pytest.raises(ValueError, match="req/s"):
        parse_h2load("nothing")


def test_frames_are_masked_and_read_as_websocket_reads_them() -> None:
    for load in (SMALL, LARGE, COMPRESSED):
        engine = WebSocketEngine(1 << 20, negotiate_deflate(b"permessage-deflate", DeflateOptions()))
        expected = load.payload.decode() if load.is_text else load.payload
        assert list(engine.receive_data(client_frame(load))) == [expected]
        assert load.payload not in client_frame(load)


@pytest.mark.parametrize("step", [1, 2, 7, 1000, 100_000])
def test_frames_are_counted_at_any_cut(step: int) -> None:
    sizes = [0, 1, 125, 126, 65_535, 65_536, 3]
    stream = b"".join(frame_head(0x82, size, False) + bytes(size) for size in sizes)
    counter = FrameCounter()
    for start in range(0, len(stream), step):
        counter.feed(memoryview(stream)[start : start + step])
    assert counter.frames == len(sizes)


def test_a_server_that_cannot_speak_http2_says_so() -> None:
    with pytest.raises(ServerFailed, match="no HTTP/2"):
        SERVERS["daphne"].command_for("http2")
    assert "zttp" in SERVERS["uvicorn"].command_for("http2")("a:b", 1)
    assert SERVERS["daphne"].command_for("websocket") is SERVERS["daphne"].command
