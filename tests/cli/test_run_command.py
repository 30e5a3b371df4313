from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headrace as package
from headrace.asgi.importer import find_application
from headrace.config import groups, rows
from headrace.errors import ListenError

VERSION = (
    f"Running headrace {package.__version__} with {platform.python_implementation()} "
    f"{platform.python_version()} on {platform.system()}\n"
)


def test_a_server_that_stops_as_asked_is_success(headrace: Any, server: Any) -> None:
    assert headrace("run", "main:app").exit_code == 0
    assert server.configs[0].application.app == "main:app"


def test_repeated_options_are_collected(headrace: Any, server: Any) -> None:
    headrace("run", "--header", "A:b", "--header", "C: d", "--bind", "a:1", "--bind", "unix:/b")
    (config,) = server.configs
    assert config.http.headers == (("A", "b"), ("C", "d"))
    assert config.listen.bind == ("a:1", "unix:/b")


def test_none_switches_a_number_off(headrace: Any, server: Any) -> None:
    assert headrace("run", "--timeout-graceful-shutdown", "none").exit_code == 0
    assert server.configs[0].process.timeout_graceful_shutdown is None


def test_command_line_over_file_over_default(headrace: Any, server: Any, folder: Path) -> None:
    (folder / "headrace.toml").write_text("port = 1\nbacklog = 2")
    (folder / "other.toml").write_text("port = 3")
    headrace("run", "--port", "4")
    headrace("run", "--config", "other.toml")
    first, second = server.configs
    assert (first.listen.port, first.listen.backlog) == (4, 2)
    assert (second.listen.port, second.listen.backlog) == (3, 2048)


@pytest.mark.parametrize("arguments", [("--workers", "auto"), ("--workers=AUTO",)])
def test_workers_auto(headrace: Any, server: Any, arguments: tuple[str, ...]) -> None:
    assert headrace("run", *arguments).exit_code == 0
    assert server.configs[0].process.workers == 0
    assert headrace("run", "--workers", "0").exit_code == 2


def test_env_file_is_loaded_before_the_application(spawn: Any, tmp_path: Path) -> None:
    (tmp_path / "prod.env").write_text("HR_TEST_VARIABLE=loaded")
    source = """
        import os
        print("variable", os.environ["HR_TEST_VARIABLE"], flush=True)
        async def app(scope, receive, send): ...
    """
    for workers in ("1", "2"):
        spawn(source, "--env-file", "prod.env", "--workers", workers).wait_line("variable loaded")


def test_env_file_without_python_dotenv(headrace: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "prod.env").touch()
    monkeypatch.setitem(sys.modules, "dotenv", None)
    result = headrace("run", "--env-file", "prod.env")
    assert result.exit_code == 3
    assert result.stderr == (
        "Error: --env-file needs python-dotenv; install it with: pip install 'headrace[dotenv]'\n"
    )


@pytest.mark.parametrize("arguments", [("--version",), ("run", "--version"), ("check", "--version")])
def test_version(headrace: Any, arguments: tuple[str, ...]) -> None:
    result = headrace(*arguments)
    assert (result.exit_code, result.output) == (0, VERSION)


def test_the_group_lists_its_commands(headrace: Any) -> None:
    assert re.findall(r"^  (run|check) ", headrace("--help").output, re.MULTILINE) == ["run", "check"]
    result = headrace("rnu")
    assert result.exit_code == 2
    assert "No such command 'rnu'" in result.stderr


def test_help_is_grouped_by_concern(headrace: Any) -> None:
    output = headrace("run", "--help").output
    headings = re.findall(r"^(\S.*):$", output, re.MULTILINE)
    assert headings == [str(group.__doc__).rstrip(".") for group in groups().values()] + ["This command"]
    for row in rows().values():
        assert row.option.api_only or row.flag in output, row.name
    assert "--ssl-context-factory" not in output


class TestFailures:
    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("--port", "abc"), "Invalid value for '--port': 'abc' must be a whole number from 0 to 65535."),
            (("--lifespan", "x"), "Invalid value for '--lifespan': 'x' must be one of 'auto', 'on', 'off'."),
            (("--header", "x"), "Invalid value for '--header': 'x' must be a header as Name:Value."),
            (("--env-file", "no"), "Invalid value for '--env-file': 'no' must be a path that exists."),
            (("--prot", "1"), "No such option"),
            (("a", "b"), "Got unexpected extra argument (b)"),
        ],
    )
    def test_wrong_command_line(self, headrace: Any, arguments: tuple[str, ...], sentence: str) -> None:
        result = headrace("run", *arguments)
        assert result.exit_code == 2
        assert sentence in result.stderr

    def test_one_sentence_and_three(self, headrace: Any, server: Any) -> None:
        server.error = ListenError("127.0.0.1:80 is taken.")
        result = headrace("run")
        assert (result.exit_code, result.stdout, result.stderr) == (3, "", "Error: 127.0.0.1:80 is taken.\n")

    @pytest.mark.parametrize("source", ["flag", "variable", "file"])
    def test_traceback_at_debug_level(
        self, headrace: Any, server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, source: str
    ) -> None:
        server.error = ListenError("taken")
        if source == "variable":
            monkeypatch.setenv("HEADRACE_LOG_LEVEL", "debug")
        if source == "file":
            (folder / "headrace.toml").write_text('log-level = "trace"')
        result = headrace("run", *(("--log-level", "debug") if source == "flag" else ()))
        assert result.exit_code == 3
        assert result.stderr.startswith("Traceback")
        assert result.stderr.endswith("Error: taken\n")

    def test_wrong_configuration_never_reaches_the_server(
        self, headrace: Any, server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HEADRACE_PORT", "x")
        assert headrace("run").exit_code == 3
        assert not server.configs

    def test_fault_of_the_application_shows_its_frames(
        self, headrace: Any, server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "main.py").write_text("1 / 0\n")
        monkeypatch.setattr(
            server,
            "serve_until_signal",
            lambda config, reload_config: find_application(config.application.app),
        )
        result = headrace("run", "main:app")
        assert result.exit_code == 3
        assert re.fullmatch(
            r"Traceback \(most recent call last\):\n"
            r'  File ".*main\.py", line 1, in <module>\n'
            r"    1 / 0\n(    [~^]+\n)?"
            r"ZeroDivisionError: division by zero\n"
            r"Error: Importing main failed: ZeroDivisionError: division by zero\n",
            result.stderr,
        )


def test_module_and_import_cost() -> None:
    """``python -m headrace`` works, and nothing heavy is imported before it is needed."""
    code = (
        "import sys, headrace.cli, headrace.cli.run\n"
        "heavy = {'asyncio', 'ssl', 'fastapi', 'httptools', 'uvloop', 'dotenv', 'headrace.server.server'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
    result = subprocess.run(
        [sys.executable, "-m", "headrace", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == VERSION
