from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.config import load
from headrace.errors import ConfigError


def sentence(environ: dict[str, str] | None = None, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(arguments, environ=environ or {}, folder=Path("/"))
    return str(caught.value)


def accept(**arguments: Any) -> None:
    load(arguments, environ={}, folder=Path("/"))


def test_key_needs_certificate() -> None:
    assert sentence(ssl_keyfile="k") == "--ssl-keyfile needs --ssl-certfile beside it."
    accept(ssl_keyfile="k", ssl_certfile="c")
    accept(ssl_certfile="c")
    accept(ssl_keyfile="k", ssl_context_factory=lambda config, make: make())


@pytest.mark.parametrize("asked", [{"ssl_cert_reqs": 1}, {"ssl_ca_certs": "ca.pem"}])
def test_client_certificates_need_tls(asked: dict[str, Any]) -> None:
    flag = f"--{next(iter(asked)).replace('_', '-')}"
    assert sentence(**asked) == (
        f"{flag} asks for client certificates, but without --ssl-certfile or --ssl-sni there is no TLS."
    )
    accept(ssl_certfile="c", **asked)
    accept(ssl_sni=["a.test=c,k"], **asked)
    accept(ssl_context_factory=lambda config, make: make(), **asked)


def test_proxy_protocol_and_tls() -> None:
    assert sentence(proxy_protocol=True, ssl_certfile="c").startswith("--proxy-protocol and TLS exclude each")
    accept(proxy_protocol=True)


@pytest.mark.parametrize("mode", ["0666", "660", "0o600", "0"])
def test_mode_is_octal(mode: str) -> None:
    accept(uds_mode=mode)


@pytest.mark.parametrize("mode", ["", "0688", "rw", "-1", "1777", "01777", "0666 ", "0x1ff", "٦٦٦"])
def test_mode_is_not_octal(mode: str) -> None:
    assert sentence(uds_mode=mode).startswith(f"--uds-mode is {mode!r}, but it must be octal")


@pytest.mark.parametrize("other", [{"host": "127.0.0.1"}, {"port": 1}, {"uds": "/a"}, {"fd": 3}])
def test_bind_stands_alone(other: dict[str, Any]) -> None:
    (name,) = other
    assert sentence(bind=["a:1"], **other) == (
        f"--bind and --{name} both say where to listen; keep one of them."
    )
    assert sentence({"HEADRACE_BIND": "a:1"}, **other).startswith("HEADRACE_BIND and ")
    accept(bind=["a:1"])


def test_loop() -> None:
    assert sentence(loop="twisted").startswith("--loop is 'twisted', but it must be one of auto, asyncio,")
    accept(loop="zuvloop")
    accept(loop="module:factory")


def test_what_this_release_does_not_serve() -> None:
    assert sentence(workers=4) == (
        "--workers asks for 4 workers, but more than one comes with the supervisor, "
        "which this release does not have yet; use 1."
    )
    assert sentence({"WEB_CONCURRENCY": "2"}).startswith("WEB_CONCURRENCY asks for 2 workers")
    assert "comes with the supervisor" in sentence(reload=True)
    assert "does not host WSGI" in sentence(interface="wsgi")
    accept(workers=1)


def test_a_key_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "headrace.conf").write_text("reload = true")
    with pytest.raises(ConfigError, match=r"^reload in headrace\.conf: restarting"):
        load(config_file="headrace.conf", environ={}, folder=tmp_path)


def test_http2_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    accept(http2=True)
    monkeypatch.setitem(sys.modules, "ngh2", None)
    assert sentence(http2=True) == "--http2: HTTP/2 needs a package more: pip install 'headrace[http2]'"
    accept(http2=False)
    accept()
