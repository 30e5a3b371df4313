"""The arithmetic of the benchmarks: the load's text, frames, /proc, the ratios of a table."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from benchmarks.clients import WrongAnswer
from benchmarks.figures import REQUEST_CPU, Figures
from benchmarks.measure import (
    CoreTimes,
    H2loadResult,
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
from benchmarks.stack.evidence import Left, check_left, count_requests, expect
from benchmarks.stack.report import BARS, SPANS, added_us, render_bars, render_rows
from benchmarks.stack.rows import ROWS, Evidence, Ports
from benchmarks.stack.sink import Sink, SinkServer
from benchmarks.websocket_client import ACCEPT, parse_handshake
from benchmarks.websocket_messages import (
    FLUSH_TAIL,
    LARGE,
    LARGE_DEFLATED,
    SMALL,
    ByteCounter,
    FrameCounter,
    encode_messages,
)
from benchmarks.workloads import WORKLOADS

from headrace.cli.run import command as run_command

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
finished in 844.32ms, 47321.04 req/s, 1.78MB/s
requests: 4000 total, 4000 started, 4000 done, {counts}
status codes: {codes}
traffic: 85.83MB (90000288) total, 56.27MB (59000000) headers (space savings 35.87%), 12.40MB (13000000) data
"""
SUCCESS = "4000 succeeded, 0 failed, 0 errored, 0 timeout"


def test_h2load_output_of_a_clean_run() -> None:
    text = H2LOAD.format(counts=SUCCESS, codes="4000 2xx, 0 3xx, 0 4xx, 0 5xx")
    assert parse_h2load(text) == H2loadResult(47_321.04, succeeded=4000, failed=0)


@pytest.mark.parametrize(
    ("counts", "codes", "failed"),
    [
        ("3990 succeeded, 10 failed, 10 errored, 0 timeout", "3990 2xx, 0 3xx, 0 4xx, 0 5xx", 10),
        ("3990 succeeded, 10 failed, 0 errored, 0 timeout", "3990 2xx, 0 3xx, 10 4xx, 0 5xx", 10),
        (SUCCESS, "3990 2xx, 10 3xx, 0 4xx, 0 5xx", 10),
    ],
)
def test_h2load_output_with_errors_counts_them(counts: str, codes: str, failed: int) -> None:
    result = parse_h2load(H2LOAD.format(counts=counts, codes=codes))
    assert (result.succeeded, result.failed) == (3990, failed)


def unmask(frame: bytes, head_bytes: int) -> bytes:
    key, payload = frame[head_bytes : head_bytes + 4], frame[head_bytes + 4 :]
    return bytes(byte ^ key[number % 4] for number, byte in enumerate(payload))


def test_frames_are_masked_and_as_long_as_they_say() -> None:
    small = encode_messages(SMALL, None)[0]
    assert (small[:2], unmask(small, 2)) == (b"\x82\xa0", SMALL.payloads[0])
    large = encode_messages(LARGE, None)[0]
    assert (large[:4], unmask(large, 4)) == (b"\x82\xfe\x40\x00", LARGE.payloads[0])


