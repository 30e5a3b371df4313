from __future__ import annotations

import contextvars
import io
import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.telemetry import AccessLog, FinishedExchange, JSONFormatter

MakeEntry = Callable[..., FinishedExchange]
MakeLog = Callable[..., AccessLog]
LINE = 'INFO:     127.0.0.1:1234 - "GET / HTTP/1.1" 200 OK\n'


class CountingStream(io.StringIO):
    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def set_stream(logger: logging.Logger, stream: Any) -> None:
    handler = logger.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)


def test_a_flush_is_one_write(logger: logging.Logger, make_log: MakeLog, make_entry: MakeEntry) -> None:
    stream = CountingStream()
    set_stream(logger, stream)
    log = make_log()
    for _ in range(3):
        log.add(make_entry())
    assert len(log) == 3
    assert stream.getvalue() == ""
    log.flush()
    assert len(log) == 0
    assert stream.getvalue() == LINE * 3
    assert stream.writes == 1
    log.flush()
    assert stream.writes == 1


@pytest.mark.parametrize(
    ("access_log_format", "line"),
    [
        ("combined", '127.0.0.1 - - [01/Mar/2026:11:59:59 +0000] "GET / HTTP/1.1" 200 12 "-" "-"\n'),
        ("%(s)s %(L)s", "200 0.012500\n"),
    ],
)
def test_other_formats_stand_without_prefix(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry,
    access_log_format: str, line: str,
) -> None:  # fmt: skip
    log = make_log(access_log_format)
    log.add(make_entry())
    log.flush()
    fast = stream.getvalue()
    logger.addFilter(lambda record: True)
    log.flush()
    log.add(make_entry())
    assert stream.getvalue() == fast * 2  # the way over records writes the same line
    assert fast.split("[")[0] == line.split("[")[0]
    assert fast.split("]")[-1] == line.split("]")[-1]


def test_json_format(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry
) -> None:
    log = make_log("json")
    log.add(make_entry())
    log.flush()
    fields = json.loads(stream.getvalue())
    assert list(fields)[:2] == ["time", "client"]
    assert fields["time"] == "2026-03-01T11:59:59.750Z"


def test_a_json_formatter_makes_every_format_json(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry
) -> None:
    logger.handlers[0].setFormatter(JSONFormatter())
    log = make_log("combined")
    log.add(make_entry())
    log.flush()
    logger.addFilter(lambda record: True)
    log.flush()
    log.add(make_entry())
    fast, slow = map(json.loads, stream.getvalue().splitlines())
    assert fast == slow
    assert fast["message"] == '127.0.0.1:1234 - "GET / HTTP/1.1" 200'
    assert fast["level"] == "INFO"
    assert fast["logger"] == "uvicorn.access"
    assert fast["bytes"] == 12


def test_records_as_uvicorn_makes_them(
    logger: logging.Logger, make_log: MakeLog, make_entry: MakeEntry
) -> None:
    recorder = Recorder()
    logger.addHandler(recorder)
    log = make_log()
    log.add(make_entry("/a b", b"x=1", headers=[(b"user-agent", b"curl")]))
    (record,) = recorder.records  # at once, no flush needed
    assert record.name == "uvicorn.access"
    assert record.levelno == logging.INFO
    assert record.msg == '%s - "%s %s HTTP/%s" %d'
    assert record.args == ("127.0.0.1:1234", "GET", "/a%20b?x=1", "1.1", 200)
    assert record.created == pytest.approx(1772366399.75)
    assert record.msecs == pytest.approx(750, abs=1)
    facts = record.__dict__
    assert facts["duration_ms"] == 12.5
    assert facts["body_bytes"] == 12
    assert facts["user_agent"] == "curl"
    assert facts["client"] == "127.0.0.1"
    assert "access_line" not in facts


def test_other_formats_reach_records_as_access_line(
    logger: logging.Logger, make_log: MakeLog, make_entry: MakeEntry
) -> None:
    recorder = Recorder()
    logger.handlers = [recorder]
    make_log("%(m)s:%(s)s").add(make_entry())
    assert recorder.records[0].__dict__["access_line"] == "GET:200"
    assert recorder.records[0].getMessage() == '127.0.0.1:1234 - "GET / HTTP/1.1" 200'


def customise_propagation(logger: logging.Logger) -> None:
    logger.propagate = True


def customise_logger_filter(logger: logging.Logger) -> None:
    logger.addFilter(lambda record: True)


