"""Ids of the request on log records, whoever makes and renders them."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
import logging.config
import logging.handlers
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.telemetry import (
    AccessLog,
    DefaultFormatter,
    ECSFormatter,
    FinishedExchange,
    GCPFormatter,
    JSONFormatter,
    LogfmtFormatter,
)
from headrace.telemetry.log_context import add_context, attach_context, is_attached
from headrace.telemetry.log_formatters import DEFAULT_FMT
from headrace.telemetry.pretty import PrettyFormatter
from headrace.telemetry.request_context import request_id_var

Attach = Callable[..., Callable[[], None]]
IDS = ("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7")
MINE = logging.getLogger("tests.log_context")


@pytest.fixture
def attach() -> Iterator[Attach]:
    undo = []

    def call(*arguments: Any) -> Callable[[], None]:
        undo.append(attach_context(*arguments))
        return undo[-1]

    yield call
    for detach in undo:
        detach()
    assert not is_attached()


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where ``MINE`` writes; the formatter is the test's."""
    stream = io.StringIO()
    MINE.handlers = [logging.StreamHandler(stream)]
    MINE.propagate = False
    MINE.setLevel(logging.INFO)
    yield stream
    MINE.handlers = []


def within_request(call: Callable[[], object], request_id: str = "r-1") -> None:
    context = contextvars.copy_context()
    context.run(request_id_var.set, request_id)
    context.run(call)


def use(formatter: logging.Formatter) -> None:
    MINE.handlers[0].setFormatter(formatter)


def test_a_format_of_the_users_own(attach: Attach, out: io.StringIO) -> None:
    use(logging.Formatter("%(request_id)s %(trace_id)s %(span_id)s %(message)s"))
    attach(lambda: IDS if request_id_var.get("") else None)
    MINE.info("outside")
    within_request(lambda: MINE.info("inside"))
    assert out.getvalue() == f"- - - outside\nr-1 {IDS[0]} {IDS[1]} inside\n"


def test_loggers_of_every_kind_and_age(attach: Attach, out: io.StringIO) -> None:
    class Louder(logging.Logger):
        pass

    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    attach()
    late, own = logging.getLogger("tests.log_context.late"), Louder("own")
    for logger in (MINE, late, own):
        logger.addHandler(handler)
        within_request(lambda logger=logger: logger.warning("x"))  # type: ignore[misc]
    adapter = logging.LoggerAdapter(own, {"user": 7})
    within_request(lambda: adapter.warning("x"))
    assert {record.__dict__["request_id"] for record in seen} == {"r-1"}
    assert seen[-1].__dict__["user"] == 7


def test_what_the_call_says_stands(attach: Attach, out: io.StringIO) -> None:
    use(logging.Formatter("%(request_id)s"))
    attach()
    within_request(lambda: MINE.info("x", extra={"request_id": "mine"}))
    assert out.getvalue() == "mine\n"


def test_record_factories_stand(attach: Attach, out: io.StringIO) -> None:
    class Marked(logging.LogRecord):
        mark = "!"

    use(logging.Formatter("%(request_id)s %(message)s"))
    attach()
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Marked)
    try:
        within_request(lambda: MINE.info("x"))
    finally:
        logging.setLogRecordFactory(before)
    assert out.getvalue() == "r-1 x\n"


def test_callers_are_still_found(attach: Attach, out: io.StringIO) -> None:
    use(logging.Formatter("%(filename)s %(funcName)s"))
    attach()
    MINE.info("x")
    assert out.getvalue() == "test_log_context.py test_callers_are_still_found\n"


def test_tasks_and_threads_of_a_request(attach: Attach, out: io.StringIO) -> None:
    use(logging.Formatter("%(request_id)s %(message)s"))
    attach()

    async def handle(number: int) -> None:
        request_id_var.set(f"r-{number}")
        await asyncio.to_thread(MINE.info, "thread")
        await asyncio.create_task(speak())

    async def speak() -> None:
        MINE.info("task")

    async def serve() -> None:
        await asyncio.gather(*(handle(number) for number in range(3)))

    asyncio.run(serve())
    expected = sorted(f"r-{number} {what}" for number in range(3) for what in ("task", "thread"))
    assert sorted(out.getvalue().splitlines()) == expected


def test_records_rendered_in_another_thread(attach: Attach, out: io.StringIO) -> None:
    use(logging.Formatter("%(request_id)s %(message)s"))
    target = MINE.handlers[0]
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    MINE.handlers = [logging.handlers.QueueHandler(records)]
    attach()
    within_request(lambda: MINE.info("x"))
    thread = threading.Thread(target=lambda: target.handle(records.get()))
    thread.start()
    thread.join()
    assert out.getvalue() == "r-1 x\n"


