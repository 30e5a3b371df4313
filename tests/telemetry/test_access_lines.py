"""Structured access lines: what stands in them, and that the fast way and the way over records agree."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.telemetry import (
    AccessLog,
    ECSFormatter,
    FinishedExchange,
    GCPFormatter,
    JSONFormatter,
    LogfmtFormatter,
    Sampling,
)
from headrace.telemetry.access_lines.ecs_text import ECSText
from headrace.telemetry.access_lines.gcp_text import GCPText
from headrace.telemetry.access_lines.json_text import JSONText
from headrace.telemetry.access_lines.logfmt_text import LogfmtText
from headrace.telemetry.access_lines.named_formats import named_format

MakeEntry = Callable[..., FinishedExchange]
MakeLog = Callable[..., AccessLog]
OFFSET_S = 1772366300.25  # the clock's 99.5 s is 2026-03-01T11:59:59.750Z
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"

PLAIN: dict[str, Any] = {}
RICH: dict[str, Any] = {
    "path": "/ü",
    "query": b'a="b c"',
    "status": 503,
    "headers": [(b"host", b"example.org:8080"), (b"user-agent", b'Moz"illa 5'), (b"referer", b"http://a/")],
    "received_bytes": 7,
    "error": ConfigError("x"),
    "state": {"request_id": "r=1"},
    "headrace.route": "/{word}",
    "headrace.span": SimpleNamespace(trace_id=int(TRACE_ID, 16), span_id=int(SPAN_ID, 16), is_sampled=True),
}
UNIX: dict[str, Any] = {"client": None, "headers": [(b"host", b"[::1]:80")]}
FROM_A_SOCKET: dict[str, Any] = {"client": ("/run/peer.sock", None), "headers": [(b"host", b"a")]}
EVERY_KIND = [PLAIN, RICH, UNIX, FROM_A_SOCKET]


@pytest.fixture(autouse=True)
def _no_project(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "GCP_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def line_of(name: str, entry: FinishedExchange, **arguments: Any) -> str:
    line_format = named_format(name, **arguments)
    assert line_format is not None
    (line,) = line_format.lines([entry], OFFSET_S)
    return line


def test_json_has_what_is_known(make_entry: MakeEntry) -> None:
    line = json.loads(line_of("json", make_entry(**RICH), worker=3, sampling=Sampling(0.25)))
    assert {name: line[name] for name in list(line)[-8:]} == {
        "host": "example.org:8080",
        "route": "/{word}",
        "request_id": "r=1",
        "trace_id": TRACE_ID,
        "span_id": SPAN_ID,
        "error_type": "headrace.errors.ConfigError",
        "worker": 3,
        "sampled": 1.0,
    }
    assert line["received_bytes"] == 7
    bare = json.loads(line_of("json", make_entry()))
    assert not bare.keys() & {"route", "request_id", "trace_id", "error_type", "worker", "sampled"}


def test_an_id_of_the_applications_own(make_entry: MakeEntry) -> None:
    assert json.loads(line_of("json", make_entry(state={"request_id": 42})))["request_id"] == "42"
    assert "request_id" not in json.loads(line_of("json", make_entry(state={"request_id": None})))


def test_logfmt(make_entry: MakeEntry) -> None:
    assert line_of("logfmt", make_entry(**RICH), worker=12) == (
        "time=2026-03-01T11:59:59.750Z client=127.0.0.1 client_port=1234 method=GET "
        r'path="/\u00fc" query="a=\"b c\"" http_version=1.1 scheme=http status=503 bytes=12 received_bytes=7 '
        r'duration_ms=12.500 user_agent="Moz\"illa 5" referer=http://a/ host=example.org:8080 route=/{word} '
        f'request_id="r=1" trace_id={TRACE_ID} span_id={SPAN_ID} '
        "error_type=headrace.errors.ConfigError worker=12"
    )
    assert line_of("logfmt", make_entry(**UNIX)).startswith(
        "time=2026-03-01T11:59:59.750Z method=GET path=/ "
    )


def test_ecs(make_entry: MakeEntry) -> None:
    line = json.loads(line_of("ecs", make_entry(**RICH), worker=3, sampling=Sampling(0.25)))
    # The first three and their order are the ECS logging specification's.
    assert list(line)[:4] == ["@timestamp", "log.level", "message", "ecs.version"]
    assert line["message"] == r'127.0.0.1:1234 - "GET /%C3%BC?a=\x22b\x20c\x22 HTTP/1.1" 503'
    expected = {
        "client.ip": "127.0.0.1",
        "event.duration": 12_500_000,
        "event.outcome": "failure",
        "http.request.body.bytes": 7,
        "http.request.id": "r=1",
        "trace.id": TRACE_ID,
        "span.id": SPAN_ID,
        "url.domain": "example.org",
        "url.query": 'a="b c"',
        "error.type": "headrace.errors.ConfigError",
        "labels.route": "/{word}",
        "labels.worker": "3",
        "labels.sampled": "1.0",
    }
    assert {name: line[name] for name in expected} == expected


def test_ecs_has_addresses_only_where_elasticsearch_takes_them(make_entry: MakeEntry) -> None:
    line = json.loads(line_of("ecs", make_entry(**FROM_A_SOCKET)))
    assert line["client.address"] == "/run/peer.sock"
    assert "client.ip" not in line
    assert "client.port" not in line
    assert "client.ip" not in json.loads(line_of("ecs", make_entry(client=("fe80::1%eth0", 1))))
    assert json.loads(line_of("ecs", make_entry(client=("::1", 1))))["client.ip"] == "::1"
    assert json.loads(line_of("ecs", make_entry(**UNIX)))["url.domain"] == "[::1]"


@pytest.mark.parametrize(
    ("host", "domain"), [(b"a.b", "a.b"), (b"a:", "a"), (b"[::1]", "[::1]"), (b"::1", "::1")]
)
def test_ecs_domain(make_entry: MakeEntry, host: bytes, domain: str) -> None:
    assert json.loads(line_of("ecs", make_entry(headers=[(b"host", host)])))["url.domain"] == domain


def test_gcp(make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.loads(line_of("gcp", make_entry(**RICH)))
    assert line["severity"] == "ERROR"
    assert line["time"] == "2026-03-01T11:59:59.750Z"
    assert line["httpRequest"] == {
        "requestMethod": "GET",
        "requestUrl": r"http://example.org:8080/%C3%BC?a=\x22b\x20c\x22",
        "protocol": "HTTP/1.1",
        "status": 503,
        "responseSize": "12",
        "requestSize": "7",
        "latency": "0.012500s",
        "remoteIp": "127.0.0.1",
        "userAgent": 'Moz"illa 5',
        "referer": "http://a/",
    }
    assert line["logging.googleapis.com/trace"] == TRACE_ID
    assert line["logging.googleapis.com/spanId"] == SPAN_ID
    assert line["logging.googleapis.com/trace_sampled"] is True
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "shop")
    line = json.loads(line_of("gcp", make_entry(**RICH)))
    assert line["logging.googleapis.com/trace"] == f"projects/shop/traces/{TRACE_ID}"


@pytest.mark.parametrize(
    ("status", "severity"), [(200, "INFO"), (404, "WARNING"), (500, "ERROR"), (999, "ERROR")]
)
def test_gcp_severities(make_entry: MakeEntry, status: int, severity: str) -> None:
    assert json.loads(line_of("gcp", make_entry(status=status)))["severity"] == severity


@pytest.mark.parametrize("facts", EVERY_KIND)
@pytest.mark.parametrize("formatter", [JSONFormatter, LogfmtFormatter, ECSFormatter, GCPFormatter])
@pytest.mark.parametrize("share", [1.0, 0.999_999])
def test_records_become_the_same_lines(
    logger: logging.Logger, stream: io.StringIO, make_log: MakeLog, make_entry: MakeEntry,
    facts: dict[str, Any], formatter: type[logging.Formatter], share: float,
) -> None:  # fmt: skip
    logger.handlers[0].setFormatter(formatter())
    log = make_log(sampling=Sampling(share), worker=3)
    entry = make_entry(**{"state": {"request_id": "kept"}, **facts})
    log.add(entry)
    log.flush()
    logger.addFilter(lambda record: True)
    log.flush()
    log.add(entry)
    fast, slow = stream.getvalue().splitlines()
    if formatter is LogfmtFormatter:
        assert sorted(fast.split(" ")) == sorted(slow.split(" "))
        return
    # A record knows the ids, not whether the trace is recorded.
    assert {**json.loads(fast), "logging.googleapis.com/trace_sampled": None} == {
        **json.loads(slow),
        "logging.googleapis.com/trace_sampled": None,
    }


def test_lines_of_one_batch_have_their_own_facts(make_entry: MakeEntry) -> None:
    entries = [make_entry(path, status=status) for path, status in (("/a", 200), ("/b", 404), ("/a", 500))]
    for line_format in (ECSText(), GCPText()):
        lines = [json.loads(line) for line in line_format.lines(entries, OFFSET_S)]
        assert [line["message"].split('"')[1:] for line in lines] == [
            ["GET /a HTTP/1.1", " 200"],
            ["GET /b HTTP/1.1", " 404"],
            ["GET /a HTTP/1.1", " 500"],
        ]


@pytest.mark.parametrize("line_format", [ECSText(), GCPText(), JSONText(), LogfmtText()], ids=type)
@pytest.mark.parametrize("field", [b"host", b"user-agent", b"referer"])
def test_nothing_long_is_remembered(make_entry: MakeEntry, line_format: Any, field: bytes) -> None:
    for number in range(20):
        headers = [(field, b"%d" % number + b"x" * 60_000)]
        line_format.lines([make_entry("/" + "p" * number, headers=headers)], OFFSET_S)
    tables = [table for table in vars(line_format).values() if isinstance(table, dict)]
    assert sum(len(repr(key)) for table in tables for key in table) < 60_000


def test_clients_cannot_fill_the_memory(make_entry: MakeEntry) -> None:
    line_format = ECSText()
    for number in range(5000):
        client = (f"10.0.{number // 256}.{number % 256}", 1)
        headers = [(b"host", b"a%d" % number), (b"user-agent", b"b%d" % number)]
        line_format.lines([make_entry(f"/{number}", headers=headers, client=client)], OFFSET_S)
    tables = [table for table in vars(line_format).values() if isinstance(table, dict)]
    assert len(tables) == 5
    assert all(len(table) <= 2048 for table in tables)