@pytest.mark.parametrize("window_bits", [9, 12, 15])
def test_compressed_messages_need_no_message_before_them(window_bits: int) -> None:
    for payload, frame in zip(
        LARGE_DEFLATED.payloads, encode_messages(LARGE_DEFLATED, window_bits), strict=True
    ):
        assert frame[0] == 0xC1  # FIN, RSV1, text
        inflater = zlib.decompressobj(wbits=-window_bits)
        assert inflater.decompress(unmask(frame, 4) + FLUSH_TAIL) == payload
        assert len(payload) == 16 * 1024 > 2 * len(frame)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_echoes_are_counted_however_the_bytes_are_cut(step: int) -> None:
    stream = b"\x82\x02hi" + b"\x89\x01p" + b"\x01\x00" + b"\x80\x7e\x00\x80" + b"x" * 128 + b"\xc1\x01z"
    frames, echoes = FrameCounter(), ByteCounter(4)
    seen = counted = 0
    for start in range(0, len(stream), step):
        piece = bytearray(stream[start : start + step])
        seen += frames.feed(piece, len(piece))
        counted += echoes.feed(piece, len(piece))
    assert (seen, frames.is_between_frames()) == (3, True)  # hi, a message in two frames, z
    assert (counted, echoes.is_between_frames()) == (len(stream) // 4, len(stream) % 4 == 0)


def test_a_close_frame_under_load_is_a_wrong_answer() -> None:
    with pytest.raises(WrongAnswer, match="closed"):
        FrameCounter().feed(bytearray(b"\x88\x02\x03\xf0"), 4)


def test_handshake_says_what_was_agreed() -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: %s\r\n%s\r\n"
    extension = b"sec-websocket-extensions: permessage-deflate%s\r\n"
    assert parse_handshake(head % (ACCEPT, b"")) is None
    assert parse_handshake(head % (ACCEPT, extension % b"")) == 15
    assert parse_handshake(head % (ACCEPT, extension % b"; client_max_window_bits=12")) == 12
    with pytest.raises(WrongAnswer, match="Accept"):
        parse_handshake(head % (b"x", b""))
    with pytest.raises(WrongAnswer, match="403"):
        parse_handshake(b"HTTP/1.1 403 Forbidden\r\n\r\n")


def test_rows_of_the_stack_use_options_that_exist() -> None:
    options = {option for param in run_command.params for option in (*param.opts, *param.secondary_opts)}
    for row in ROWS.values():
        if row.program[0] == "headrace":
            used = {argument for argument in row.program if argument.startswith("--")}
            assert used <= options, row.name


def test_a_row_without_tracing_is_told_nothing_of_it() -> None:
    ports = Ports(sink=4318, admin=9000)
    for row in ROWS.values():
        command = row.server(ports).command(row.application, 8000)
        is_told = any(argument.startswith("OTEL_") for argument in command)
        assert is_told == (row.evidence.sampled is not None), row.name
        assert ("127.0.0.1:9000" in command) == (row.evidence.metrics == "admin"), row.name


METRICS = """\
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{endpoint="/",method="GET",status="200",le="0.005"} 40
http_request_duration_seconds_count{endpoint="/",method="GET",status="200"} 41
http_request_duration_seconds_sum{endpoint="/",method="GET",status="200"} 0.5
http_request_duration_seconds_count{endpoint="/x}y",method="POST",status="500"} 1.0 # {trace_id="5"} 0.1
http_request_duration_seconds_count{method="GET",path="/metrics"} 7.0
http_request_size_bytes_count{endpoint="/",method="GET"} 90
"""


def test_requests_are_counted_from_a_page_of_metrics() -> None:
    assert count_requests(METRICS) == 42


def test_expected_traces_allow_for_requests_under_way_and_for_chance() -> None:
    every = expect(1000, 64)
    assert (every.lowest, every.highest) == (1000, 1128)
    none = expect(1000, 64, 0.0)
    assert (none.lowest, none.highest) == (0, 0)
    tenth = expect(10_000, 64, 0.1)
    assert (tenth.lowest, tenth.highest) == (820, 1193)  # six times a deviation of 30


@pytest.mark.parametrize(
    ("left", "missing"),
    [
        (Left(lines=999, counted=1000, spans=100), "999 lines in the log"),
        (Left(lines=1000, counted=0, spans=100), "0 requests in the metrics"),
        (Left(lines=1000, counted=1000, spans=1000), "1000 server spans in the sink"),
        (Left(lines=1000, counted=1129, spans=100), "1129 requests in the metrics, expected 1000 to 1128"),
    ],
)
def test_a_stack_that_does_too_little_or_too_much_gets_no_figure(left: Left, missing: str) -> None:
    evidence = Evidence(lines=True, metrics="admin", sampled=0.1)
    check_left(evidence, Left(lines=1000, counted=1064, spans=100), 1000, 64)
    with pytest.raises(WrongAnswer, match=missing):
        check_left(evidence, left, 1000, 64)


def test_what_is_not_asked_for_is_not_missed() -> None:
    check_left(Evidence(), Left(), 1000, 64)


@pytest.fixture
def sink() -> Iterator[Sink]:
    server = SinkServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Sink(server.server_port)
    server.shutdown()
    thread.join()
    server.server_close()


def test_sink_counts_spans_by_kind_and_maker(sink: Sink) -> None:
    pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    # ExportTraceServiceRequest{1: ResourceSpans{2: ScopeSpans{1: Scope{1: "me"}, 2: Span{6: kind}, ...}}}
    spans = b"\x12\x02\x30\x02" + b"\x12\x02\x30\x01" + b"\x12\x02\x30\x02"
    scope = b"\x0a\x04\x0a\x02me" + spans
    resource = b"\x12" + bytes([len(scope)]) + scope
    export = b"\x0a" + bytes([len(resource)]) + resource
    connection = HTTPConnection("127.0.0.1", sink.port)
    for _ in range(2):
        connection.request("POST", "/v1/traces", export)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
    connection.close()
    counts = sink.counts()
    assert (counts.server, counts.other, counts.makers) == (4, 2, {"me": 6})


def make_stack_table() -> Table:
    """Two rounds; the machine was half as fast in the second."""
    table = Table(WORKLOADS["fastapi"])
    for number, slowness in enumerate([1.0, 2.0]):
        for name, cpu_us in (("uvicorn", 60.0), ("headrace", 40.0), ("stack-10", 50.0), ("recipe", 800.0)):
            row = figures(cpu_us * slowness, 1e6 / cpu_us / slowness)
            table.add(name, number, row | {SPANS: 0.1, "foreign_share": 0.0})
    table.failures["stack-100"] = "7 server spans in the sink, expected 1000 to 1128"
    return table


def test_bars_of_the_stack_are_met_missed_or_unknown() -> None:
    lines = render_bars(make_stack_table()).splitlines()
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert lines[-3].endswith("| 1 | 1.20 | met | 1.20 |")
    assert lines[-2].endswith("| 0.85 | - | - | - |")
    assert lines[-1].endswith("| 8 | 16.00 | met | 16.00 |")
    slow = make_stack_table()
    slow.samples["uvicorn"] = {0: figures(45.0, 1e6 / 45.0)}
    assert render_bars(slow).splitlines()[-3].endswith("| 1 | 0.90 | missed | 0.90 |")
    assert [bar.is_missed(slow) for bar in BARS] == [True, False, False]


def test_rows_of_the_stack_say_what_a_layer_adds() -> None:
    table = make_stack_table()
    assert added_us(table, "stack-10", "headrace") == 15.0
    assert added_us(table, "stack-100", "headrace") is None
    text = render_rows(table, [ROWS[name] for name in ("headrace", "stack-10", "stack-100")], "fastapi")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    expected = (
        "| whole stack, 10 % sampled | 15,000 | 1.00 | 75.00 | 50.00 | 15.00 | -15.00 | 1.20 | 16.00 | 0.10 |"
    )
    assert rows[3] == expected
    assert rows[4].startswith("| whole stack, all sampled | 7 server spans in the sink")
    assert "- whole stack, all sampled failed: 7 server spans" in text


def test_a_row_that_waited_for_the_load_is_noted() -> None:
    table = make_stack_table()
    rows = [ROWS["uvicorn"]]
    assert "the load was the slower side" not in render_rows(table, rows, "fastapi")
    for sample in table.samples["uvicorn"].values():
        sample["busy_share"] = 0.84
    assert "- uvicorn, bare had 84% of its core to do" in render_rows(table, rows, "fastapi")
