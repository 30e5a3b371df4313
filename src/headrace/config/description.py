"""A resolved configuration as data that may be shown: each option with its value and its place."""

from __future__ import annotations

from typing import Any

from headrace.config.options import Config
from headrace.config.table import Row, rows

_MASK = "********"


def describe_options(config: Config) -> dict[str, dict[str, Any]]:
    """Every option that has a flag: key -> {"value", "source"}; secrets are masked.

    The values are those of JSON, but for ``app`` and ``log_config`` that Python code gave as objects.
    """
    return {
        row.key: {"value": shown_value(config, row), "source": config.sources[row.name]}
        for row in shown_rows()
    }


def shown_rows() -> list[Row]:
    """The rows of all options that have a flag."""
    return [row for row in rows().values() if not row.option.api_only]


def shown_value(config: Config, row: Row) -> Any:
    """An option's value, a secret one masked."""
    value = row.value(config)
    return _MASK if row.option.secret and value is not None else value
