from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.config.table import rows
from headrace.errors import ListenError

WARNING = (
    "Warning: headrace dev is for development: whoever connects may see tracebacks; "
    "in production use headrace run.\n"
)


def test_its_defaults(headrace: Any, server: Any) -> None:
    result = headrace("dev", "main:app")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", WARNING)
    (config,) = server.configs
    assert config.application.app == "main:app"
    assert (config.process.reload, config.log.log_format) == (True, "pretty")
    assert config.sources["reload"] == config.sources["log_format"] == "headrace dev"
    others = {name for name, source in config.sources.items() if source == "headrace dev"}
    assert others == {"reload", "log_format"}


def test_run_does_not_have_them(headrace: Any, server: Any) -> None:
    result = headrace("run", "main:app")
    assert result.stderr == ""
    (config,) = server.configs
    assert (config.process.reload, config.log.log_format) == (False, "text")


@pytest.mark.parametrize("source", ["flag", "variable", "file"])
def test_every_source_outranks_them(
    headrace: Any, server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    if source == "variable":
        monkeypatch.setenv("HEADRACE_LOG_FORMAT", "json")
        monkeypatch.setenv("UVICORN_RELOAD", "false")
    if source == "file":
        (folder / "pyproject.toml").write_text('[tool.headrace]\nlog-format = "json"\nreload = false')
    headrace("dev", *(("--log-format", "json", "--reload") if source == "flag" else ()))
    (config,) = server.configs
    assert config.log.log_format == "json"
    assert config.process.reload == (source == "flag")
    assert "headrace dev" not in config.sources.values()


def test_a_reload_of_the_configuration_keeps_them(
    headrace: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    anew: list[Any] = []
    monkeypatch.setattr(server, "serve_until_signal", lambda config, again: anew.append(again()))
    assert headrace("dev", "--port", "1").exit_code == 0
    assert (anew[0].process.reload, anew[0].listen.port) == (True, 1)


def test_a_failure_is_as_with_run(headrace: Any, server: Any) -> None:
    server.error = ListenError("127.0.0.1:8000 is taken.")
    result = headrace("dev")
    assert (result.exit_code, result.stderr) == (3, f"{WARNING}Error: 127.0.0.1:8000 is taken.\n")


def test_help(headrace: Any) -> None:
    output = headrace("dev", "--help").output
    assert "headrace run --reload --log-format pretty" in " ".join(output.split())
    assert "[default: pretty]" in " ".join(output.split())
    for row in rows().values():
        assert row.option.api_only or row.flag in output, row.name
    assert "dev " in headrace("--help").output
    assert "[default: text]" in " ".join(headrace("run", "--help").output.split())
