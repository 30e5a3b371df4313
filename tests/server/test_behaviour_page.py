"""``docs/behaviour.md`` names a test for each row, and each of them exists."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "behaviour.md").read_text()


def names_in(path: Path) -> set[str]:
    """Every test of a file: ``name`` and ``Class::name``."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return names


def test_each_named_test_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::([\w:]+)`", PAGE)
    assert len(named) > 50
    assert not [f"{file}::{name}" for file, name in named if name not in names_in(TESTS / file)]


def test_each_row_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    headings = [row for row in rows if row.rstrip().endswith("| test |")]
    assert not [row for row in rows if row not in headings and "::" not in row]
