"""Who may import whom, read from the syntax trees; type-checking imports count too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"
ROOT = "headrace"

EVERYONE = {"errors", "types", "version"}
LEAF = EVERYONE | {"telemetry"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "version": set(),
    "config": EVERYONE,
    "telemetry": EVERYONE,
    "protocol": EVERYONE,
    "middleware": LEAF,
    "realtime": LEAF,
    "interop": LEAF,
    "django": EVERYONE,
    "quart": EVERYONE,
    "metrics": LEAF | {"middleware"},
    "admin": LEAF | {"net", "config"},
    "net": EVERYONE | {"config"},
    "deploy": EVERYONE | {"config"},
    "asgi": EVERYONE | {"protocol.events", "protocol.fields"},
    "loadtest": EVERYONE | {"protocol"},
    "server": EVERYONE | {"asgi", "protocol", "net", "middleware", "telemetry", "config"},
    "supervisor": EVERYONE | {"server", "net", "config", "admin", "asgi", "telemetry"},
    "diagnosis": EVERYONE | {"config", "net", "supervisor.control"},
}
"""Part -> what it may import of headrace; a dotted name allows that module alone."""

ANYTHING_BUT_CLI = {"", "testing"}
"""The package's own ``__init__`` and ``testing`` put the parts together for others."""
ANYTHING = {"cli", "__main__"}

SEPARATE = ("protocol.http1", "protocol.http2", "protocol.websocket")
"""These do not import each other."""

NOT_IN_PROTOCOL = {
    "asyncio", "logging", "random", "secrets", "select", "selectors", "socket", "ssl", "threading", "time",
    "uvloop",
}  # fmt: skip
"""Time and randomness come in as arguments; there is no loop, socket or log."""

OPTIONAL = {
    "dotenv", "nats", "ngh2", "opentelemetry", "redis", "sdnotify", "setproctitle", "uvloop", "watchfiles",
    "winloop", "yaml",
}  # fmt: skip
"""Optional dependencies, which may be imported inside a function."""

BEHIND_AN_EXTRA = ("headrace.telemetry.tracing.tracer",)
"""Modules of ours with optional dependencies at their top, which so stand inside functions themselves."""


@dataclass(frozen=True)
class Import:
    """One import statement's target."""

    target: str
    line: int
    in_function: bool
    after_code: bool


def parts_of(module: str) -> tuple[str, str]:
    """``headrace.net.tls`` -> ("net", "net.tls"); the package itself -> ("", "")."""
    inner = module.removeprefix(ROOT).removeprefix(".")
    return inner.partition(".")[0], inner


def imports_of(tree: ast.Module, module: str, is_package: bool) -> Iterator[Import]:
    """Every import of a module, relative ones resolved."""

    def walk(node: ast.AST, in_function: bool) -> Iterator[Import]:
        nonlocal code_seen
        for child in ast.iter_child_nodes(node):
            is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                for target in targets_of(child, module, is_package):
                    after_code = code_seen and isinstance(node, ast.Module)
                    yield Import(target, child.lineno, in_function, after_code)
            yield from walk(child, in_function or is_function)
            if isinstance(node, ast.Module) and isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                code_seen = True

    code_seen = False
    return walk(tree, False)


