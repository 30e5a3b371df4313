from __future__ import annotations

import configparser
import copy
import io
import json
import logging
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.telemetry import (
    LOGGING_CONFIG,
    AccessFormatter,
    ColourizedFormatter,
    DefaultFormatter,
    JSONFormatter,
    configure,
)
from headrace.telemetry.access_template import ATOMS, FACTS
from headrace.telemetry.log_context import is_attached

ERROR = logging.getLogger("uvicorn.error")
ACCESS = logging.getLogger("uvicorn.access")
ARGS = ("127.0.0.1:1", "GET", "/x", "1.1", 200)
MESSAGE = '%s - "%s %s HTTP/%s" %d'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_default_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    ERROR.info("Started server process [%d]", 7)
    ERROR.warning("careful")
    ERROR.debug("not shown")
    logging.getLogger("uvicorn").critical("gone")
    ACCESS.info(MESSAGE, *ARGS)
    captured = capsys.readouterr()
    assert captured.err == "INFO:     Started server process [7]\nWARNING:  careful\nCRITICAL: gone\n"
    assert captured.out == 'INFO:     127.0.0.1:1 - "GET /x HTTP/1.1" 200 OK\n'
    assert not ACCESS.propagate


def test_colours_and_color_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure(use_colors=True, log_level="trace")
    ERROR.info("plain", extra={"color_message": "\033[1mbold\033[0m"})
    ERROR.log(5, "deep")
    ERROR.log(25, "own level")
    ACCESS.info(MESSAGE, *ARGS)
    captured = capsys.readouterr()
    assert captured.err == (
        "\033[32mINFO\033[0m:     \033[1mbold\033[0m\n\033[34mTRACE\033[0m:    deep\nLevel 25: own level\n"
    )
    assert captured.out == (
        '\033[32mINFO\033[0m:     127.0.0.1:1 - "\033[1mGET /x HTTP/1.1\033[0m" \033[32m200 OK\033[0m\n'
    )


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert AccessFormatter().use_colors
    assert ColourizedFormatter().use_colors
    assert not DefaultFormatter().use_colors
    assert DefaultFormatter(use_colors=True).use_colors
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert DefaultFormatter().use_colors
    monkeypatch.setattr(sys, "stdout", None)
    assert not DefaultFormatter().use_colors


def test_lines_of_ones_own_on_the_access_logger(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    ACCESS.info("cache is %s", "warm")
    ACCESS.info("%s %s", 1, 2)
    assert capsys.readouterr().out == "INFO:     cache is warm\nINFO:     1 2\n"


@pytest.mark.parametrize(
    ("given", "number"), [("debug", 10), ("TRACE", 5), ("Critical", 50), (17, 17), (None, 20)]
)
def test_levels(given: str | int | None, number: int) -> None:
    configure(log_level=given)
    assert ERROR.level == ACCESS.level == number
    assert logging.getLevelName(5) == "TRACE"
    if given is not None:
        assert logging.getLogger("uvicorn.asgi").level == number


def test_unknown_level() -> None:
    with pytest.raises(ConfigError, match=r"'loud' is unknown; choose one of critical, .*, trace\."):
        configure(log_level="loud")


def test_unknown_format() -> None:
    with pytest.raises(ConfigError, match="text, json, pretty, logfmt, ecs or gcp"):
        configure(log_format="xml")  # type: ignore[arg-type]


def test_no_access_log() -> None:
    configure(access_log=False)
    assert ACCESS.handlers == []
    assert not ACCESS.hasHandlers()


def test_none_leaves_logging_alone() -> None:
    handler = logging.NullHandler()
    ACCESS.addHandler(handler)
    configure(log_config=None, log_level="warning")
    assert ACCESS.handlers == [handler]
    assert ACCESS.propagate
    assert ERROR.level == logging.WARNING


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json")
    circle: list[Any] = []
    circle.append(circle)
    ERROR.info(
        "hello %s", "ü\n", extra={"user": 7, "level": "mine", "odd": {1, 2}.__class__, "color_message": 1}
    )
    ERROR.info("bad extras", extra={"ratio": float("nan"), "circle": circle}, stack_info=True)
    try:
        raise ValueError("broken")
    except ValueError:
        ERROR.exception("failed")
    ACCESS.info(MESSAGE, *ARGS, extra={"duration_ms": 1.5, "body_bytes": 3})
    captured = capsys.readouterr()
    first, second, third = map(json.loads, captured.err.splitlines())
    assert captured.err.isascii()
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "INFO",
        "logger": "uvicorn.error",
        "message": "hello ü\n",
        "user": 7,
        "extra_level": "mine",
        "odd": "<class 'set'>",
    }
    assert second["ratio"] == "nan"
    assert second["circle"] == "[[...]]"
    assert "stack_info=True" in second["stack"]
    assert third["exception"].endswith("ValueError: broken")
    access = json.loads(captured.out)
    assert access["message"] == '127.0.0.1:1 - "GET /x HTTP/1.1" 200'
    assert access["bytes"] == 3
    assert "body_bytes" not in access


