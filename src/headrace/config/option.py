"""One row of the option table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """What the option table says of one field.

    Attributes:
        help: one or two sentences, no full stop needed at the end.
        flag: spelling on the command line; empty means ``--`` plus the kebab name.
        uvicorn: an option of uvicorn 0.54, so that ``UVICORN_<NAME>`` is read as well.
        minimum, maximum: inclusive range of a number.
        unit: what a number counts: "s", "bytes", "requests", ...
        metavar: the word for the value in ``--help``.
        fallback_env: a further variable, read after the other two (``WEB_CONCURRENCY``).
        exists: the value is a path that must exist.
        takes_boolean: the flag takes ``true`` or ``false`` as its value, as uvicorn's
            ``--ws-per-message-deflate`` does.
        pair: a boolean with a ``--no-`` twin; without it the flag can only switch on.
        choices: the only values allowed; empty means any.
        suggestions: values with a meaning of their own where others are allowed as well.
        secret: never printed.
        api_only: a keyword of the Python interface and nothing else.
        joined_by: a list is accepted as well, and joined by this.
        auto: the number that the word ``auto`` stands for; None where the word means nothing.
    """

    help: str
    flag: str = ""
    uvicorn: bool = False
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    metavar: str = ""
    fallback_env: str = ""
    exists: bool = False
    takes_boolean: bool = False
    pair: bool = False
    choices: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    secret: bool = False
    api_only: bool = False
    joined_by: str = ""
    auto: int | None = None


def option(default: Any, help: str, **facts: Any) -> Any:
    """A dataclass field with its row of the option table in the metadata."""
    return field(default=default, metadata={"option": Option(help, **facts)})
