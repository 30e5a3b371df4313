"""One ``ssl.SSLContext`` from the options, with OpenSSL's errors as sentences."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.config.options import TLSOptions
from headrace.errors import ConfigError

_PROTOCOL_TLS = 2
_PROTOCOL_TLS_1_2 = 5
_PROTOCOL_TLS_SERVER = 17

_MIN_VERSION = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


class ServerContext(ssl.SSLContext):
    """A server's context that remembers its own certificate, which ``ssl`` does not tell.

    Attributes:
        server_cert: the leaf certificate, PEM; None until it is loaded.
    """

    server_cert: str | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """Where a certificate chain and its key are.

    Attributes:
        certfile: chain, leaf first, PEM.
        keyfile: key, PEM; None means that it stands in ``certfile``.
        option: what the operator wrote it in, for messages.
    """

    certfile: str
    keyfile: str | None
    option: str


def make_context(options: TLSOptions, certificate: Certificate, alpn: Sequence[str]) -> ServerContext:
    """Make the context that serves one certificate; never asks on the terminal.

    Raises:
        ConfigError: one sentence on what is wrong with which file or option.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _MIN_VERSION[options.ssl_min_version]
    _limit_version(context, options)
    # A client that asks for new handshakes over and over costs the server far more than itself.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(alpn))
    _set_ciphers(context, options.ssl_ciphers)
    _load_certificate(context, certificate, options.ssl_keyfile_password)
    _load_authorities(context, options)
    return context


def _limit_version(context: ssl.SSLContext, options: TLSOptions) -> None:
    """Translate the number of ``--ssl-version``; the old constants themselves are deprecated in Python."""
    version = options.ssl_version
    if version in (_PROTOCOL_TLS_SERVER, _PROTOCOL_TLS):
        return
    if version != _PROTOCOL_TLS_1_2:
        raise ConfigError(
            f"--ssl-version {version} is not served; 17 is TLS 1.2 and later, 5 is TLS 1.2 alone."
        )
    if options.ssl_min_version != "1.2":
        raise ConfigError("--ssl-version 5 means TLS 1.2 alone and contradicts --ssl-min-version 1.3.")
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def _set_ciphers(context: ssl.SSLContext, ciphers: str | None) -> None:
    if not ciphers:
        return
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise ConfigError(
            f"--ssl-ciphers {ciphers[:80]!r} selects no cipher; 'openssl ciphers' shows the names."
        ) from None


def _load_certificate(context: ServerContext, certificate: Certificate, password: str | None) -> None:
    certfile, keyfile = certificate.certfile, certificate.keyfile
    chain = _CERTIFICATE.findall(_read(certfile, certificate.option))
    if not chain:
        raise ConfigError(f"{certificate.option}: the file {certfile!r} holds no PEM certificate.")
    if "PRIVATE KEY-----" not in _read(keyfile or certfile, certificate.option):
        if keyfile is None:
            raise ConfigError(
                f"{certificate.option}: {certfile!r} comes without a private key; name its file too."
            )
        raise ConfigError(f"{certificate.option}: the file {keyfile!r} holds no PEM private key.")
    asked: list[bool] = []
    try:
        context.load_cert_chain(certfile, keyfile, _password_source(keyfile or certfile, password, asked))
    except ssl.SSLError as exc:
        raise ConfigError(f"{certificate.option}: {_key_sentence(exc, certificate, bool(asked))}") from None
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{certificate.option}: {certfile!r} cannot be loaded ({exc}).") from None
    context.server_cert = chain[0]


def _password_source(keyfile: str, password: str | None, asked: list[bool]) -> Callable[[], str]:
    """Make the callable OpenSSL asks for the password; without one it would ask on the terminal."""

    def give() -> str:
        asked.append(True)
        if password is None:
            raise ConfigError(f"The private key {keyfile!r} is encrypted; give --ssl-keyfile-password.")
        return password

    return give


def _key_sentence(error: ssl.SSLError, certificate: Certificate, encrypted: bool) -> str:
    keyfile = certificate.keyfile or certificate.certfile
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the private key in {keyfile!r} does not belong to the certificate {certificate.certfile!r}."
    if encrypted:
        return f"the password does not open the private key {keyfile!r}."
    detail = f" ({error.reason})" if error.reason else ""
    return f"OpenSSL cannot read the certificate {certificate.certfile!r} with the key {keyfile!r}{detail}."


def _load_authorities(context: ssl.SSLContext, options: TLSOptions) -> None:
    context.verify_mode = ssl.VerifyMode(options.ssl_cert_reqs)
    path = options.ssl_ca_certs
    if path is None:
        if context.verify_mode is ssl.CERT_REQUIRED:
            raise ConfigError(
                "--ssl-cert-reqs 2 refuses every client without --ssl-ca-certs; name the authorities."
            )
        return
    _read(path, "--ssl-ca-certs")
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError):
        raise ConfigError(f"--ssl-ca-certs: the file {path!r} holds no PEM certificate.") from None


def _read(path: str, option: str) -> str:
    try:
        with open(os.fspath(path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ConfigError(f"{option}: the file {path!r} cannot be read ({reason}).") from None
