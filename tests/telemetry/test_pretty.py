from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.telemetry import FinishedExchange, configure
from headrace.telemetry.pretty import PrettyFormatter, PrettyText
from live import eventually

MakeEntry = Callable[..., FinishedExchange]
MakeLog = Callable[..., Any]
OFFSET_S = 1772366300.25  # the clock's 99.5 s is 2026-03-01T11:59:59.750Z
ERROR = logging.getLogger("uvicorn.error")
ACCESS = logging.getLogger("uvicorn.access")
ARGS = ("127.0.0.1:1", "GET", "/x", "1.1", 200)
MESSAGE = '%s - "%s %s HTTP/%s" %d'


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = os.environ.get("TZ")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def line(entry: FinishedExchange, use_colors: bool = False) -> str:
    return PrettyText(use_colors).lines([entry], OFFSET_S)[0]


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"path": "/items", "query": b"x=1", "duration_s": 0.0012, "body_bytes": 0},
         "11:59:59  GET /items?x=1                  200   1.2 ms"),
        ({"method": "DELETE", "path": "/items/7", "status": 404, "body_bytes": 22},
         "11:59:59  DELETE /items/7                 404  12.5 ms    22 B"),
        ({"duration_s": 0.9999, "body_bytes": 999},
         "11:59:59  GET /                           200 999.9 ms   999 B"),
        ({"duration_s": 1.0, "body_bytes": 1000},
         "11:59:59  GET /                           200   1.00 s  1.0 kB"),
        ({"duration_s": 3601, "body_bytes": 12_345_678},
         "11:59:59  GET /                           200 3601.00 s 12.3 MB"),
        ({"path": "/a/path/that/is/longer/than/its/column"},
         "11:59:59  GET /a/path/that/is/longer/than/its/column  200  12.5 ms    12 B"),
        ({"path": "/a b/\u00fc", "status": 599},
         "11:59:59  GET /a%20b/%C3%BC               599  12.5 ms    12 B"),
    ],
)  # fmt: skip
def test_access_lines(make_entry: MakeEntry, facts: dict[str, Any], text: str) -> None:
    assert line(make_entry(**facts)) == text


@pytest.mark.parametrize(
    ("status", "shown"),
    [(101, "101"), (204, "\033[32m204\033[0m"), (302, "\033[36m302\033[0m"), (404, "\033[33m404\033[0m"),
     (500, "\033[31m500\033[0m")],
)  # fmt: skip
def test_colours(make_entry: MakeEntry, status: int, shown: str) -> None:
    assert line(make_entry(status=status), use_colors=True) == (
        f"\033[2m11:59:59\033[0m  \033[1mGET /\033[0m{' ' * 25}  {shown}\033[2m  12.5 ms    12 B\033[0m"
    )


def test_a_client_cannot_forge_lines(make_entry: MakeEntry) -> None:
    forged = make_entry("/a\n\x1b[31m", b"b\r\n12:00:00  GET /", method="GET\n")
    assert line(forged).startswith(r"11:59:59  GET\x0a /a%0A%1B%5B31m?b\x0d\x0a12:00:00\x20\x20GET\x20/  200")


def formatted(formatter: PrettyFormatter, **facts: Any) -> str:
    record = logging.makeLogRecord(
        {"created": 99.5 + OFFSET_S, "levelno": logging.INFO, "levelname": "INFO", "name": "x", **facts}
    )
    return formatter.format(record)


def test_other_lines() -> None:
    plain, coloured = PrettyFormatter(use_colors=False), PrettyFormatter(use_colors=True)
    assert formatted(plain, msg="Uvicorn running on %s", args=("http://a",)) == (
        "11:59:59  Uvicorn running on http://a"
    )
    warning = {"msg": "careful", "levelno": logging.WARNING, "levelname": "WARNING"}
    assert formatted(plain, **warning) == "11:59:59  WARNING  careful"
    assert formatted(coloured, **warning) == "\033[2m11:59:59\033[0m  \033[33mWARNING\033[0m  careful"


def test_color_message() -> None:
    facts = {"msg": "plain %d", "color_message": "\033[1mbold\033[0m %d", "args": (7,)}
    assert formatted(PrettyFormatter(use_colors=False), **facts) == "11:59:59  plain 7"
    assert formatted(PrettyFormatter(use_colors=True), **facts).endswith("  \033[1mbold\033[0m 7")


