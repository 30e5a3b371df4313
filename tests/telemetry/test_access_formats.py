from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from headrace.errors import ConfigError
from headrace.telemetry import FinishedExchange, JSONFormatter
from headrace.telemetry.access_lines.combined_text import CombinedText
from headrace.telemetry.access_lines.ecs_text import ECSText
from headrace.telemetry.access_lines.facts import SOMETIMES, access_fields, record_args
from headrace.telemetry.access_lines.gcp_text import GCPText
from headrace.telemetry.access_lines.json_text import JSONText
from headrace.telemetry.access_lines.line_format import LineFormat, TextTable
from headrace.telemetry.access_lines.logfmt_text import LogfmtText
from headrace.telemetry.access_lines.uvicorn_text import UvicornText
from headrace.telemetry.access_template import ATOMS, TemplateText
from headrace.telemetry.log_text import clf_time, escape_text, escape_word, iso_utc, status_text

MakeEntry = Callable[..., FinishedExchange]
OFFSET_S = 1772366300.25  # the clock's 99.5 s is 2026-03-01T11:59:59.750Z

BROWSER = [
    (b"host", b"example.org"),
    (b"user-agent", b'Moz"illa\n\xe9'),
    (b"referer", b"http://a/?b c"),
]


def uvicorn_line(entry: FinishedExchange, use_colors: bool = False) -> str:
    return UvicornText("INFO", logging.INFO, use_colors).lines([entry], OFFSET_S)[0]


def template_line(template: str, entry: FinishedExchange) -> str:
    return TemplateText(template).lines([entry], OFFSET_S)[0]


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({}, 'INFO:     127.0.0.1:1234 - "GET / HTTP/1.1" 200 OK'),
        ({"path": "/a b/ü", "query": b"x=1&y=%20"},
         'INFO:     127.0.0.1:1234 - "GET /a%20b/%C3%BC?x=1&y=%20 HTTP/1.1" 200 OK'),
        ({"client": ("::1", 9)}, 'INFO:     ::1:9 - "GET / HTTP/1.1" 200 OK'),
        ({"client": None}, 'INFO:      - "GET / HTTP/1.1" 200 OK'),
        ({"client": ["10.0.0.1", 0]}, 'INFO:     10.0.0.1:0 - "GET / HTTP/1.1" 200 OK'),
        ({"client": ("/run/peer.sock", None)}, 'INFO:     /run/peer.sock - "GET / HTTP/1.1" 200 OK'),
        ({"status": 499}, 'INFO:     127.0.0.1:1234 - "GET / HTTP/1.1" 499 Client Closed Request'),
        ({"status": 299}, 'INFO:     127.0.0.1:1234 - "GET / HTTP/1.1" 299 '),
    ],
)  # fmt: skip
def test_uvicorn_text(make_entry: MakeEntry, facts: dict[str, object], line: str) -> None:
    assert uvicorn_line(make_entry(**facts)) == line


@pytest.mark.parametrize(("status", "colour"), [(101, 97), (200, 32), (302, 33), (404, 31), (503, 91)])
def test_uvicorn_text_in_colours(make_entry: MakeEntry, status: int, colour: int) -> None:
    assert uvicorn_line(make_entry(status=status), use_colors=True) == (
        '\033[32mINFO\033[0m:     127.0.0.1:1234 - "\033[1mGET / HTTP/1.1\033[0m" '
        f"\033[{colour}m{status_text(status, False)}\033[0m"
    )


def parse_logfmt(line: str) -> dict[str, str]:
    """As a reader of logfmt sees it: nothing may stand between the pairs."""
    pairs = re.findall(r'([^ ="]+)=("(?:[^"\\]|\\.)*"|[^ ="]*)(?: |$)', line)
    assert " ".join(f"{name}={value}" for name, value in pairs) == line
    return {name: json.loads(value) if value.startswith('"') else value for name, value in pairs}


FORGERY = b'" 200 OK\r\nINFO: forged\x1b[31m\\\x00\x7f\xff'
FORGED = {
    "path": FORGERY.decode("latin-1"),
    "raw_path": FORGERY,
    "query": FORGERY,
    "headers": [(name, FORGERY) for name in (b"user-agent", b"referer", b"host", b"x-id")],
    "client": (FORGERY.decode("latin-1"), 1),
    "method": FORGERY.decode("latin-1"),
    "state": {"request_id": FORGERY.decode("latin-1")},
    "response_headers": [(b"X-Out", FORGERY)],
}
EVERY_ATOM = " ".join(f"%({name})s" for name in (*ATOMS, "{x-id}i", "{x-out}o", "{request_id}e"))