def test_a_failing_tracer_costs_the_ids_only(attach: Attach, out: io.StringIO) -> None:
    def fail() -> tuple[str, str]:
        raise RuntimeError("tracer")

    use(logging.Formatter("%(request_id)s %(message)s"))
    attach(fail)
    MINE.info("x")
    assert out.getvalue() == "- x\n"


def test_undone_in_any_order() -> None:
    before = logging.Logger.makeRecord
    first, second = attach_context(lambda: IDS), attach_context()
    assert MINE.makeRecord("n", 20, "f", 1, "m", (), None).__dict__["trace_id"] == IDS[0]
    first()
    assert MINE.makeRecord("n", 20, "f", 1, "m", (), None).__dict__["trace_id"] == "-"
    second()
    second()
    assert logging.Logger.makeRecord is before
    assert "request_id" not in MINE.makeRecord("n", 20, "f", 1, "m", (), None).__dict__


def test_who_wraps_it_afterwards_keeps_working(monkeypatch: pytest.MonkeyPatch) -> None:
    detach = attach_context()
    ours = logging.Logger.makeRecord
    monkeypatch.setattr(logging.Logger, "makeRecord", lambda *args, **kwargs: ours(*args, **kwargs))
    theirs = logging.Logger.makeRecord
    detach()
    assert logging.Logger.makeRecord is theirs
    assert "request_id" not in MINE.makeRecord("n", 20, "f", 1, "m", (), None).__dict__
    monkeypatch.undo()
    attach_context()()
    assert "request_id" not in MINE.makeRecord("n", 20, "f", 1, "m", (), None).__dict__


def test_attached_again_below_somebody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second server of the process; the wrapper of the first one's day stayed."""
    detach = attach_context()
    ours = logging.Logger.makeRecord
    monkeypatch.setattr(logging.Logger, "makeRecord", lambda *args, **kwargs: ours(*args, **kwargs))
    detach()
    again = attach_context()
    assert MINE.makeRecord("n", 20, "f", 1, "m", (), None).__dict__["request_id"] == "-"
    again()
    assert "request_id" not in MINE.makeRecord("n", 20, "f", 1, "m", (), None).__dict__
    monkeypatch.undo()
    attach_context()()
    assert "request_id" not in MINE.makeRecord("n", 20, "f", 1, "m", (), None).__dict__


def test_default_lines_show_the_request_id(attach: Attach, out: io.StringIO) -> None:
    use(DefaultFormatter(DEFAULT_FMT, use_colors=False))
    extra = {"request_id": "the application's"}
    within_request(lambda: MINE.info("off", extra=extra))
    attach()
    MINE.info("outside")
    within_request(lambda: MINE.info("inside %d", 1))
    within_request(lambda: MINE.info("forged", extra={"request_id": "a\nb"}))
    use(DefaultFormatter("%(levelprefix)s * %(message)s", use_colors=False))
    within_request(lambda: MINE.info("own format"))
    assert out.getvalue().splitlines() == [
        "INFO:     off",
        "INFO:     outside",
        "INFO:     [r-1] inside 1",
        r"INFO:     [a\x0ab] forged",
        "INFO:     * own format",
    ]


def test_default_lines_in_colours(attach: Attach, out: io.StringIO) -> None:
    use(DefaultFormatter(DEFAULT_FMT, use_colors=True))
    attach()
    within_request(lambda: MINE.info("plain", extra={"color_message": "bold"}))
    assert out.getvalue() == "\033[32mINFO\033[0m:     [r-1] bold\n"


def test_pretty_lines_show_the_request_id(attach: Attach, out: io.StringIO) -> None:
    use(PrettyFormatter(use_colors=False))
    attach()
    within_request(lambda: MINE.warning("careful"))
    assert out.getvalue()[8:] == "  WARNING  [r-1]  careful\n"


@pytest.mark.parametrize("formatter", [JSONFormatter(), ECSFormatter(), GCPFormatter(), LogfmtFormatter()])
def test_structured_lines(attach: Attach, out: io.StringIO, formatter: logging.Formatter) -> None:
    use(formatter)
    attach(lambda: IDS if request_id_var.get("") else None)
    MINE.info("outside")
    assert not {"request_id", "trace_id", "r-1", '"-"'} & set(out.getvalue().replace("=", " ").split())
    within_request(lambda: MINE.info("inside"))
    inside = out.getvalue().splitlines()[1]
    assert all(value in inside for value in ("inside", "r-1", *IDS))