def test_json_of_a_record_whose_exception_is_text_already() -> None:
    record = logging.makeLogRecord({"msg": "m", "exc_text": "Traceback"})
    assert json.loads(JSONFormatter().format(record))["exception"] == "Traceback"


def own_config() -> dict[str, Any]:
    config = copy.deepcopy(LOGGING_CONFIG)
    config["formatters"]["access"]["fmt"] = "%(levelprefix)s %(status_code)s %(request_line)s"
    config["handlers"]["default"]["stream"] = "ext://sys.stdout"
    return config


def test_a_changed_copy(capsys: pytest.CaptureFixture[str]) -> None:
    config = own_config()
    before = copy.deepcopy(config)
    configure(log_config=config, use_colors=True)
    assert config == before
    ERROR.info("hi")
    ACCESS.info(MESSAGE, *ARGS)
    assert capsys.readouterr().out == (
        "\033[32mINFO\033[0m:     hi\n"
        "\033[32mINFO\033[0m:     \033[32m200 OK\033[0m \033[1mGET /x HTTP/1.1\033[0m\n"
    )


def test_the_default_may_be_changed_in_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(LOGGING_CONFIG["formatters"]["default"], "fmt", "[%(levelname)s] %(message)s")
    configure()
    ERROR.info("hi")
    assert capsys.readouterr().err == "[INFO] hi\n"


def test_colours_are_kept_from_foreign_formatters() -> None:
    config = own_config()
    config["formatters"]["default"] = {"()": "logging.Formatter", "fmt": "%(message)s"}
    config["formatters"]["access"] = {"()": AccessFormatter}
    configure(log_config=config, use_colors=True)
    formatter = ACCESS.handlers[0].formatter
    assert isinstance(formatter, AccessFormatter)
    assert formatter.use_colors
    configure(log_config={"version": 1}, use_colors=True)


INI = """
[loggers]
keys=root,error,access

[handlers]
keys=out

[formatters]
keys=plain

[logger_root]
level=WARNING
handlers=

[logger_error]
level=DEBUG
handlers=out
qualname=uvicorn.error
propagate=0

[logger_access]
level=INFO
handlers=out
qualname=uvicorn.access
propagate=0

[handler_out]
class=StreamHandler
formatter=plain
args=(sys.stdout,)

[formatter_plain]
format=%(name)s %(message)s
"""


@pytest.mark.parametrize("is_ini", [True, False])
def test_formats_with_ids_work_from_the_start(capsys: pytest.CaptureFixture[str], is_ini: bool) -> None:
    formatted = "%(request_id)s %(trace_id)s %(message)s"
    if is_ini:
        configure(log_config=io.StringIO(INI.replace("%(name)s %(message)s", formatted)))
    else:
        config = own_config()
        config["formatters"]["default"]["fmt"] = formatted
        configure(log_config=config)
    ERROR.info("hi")
    assert capsys.readouterr() == ("- - hi\n", "")
    configure()
    assert not is_attached()


def test_json_and_yaml_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    for name, text in [("a.json", json.dumps(own_config())), ("b.yaml", yaml.safe_dump(own_config()))]:
        path = tmp_path / name
        path.write_text(text)
        configure(log_config=path if name.endswith("json") else str(path))
        ACCESS.info(MESSAGE, *ARGS)
        assert capsys.readouterr().out == "INFO:     200 OK GET /x HTTP/1.1\n"


