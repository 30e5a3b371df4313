"""Errors are told as ``traceback`` tells them, whatever led to them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from headrace.telemetry import error_text
from headrace.telemetry.error_text import stack_text


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def plain(depth: int = 3) -> Any:
    return plain(depth - 1) if depth else 1 / 0


def without_end() -> Any:
    return without_end()


def from_cause() -> None:
    try:
        plain()
    except ZeroDivisionError as error:
        raise ValueError("two\nlines") from error


def in_a_handler() -> None:
    try:
        from_cause()
    except ValueError:
        raise KeyError("x")  # noqa: B904


def from_none() -> None:
    try:
        plain()
    except ZeroDivisionError:
        raise ValueError("x") from None


def of_a_group() -> None:
    errors = []
    for fail in (plain, from_cause):
        try:
            fail()
        except Exception as error:
            errors.append(error)
    try:
        raise ExceptionGroup("both", errors)
    except ExceptionGroup as error:
        raise ValueError("x") from error


def with_a_note() -> None:
    error = ValueError("x")
    error.add_note("a note")
    raise error


def in_a_circle() -> None:
    one, other = ValueError(1), ValueError(2)
    one.__context__, other.__context__ = other, one
    raise one


def syntax() -> None:
    compile("a b", "nowhere.py", "exec")


def unprintable() -> None:
    raise Unprintable


def never_raised() -> None:
    error = ValueError("x")
    error.__cause__ = KeyError("y")
    raise error


@pytest.mark.parametrize(
    "fail",
    [
        plain, without_end, from_cause, in_a_handler, from_none, of_a_group, with_a_note, in_a_circle, syntax,
        unprintable, never_raised,
    ],
)  # fmt: skip
def test_as_traceback_writes_it(fail: Callable[[], Any]) -> None:
    for _ in range(2):
        with pytest.raises(Exception) as caught:
            fail()
        # The second time its lines are remembered.
        assert stack_text(caught.value) == "".join(traceback.format_exception(caught.value))


def test_stacks_are_remembered_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_text, "_stacks", {})
    asked = []
    monkeypatch.setattr(error_text.traceback, "format_tb", lambda at: asked.append(at) or [])
    asked_after_ten = 0
    for number, depth in enumerate([3] * 10 + list(range(10, 200))):
        with pytest.raises(ZeroDivisionError) as caught:
            plain(depth)
        stack_text(caught.value)
        if number == 9:
            asked_after_ten = len(asked)
    assert (asked_after_ten, len(asked)) == (1, 191)
    assert len(error_text._stacks) <= error_text._MOST_STACKS