def test_structured_errors(out: io.StringIO) -> None:
    def fail(formatter: logging.Formatter) -> str:
        use(formatter)
        try:
            raise ValueError("broken")
        except ValueError:
            MINE.exception("failed", extra={"user": 7, "ok": True})
        return out.getvalue().splitlines()[-1]

    ecs = json.loads(fail(ECSFormatter()))
    assert (ecs["error.type"], ecs["error.message"]) == ("ValueError", "broken")
    assert ecs["error.stack_trace"].startswith("Traceback")
    assert (ecs["log.level"], ecs["user"]) == ("error", 7)
    gcp = json.loads(fail(GCPFormatter()))
    assert gcp["stack_trace"].endswith("ValueError: broken")
    assert (gcp["severity"], gcp["user"]) == ("ERROR", 7)
    source = gcp["logging.googleapis.com/sourceLocation"]
    assert source["file"] == __file__
    assert (source["function"], int(source["line"]) > 1) == ("fail", True)
    logfmt = fail(LogfmtFormatter())
    assert logfmt.endswith(" user=7 ok=true")
    use(LogfmtFormatter())
    MINE.info("odd", extra={"clé de": 1})
    assert out.getvalue().splitlines()[-1].endswith(" cl__de=1")
    assert 'level=error logger=tests.log_context message=failed exception="Traceback' in logfmt


@pytest.mark.parametrize(
    ("level", "severity"), [(5, "DEBUG"), (25, "INFO"), (30, "WARNING"), (55, "CRITICAL")]
)
def test_gcp_severities(level: int, severity: str) -> None:
    record = logging.makeLogRecord({"levelno": level, "msg": "m"})
    assert json.loads(GCPFormatter().format(record))["severity"] == severity


def test_logfmt_keys_are_words(out: io.StringIO) -> None:
    use(LogfmtFormatter())
    MINE.info("x", extra={'a b="c': 1, "none": None, "empty": ""})
    assert out.getvalue().endswith(' message=x a_b__c=1 empty=""\n')


def test_the_access_log_keeps_its_fast_way(
    attach: Attach, logger: logging.Logger, make_log: Callable[..., AccessLog],
    make_entry: Callable[..., FinishedExchange],
) -> None:  # fmt: skip
    attach(lambda: IDS)
    log = make_log()
    log.add(make_entry())
    assert len(log) == 1
    # On the way over records the exchange's ids count, not those of the context it ends in.
    logger.handlers[0].setFormatter(logging.Formatter("%(request_id)s %(trace_id)s"))
    log.flush()
    stream = io.StringIO()
    logger.handlers[0].setStream(stream)  # type: ignore[attr-defined]
    within_request(lambda: log.add(make_entry(state={"request_id": "r-2"})))
    log.add(make_entry())
    assert stream.getvalue() == "r-2 -\n- -\n"


def test_python_json_logger(attach: Attach, out: io.StringIO) -> None:
    from pythonjsonlogger.json import JsonFormatter

    use(JsonFormatter("%(levelname)s %(message)s %(request_id)s"))
    attach(lambda: IDS)
    within_request(lambda: MINE.info("text", extra={"user": 7}))
    within_request(lambda: MINE.info({"event": "mapping"}))
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first == {
        "levelname": "INFO", "message": "text", "request_id": "r-1", "user": 7,
        "trace_id": IDS[0], "span_id": IDS[1],
    }  # fmt: skip
    assert (second["event"], second["request_id"]) == ("mapping", "r-1")


def test_structlog(attach: Attach, out: io.StringIO) -> None:
    import structlog

    shared = [structlog.stdlib.add_log_level, add_context]
    use(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), structlog.stdlib.add_log_level],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    attach(lambda: IDS if request_id_var.get("") else None)
    events = structlog.wrap_logger(
        MINE, processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )  # fmt: skip
    within_request(lambda: MINE.info("foreign"))
    within_request(lambda: events.info("own", user=7))
    within_request(lambda: events.info("own", request_id="mine"))
    events.info("outside")
    foreign, own, mine, outside = map(json.loads, out.getvalue().splitlines())
    assert foreign["event"] == "foreign"
    for line in (foreign, own):
        assert (line["request_id"], line["trace_id"], line["span_id"]) == ("r-1", *IDS)
    assert own["user"] == 7
    assert mine["request_id"] == "mine"
    assert "request_id" not in outside


@pytest.mark.parametrize(
    ("formatter", "name"),
    [(ECSFormatter(), "@timestamp"), (ECSFormatter(), "log.level"), (GCPFormatter(), "severity")],
)
def test_extras_replace_nothing_of_the_line(formatter: logging.Formatter, name: str) -> None:
    record = MINE.makeRecord("n", logging.WARNING, "f", 1, "m", (), None, extra={name: "never"})
    line = json.loads(formatter.format(record))
    assert line[name] != "never"
    assert line[f"extra_{name}"] == "never"