def test_ini_in_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "logging.ini"
    path.write_text(INI)
    parser = configparser.RawConfigParser()
    parser.read_string(INI)
    for source in (path, str(path), parser, io.StringIO(INI)):
        configure(log_config=source)
        ERROR.debug("hi")
        assert capsys.readouterr().out == "uvicorn.error hi\n"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "{", "is wrong: Expecting property name"),
        ("b.json", "[]", "must be a mapping"),
        ("c.json", "{}", "is wrong: .*version"),
        ("d.yaml", "a: [", "is wrong: while parsing"),
        ("e.yaml", "- x", "must be a mapping"),
        ("f.ini", "no section", "is wrong: File contains no section headers"),
        ("g.ini", "[a]\nb=1", "is wrong"),
        ("h.ini", INI.replace("class=StreamHandler", "class=no.Such"), "is wrong: No module named 'no'"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=reason) as caught:
        configure(log_config=path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_broken_factories_name_their_cause() -> None:
    config = own_config()
    config["formatters"]["default"]["()"] = "no.such.Formatter"
    with pytest.raises(ConfigError, match=r"Unable to configure formatter 'default'.*No module named 'no'"):
        configure(log_config=config)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file or directory\."):
        configure(log_config=tmp_path / "none.json")
    binary = tmp_path / "binary.ini"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read: 'utf-8' codec"):
        configure(log_config=binary)


def test_yaml_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yml"
    path.write_text("version: 1")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigError, match=r"needs: pip install 'headrace\[yaml\]'"):
        configure(log_config=path)


def uvicorn_config() -> dict[str, Any]:
    config = copy.deepcopy(LOGGING_CONFIG)
    config["formatters"]["default"]["()"] = "uvicorn.logging.DefaultFormatter"
    config["formatters"]["access"]["()"] = "uvicorn.logging.AccessFormatter"
    config["formatters"]["other"] = {"()": "uvicorn.logging.ColourizedFormatter"}
    config["formatters"]["class"] = {"class": "uvicorn.logging.DefaultFormatter", "format": "%(message)s"}
    config["handlers"]["other"] = {
        "class": "logging.NullHandler",
        "level": "ext://uvicorn.config.TRACE_LOG_LEVEL",
    }
    return config


WITHOUT_UVICORN = """
    import sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "uvicorn":
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Blocked())
    import logging
    from headrace.telemetry import AccessFormatter, configure
    configure(log_config=sys.argv[1], log_level="info")
    logging.getLogger("uvicorn.error").info("hi")
    access = logging.getLogger("uvicorn.access")
    assert type(access.handlers[0].formatter) is AccessFormatter
    access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", "/x", "1.1", 200)
    assert not [name for name in sys.modules if name.partition(".")[0] == "uvicorn"]
"""

UVICORN_INI = (
    INI.replace("keys=plain", "keys=plain,access")
    .replace("keys=out", "keys=out,access")
    .replace("level=INFO\nhandlers=out", "level=INFO\nhandlers=access")
    .replace(
        "format=%(name)s %(message)s",
        "class=uvicorn.logging.DefaultFormatter\nformat=%(levelprefix)s %(message)s",
    )
    + """
[handler_access]
class=StreamHandler
formatter=access
args=(sys.stdout,)

[formatter_access]
class=uvicorn.logging.AccessFormatter
format=%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s
"""
)


@pytest.mark.parametrize("name", ["log.json", "log.yaml", "log.ini"])
def test_uvicorns_names_without_uvicorn(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    # JSON is YAML as well.
    path.write_text(UVICORN_INI if name.endswith("ini") else json.dumps(uvicorn_config()))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(WITHOUT_UVICORN), path],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted((done.stdout + done.stderr).splitlines()) == [
        'INFO:     127.0.0.1:1 - "GET /x HTTP/1.1" 200 OK',
        "INFO:     hi",
    ]


DOCS = Path(__file__).parents[2] / "docs" / "logging.md"


def test_the_documented_ini(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "logging.ini"
    path.write_text(DOCS.read_text().partition("```ini\n")[2].partition("```")[0])
    root = logging.getLogger()
    configure(log_config=path)
    ACCESS.info(MESSAGE, *ARGS, extra={"duration_ms": 1.5})
    ERROR.info("hi")
    captured = capsys.readouterr()
    assert captured.out.endswith('127.0.0.1:1 "GET /x HTTP/1.1" 200 OK 1.5 ms\n')
    assert captured.err.endswith("INFO uvicorn.error hi\n")
    assert len(root.handlers) == 1


def test_every_atom_is_documented() -> None:
    text = DOCS.read_text()
    assert [name for name in ATOMS if f"`%({name})s`" not in text] == []
    assert [name for name in FACTS if f"`%({{{name}}}e)s`" not in text] == []