def customise_handler_filter(logger: logging.Logger) -> None:
    logger.handlers[0].addFilter(lambda record: True)


def customise_formatter(logger: logging.Logger) -> None:
    logger.handlers[0].setFormatter(logging.Formatter("%(message)s"))


def customise_fmt(logger: logging.Logger) -> None:
    kind = type(logger.handlers[0].formatter)
    logger.handlers[0].setFormatter(kind("%(levelprefix)s %(message)s"))


def customise_handler_class(logger: logging.Logger) -> None:
    logger.handlers = [logging.FileHandler(os.devnull, delay=True)]


def customise_factory(logger: logging.Logger) -> None:
    logging.setLogRecordFactory(lambda *args, **kwargs: logging.LogRecord(*args, **kwargs))


@pytest.mark.parametrize(
    "customise",
    [
        customise_propagation, customise_logger_filter, customise_handler_filter, customise_formatter,
        customise_fmt, customise_handler_class, customise_factory,
    ],
)  # fmt: skip
def test_customised_loggers_get_records(
    logger: logging.Logger, make_log: MakeLog, make_entry: MakeEntry, customise: Callable[..., None]
) -> None:
    seen = []
    handle = logger.handle
    log = make_log()
    customise(logger)
    logger.handle = lambda record: (seen.append(record), handle(record))  # type: ignore[assignment,method-assign]
    try:
        log.add(make_entry())
        assert seen == []  # the change is seen by the next flush
        log.flush()
        assert len(seen) == 1
        log.add(make_entry())
        assert len(seen) == 2
    finally:
        del logger.handle
        for handler in logger.handlers:
            handler.close()


def test_the_way_back_to_batches(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry
) -> None:
    log = make_log()
    logger.addFilter(keep := lambda record: "/healthz" not in record.args[2])
    log.flush()
    log.add(make_entry("/healthz"))
    log.add(make_entry())
    assert stream.getvalue() == LINE
    logger.removeFilter(keep)
    log.flush()
    log.add(make_entry())
    assert len(log) == 1
    log.flush()
    assert stream.getvalue() == LINE * 2


def test_filters_see_the_context_of_add(
    logger: logging.Logger, make_log: MakeLog, make_entry: MakeEntry
) -> None:
    request_id = contextvars.ContextVar("request_id", default="-")
    seen = []
    logger.addFilter(lambda record: not seen.append(request_id.get()))
    log = make_log()
    context = contextvars.copy_context()
    context.run(request_id.set, "42")
    context.run(log.add, make_entry())
    assert seen == ["42"]


