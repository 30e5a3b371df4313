from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from headrace.config import Config, load, load_env_file
from headrace.errors import ConfigError


def resolve(folder: Path, environ: dict[str, str] | None = None, /, **arguments: Any) -> Config:
    return load(arguments, environ=environ or {}, folder=folder)


def refuse(folder: Path, environ: dict[str, str] | None = None, /, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(folder, environ, **arguments)
    return str(caught.value)


def test_defaults_without_any_source(tmp_path: Path) -> None:
    config = resolve(tmp_path)
    assert config == Config(sources=config.sources)
    assert set(config.sources.values()) == {"default"}


def test_each_source_outranks_the_next(tmp_path: Path) -> None:
    """Take the highest source away, again and again, and the next one speaks."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.headrace]\napp = "p:a"\n[tool.fastapi]\nentrypoint = "f:a"'
    )
    (tmp_path / "headrace.toml").write_text('app = "t:a"')
    environ = {"HEADRACE_APP": "h:a", "UVICORN_APP": "u:a"}

    def winner(**arguments: Any) -> tuple[Any, str]:
        config = resolve(tmp_path, environ, **arguments)
        return config.application.app, config.sources["app"]

    assert winner(app="c:a") == ("c:a", "APP")
    assert winner() == ("h:a", "HEADRACE_APP")
    del environ["HEADRACE_APP"]
    assert winner() == ("u:a", "UVICORN_APP")
    del environ["UVICORN_APP"]
    assert winner() == ("t:a", "headrace.toml")
    (tmp_path / "headrace.toml").unlink()
    assert winner() == ("p:a", "[tool.headrace]")
    (tmp_path / "pyproject.toml").write_text('[tool.fastapi]\nentrypoint = "f:a"')
    assert winner() == ("f:a", "[tool.fastapi] entrypoint")
    (tmp_path / "pyproject.toml").unlink()
    assert winner() == (None, "default")


def test_fallback_variables_stand_between_uvicorns_and_the_files(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text('forwarded-allow-ips = "10.0.0.1"')
    environ = {"FORWARDED_ALLOW_IPS": "10.0.0.2", "WEB_CONCURRENCY": "1"}
    config = resolve(tmp_path, environ)
    assert config.proxy.forwarded_allow_ips == "10.0.0.2"
    assert config.sources["forwarded_allow_ips"] == "FORWARDED_ALLOW_IPS"
    assert (config.process.workers, config.sources["workers"]) == (1, "WEB_CONCURRENCY")
    config = resolve(tmp_path, {**environ, "UVICORN_FORWARDED_ALLOW_IPS": "10.0.0.3"})
    assert config.proxy.forwarded_allow_ips == "10.0.0.3"


def test_empty_variables(tmp_path: Path) -> None:
    environ = {"HEADRACE_PORT": "", "UVICORN_HOST": "", "WEB_CONCURRENCY": "", "FORWARDED_ALLOW_IPS": ""}
    config = resolve(tmp_path, environ)
    assert (config.listen.port, config.listen.host, config.process.workers) == (8000, "127.0.0.1", None)
    assert config.proxy.forwarded_allow_ips == ""


def test_uvicorns_variables_are_read_for_uvicorns_options_only(tmp_path: Path) -> None:
    environ = {"UVICORN_DRAIN_DELAY": "9", "UVICORN_NO_SUCH_OPTION": "1", "UVICORN_ACCESS_LOG": "off"}
    config = resolve(tmp_path, environ)
    assert config.process.drain_delay == 0
    assert config.log.access_log is False


def test_keywords_take_no_files_and_no_variables_of_uvicorn(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("nonsense = 1")
    environ = {"UVICORN_PORT": "1", "HEADRACE_BACKLOG": "2", "FORWARDED_ALLOW_IPS": "*"}
    app = object()
    config = load({"app": app, "host": "::1"}, files=False, environ=environ, folder=tmp_path)
    assert config.application.app is app
    assert (config.listen.host, config.listen.port, config.listen.backlog) == ("::1", 8000, 2)
    assert config.proxy.forwarded_allow_ips == "*"
    assert config.sources["host"] == "keyword host"


def test_none_as_a_keyword() -> None:
    environ = {"WEB_CONCURRENCY": "1", "FORWARDED_ALLOW_IPS": "*"}
    keywords: dict[str, Any] = dict.fromkeys(
        ("workers", "forwarded_allow_ips", "headers", "app_dir", "uds", "log_config", "ws_ping_interval"),
        None,
    )
    config = load(keywords, files=False, environ=environ)
    assert config.process.workers == 1
    assert config.proxy.forwarded_allow_ips == "*"
    assert (config.http.headers, config.application.app_dir) == ((), "")
    assert config.sources["uds"] == "default"
    assert config.websocket.ws_ping_interval is None
    # uvicorn: log_config=None leaves logging alone; not naming it applies the default configuration.
    assert config.sources["log_config"] == "keyword log_config"


def test_toml_values_and_both_spellings(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text(
        "timeout-keep-alive = 7\nlimit_request_line = 100\nproxy-headers = false\n"
        'headers = ["A: b", ["C", "d"]]\ntimeout-graceful-shutdown = "none"\nbind = "unix:/a"\n'
    )
    config = resolve(tmp_path)
    assert config.http.timeout_keep_alive == 7.0
    assert config.http.limit_request_line == 100
    assert config.proxy.proxy_headers is False
    assert config.http.headers == (("A", "b"), ("C", "d"))
    assert config.process.timeout_graceful_shutdown is None
    assert config.listen.bind == ("unix:/a",)


def test_another_file_by_argument_or_variable(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("port = 1")
    (tmp_path / "other.toml").write_text("port = 2")
    config = load(config_file="other.toml", environ={}, folder=tmp_path)
    assert (config.listen.port, config.sources["port"]) == (2, "other.toml")
    assert resolve(tmp_path, {"HEADRACE_CONFIG": "other.toml"}).listen.port == 2
    with pytest.raises(ConfigError, match=r"^none\.toml cannot be read: No such file or directory\.$"):
        load(config_file="none.toml", environ={}, folder=tmp_path)


def test_uvicorns_name_for_the_heads_limit(tmp_path: Path) -> None:
    config = resolve(tmp_path, h11_max_incomplete_event_size=5000)
    assert config.http.limit_request_head == 5000
    assert config.sources["limit_request_head"] == "--h11-max-incomplete-event-size"
    config = resolve(tmp_path, h11_max_incomplete_event_size=5000, limit_request_head=6000)
    assert config.http.limit_request_head == 6000


def test_env_file_is_read_for_fallback_variables_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prod.env"
    path.write_text("FORWARDED_ALLOW_IPS=10.9.9.9\nUVICORN_PORT=1\nHR_TEST_NEW=new\nHR_TEST_SET=file\n")
    config = resolve(tmp_path, env_file=str(path))
    assert config.proxy.forwarded_allow_ips == "10.9.9.9"
    assert config.listen.port == 8000
    monkeypatch.setattr(os, "environ", {"HR_TEST_SET": "environment"})
    load_env_file(config.application.env_file)
    assert (os.environ["HR_TEST_NEW"], os.environ["HR_TEST_SET"]) == ("new", "environment")
    load_env_file(None)


def test_env_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "prod.env"
    path.write_bytes(b"A=\xff\xfe")
    assert refuse(tmp_path, env_file=str(path)).startswith(f"The environment file {path} cannot be read: ")


def test_kubernetes_service_links_are_not_ours(tmp_path: Path) -> None:
    environ = {
        "HEADRACE_SERVICE_HOST": "10.0.0.1",
        "HEADRACE_SERVICE_PORT": "80",
        "HEADRACE_SERVICE_PORT_HTTP": "80",
        "HEADRACE_PORT": "tcp://10.0.0.1:80",
        "HEADRACE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "HEADRACE_PORT_80_TCP_ADDR": "10.0.0.1",
        "HEADRACE_ADMIN_SERVICE_HOST": "10.0.0.2",
    }
    assert resolve(tmp_path, environ).listen.port == 8000


def test_sentences_name_place_value_and_what_is_allowed(tmp_path: Path) -> None:
    assert refuse(tmp_path, port=70000) == ("--port is 70000, but it must be a whole number from 0 to 65535.")
    assert refuse(tmp_path, {"HEADRACE_LIFESPAN": "maybe"}) == (
        "HEADRACE_LIFESPAN is 'maybe', but it must be one of 'auto', 'on', 'off'."
    )
    assert refuse(tmp_path, {"UVICORN_RELOAD": "perhaps"}).startswith("UVICORN_RELOAD is 'perhaps'")
    assert refuse(tmp_path, {"WEB_CONCURRENCY": "many"}).startswith("WEB_CONCURRENCY is 'many'")
    (tmp_path / "headrace.toml").write_text('port = "80"')
    assert refuse(tmp_path).startswith("port in headrace.toml is '80', but it must be a whole number")
    with pytest.raises(ConfigError, match=r"^keyword port is 'x'"):
        load({"port": "x"}, files=False, environ={})


def test_a_secret_stays_out_of_the_sentence(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("ssl-keyfile-password = 12345")
    assert "12345" not in refuse(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot = 1", "headrace.toml has an unknown key 'prot'; did you mean 'port'?"),
        ("xyzzy = 1", "headrace.toml has an unknown key 'xyzzy'."),
        ("[listen]\nport = 1", "headrace.toml has a table 'listen', but all keys stand at the top level."),
        ("ssl-context-factory = 'a'", "headrace.toml has an unknown key 'ssl-context-factory'"),
        ("app-dir = 'a'\napp_dir = 'b'", "headrace.toml has the key 'app-dir' twice, once with '_' for '-'."),
        ("app = 1", "app in headrace.toml is 1, but it must be a text."),
        ("port = ", "headrace.toml is not valid TOML"),
    ],
)
def test_faults_of_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "headrace.toml").write_text(text)
    assert refuse(tmp_path).startswith(sentence)


def test_faults_of_pyproject(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text("[tool.headrace]\nprot = 1")
    assert refuse(tmp_path) == "[tool.headrace] has an unknown key 'prot'; did you mean 'port'?"
    path.write_text("[tool.fastapi]\nentrypoint = 1")
    assert refuse(tmp_path) == "[tool.fastapi] entrypoint is 1, but it must be a text."
    path.write_text("tool = 3")
    assert resolve(tmp_path).listen.port == 8000


def test_unknown_names(tmp_path: Path) -> None:
    assert refuse(tmp_path, {"HEADRACE_PROT": "1"}) == (
        "There is no variable HEADRACE_PROT; did you mean 'HEADRACE_PORT'?"
    )
    assert refuse(tmp_path, {"HEADRACE_SSL_CONTEXT_FACTORY": "a"}).startswith("There is no variable")
    assert refuse(tmp_path, time_keep_alive=1) == (
        "There is no option 'time_keep_alive'; did you mean 'timeout_keep_alive'?"
    )


def test_defaults_of_a_command(tmp_path: Path) -> None:
    """They stand above the table's alone, and are named by their place."""
    (tmp_path / "pyproject.toml").write_text("[tool.headrace]\nbacklog = 7")
    config = load(
        environ={}, folder=tmp_path, defaults={"reload": True, "backlog": 8}, defaults_place="headrace dev"
    )
    assert (config.process.reload, config.listen.backlog) == (True, 7)
    assert (config.sources["reload"], config.sources["backlog"]) == ("headrace dev", "[tool.headrace]")
