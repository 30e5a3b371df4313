"""What a reload may change of a running configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from headrace.config import Config, Row, rows

FIXED_GROUPS = ("listen", "admin")
FIXED = (
    "accept", "pid", "user", "group", "umask", "preload", "once",
    "reload", "reload_dirs", "reload_includes", "reload_excludes", "reload_delay",
)  # fmt: skip
"""What the supervisor has done once: bound, dropped, watched."""
FREE = ("health_path", "limit_connections", "proxy_protocol")
"""Of the fixed groups, what is the workers' business."""


class Changes(NamedTuple):
    """A new configuration against the one that runs.

    Attributes:
        config: the new one, with the old values where they cannot change.
        taken: keys of options that are different now.
        refused: keys of options that need a restart.
    """

    config: Config
    taken: list[str]
    refused: list[str]


def compare(old: Config, new: Config) -> Changes:
    """Take what can change, keep what cannot."""
    taken: list[str] = []
    refused: list[str] = []
    kept: dict[str, dict[str, Any]] = {}
    sources = dict(new.sources)
    for row in rows().values():
        if row.value(old) == row.value(new):
            continue
        if not _is_fixed(row):
            taken.append(row.key)
            continue
        refused.append(row.key)
        kept.setdefault(row.group, {})[row.name] = row.value(old)
        sources[row.name] = old.sources.get(row.name, "default")
    groups = {group: replace(getattr(new, group), **values) for group, values in kept.items()}
    return Changes(replace(new, sources=sources, **groups), taken, refused)


def _is_fixed(row: Row) -> bool:
    return row.name in FIXED or (row.group in FIXED_GROUPS and row.name not in FREE)
