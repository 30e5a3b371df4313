from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click.testing
import pytest

from headrace.cli import main
from headrace.config import Config
from headrace.errors import HeadraceError

Command = Callable[..., click.testing.Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, empty; no variables of ours; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for variable in list(os.environ):
        if variable.startswith(("HEADRACE_", "UVICORN_")) or variable in (
            "WEB_CONCURRENCY",
            "FORWARDED_ALLOW_IPS",
        ):
            monkeypatch.delenv(variable)
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


class RecordingServer(ModuleType):
    """Stands where ``headrace.supervisor.entry`` is, and serves nothing."""

    def __init__(self) -> None:
        super().__init__("headrace.supervisor.entry")
        self.configs: list[Config] = []
        self.error: HeadraceError | None = None

    def serve_until_signal(self, config: Config, reload_config: Any = None) -> None:
        self.configs.append(config)
        if self.error is not None:
            raise self.error


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> RecordingServer:
    server = RecordingServer()
    monkeypatch.setitem(sys.modules, server.__name__, server)
    return server


@pytest.fixture
def headrace(folder: Path) -> Command:
    def invoke(*arguments: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(main, list(arguments), prog_name="headrace")

    return invoke
