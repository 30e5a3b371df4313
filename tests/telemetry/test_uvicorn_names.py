from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from headrace.telemetry.uvicorn_names import names_uvicorn, uvicorn_names


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ("class=uvicorn.logging.DefaultFormatter", True),
        ({"a": [{"b": "ext://uvicorn.config.LOGGING_CONFIG"}]}, True),
        ({"loggers": {"uvicorn.access": {"handlers": ["uvicorn.access"]}}}, False),
        ({"()": print, "raw": b"uvicorn.logging", "n": 1}, False),
        ("myuvicorn.logging", False),
    ],
)
def test_names(configuration: object, named: bool) -> None:
    assert names_uvicorn(configuration) is named


def test_modules_exist_inside_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("uvicorn.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # as if not installed
    for name in ("uvicorn.logging", "uvicorn.config"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with uvicorn_names({"X": 1}, {"Y": 2}, needed=True):
        assert importlib.import_module("uvicorn.logging").X == 1
        assert importlib.import_module("uvicorn").config.Y == 2
    assert sys.modules["uvicorn"] is None
    assert "uvicorn.logging" not in sys.modules
    with uvicorn_names({}, {}, needed=False):
        assert sys.modules["uvicorn"] is None


def test_an_uvicorn_that_is_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    present = ModuleType("uvicorn")
    monkeypatch.setitem(sys.modules, "uvicorn", present)
    with uvicorn_names({}, {}, needed=True):
        assert sys.modules["uvicorn"] is present