@pytest.mark.parametrize(
    "line_format",
    [UvicornText("INFO", logging.INFO, False), CombinedText(), JSONText(), JSONText("INFO"), ECSText(),
     GCPText(), LogfmtText(), LogfmtText("INFO"), TemplateText(EVERY_ATOM)],
    ids=["uvicorn", "combined", "json", "json with envelope", "ecs", "gcp", "logfmt", "logfmt with envelope",
         "template"],
)  # fmt: skip
def test_a_client_cannot_forge_lines(make_entry: MakeEntry, line_format: LineFormat) -> None:
    line = line_format.lines([make_entry(**FORGED)], OFFSET_S)[0]
    assert re.fullmatch(r"[ -~]+", line)
    assert "forged" in line
    if isinstance(line_format, (JSONText, ECSText)):
        assert FORGED["path"] in json.loads(line).values()
    elif isinstance(line_format, GCPText):
        assert json.loads(line)["httpRequest"]["userAgent"] == FORGERY.decode("latin-1")
    elif isinstance(line_format, LogfmtText):
        assert parse_logfmt(line)["path"] == FORGED["path"]
    else:
        assert r"\x22\x20200" in line or "%22%20200" in line
        assert line.count('"') % 2 == 0


def test_escapes() -> None:
    assert escape_text('a b"c\\d\n\x7f') == r"a b\x22c\x5cd\x0a\x7f"
    assert escape_text(b"\xc3\xbc") == escape_text("ü") == r"\xc3\xbc"
    assert escape_word("a b") == r"a\x20b"
    assert escape_word("\ud800") == r"\xed\xa0\x80"


def test_paths_with_lone_surrogates_do_not_fail(make_entry: MakeEntry) -> None:
    entry = make_entry("/\ud800")
    assert "%5Cud800" in uvicorn_line(entry)
    assert json.loads(JSONText().lines([entry], OFFSET_S)[0])["path"] == "/\ud800"


def test_combined(make_entry: MakeEntry) -> None:
    entry = make_entry("/ü", b"x=1", headers=BROWSER, raw_path=b"/%C3%BC")
    time_text = clf_time(99.5 + OFFSET_S)
    assert CombinedText().lines([entry], OFFSET_S) == [
        f'127.0.0.1 - - {time_text} "GET /%C3%BC?x=1 HTTP/1.1" 200 12 '
        r'"http://a/?b c" "Moz\x22illa\x0a\xe9"'
    ]


def test_combined_without_anything(make_entry: MakeEntry) -> None:
    line = CombinedText().lines([make_entry(client=None, body_bytes=0)], OFFSET_S)[0]
    assert line.startswith("- - - [")
    assert line.endswith('"GET / HTTP/1.1" 200 - "-" "-"')


def test_json(make_entry: MakeEntry) -> None:
    entry = make_entry("/ü", b"x=1", headers=BROWSER)
    assert json.loads(JSONText().lines([entry], OFFSET_S)[0]) == {
        "time": "2026-03-01T11:59:59.750Z",
        "client": "127.0.0.1",
        "client_port": 1234,
        "method": "GET",
        "path": "/ü",
        "query": "x=1",
        "http_version": "1.1",
        "status": 200,
        "bytes": 12,
        "duration_ms": 12.5,
        "user_agent": 'Moz"illa\né',
        "referer": "http://a/?b c",
        "host": "example.org",
        "scheme": "http",
        "received_bytes": 0,
    }