@pytest.mark.parametrize(
    ("message", "args", "shown"),
    [
        ("Started server process [%d]", (7,), "Started server process"),
        ("%s [%d] is ready.", ("Worker 1", 7), "Worker 1 is ready."),
        ("items [%d]", (7,), "items [7]"),
    ],
)
def test_process_numbers_are_left_out(message: str, args: Any, shown: str) -> None:
    plain = PrettyFormatter(use_colors=False)
    assert formatted(plain, name="uvicorn.error", msg=message, args=args) == f"11:59:59  {shown}"
    # Nobody else's.
    assert formatted(plain, name="mine", msg=message, args=args) == f"11:59:59  {message % args}"


def test_exceptions_follow_the_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        text = formatted(
            PrettyFormatter(use_colors=False), msg="failed", exc_info=sys.exc_info(), levelname="ERROR",
            levelno=logging.ERROR,
        )  # fmt: skip
    assert text.startswith("11:59:59  ERROR  failed\nTraceback (most recent call last):\n")
    assert text.endswith("\nValueError: broken")


def test_access_records(make_entry: MakeEntry) -> None:
    plain = PrettyFormatter(use_colors=False)
    known = {"name": "uvicorn.access", "msg": MESSAGE, "args": ARGS}
    assert formatted(plain, **known, duration_ms=1.25, body_bytes=3) == (
        f"11:59:59  GET /x{' ' * 24}  200   1.2 ms     3 B"
    )
    assert formatted(plain, **known) == f"11:59:59  GET /x{' ' * 24}  200"
    assert formatted(plain, **known, access_line="a template's") == "a template's"
    assert formatted(plain, name="uvicorn.access", msg="cache is %s", args=("warm",)) == (
        "11:59:59  cache is warm"
    )


@pytest.mark.parametrize(
    ("is_terminal", "no_color", "has_colours"),
    [(True, "", True), (True, None, True), (True, "1", False), (False, None, False)],
)
def test_colours_only_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, no_color: str | None, has_colours: bool
) -> None:
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    if no_color is None:
        monkeypatch.delenv("NO_COLOR", raising=False)
    else:
        monkeypatch.setenv("NO_COLOR", no_color)
    assert PrettyFormatter().use_colors == has_colours
    assert PrettyFormatter(use_colors=True).use_colors
    assert not PrettyFormatter(use_colors=False).use_colors


@pytest.mark.parametrize("use_colors", [None, True, False])
def test_configure(capsys: pytest.CaptureFixture[str], use_colors: bool | None) -> None:
    configure(log_format="pretty", use_colors=use_colors)
    ERROR.info("Started server process [%d]", 7)
    ACCESS.info(MESSAGE, *ARGS)
    captured = capsys.readouterr()
    assert ("\033[" in captured.err, "\033[" in captured.out) == (bool(use_colors), bool(use_colors))
    assert captured.err.endswith("  Started server process\n")
    assert "GET /x" in captured.out


def test_both_ways_write_the_same(make_log: MakeLog, make_entry: MakeEntry, stream: io.StringIO) -> None:
    """The access log's own batch, and the records it makes when somebody filters them."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrettyFormatter(use_colors=True))
    ACCESS.handlers, ACCESS.propagate = [handler], False
    ACCESS.setLevel(logging.INFO)
    log = make_log()
    entry = make_entry("/\u00fc", b"x=1", status=500)
    log.add(entry)
    log.flush()
    ACCESS.addFilter(lambda record: True)
    log.flush()
    log.add(entry)
    first, second = stream.getvalue().splitlines()
    assert first == second == line(entry, use_colors=True)


def test_over_sockets(spawn: Any) -> None:
    source = """
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 201, "headers": []})
            await send({"type": "http.response.body", "body": b"made"})
    """
    server = spawn(source, "--log-format", "pretty", "--lifespan", "off")
    assert server.connect().request("/made?by=hand", "POST", body=b"").status == 201
    server.wait_line(r"^\d\d:\d\d:\d\d  POST /made\?by=hand {12}  201 +\d+\.\d ms     4 B$")
    server.wait_line(r"^\d\d:\d\d:\d\d  Uvicorn running on http://127\.0\.0\.1:\d+ \(Press")
    assert eventually(lambda: "[" not in server.text), server.text
