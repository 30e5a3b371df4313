"""Rules between options, and the options this release does not serve yet.

Each rule is a function of the resolved configuration that returns one sentence, or nothing.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable

from headrace.config.options import Config, TLSOptions
from headrace.config.table import rows
from headrace.errors import ConfigError


def check_rules(config: Config) -> None:
    """Hold the whole configuration against every rule.

    Raises:
        ConfigError: the sentence of the first rule that is broken.
    """
    for rule in _RULES:
        if sentence := rule(config):
            raise ConfigError(sentence)


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


def _one_worker(config: Config) -> str | None:
    if config.process.workers in (None, 1):
        return None
    return (
        f"{_place(config, 'workers')} asks for {config.process.workers} workers, but more than one comes "
        "with the supervisor, which this release does not have yet; use 1."
    )


def _no_reload(config: Config) -> str | None:
    if not config.process.reload:
        return None
    return (
        f"{_place(config, 'reload')}: restarting on changes comes with the supervisor, "
        "which this release does not have yet."
    )


def _http2_needs_its_package(config: Config) -> str | None:
    if not config.http.http2 or importlib.util.find_spec("ngh2") is not None:
        return None
    return f"{_place(config, 'http2')}: HTTP/2 needs a package more: pip install 'headrace[http2]'"


def _no_wsgi(config: Config) -> str | None:
    if config.application.interface != "wsgi":
        return None
    return f"{_place(config, 'interface')}: this release does not host WSGI applications yet."


_RULES: tuple[Callable[[Config], str | None], ...] = (
    _key_needs_certificate,
    _client_certificates_need_tls,
    _proxy_protocol_without_tls,
    _uds_mode_is_octal,
    _bind_stands_alone,
    _proxy_fields_are_known,
    _loop_is_known,
    _one_worker,
    _no_reload,
    _http2_needs_its_package,
    _no_wsgi,
)
