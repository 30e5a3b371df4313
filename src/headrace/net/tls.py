"""The server's certificates: one for each host, and a new one without a restart.

The listener holds one outer context for ever. OpenSSL calls its SNI callback in every handshake, with None
when the client names no host, and the callback puts the newest context for that host in its place. So a
changed file reaches the next handshake, and connections that are open keep what they have.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import Any

from headrace.config.options import TLSOptions
from headrace.errors import ConfigError
from headrace.net.tls_context import Certificate, ServerContext, make_context
from headrace.net.tls_extension import tls_extension

__all__ = ["TLSContexts", "is_tls_client_hello", "is_tls_wanted", "tls_extension"]

Fingerprint = tuple[int, int, int] | None
"""mtime in ns, size in bytes, inode; None while the file cannot be seen."""


def is_tls_wanted(options: TLSOptions) -> bool:
    """Whether the options ask for TLS at all."""
    return bool(options.ssl_certfile or options.ssl_keyfile or options.ssl_sni or options.ssl_context_factory)


def is_tls_client_hello(data: bytes) -> bool:
    """Whether a connection begins with a TLS handshake record, RFC 8446 §5.1: TLS on a plain port."""
    return data[:2] == b"\x16\x03"


class TLSContexts:
    """The contexts of one listener.

    Args:
        options: the TLS group.
        config: first argument for ``ssl_context_factory``; ``options`` when left out.
        alpn: protocols offered by ALPN, the preferred one first.

    Attributes:
        context: for ``create_server(ssl=...)``; the same object for the server's whole life.
        files: every file the options name, each once.

    Raises:
        ConfigError: one sentence on the file or option that is wrong.
    """

    def __init__(
        self, options: TLSOptions, *, config: object = None, alpn: Sequence[str] = ("http/1.1",)
    ) -> None:
        self._options = options
        self._config = options if config is None else config
        self._alpn = tuple(alpn)
        self._sni = dict(parse_sni(text) for text in options.ssl_sni)
        self.files = _files(options, self._sni.values())
        # Taken before loading: a file that changes in between is seen as changed by the next look.
        self._fingerprints = _fingerprints(self.files)
        self._default, self._hosts = self._load()
        self.context = self._default
        self._has_foreign_callback = self.context.sni_callback is not None
        if not self._has_foreign_callback:
            self.context.sni_callback = self._choose
        elif self._sni:
            raise ConfigError(
                "--ssl-sni has no effect: the context of ssl_context_factory chooses by SNI itself."
            )

    def reload_if_changed(self) -> list[str]:
        """Look at the files and load new contexts if one of them changed.

        Returns:
            The changed files; empty when nothing changed. The next handshake gets the new certificate.
            Always empty for a context of ``ssl_context_factory`` that has an SNI callback of its own.

        Raises:
            ConfigError: a changed file is broken. The old contexts stay, and the same state of the files is
                not reported twice. Log one line and go on: a renewal replaces two files one after the other.
        """
        if self._has_foreign_callback:
            return []
        fingerprints = _fingerprints(self.files)
        changed = [path for path in self.files if fingerprints[path] != self._fingerprints[path]]
        if not changed:
            return []
        self._fingerprints = fingerprints
        try:
            self._default, self._hosts = self._load()
        except ConfigError:
            raise
        except Exception as exc:
            # The application's factory: its faults at run time must not stop the server.
            raise ConfigError(f"ssl_context_factory failed on reload: {type(exc).__name__}: {exc}") from exc
        return changed

    def _load(self) -> tuple[ssl.SSLContext, dict[str, ssl.SSLContext]]:
        """Make every context anew; all of them or, with an error, none."""
        hosts: dict[str, ssl.SSLContext] = {
            host: make_context(self._options, certificate, self._alpn)
            for host, certificate in self._sni.items()
        }
        factory = self._options.ssl_context_factory
        if factory is None:
            # Without --ssl-certfile the first --ssl-sni answers clients that name no host or another one.
            if self._options.ssl_certfile is None and not self._options.ssl_keyfile and hosts:
                return next(iter(hosts.values())), hosts
            return self._make_default(), hosts
        context = factory(self._config, self._make_default)
        if not isinstance(context, ssl.SSLContext):
            raise ConfigError(
                f"ssl_context_factory must return an ssl.SSLContext, not {type(context).__name__}."
            )
        return context, hosts

    def _make_default(self) -> ServerContext:
        options = self._options
        if not options.ssl_certfile:
            raise ConfigError("TLS needs a certificate: --ssl-certfile is missing.")
        certificate = Certificate(options.ssl_certfile, options.ssl_keyfile, "--ssl-certfile")
        return make_context(options, certificate, self._alpn)

    def _choose(self, ssl_object: Any, server_name: str | None, _: ssl.SSLContext) -> None:
        """Put the right context in place of the outer one; OpenSSL calls this in every handshake."""
        context = self._default
        if self._hosts and server_name:
            name = server_name.lower().rstrip(".")
            # RFC 6125 §6.4.3: a wildcard stands for one label, the leftmost.
            wildcard = "*." + name.partition(".")[2]
            context = self._hosts.get(name) or self._hosts.get(wildcard) or context
        ssl_object.context = context


def parse_sni(text: str) -> tuple[str, Certificate]:
    """Read one value of ``--ssl-sni``.

    Args:
        text: HOST=CERT,KEY; HOST may begin with ``*.``, KEY may be left out when CERT holds the key.

    Returns:
        The host as it stands in a handshake (lower-case, A-labels), and its files.

    Raises:
        ConfigError: it has another form.
    """
    host, _, files = text.partition("=")
    certfile, _, keyfile = files.partition(",")
    wildcard = "*." if host.startswith("*.") else ""
    name = host.strip().lower().removeprefix("*.").rstrip(".")
    if not name or "*" in name or not certfile:
        raise ConfigError(
            f"--ssl-sni {text[:80]!r} is not HOST=CERT,KEY, with a host such as a.org or *.a.org."
        )
    try:
        name = name.encode("idna").decode("ascii")
    except UnicodeError:
        raise ConfigError(f"--ssl-sni: {host[:80]!r} is no host name.") from None
    certificate = Certificate(certfile.strip(), keyfile.strip() or None, f"--ssl-sni {host}")
    return wildcard + name, certificate


def _files(options: TLSOptions, certificates: Any) -> tuple[str, ...]:
    named = [options.ssl_certfile, options.ssl_keyfile, options.ssl_ca_certs]
    for certificate in certificates:
        named += [certificate.certfile, certificate.keyfile]
    return tuple(dict.fromkeys(path for path in named if path))


def _fingerprints(files: Sequence[str]) -> dict[str, Fingerprint]:
    return {path: _fingerprint(path) for path in files}


def _fingerprint(path: str) -> Fingerprint:
    try:
        # Through symbolic links: a Kubernetes secret changes by moving one.
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