@pytest.mark.parametrize("facts", [{}, {"client": None}, {"headers": BROWSER, "query": b"q", "path": "/é"}])
def test_json_lines_have_the_fields_of_records(make_entry: MakeEntry, facts: dict[str, object]) -> None:
    entry = make_entry(**facts)
    bare = json.loads(JSONText().lines([entry], OFFSET_S)[0])
    known = {
        name: value
        for name, value in access_fields(entry).items()
        if name not in SOMETIMES or value is not None
    }
    assert list(bare) == ["time", *known]
    assert {"time": bare["time"], **known} == bare
    record = logging.makeLogRecord(
        {
            "name": "uvicorn.access",
            "levelname": "INFO",
            "created": 99.5 + OFFSET_S,
            "msg": '%s - "%s %s HTTP/%s" %d',
            "args": record_args(entry),
        }
    )
    for name, value in access_fields(entry).items():
        setattr(record, "body_bytes" if name == "bytes" else name, value)
    enveloped = json.loads(JSONText("INFO").lines([entry], OFFSET_S)[0])
    assert json.loads(JSONFormatter().format(record)) == enveloped


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ('%(h)s %(l)s %(u)s "%(r)s" %(s)s', '127.0.0.1 - ann\\x20o "GET /p%20q?x=1 HTTP/1.1" 200'),
        ("%(m)s %(U)s %(q)s %(H)s", "GET /p\\x20q x=1 HTTP/1.1"),
        ("%(b)s %(B)s %(B)06d", "12 12 000012"),
        ("%(f)s|%(a)s", "http://r/|agent"),
        ("%(T)s %(M)s %(D)s %(L)s", "1 1250 1250400 1.250400"),
        ("%({X-Id}i)s %({x-out}o)s %({none}i)s %({none}o)s", "1, 2 a\\x22b - -"),
        ("%({HEADRACE_TEST}e)s %({HEADRACE_NONE}e)s", "blue -"),
        ("100%% [%(s)5s]", "100% [  200]"),
    ],
)
def test_templates(make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch, template: str, line: str) -> None:
    monkeypatch.setenv("HEADRACE_TEST", "blue")
    entry = make_entry(
        "/p q",
        b"x=1",
        raw_path=b"/p%20q",
        headers=[
            (b"authorization", b"Basic YW5uIG86cw=="),
            (b"referer", b"http://r/"),
            (b"user-agent", b"agent"),
            (b"x-id", b"1"),
            (b"x-id", b"2"),
        ],
        response_headers=[(b"X-Out", b'a"b')],
        duration_s=1.2504,
    )
    assert template_line(template, entry) == line


def test_facts_in_templates(make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("request_id", "the environment's")
    template = "%({request_id}e)s %({trace_id}e)s %({span_id}e)s %({route}e)s %({error_type}e)s %({worker}e)s"
    entry = make_entry(
        state={"request_id": "r-1"},
        error=ValueError("x"),
        **{"headrace.route": "/a/{b}", "headrace.span": SimpleNamespace(trace_id=1, span_id=2)},
    )
    (line,) = TemplateText(template, 3).lines([entry], OFFSET_S)
    assert line == f"r-1 {1:032x} {2:016x} /a/{{b}} ValueError 3"
    assert template_line(template, make_entry()) == "- - - - - -"
    assert template_line("%({received_bytes}e)s", make_entry(received_bytes=7)) == "7"


def test_templates_of_empty_facts(make_entry: MakeEntry) -> None:
    entry = make_entry(client=None, body_bytes=0, headers=[(b"authorization", b"Basic !!")])
    assert template_line("%(h)s %(u)s %(b)s %(B)s %(f)s %(a)s %({a}o)s", entry) == "- - - 0 - - -"
    assert re.fullmatch(r"<\d+>", template_line("%(p)s", entry))
    assert template_line("%(t)s", entry) == clf_time(99.5 + OFFSET_S)
    assert template_line("%(u)s", make_entry()) == "-"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("%(z)s", r"%\(z\)s is unknown"),
        ("%(h)d", "is no number"),
        ("%h %r", "'%h %r'"),
        ("50%", "begins no atom"),
        ("%(h", "begins no atom"),
        ("%({a}x)s", "begins no atom"),
        ("combied", "'combied' is none of uvicorn, combined, json, logfmt, ecs, gcp"),
        ("100%%", "holds no atom"),
    ],
)
def test_wrong_templates(template: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        TemplateText(template)


def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    assert iso_utc(0.9996) == "1970-01-01T00:00:00.999Z"
    for zone, text in [("XXX-5:30", "+0530"), ("XXX+3", "-0300"), ("UTC", "+0000")]:
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        # A time of its own for each zone, because the text of a second is remembered.
        assert clf_time(1772366400 + len(zone)).endswith(f" {text}]")
    assert clf_time(1772366400) == "[01/Mar/2026:12:00:00 +0000]"
    monkeypatch.undo()
    time.tzset()


def test_clocks_that_go_back_give_no_negative_durations(make_entry: MakeEntry) -> None:
    entry = make_entry(duration_s=-1)
    assert template_line("%(D)s", entry) == "0"
    assert access_fields(entry)["duration_ms"] == 0.0


def test_tables_are_bounded() -> None:
    table = TextTable()
    table.keep("long", "x" * 401)
    assert not table
    for number in range(10_000):
        assert table.keep(number, str(number)) == str(number)
    assert 0 < len(table) <= 2048
