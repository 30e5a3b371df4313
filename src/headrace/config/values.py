"""One value of one option: read from text, checked against its row.

Every function raises ``ValueError`` for a value the row does not allow; whoever knows where the value
came from makes the sentence, with ``allowed(row)`` as its end.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

from headrace.config.table import Row

# The words click's BOOL takes, so that UVICORN_* variables keep their meaning.
_BOOLEANS = dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True) | dict.fromkeys(
    ("0", "false", "f", "no", "n", "off"), False
)
_LEVELS: Mapping[int, str] = {
    5: "trace",
    10: "debug",
    20: "info",
    30: "warning",
    40: "error",
    50: "critical",
}
# RFC 9110 §5.6.2 (token) and §5.5 (field-value: no CR, LF or NUL; other control characters are unwise).
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def allowed(row: Row) -> str:
    """What the row allows, worded to follow "it must be"."""
    if row.option.exists:
        return "a path that exists"
    if row.choices:
        return "one of " + ", ".join(repr(choice) for choice in row.choices)
    words = {
        "text": "a text",
        "flag": "true or false",
        "integer": "a whole number",
        "number": "a number",
        "texts": "a text or a list of texts",
        "headers": "a header as Name:Value",
        "object": "a text",
    }[row.kind]
    if row.option.auto is not None:
        return f"{words}{_range_words(row)}, auto or none"
    return words + _range_words(row) + (" or none" if _takes_none_word(row) else "")


def parse_text(row: Row, text: str) -> Any:
    """The value that one piece of text stands for; one element if the option is repeatable.

    Raises:
        ValueError: the row does not allow it.
    """
    if _takes_none_word(row) and text.strip().lower() == "none":
        return None
    if row.option.auto is not None and text.strip().lower() == "auto":
        return row.option.auto
    if row.kind == "flag":
        word = text.strip().lower()
        if word not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[word]
    if row.kind in ("integer", "number"):
        return _check_number(row, int(text) if row.kind == "integer" else float(text))
    if row.kind == "headers":
        return _check_header(text)
    return _check_text(row, text)


def parse_variable(row: Row, text: str) -> Any:
    """The value of an environment variable, lists split as click splits them for uvicorn.

    Paths are separated by ``os.pathsep``, everything else by whitespace.

    Raises:
        ValueError: the row does not allow it.
    """
    if not row.repeatable:
        return parse_text(row, text)
    parts = text.split(os.pathsep) if row.option.exists else text.split()
    return tuple(parse_text(row, part) for part in parts)


def check(row: Row, value: Any) -> Any:
    """A value that has a type already, from a TOML file or a keyword, in the type of its field.

    Raises:
        ValueError: the row does not allow it.
    """
    if value is None:
        return _check_none(row)
    if row.kind == "object":
        return _check_text(row, os.fspath(value)) if isinstance(value, str | os.PathLike) else value
    if row.kind == "flag":
        return _check_flag(row, value)
    if row.kind in ("integer", "number"):
        return _check_typed_number(row, value)
    if row.kind == "text":
        return _check_text(row, _as_text(row, value))
    if isinstance(value, str | os.PathLike):
        value = (value,)
    if not isinstance(value, list | tuple):
        raise ValueError(value)
    if row.kind == "headers":
        return tuple(_check_header(item) for item in value)
    return tuple(_check_text(row, _as_text(row, item)) for item in value)


def _takes_none_word(row: Row) -> bool:
    return row.nullable and row.kind in ("integer", "number", "flag")


def _range_words(row: Row) -> str:
    low, high = row.option.minimum, row.option.maximum
    if low is not None and high is not None:
        return f" from {low:.0f} to {high:.0f}"
    if low is not None:
        return f" of at least {low:.0f}"
    return "" if high is None else f" of at most {high:.0f}"


def _check_none(row: Row) -> None:
    if not row.nullable:
        raise ValueError(None)


def _check_flag(row: Row, value: Any) -> bool | None:
    if value == "none" and row.nullable:
        return None
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _check_typed_number(row: Row, value: Any) -> int | float | None:
    if value == "none" and row.nullable:
        return None
    if row.option.auto is not None and (value == "auto" or (value == row.option.auto and value is not False)):
        # Also what a flag has been read to already.
        return row.option.auto
    if isinstance(value, bool) or not isinstance(value, int if row.kind == "integer" else int | float):
        raise ValueError(value)
    return _check_number(row, int(value) if row.kind == "integer" else float(value))


def _check_number(row: Row, number: int | float) -> int | float:
    low, high = row.option.minimum, row.option.maximum
    if not math.isfinite(number):
        raise ValueError(number)
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(number)
    return number


def _as_text(row: Row, value: Any) -> str:
    """The text behind the richer types that uvicorn's keywords take."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str):
            return text
    if row.option.joined_by and isinstance(value, list | tuple):
        return row.option.joined_by.join(_as_text(row, item) for item in value)
    if row.name == "log_level" and isinstance(value, int) and value in _LEVELS:
        return _LEVELS[value]
    if row.option.suggestions and isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    raise ValueError(value)


def _check_text(row: Row, text: str) -> str:
    if "\0" in text:
        raise ValueError(text)
    if row.choices:
        return row.choices[row.choices.index(text.lower())]
    if row.option.exists and not os.path.exists(text):
        raise ValueError(text)
    return text


def _check_header(header: Any) -> tuple[str, str]:
    """A (name, value) pair from ``Name:Value`` or a pair of texts; whitespace around both goes."""
    name, colon, value = header.partition(":") if isinstance(header, str) else _as_pair(header)
    name, value = name.strip(), value.strip()
    if not colon or not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
        raise ValueError(header)
    return name, value


def _as_pair(header: Any) -> tuple[str, str, str]:
    if not isinstance(header, list | tuple) or len(header) != 2:
        raise ValueError(header)
    name, value = header
    if not isinstance(name, str) or not isinstance(value, str):
        raise ValueError(header)
    return name, ":", value
