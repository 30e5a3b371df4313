from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from headrace.config import rows

ASGI = "async def app(scope, receive, send):\n    raise AssertionError('not called')\n"


@pytest.fixture(autouse=True)
def application(folder: Path) -> None:
    (folder / "main.py").write_text(ASGI)


def lines_of(output: str, heading: str) -> list[list[str]]:
    block = output.split(f"{heading}:\n")[1].split("\n\n")[0]
    return [line.split() for line in block.splitlines()]


def test_prints_what_was_set_before_the_defaults(headrace: Any, folder: Path) -> None:
    (folder / "headrace.toml").write_text("timeout_keep_alive = 7")
    result = headrace("check", "--port", "0")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Application main:app (function, asgi3)\n")
    assert lines_of(result.output, "Set") == [
        ["port", "0", "--port"],
        ["timeout-keep-alive", "7.0", "headrace.toml"],
    ]
    defaults = lines_of(result.output, "Defaults")
    assert ["host", '"127.0.0.1"', "default"] in defaults
    shown = [row for row in rows().values() if not row.option.api_only]
    assert len(defaults) == len(shown) - 2
    assert result.output.endswith("The configuration is valid; nothing was started.\n")


def test_without_anything_set(headrace: Any) -> None:
    assert "Set:" not in headrace("check").output


def test_json(headrace: Any) -> None:
    result = headrace("check", "main:app", "--json", "--backlog", "5")
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed["ok"] is True
    assert printed["application"] == {"name": "main:app", "type": "function", "interface": "asgi3"}
    assert printed["options"]["backlog"] == {"value": 5, "source": "--backlog"}
    assert printed["options"]["app"] == {"value": "main:app", "source": "APP"}
    assert printed["options"]["port"] == {"value": 8000, "source": "default"}


def test_secrets_are_masked(headrace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SSL_KEYFILE_PASSWORD", "hunter2")
    for arguments in ((), ("--json",)):
        output = headrace("check", *arguments).output
        assert "hunter2" not in output
        assert "********" in output
        assert "HEADRACE_SSL_KEYFILE_PASSWORD" in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("mian:app",), "There is no module 'mian'; did you mean 'main'?"),
        (("main:ap",), "Module 'main' has no attribute 'ap'; did you mean 'app'?"),
        (("--bind", "nowhere"), "'nowhere' is no address"),
        (("--access-log-format", "%(zz)s"), "The access log format's atom %(zz)s is unknown"),
        (("--access-log-format", "combied"), "The access log format 'combied' is none of uvicorn, "),
        (("--log-config", "main.py"), "The logging configuration 'main.py' is wrong: "),
        (("--loop", "no_such_module:loop"), "--loop no_such_module:loop: "),
        (("--ssl-certfile", "no.pem"), ""),
    ],
)
def test_failures(headrace: Any, arguments: tuple[str, ...], sentence: str) -> None:
    result = headrace("check", *arguments)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(f"Error: {sentence}")
    assert result.stderr.count("\n") == 1
    result = headrace("check", "--json", *arguments)
    assert (result.exit_code, result.stderr) == (3, "")
    printed = json.loads(result.stdout)
    assert printed["ok"] is False
    assert printed["error"].startswith(sentence)


def test_certificates_are_loaded(headrace: Any, folder: Path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    result = headrace("check", "--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem")
    assert result.exit_code == 0, result.output


def test_log_configuration_is_only_read(headrace: Any, folder: Path) -> None:
    handler = {"class": "logging.FileHandler", "filename": "run.log", "mode": "w"}
    (folder / "log.json").write_text(json.dumps({"version": 1, "handlers": {"file": handler}}))
    (folder / "run.log").write_text("of the running server")
    assert headrace("check", "--log-config", "log.json").exit_code == 0
    assert (folder / "run.log").read_text() == "of the running server"


def test_odd_proxies_are_warned_of(headrace: Any) -> None:
    result = headrace("check", "--json", "--forwarded-allow-ips", "10.0.0.1/8")
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: The trusted proxy '10.0.0.1/8' is no address and no network")
    assert json.loads(result.stdout)["ok"] is True
    assert headrace("check", "--no-proxy-headers", "--forwarded-allow-ips", "*").stderr == ""


def test_fault_of_the_application(headrace: Any, folder: Path) -> None:
    (folder / "main.py").write_text("raise RuntimeError('boom')\n")
    result = headrace("check")
    assert result.exit_code == 3
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("Error: Importing main failed: RuntimeError: boom\n")


def test_environment_file_reaches_the_application(
    headrace: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HR_TEST_FOR_MAIN", "")
    monkeypatch.delenv("HR_TEST_FOR_MAIN")
    (folder / "main.py").write_text(f"import os\nos.environ['HR_TEST_FOR_MAIN']\n{ASGI}")
    (folder / "prod.env").write_text("HR_TEST_FOR_MAIN=here")
    assert headrace("check", "--env-file", "prod.env").exit_code == 0
