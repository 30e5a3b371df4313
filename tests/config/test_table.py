from __future__ import annotations

from dataclasses import fields

from headrace.config import Config, groups, rows


def test_every_field_of_every_group_is_a_row() -> None:
    names = [field.name for options in groups().values() for field in fields(options)]
    assert list(rows()) == names
    assert len(names) == len(set(names))


def test_names_follow_from_the_field() -> None:
    row = rows()["timeout_keep_alive"]
    assert (row.key, row.flag) == ("timeout-keep-alive", "--timeout-keep-alive")
    assert (row.variable, row.uvicorn_variable) == (
        "HEADRACE_TIMEOUT_KEEP_ALIVE",
        "UVICORN_TIMEOUT_KEEP_ALIVE",
    )
    assert rows()["bind"].uvicorn_variable == ""
    assert rows()["headers"].flag == "--header"
    assert rows()["app"].flag == "APP"
    assert rows()["ssl_context_factory"].uvicorn_variable == ""


def test_value_is_read_from_the_group() -> None:
    assert rows()["port"].value(Config()) == 8000


def test_flags_are_distinct() -> None:
    flags = [row.flag for row in rows().values()]
    assert len(flags) == len(set(flags))