def targets_of(node: ast.Import | ast.ImportFrom, module: str, is_package: bool) -> list[str]:
    """The modules a statement may load: ``from a import b`` names both a and a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    source = node.module or ""
    if node.level:
        package = module.split(".") if is_package else module.split(".")[:-1]
        above = package[: len(package) - node.level + 1]
        source = ".".join([*above, source] if source else above)
    return [f"{source}.{alias.name}" for alias in node.names]


def resolve(target: str, modules: set[str]) -> str:
    """The module of headrace a target means: ``headrace.errors.ConfigError`` -> ``headrace.errors``."""
    while target not in modules and "." in target:
        target = target.rpartition(".")[0]
    return target


def is_allowed(module: str, target: str) -> bool:
    """Whether one module of headrace may import another."""
    part, inner = parts_of(module)
    other, other_inner = parts_of(target)
    if part in ANYTHING:
        return True
    if other in ANYTHING:
        return False
    if part in ANYTHING_BUT_CLI:
        return True
    if part == other:
        homes = [
            next((name for name in SEPARATE if f"{path}.".startswith(f"{name}.")), "")
            for path in (inner, other_inner)
        ]
        return "" in homes or homes[0] == homes[1]
    return any(other_inner == name or other_inner.startswith(f"{name}.") for name in MAY_IMPORT[part])


def complaints_of(module: str, code: str, modules: set[str], is_package: bool = False) -> list[str]:
    """What one module does against the rules."""
    part, _ = parts_of(module)
    if part not in MAY_IMPORT and part not in ANYTHING | ANYTHING_BUT_CLI:
        return [f"{module}: {part} has no row in MAY_IMPORT"]
    found = []
    for item in imports_of(ast.parse(code), module, is_package):
        top = item.target.partition(".")[0]
        where = f"{module}:{item.line}: {item.target}"
        if top == ROOT and not is_allowed(module, resolve(item.target, modules)):
            found.append(f"{where} may not be imported here")
        if part == "protocol" and top in NOT_IN_PROTOCOL:
            found.append(f"{where} has no place in an engine")
        if item.in_function and top not in OPTIONAL and not item.target.startswith(BEHIND_AN_EXTRA):
            found.append(f"{where} is imported inside a function")
        if item.after_code:
            found.append(f"{where} is imported below the code")
    return found


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one import cycle, the first of them again at the end; empty when there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            cycle = visit(target, [*path, module])
            if cycle:
                return cycle
        done.add(module)
        return []

    for module in sorted(graph):
        cycle = visit(module, [])
        if cycle:
            return cycle
    return []


def graph_of(sources: dict[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """Module -> modules of headrace it imports."""
    modules = set(sources)
    return {
        module: {
            resolve(item.target, modules)
            for item in imports_of(ast.parse(code), module, is_package)
            if item.target.partition(".")[0] == ROOT
        }
        - {module}
        for module, (code, is_package) in sources.items()
    }


def read_sources() -> dict[str, tuple[str, bool]]:
    """Module name -> (its code, whether it is a package's ``__init__``)."""
    sources = {}
    for path in sorted((SOURCE / ROOT).rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        sources[".".join(parts[:-1] if is_package else parts)] = (path.read_text("utf-8"), is_package)
    return sources


SOURCES = read_sources()


def test_source_is_found() -> None:
    assert "headrace.errors" in SOURCES


@pytest.mark.parametrize("module", SOURCES)
def test_module_keeps_the_rules(module: str) -> None:
    code, is_package = SOURCES[module]
    assert complaints_of(module, code, set(SOURCES), is_package) == []


def test_no_cycles() -> None:
    assert " -> ".join(cycle_in(graph_of(SOURCES))) == ""


MODULES = {
    "headrace", "headrace.errors", "headrace.config.options", "headrace.net.tls", "headrace.net.tls_context",
    "headrace.protocol.events", "headrace.protocol.http1.engine", "headrace.protocol.http1.limits",
    "headrace.protocol.websocket.frames", "headrace.asgi.http", "headrace.server.server", "headrace.cli.run",
    "headrace.supervisor.control", "headrace.supervisor.worker", "headrace.cli",
}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("headrace.errors", "import headrace.types"),
        ("headrace.protocol.events", "from headrace.config.options import HTTPOptions"),
        ("headrace.protocol.events", "import time"),
        ("headrace.protocol.events", "from asyncio.tasks import Task"),
        ("headrace.protocol.http1.engine", "from headrace.protocol.websocket import frames"),
        ("headrace.protocol.http1.engine", "from ..websocket.frames import Frame"),
        ("headrace.middleware.timing", "from headrace.config.options import Config"),
        ("headrace.asgi.http", "from headrace.protocol.http1.limits import Limits"),
        ("headrace.asgi.http", "from headrace import protocol"),
        ("headrace.net.tls", "import headrace.server.server"),
        (
            "headrace.net.tls",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n import headrace.server.server",
        ),
        ("headrace.net.tls", "from ..server.server import Server"),
        ("headrace.server.server", "from headrace.cli import run"),
        ("headrace", "from headrace.cli import main"),
        ("headrace.diagnosis.checks", "from headrace.supervisor.worker import main"),
        ("headrace.net.tls", "def f():\n import json"),
        ("headrace.net.tls", "class A:\n async def f(self):\n  if self:\n   from headrace import errors"),
        ("headrace.net.tls", "def f():\n pass\nimport json"),
        ("headrace.helpers", "import json"),
    ],
)
def test_violation_is_caught(module: str, code: str) -> None:
    assert complaints_of(module, code, MODULES | {module})


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (
            "headrace.protocol.http1.engine",
            "from headrace.protocol.events import Event\nfrom .limits import Limits",
        ),
        ("headrace.asgi.http", "from headrace.protocol import events\nfrom headrace.errors import ASGIError"),
        ("headrace.net.tls", "import ssl, time\nfrom .tls_context import make_context"),
        ("headrace.server.server", "def f():\n import uvloop"),
        ("headrace.diagnosis.checks", "from headrace.supervisor.control import Message"),
        ("headrace.cli.run", "from headrace.server import server\nfrom headrace import __version__"),
        ("headrace", "from headrace.server.server import Server"),
        ("headrace.net.tls", "try:\n import json\nexcept ImportError:\n json = None\nA = 1\nimport os"),
    ],
)
def test_what_is_allowed_passes(module: str, code: str) -> None:
    assert complaints_of(module, code, MODULES) == []


def test_cycle_is_caught() -> None:
    sources = {
        "headrace": ("from headrace.a import x", True),
        "headrace.a": ("from headrace import b", False),
        "headrace.b": ("from .c import y", False),
        "headrace.c": ("import headrace.a", False),
    }
    assert cycle_in(graph_of(sources)) == ["headrace.a", "headrace.b", "headrace.c", "headrace.a"]
    sources["headrace.c"] = ("", False)
    assert cycle_in(graph_of(sources)) == []


def test_optional_dependencies_are_not_the_standard_library() -> None:
    assert not OPTIONAL & sys.stdlib_module_names
