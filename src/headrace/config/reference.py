"""The reference page, made from the option table.

``python -m headrace.config.reference [FOLDER]`` writes ``reference.md`` and ``headrace.schema.json`` into
the folder, ``docs`` unless named; a test holds both against the table.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from headrace.config.schema import make_schema
from headrace.config.table import Row, groups, rows

_INTRODUCTION = """\
# Options

This page is made from the option table: `python -m headrace.config.reference` writes it, and
`headrace.schema.json` beside it, for editors that complete and check `headrace.toml`.

Each value comes from the first of these that has one:

1. the command line, or the keywords of `headrace.run`
2. `HEADRACE_*` variables
3. `UVICORN_*` variables, for the options marked † (uvicorn's own)
4. `WEB_CONCURRENCY` and `FORWARDED_ALLOW_IPS`
5. `headrace.toml` in the current folder, or the file named by `--config` or `HEADRACE_CONFIG`
6. `[tool.headrace]` in `pyproject.toml`
7. `[tool.fastapi] entrypoint` in `pyproject.toml`, for the application only
8. the default

`headrace.run` called from Python takes 1, 2, 4 and 8. `headrace check` prints each value with its place.

- A name that does not exist is an error in every place but `UVICORN_*`, and so is a value that is not
  allowed. An empty variable is not set; only `FORWARDED_ALLOW_IPS=` has a meaning: nobody is trusted.
- In variables, lists are separated by whitespace, folders by `:` (`;` on Windows); booleans are `true`,
  `1`, `yes`, `on` or `false`, `0`, `no`, `off`. In TOML they are lists and booleans.
- TOML keys stand at the top level; `_` and `-` in them are the same. Paths are relative to the current
  folder.
- `none` switches off a number that may be missing: `--timeout-graceful-shutdown none` waits for ever.
"""


def make_reference() -> str:
    """The page as Markdown: one table for each group of options."""
    parts = [_INTRODUCTION.rstrip()]
    for group, options in groups().items():
        parts.append(f"\n## {inspect.getdoc(options)}\n")
        parts.append("| Command line | Variable | TOML key | Default | Meaning |")
        parts.append("|---|---|---|---|---|")
        parts.extend(_table_line(row) for row in rows().values() if row.group == group)
    return "\n".join(parts) + "\n"


def show_default(row: Row) -> str:
    """The default as one writes it, with its unit; empty where there is none."""
    default: Any = row.default
    if default is None or default in ((), ""):
        return ""
    if isinstance(default, bool):
        return "true" if default else "false"
    number = f"{default:g}" if isinstance(default, float) else str(default)
    return f"{number} {row.option.unit}".strip()


def show_flag(row: Row) -> str:
    """The flag as one writes it, its twin and the word for its value included."""
    if row.option.pair:
        return f"{row.flag} / --no-{row.flag[2:]}"
    if row.name == "app" or not row.takes_value:
        return row.flag
    return f"{row.flag} {metavar(row)}"


def metavar(row: Row) -> str:
    """The word for the value in ``--help`` and on the page."""
    if row.option.metavar:
        return row.option.metavar
    if row.choices or row.option.suggestions:
        return f"[{'|'.join(row.choices or row.option.suggestions)}]"
    if row.option.exists:
        return "PATH"
    words = {"flag": "BOOLEAN", "integer": "INTEGER", "number": "FLOAT"}
    return words.get(row.kind, "TEXT")


def unit_word(row: Row) -> str:
    """What a number counts, as a word."""
    return "seconds" if row.option.unit == "s" else row.option.unit


def write_documents(folder: Path) -> None:
    """Write both documents into a folder that exists."""
    (folder / "reference.md").write_text(make_reference(), encoding="utf-8")
    (folder / "headrace.schema.json").write_text(make_schema_text(), encoding="utf-8")


def make_schema_text() -> str:
    """The JSON Schema as the file's text."""
    return json.dumps(make_schema(), indent=2, ensure_ascii=False) + "\n"


def _table_line(row: Row) -> str:
    default = show_default(row)
    cells = [
        f"`{row.name}=` in Python only" if row.option.api_only else f"`{show_flag(row)}`",
        "" if row.option.api_only else f"`{row.variable}`{' †' if row.option.uvicorn else ''}",
        "" if row.option.api_only else f"`{row.key}`",
        f"`{default}`" if default else "",
        f"{row.option.help}{_range_note(row)}",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _range_note(row: Row) -> str:
    low, high = row.option.minimum, row.option.maximum
    notes = [f"`{row.option.fallback_env}`"] if row.option.fallback_env else []
    if row.option.unit and not show_default(row):
        notes.append(f"in {unit_word(row)}")
    if low is not None and high is not None:
        notes.append(f"{low:.0f} to {high:.0f}")
    elif low is not None:
        notes.append(f"at least {low:.0f}")
    return f" ({', '.join(notes)})" if notes else ""


if __name__ == "__main__":
    write_documents(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