def test_caplog(make_log: MakeLog, make_entry: MakeEntry, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        make_log().add(make_entry("/seen"))
    assert caplog.messages == ['127.0.0.1:1234 - "GET /seen HTTP/1.1" 200']


def test_enabled(logger: logging.Logger, make_log: MakeLog) -> None:
    log = make_log()
    assert log.enabled
    logger.setLevel(logging.WARNING)
    assert not log.enabled
    logger.setLevel(logging.INFO)
    logger.disabled = True
    assert not log.enabled
    logger.disabled = False
    logger.handlers = []
    assert not log.enabled


def test_nothing_is_written_while_disabled(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry
) -> None:
    log = make_log()
    log.add(make_entry())
    logger.setLevel(logging.WARNING)
    log.flush()
    logger.addFilter(lambda record: True)
    log.flush()
    log.add(make_entry())
    assert len(log) == 0
    assert stream.getvalue() == ""


def test_handlers_above_info_write_nothing(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry
) -> None:
    logger.handlers[0].setLevel(logging.WARNING)
    log = make_log()
    log.add(make_entry())
    log.flush()
    assert stream.getvalue() == ""


@pytest.fixture
def warnings() -> Recorder:
    recorder = Recorder()
    error_log = logging.getLogger("uvicorn.error")
    error_log.handlers = [recorder]
    error_log.propagate = False
    return recorder


def test_a_character_that_the_stream_does_not_know_is_escaped(
    logger: logging.Logger, make_log: MakeLog, make_entry: MakeEntry, warnings: Recorder
) -> None:
    raw = io.BytesIO()
    set_stream(logger, io.TextIOWrapper(raw, "ascii"))
    log = make_log("%(m)s \u2192 %(s)s")
    for _ in range(2):
        log.add(make_entry())
        log.flush()
    assert raw.getvalue() == rb"GET \u2192 200" b"\n" rb"GET \u2192 200" b"\n"
    assert not warnings.records


def test_a_closed_stream_is_said_once(
    logger: logging.Logger, make_log: MakeLog, make_entry: MakeEntry, warnings: Recorder
) -> None:
    closed = io.StringIO()
    closed.close()
    set_stream(logger, closed)
    log = make_log()
    for _ in range(3):
        log.add(make_entry())
        log.flush()
    assert len(log) == 0
    assert [record.levelname for record in warnings.records] == ["WARNING"]
    healed = io.StringIO()
    set_stream(logger, healed)
    log.add(make_entry())
    log.flush()
    assert healed.getvalue() == LINE


def test_a_broken_pipe_is_said_once(
    logger: logging.Logger, make_log: MakeLog, make_entry: MakeEntry, warnings: Recorder
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    pipe = os.fdopen(writer, "w")
    set_stream(logger, pipe)
    log = make_log()
    for _ in range(3):
        log.add(make_entry())
        log.flush()
    assert len(warnings.records) == 1
    assert "Broken pipe" in warnings.records[0].getMessage()
    with pytest.raises(BrokenPipeError):
        pipe.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_tried_again(
    logger: logging.Logger, make_log: MakeLog, make_entry: MakeEntry, warnings: Recorder
) -> None:
    full = open("/dev/full", "w")  # noqa: SIM115 (its close fails)
    set_stream(logger, full)
    log = make_log()
    for _ in range(3):
        log.add(make_entry())
        log.flush()
    assert len(warnings.records) == 1
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_one_broken_scope_costs_one_line(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry, warnings: Recorder
) -> None:
    log = make_log()
    log.add(make_entry())
    log.add(make_entry(query=None))
    log.add(make_entry(method=None))
    log.add(make_entry())
    log.flush()
    assert stream.getvalue().count("\n") == 3  # a query of None counts as none
    assert len(warnings.records) == 1


def test_failing_filters_do_not_reach_the_server(
    logger: logging.Logger, make_log: MakeLog, make_entry: MakeEntry, warnings: Recorder
) -> None:
    def fail(record: logging.LogRecord) -> bool:
        raise RuntimeError("filter")

    logger.addFilter(fail)
    log = make_log()
    log.add(make_entry())
    log.add(make_entry())
    assert len(warnings.records) == 1


def test_uvicorns_own_formatter_counts_as_plain(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry
) -> None:
    kind = type("AccessFormatter", (logging.Formatter,), {"__module__": "uvicorn.logging"})
    formatter = kind('%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s')
    formatter.use_colors = False
    logger.handlers[0].setFormatter(formatter)
    log = make_log()
    log.add(make_entry())
    log.flush()
    assert stream.getvalue() == LINE


def test_a_forked_process_writes_what_it_has_been_given(tmp_path: Path) -> None:
    """As gunicorn's ``--preload`` forks workers of an application that is there already."""
    program = """
        import json, os, sys, time
        from headrace.telemetry import AccessLog, configure
        configure(use_colors=False)
        log = AccessLog("ecs")
        def add(path):
            scope = {"type": "http", "method": "GET", "path": path, "query_string": b"",
                     "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1234), "headers": []}
            log.add((scope, 200, 0, time.monotonic(), time.monotonic(), None, 0, None))
        add("/parent")
        child = os.fork()
        if child == 0:
            add("/child")
            sys.exit(0)
        os.waitpid(child, 0)
        print(os.getpid(), child)
    """
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(program))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    of_child, pids, of_parent = done.stdout.splitlines()
    written = [
        (line["url.path"], str(line["process.pid"])) for line in map(json.loads, (of_parent, of_child))
    ]
    parent, child = pids.split()
    assert written == [("/parent", parent), ("/child", child)]


END = {
    "return": "",
    "sys.exit": "sys.exit(0)",
    "error": "raise RuntimeError('unhandled')",
    "fork": "if os.fork() == 0:\n    sys.exit(0)\nos.wait()",
}


@pytest.mark.parametrize("end", END.values(), ids=END)
def test_nothing_is_lost_at_exit(tmp_path: Path, end: str) -> None:
    program = """
        import os, sys, time
        from headrace.telemetry import AccessLog, configure
        configure(use_colors=False)
        log = AccessLog()
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "http_version": "1.1",
                 "client": ("127.0.0.1", 1234), "headers": []}
        for _ in range(1500):
            log.add((scope, 200, 0, time.monotonic(), time.monotonic(), None, 0, None))
    """
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(program) + end)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == LINE * 1500
