"""Every option of uvicorn 0.54, as its ``--help`` spells it, is taken with its meaning and default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.config import rows

# Spelling, value (None for a flag), keyword of uvicorn.run, value there, default there.
UVICORN: list[tuple[str, str | None, str, Any, Any]] = [
    ("--host", "::1", "host", "::1", "127.0.0.1"),
    ("--port", "0", "port", 0, 8000),
    ("--uds", "/tmp/a.sock", "uds", "/tmp/a.sock", None),
    ("--fd", "0", "fd", 0, None),
    ("--reload", None, "reload", True, False),
    ("--reload-dir", ".", "reload_dirs", (".",), ()),
    ("--reload-include", "*.html", "reload_includes", ("*.html",), ()),
    ("--reload-exclude", "*.tmp", "reload_excludes", ("*.tmp",), ()),
    ("--reload-delay", "1", "reload_delay", 1.0, 0.25),
    ("--workers", "1", "workers", 1, None),
    ("--loop", "asyncio", "loop", "asyncio", "auto"),
    ("--loop", "zuvloop", "loop", "zuvloop", "auto"),
    ("--loop", "module:factory", "loop", "module:factory", "auto"),
    ("--http", "h11", "http", "h11", "auto"),
    ("--http", "zttp", "http", "zttp", "auto"),
    ("--http2", None, "http2", True, None),
    ("--ws", "websockets-sansio", "ws", "websockets-sansio", "auto"),
    ("--ws", "none", "ws", "none", "auto"),
    ("--ws-max-size", "1024", "ws_max_size", 1024, 16777216),
    ("--ws-max-queue", "8", "ws_max_queue", 8, 32),
    ("--ws-ping-interval", "1.5", "ws_ping_interval", 1.5, 20.0),
    ("--ws-ping-timeout", "1.5", "ws_ping_timeout", 1.5, 20.0),
    ("--ws-per-message-deflate", "false", "ws_per_message_deflate", False, True),
    ("--lifespan", "off", "lifespan", "off", "auto"),
    ("--interface", "asgi2", "interface", "asgi2", "auto"),
    ("--env-file", "prod.env", "env_file", "prod.env", None),
    ("--log-config", "log.ini", "log_config", "log.ini", None),
    ("--log-level", "trace", "log_level", "trace", None),
    ("--access-log", None, "access_log", True, True),
    ("--no-access-log", None, "access_log", False, True),
    ("--use-colors", None, "use_colors", True, None),
    ("--no-use-colors", None, "use_colors", False, None),
    ("--proxy-headers", None, "proxy_headers", True, True),
    ("--no-proxy-headers", None, "proxy_headers", False, True),
    ("--server-header", None, "server_header", True, True),
    ("--no-server-header", None, "server_header", False, True),
    ("--date-header", None, "date_header", True, True),
    ("--no-date-header", None, "date_header", False, True),
    ("--forwarded-allow-ips", "*", "forwarded_allow_ips", "*", "127.0.0.1,::1"),
    ("--root-path", "/api", "root_path", "/api", ""),
    ("--limit-concurrency", "10", "limit_concurrency", 10, None),
    ("--backlog", "64", "backlog", 64, 2048),
    ("--limit-max-requests", "10", "limit_max_requests", 10, None),
    ("--limit-max-requests-jitter", "3", "limit_max_requests_jitter", 3, 0),
    ("--timeout-keep-alive", "75", "timeout_keep_alive", 75.0, 5.0),
    ("--timeout-graceful-shutdown", "3", "timeout_graceful_shutdown", 3.0, None),
    ("--timeout-worker-healthcheck", "9", "timeout_worker_healthcheck", 9, 5),
    ("--ssl-keyfile", "key.pem", "ssl_keyfile", "key.pem", None),
    ("--ssl-certfile", "cert.pem", "ssl_certfile", "cert.pem", None),
    ("--ssl-keyfile-password", "secret", "ssl_keyfile_password", "secret", None),
    ("--ssl-version", "17", "ssl_version", 17, 17),
    ("--ssl-cert-reqs", "2", "ssl_cert_reqs", 2, 0),
    ("--ssl-ca-certs", "ca.pem", "ssl_ca_certs", "ca.pem", None),
    ("--ssl-ciphers", "HIGH", "ssl_ciphers", "HIGH", None),
    ("--header", "X-A:b", "headers", (("X-A", "b"),), ()),
    ("--app-dir", "src", "app_dir", "src", ""),
    ("--h11-max-incomplete-event-size", "4096", "h11_max_incomplete_event_size", 4096, None),
    ("--reset-contextvars", None, "reset_contextvars", True, False),
    ("--factory", None, "factory", True, False),
]

FINITE_HERE = {"timeout_graceful_shutdown"}
"""Options whose default differs on purpose; docs/migrating-from-uvicorn.md says why."""

FURTHER = dict.fromkeys(
    ("--ssl-keyfile", "--ssl-cert-reqs", "--ssl-ca-certs"), ("--ssl-certfile", "cert.pem")
)


@pytest.fixture(autouse=True)
def files(folder: Path) -> None:
    for name in ("prod.env", "log.ini"):
        (folder / name).touch()


@pytest.mark.parametrize(("spelling", "text", "name", "value", "default"), UVICORN)
def test_option(
    headrace: Any, server: Any, spelling: str, text: str | None, name: str, value: Any, default: Any
) -> None:
    given = [spelling] if text is None else [spelling, text]
    result = headrace("run", "main:app", *given, *FURTHER.get(spelling, ()))
    assert result.exit_code == 0, result.output
    (config,) = server.configs
    assert rows()[name].value(config) == value
    assert config.sources[name] == rows()[name].flag
    assert rows()[name].option.uvicorn
    if name not in FINITE_HERE:
        assert rows()[name].default == default


def test_the_list_is_whole() -> None:
    """57 spellings, ``--version`` and ``--help`` among them; each option of the table marked so is listed."""
    assert len({spelling for spelling, *_ in UVICORN} | {"--version", "--help"}) == 57
    marked = {name for name, row in rows().items() if row.option.uvicorn and not row.option.api_only}
    assert {name for _, _, name, _, _ in UVICORN} | {"app"} == marked


def test_every_variable_is_read(headrace: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        name: (text or "1", value)
        for spelling, text, name, value, _ in UVICORN
        if not spelling.startswith("--no-")
    }
    for name, (text, _) in values.items():
        monkeypatch.setenv(f"UVICORN_{name.upper()}", text)
    monkeypatch.setenv("UVICORN_APP", "main:app")
    result = headrace("run")
    assert result.exit_code == 0, result.output
    (config,) = server.configs
    assert config.application.app == "main:app"
    for name, (_, value) in values.items():
        assert rows()[name].value(config) == value, name
        assert config.sources[name] == f"UVICORN_{name.upper()}"
