"""The option table as rows: what flags, variables, TOML keys, schema and reference page are made from."""

from __future__ import annotations

import types
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from headrace.config.options import Config, Option

Kind = Literal["text", "flag", "integer", "number", "texts", "headers", "object"]

_KINDS: dict[Any, Kind] = {
    str: "text",
    bool: "flag",
    int: "integer",
    float: "number",
    tuple[str, ...]: "texts",
    tuple[tuple[str, str], ...]: "headers",
    Any: "object",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One option with everything that follows from its field.

    Attributes:
        group: the field of ``Config`` that holds the option's dataclass.
        name: the option's field, which is also the keyword of ``headrace.run``.
        kind: how a value is read and checked.
        nullable: ``None`` is a value; a number is then switched off by the word ``none``.
        default: the value without any source.
        choices: the only values allowed; empty means any.
        option: what the table says of it.
    """

    group: str
    name: str
    kind: Kind
    nullable: bool
    default: Any
    choices: tuple[str, ...]
    option: Option

    @property
    def key(self) -> str:
        """The TOML key."""
        return self.name.replace("_", "-")

    @property
    def flag(self) -> str:
        """The spelling on the command line; the application is an argument."""
        return "APP" if self.name == "app" else self.option.flag or f"--{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"HEADRACE_{self.name.upper()}"

    @property
    def uvicorn_variable(self) -> str:
        """uvicorn's variable, or an empty string if uvicorn has no such option."""
        return f"UVICORN_{self.name.upper()}" if self.option.uvicorn and not self.option.api_only else ""

    @property
    def repeatable(self) -> bool:
        """The value is a list; the flag may be given many times."""
        return self.kind in ("texts", "headers")

    @property
    def takes_value(self) -> bool:
        """The flag is followed by a value."""
        return self.kind != "flag" or self.option.takes_boolean

    def value(self, config: Config) -> Any:
        """The option's value in a resolved configuration."""
        return getattr(getattr(config, self.group), self.name)


@cache
def groups() -> dict[str, type[Any]]:
    """The dataclass of each group by its field in ``Config``, in the table's order."""
    hints = get_type_hints(Config)
    return {group.name: hints[group.name] for group in fields(Config) if group.name != "sources"}


@cache
def rows() -> dict[str, Row]:
    """Every option by name, in the table's order."""
    found: dict[str, Row] = {}
    for group, options in groups().items():
        hints = get_type_hints(options)
        for field in fields(options):
            kind, nullable, choices = _read_hint(hints[field.name])
            row: Option = field.metadata["option"]
            found[field.name] = Row(
                group, field.name, kind, nullable, field.default, row.choices or choices, row
            )
    return found


def _read_hint(hint: Any) -> tuple[Kind, bool, tuple[str, ...]]:
    if hint is Any:
        return "object", True, ()
    nullable = get_origin(hint) in (Union, types.UnionType)
    if nullable:
        (hint,) = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) is Literal:
        return "text", nullable, get_args(hint)
    return _KINDS[hint], nullable, ()
