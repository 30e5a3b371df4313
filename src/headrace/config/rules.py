"""Rules between options, and the options this release does not serve yet.

Each rule is a function of the resolved configuration that returns one sentence, or nothing.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from itertools import pairwise

from headrace.config.host_port import is_loopback, parse_host_port
from headrace.config.options import Config, TLSOptions
from headrace.config.table import rows
from headrace.errors import ConfigError

_OF_RELOAD = ("reload_dirs", "reload_includes", "reload_excludes")


def check_rules(config: Config) -> None:
    """Hold the whole configuration against every rule.

    Raises:
        ConfigError: the sentence of the first rule that is broken.
    """
    for rule in _RULES:
        if sentence := rule(config):
            raise ConfigError(sentence)


def ignored_options(config: Config) -> list[str]:
    """Options that were given and have no effect beside the others; a sentence for each."""
    if not config.process.reload:
        names = [name for name in _OF_RELOAD if _is_given(config, name)]
        return [f"{_place(config, name)} is ignored without --reload." for name in names]
    if config.process.workers in (None, 1):
        return []
    return [f"{_place(config, 'workers')} is ignored when reloading is enabled: one worker serves."]


def _is_given(config: Config, name: str) -> bool:
    return config.sources.get(name, "default") != "default"


def _place(config: Config, name: str) -> str:
    """The option as the operator wrote it: flag, variable or keyword as it is, a key with its file."""
    row, source = rows()[name], config.sources[name]
    if source in (row.flag, row.variable, row.uvicorn_variable, row.option.fallback_env, f"keyword {name}"):
        return source
    return f"{row.key} in {source}"


def _has_certificate(tls: TLSOptions) -> bool:
    return tls.ssl_certfile is not None or bool(tls.ssl_sni) or tls.ssl_context_factory is not None


def _key_needs_certificate(config: Config) -> str | None:
    tls = config.tls
    if tls.ssl_keyfile is None or tls.ssl_certfile is not None or tls.ssl_context_factory is not None:
        return None
    return f"{_place(config, 'ssl_keyfile')} needs --ssl-certfile beside it."


def _client_certificates_need_tls(config: Config) -> str | None:
    # uvicorn ignores both then, and serves everybody in plain text.
    tls = config.tls
    if _has_certificate(tls) or (not tls.ssl_cert_reqs and tls.ssl_ca_certs is None):
        return None
    place = _place(config, "ssl_cert_reqs" if tls.ssl_cert_reqs else "ssl_ca_certs")
    return f"{place} asks for client certificates, but without --ssl-certfile or --ssl-sni there is no TLS."


def _proxy_protocol_without_tls(config: Config) -> str | None:
    if not config.listen.proxy_protocol or not _has_certificate(config.tls):
        return None
    return f"{_place(config, 'proxy_protocol')} and TLS exclude each other; let the proxy end TLS."


def _uds_mode_is_octal(config: Config) -> str | None:
    if re.fullmatch(r"(0o)?0?[0-7]{1,3}", config.listen.uds_mode):
        return None
    return (
        f"{_place(config, 'uds_mode')} is {config.listen.uds_mode!r}, "
        "but it must be octal digits up to 0777, such as '0660'."
    )


PROXY_FIELDS = ("for", "proto", "host", "port", "prefix")


def proxy_fields(config: Config) -> tuple[str, ...]:
    """The X-Forwarded fields that ``--proxy-fields`` names."""
    names = tuple(name.strip() for name in config.proxy.proxy_fields.split(",") if name.strip())
    return PROXY_FIELDS if names == ("all",) else names


def _proxy_fields_are_known(config: Config) -> str | None:
    unknown = [name for name in proxy_fields(config) if name not in PROXY_FIELDS]
    if not unknown:
        return None
    return (
        f"{_place(config, 'proxy_fields')} names {unknown[0]!r}, "
        f"but only {', '.join(PROXY_FIELDS)} or all can be taken."
    )


def metrics_buckets(config: Config) -> tuple[float, ...]:
    """The bounds that ``--metrics-buckets`` names, in seconds.

    Raises:
        ValueError: one is no number.
    """
    return tuple(float(bound) for bound in config.stack.metrics_buckets.split(",") if bound.strip())


def _metrics_buckets_rise(config: Config) -> str | None:
    try:
        bounds = metrics_buckets(config)
    except ValueError:
        bounds = ()
    is_rising = all(low < high for low, high in pairwise(bounds))
    if bounds and is_rising and bounds[0] > 0 and bounds[-1] < float("inf"):
        return None
    return (
        f"{_place(config, 'metrics_buckets')} is {config.stack.metrics_buckets[:80]!r}, "
        "but it must be rising numbers above 0, such as 0.01,0.1,1."
    )


def _request_id_header_is_a_token(config: Config) -> str | None:
    if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", config.stack.request_id_header):
        return None
    return (
        f"{_place(config, 'request_id_header')} is {config.stack.request_id_header[:80]!r}, "
        "but a field's name is letters, digits and hyphens."
    )


def _bind_stands_alone(config: Config) -> str | None:
    if not config.listen.bind:
        return None
    others = [name for name in ("host", "port", "uds", "fd") if _is_given(config, name)]
    if not others:
        return None
    return (
        f"{_place(config, 'bind')} and {_place(config, others[0])} both say where to listen; "
        "keep one of them."
    )


def _loop_is_known(config: Config) -> str | None:
    loop = config.process.loop
    names = ("auto", "asyncio", "uvloop", "zuvloop", "none")
    if loop in names or ":" in loop:
        return None
    return (
        f"{_place(config, 'loop')} is {loop!r}, "
        f"but it must be one of {', '.join(names)} or the place of a factory, module:factory."
    )


_ADMIN_FORMS = "write HOST:PORT, [v6]:PORT, auto or off"


def _admin_is_an_address(config: Config) -> str | None:
    admin = config.admin
    if admin.admin in ("auto", "off"):
        return None
    try:
        host, _ = parse_host_port(admin.admin, _ADMIN_FORMS)
    except ConfigError as error:
        return f"{_place(config, 'admin')}: {error}"
    if is_loopback(host) or admin.admin_token is not None or admin.admin_open:
        return None
    return (
        f"{_place(config, 'admin')} lets other machines control the server; "
        "set --admin-token, or --admin-open if everybody there may."
    )


def _admin_token_is_a_token(config: Config) -> str | None:
    # The token itself stays out of the sentence.
    if config.admin.admin_token is None or re.fullmatch(r"[\x21-\x7e]+", config.admin.admin_token):
        return None
    return f"{_place(config, 'admin_token')} must be visible ASCII characters without spaces, at least one."


def _health_path_is_a_path(config: Config) -> str | None:
    path = config.admin.health_path
    if path is None or re.fullmatch(r"/[^?#\s]*", path):
        return None
    return f"{_place(config, 'health_path')} is {path[:80]!r}, but it must be a path such as '/healthz'."


def _workers_on_this_system(config: Config) -> str | None:
    if config.process.workers in (None, 1) or sys.platform != "win32":
        return None
    return f"{_place(config, 'workers')}: on Windows there is one process; run several behind a proxy."


def _reload_needs_a_name(config: Config) -> str | None:
    app = config.application.app
    if not config.process.reload or app is None or isinstance(app, str):
        return None
    return (
        f"{_place(config, 'reload')} imports the application anew after each change; "
        "give its name, such as 'main:app', in place of the object."
    )


def _reload_on_this_system(config: Config) -> str | None:
    if not config.process.reload or sys.platform != "win32":
        return None
    return f"{_place(config, 'reload')}: on Windows there is one process, which cannot be replaced."


def _http2_needs_its_package(config: Config) -> str | None:
    if not config.http.http2 or importlib.util.find_spec("ngh2") is not None:
        return None
    return f"{_place(config, 'http2')}: HTTP/2 needs a package more: pip install 'headrace[http2]'"


def _no_wsgi(config: Config) -> str | None:
    if config.application.interface != "wsgi":
        return None
    return f"{_place(config, 'interface')}: this release does not host WSGI applications yet."


def _umask_is_octal(config: Config) -> str | None:
    umask = config.process.umask
    if umask is None or re.fullmatch(r"(0o)?0?[0-7]{1,3}", umask):
        return None
    return (
        f"{_place(config, 'umask')} is {umask[:80]!r}, but it must be octal digits up to 0777, such as '027'."
    )


def _once_names_functions(config: Config) -> str | None:
    wrong = [name for name in config.process.once if not re.fullmatch(r".+:[^\W\d][\w.]*", name)]
    if not wrong:
        return None
    return (
        f"{_place(config, 'once')} is {wrong[0][:80]!r}, "
        "but it must be module:function, such as 'main:migrate'."
    )


def _pid_user_and_group_are_given(config: Config) -> str | None:
    process = config.process
    given = {"pid": process.pid, "user": process.user, "group": process.group}
    empty = [name for name, value in given.items() if value is not None and not value.strip()]
    return f"{_place(config, empty[0])} is empty; give a value, or leave it out." if empty else None


def _preload_imports_once(config: Config) -> str | None:
    if not config.process.preload:
        return None
    if config.process.reload:
        return (
            f"{_place(config, 'preload')} keeps the application of the start, and "
            f"{_place(config, 'reload')} imports it anew after each change; keep one of them."
        )
    app = config.application.app
    if app is None or isinstance(app, str):
        return None
    return (
        f"{_place(config, 'preload')} imports the application in a process of its own; "
        "give its name, such as 'main:app', in place of the object."
    )


def _processes_on_this_system(config: Config) -> str | None:
    process = config.process
    given = {
        "once": process.once,
        "preload": process.preload,
        "user": process.user,
        "group": process.group,
    }
    asked = [name for name, value in given.items() if value]
    if not asked or sys.platform != "win32":
        return None
    return f"{_place(config, asked[0])} needs what Windows does not have; leave it out there."


_RULES: tuple[Callable[[Config], str | None], ...] = (
    _key_needs_certificate,
    _client_certificates_need_tls,
    _proxy_protocol_without_tls,
    _uds_mode_is_octal,
    _bind_stands_alone,
    _proxy_fields_are_known,
    _metrics_buckets_rise,
    _request_id_header_is_a_token,
    _loop_is_known,
    _admin_is_an_address,
    _admin_token_is_a_token,
    _health_path_is_a_path,
    _workers_on_this_system,
    _reload_needs_a_name,
    _reload_on_this_system,
    _http2_needs_its_package,
    _no_wsgi,
    _umask_is_octal,
    _once_names_functions,
    _pid_user_and_group_are_given,
    _preload_imports_once,
    _processes_on_this_system,
)
