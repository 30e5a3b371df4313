from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headrace.config import rows
from headrace.config.reference import make_reference, make_schema_text, write_documents
from headrace.config.schema import make_schema

DOCS = Path(__file__).parents[2] / "docs"
REMEDY = "the option table has changed: run python -m headrace.config.reference"


def accepts(text: str) -> bool:
    validator: Any = jsonschema.Draft202012Validator(make_schema())
    return bool(validator.is_valid(tomllib.loads(text)))


def test_documents_are_current() -> None:
    assert (DOCS / "reference.md").read_text("utf-8") == make_reference(), REMEDY
    assert (DOCS / "headrace.schema.json").read_text("utf-8") == make_schema_text(), REMEDY


def test_documents_are_written(tmp_path: Path) -> None:
    write_documents(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["headrace.schema.json", "reference.md"]


def test_page_has_a_line_for_each_option() -> None:
    lines = make_reference().splitlines()
    for row in rows().values():
        word = f"`{row.name}=`" if row.option.api_only else f"`{row.key}`"
        assert len([line for line in lines if word in line.split(" | Default")[0]]) >= 1, row.name
    assert all(line.replace("\\|", "").count("|") == 6 for line in lines if line.startswith("| "))


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(make_schema_text()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        'app = "main:app"\nport = 80\ntimeout-keep-alive = 7.5\nproxy-headers = false\nbind = ["a:1", "b:2"]',
        'headers = ["A: b", ["C", "d"]]',
        'timeout-graceful-shutdown = "none"\nlog-level = "debug"',
        "timeout_keep_alive = 5",
        'forwarded-allow-ips = ["10.0.0.0/8"]',
    ],
)
def test_schema_accepts(text: str) -> None:
    assert accepts(text)


@pytest.mark.parametrize(
    "text",
    [
        "prot = 80",
        "port = 70000",
        'port = "80"',
        'port = "none"',
        'lifespan = "maybe"',
        "timeout_keep_alive = -1",
        "headers = [1]",
        'ssl-context-factory = "a"',
        "[listen]\nport = 1",
    ],
)
def test_schema_refuses(text: str) -> None:
    assert not accepts(text)
