from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from headrace.config.table import rows
from headrace.config.values import allowed, check, parse_text, parse_variable


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("host", "0.0.0.0", "0.0.0.0"),
        ("host", "", ""),
        ("port", "0", 0),
        ("port", "65535", 65535),
        ("timeout_keep_alive", "5", 5.0),
        ("timeout_keep_alive", "0.5", 0.5),
        ("timeout_graceful_shutdown", "none", None),
        ("workers", "None", None),
        ("uds", "none", "none"),
        ("lifespan", "on", "on"),
        ("log_level", "INFO", "info"),
        ("reload", "yes", True),
        ("reload", "OFF", False),
        ("ws_per_message_deflate", "f", False),
        ("headers", "X-A: b:c ", ("X-A", "b:c")),
        ("headers", "X-A:", ("X-A", "")),
        ("loop", "module:factory", "module:factory"),
        ("ws", "anything", "anything"),
    ],
)
def test_text_is_read(name: str, text: str, value: Any) -> None:
    assert parse_text(rows()[name], text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "abc"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", "80.0"),
        ("port", "none"),
        ("timeout_keep_alive", "-0.1"),
        ("timeout_keep_alive", "nan"),
        ("timeout_keep_alive", "inf"),
        ("lifespan", "maybe"),
        ("reload", "2"),
        ("reload", ""),
        ("headers", "X-A"),
        ("headers", ":b"),
        ("headers", "X A:b"),
        ("headers", "X-A:b\r\nX-B:c"),
        ("headers", "X-A:€"),
        ("uds", "a\0b"),
        ("env_file", "/no/such/file"),
    ],
)
def test_text_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError):
        parse_text(rows()[name], text)


def test_variables_are_split_as_click_splits_them(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "c").mkdir()
    folders = os.pathsep.join([str(tmp_path / "a b"), str(tmp_path / "c")])
    assert parse_variable(rows()["reload_dirs"], folders) == (str(tmp_path / "a b"), str(tmp_path / "c"))
    assert parse_variable(rows()["reload_includes"], " *.py\t*.html ") == ("*.py", "*.html")
    assert parse_variable(rows()["headers"], "A:b C:d") == (("A", "b"), ("C", "d"))
    assert parse_variable(rows()["bind"], "unix:/a [::1]:80") == ("unix:/a", "[::1]:80")


class Protocol:
    pass


@pytest.mark.parametrize(
    ("name", "value", "checked"),
    [
        ("port", 80, 80),
        ("timeout_keep_alive", 5, 5.0),
        ("timeout_graceful_shutdown", None, None),
        ("timeout_graceful_shutdown", "none", None),
        ("use_colors", "none", None),
        ("use_colors", True, True),
        ("ssl_keyfile", Path("key.pem"), "key.pem"),
        ("headers", [("A", "b"), ["C", "d"], "E: f"], (("A", "b"), ("C", "d"), ("E", "f"))),
        ("headers", "A:b", (("A", "b"),)),
        ("bind", "a:1", ("a:1",)),
        ("reload_includes", ["*.a", "*.b"], ("*.a", "*.b")),
        ("forwarded_allow_ips", ["10.0.0.0/8", "unix"], "10.0.0.0/8,unix"),
        ("log_level", 5, "trace"),
        ("log_level", "Warning", "warning"),
        ("http", Protocol, f"{__name__}:Protocol"),
        ("log_config", {"version": 1}, {"version": 1}),
    ],
)
def test_typed_value_is_taken(name: str, value: Any, checked: Any) -> None:
    assert check(rows()[name], value) == checked


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "80"),
        ("port", True),
        ("port", 80.0),
        ("port", None),
        ("timeout_keep_alive", math.inf),
        ("timeout_keep_alive", "5"),
        ("reload", 1),
        ("reload", "yes"),
        ("host", 1),
        ("host", b"a"),
        ("host", ["a"]),
        ("bind", 1),
        ("bind", [1]),
        ("headers", {"A": "b"}),
        ("headers", [("A", "b", "c")]),
        ("headers", [("A", 1)]),
        ("headers", [1]),
        ("log_level", 7),
        ("log_config", "/no/such/file"),
        ("ssl_min_version", 1.2),
    ],
)
def test_typed_value_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError):
        check(rows()[name], value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("port", "a whole number from 0 to 65535"),
        ("workers", "a whole number from 1 to 512, auto or none"),
        ("timeout_keep_alive", "a number of at least 0"),
        ("lifespan", "one of 'auto', 'on', 'off'"),
        ("reload", "true or false"),
        ("headers", "a header as Name:Value"),
        ("env_file", "a path that exists"),
        ("host", "a text"),
    ],
)
def test_allowed_says_what_the_row_allows(name: str, words: str) -> None:
    assert allowed(rows()[name]) == words


def test_every_default_passes_its_own_row() -> None:
    for row in rows().values():
        assert check(row, row.default) == row.default, row.name
