from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.config import load
from headrace.config.rules import ignored_options
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


@pytest.mark.parametrize(
    "address", ["auto", "off", "127.0.0.1:9000", "[::1]:9000", "localhost:0", "127.8.8.8:1"]
)
def test_admin_on_this_machine(address: str) -> None:
    accept(admin=address)


@pytest.mark.parametrize(
    "address", [":9000", "0.0.0.0:9000", "[::]:9000", "192.0.2.1:80", "node1.internal:80"]
)
def test_admin_for_other_machines(address: str) -> None:
    assert sentence(admin=address) == (
        "--admin lets other machines control the server; "
        "set --admin-token, or --admin-open if everybody there may."
    )
    assert sentence({"HEADRACE_ADMIN": address}).startswith("HEADRACE_ADMIN lets other machines")
    accept(admin=address, admin_token="x")
    accept(admin=address, admin_open=True)


@pytest.mark.parametrize("address", ["", "on", "9000", "localhost", "a:65536", "[x]:1", "unix:/a", "a b:1"])
def test_admin_is_no_address(address: str) -> None:
    assert sentence(admin=address, admin_token="x").startswith("--admin: ")


@pytest.mark.parametrize("token", ["", " ", "hunter 2", "hunter2\n", "h\u00fcnter2"])
def test_admin_token_is_none(token: str) -> None:
    complaint = sentence(admin_token=token)
    assert complaint.startswith("--admin-token must be visible ASCII characters")
    assert "nter" not in complaint
    accept(admin_token="hunter2")


@pytest.mark.parametrize("path", ["", "healthz", "/a?b", "/a#b", "/a b", "/a\n"])
def test_health_path_is_none(path: str) -> None:
    assert sentence(health_path=path).startswith(f"--health-path is {path!r}, but it must be a path")
    accept(health_path="/healthz")


def test_what_this_release_does_not_serve() -> None:
    assert "does not host WSGI" in sentence(interface="wsgi")


def test_several_workers_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    accept(workers=4)
    monkeypatch.setattr(sys, "platform", "win32")
    assert sentence(workers=4).startswith("--workers: on Windows there is one process")
    accept(workers=1)


def test_a_key_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "headrace.conf").write_text('interface = "wsgi"')
    with pytest.raises(ConfigError, match=r"^interface in headrace\.conf: this release"):
        load(config_file="headrace.conf", environ={}, folder=tmp_path)


def test_reload_needs_a_name(tmp_path: Path) -> None:
    assert sentence(reload=True, app=object()) == (
        "--reload imports the application anew after each change; "
        "give its name, such as 'main:app', in place of the object."
    )
    accept(reload=True)
    accept(reload=True, app="main:app")
    accept(reload=True, app=tmp_path / "main.py")
    accept(app=object())


def test_reload_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert sentence(reload=True) == "--reload: on Windows there is one process, which cannot be replaced."
    accept()


def test_what_has_no_effect() -> None:
    def ignored(environ: dict[str, str] | None = None, **arguments: Any) -> list[str]:
        return ignored_options(load(arguments, environ=environ or {}, folder=Path("/")))

    assert ignored(reload=True, reload_includes=["*.html"]) == ignored(reload=True, workers=1) == []
    assert ignored(workers=4) == []
    assert ignored({"WEB_CONCURRENCY": "4"}, reload=True) == [
        "WEB_CONCURRENCY is ignored when reloading is enabled: one worker serves."
    ]
    assert ignored(reload=True, workers="auto")[0].startswith("--workers is ignored when")
    assert ignored(reload_includes=["*.html"], reload_excludes=["a"]) == [
        "--reload-include is ignored without --reload.",
        "--reload-exclude is ignored without --reload.",
    ]


def test_http2_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    accept(http2=True)
    monkeypatch.setitem(sys.modules, "ngh2", None)
    assert sentence(http2=True) == "--http2: HTTP/2 needs a package more: pip install 'headrace[http2]'"
    accept(http2=False)
    accept()


@pytest.mark.parametrize("umask", ["022", "0", "0o027", "777", "0777"])
def test_umask_is_octal(umask: str) -> None:
    accept(umask=umask)


@pytest.mark.parametrize("umask", ["", "8", "rw", "1777", "-1"])
def test_umask_is_not_octal(umask: str) -> None:
    assert sentence(umask=umask).startswith(f"--umask is {umask!r}, but it must be octal digits up to 0777")


def test_once_names_functions() -> None:
    accept(once=("main:migrate", "app.jobs:Jobs.warm", "src/jobs.py:warm"))
    assert sentence(once=("main:a", "main")) == (
        "--once is 'main', but it must be module:function, such as 'main:migrate'."
    )
    for name in ("main:", ":a", "main:1a", "main:a-b", ""):
        assert "must be module:function" in sentence(once=(name,))


@pytest.mark.parametrize("name", ["pid", "user", "group"])
def test_pid_user_and_group_are_not_empty(name: str) -> None:
    assert sentence(**{name: " "}) == f"--{name} is empty; give a value, or leave it out."
    accept(**{name: "x"})


def test_preload_imports_once() -> None:
    accept(preload=True)
    accept(preload=True, app="main:app")
    assert sentence(preload=True, reload=True) == (
        "--preload keeps the application of the start, and --reload imports it anew after each change; "
        "keep one of them."
    )
    assert "give its name, such as 'main:app'" in sentence(preload=True, app=lambda scope: None)


@pytest.mark.parametrize("asked", [{"once": ("a:b",)}, {"preload": True}, {"user": "x"}, {"group": "x"}])
def test_processes_on_windows(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    accept(**asked)
    monkeypatch.setattr(sys, "platform", "win32")
    assert sentence(**asked) == f"--{next(iter(asked))} needs what Windows does not have; leave it out there."
