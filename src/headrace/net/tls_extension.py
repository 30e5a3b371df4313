"""The ASGI TLS extension 0.2: what ``scope["extensions"]["tls"]`` says of a connection."""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any

_TLS_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

_SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
"""RFC 4514 §3: the names with a short form."""

_ESCAPED = frozenset('"+,;<>\\')


def tls_extension(ssl_object: ssl.SSLObject) -> dict[str, Any]:
    """Build the value of ``scope["extensions"]["tls"]``, once for each connection after its handshake.

    Args:
        ssl_object: ``transport.get_extra_info("ssl_object")``.

    Returns:
        ``server_cert`` (PEM; None for a context from ``ssl_context_factory`` that is not headrace's own),
        ``client_cert_chain`` (PEM, client first; before Python 3.13 the client's alone),
        ``client_cert_name`` (RFC 4514), ``client_cert_error`` (always None: such a client is refused),
        ``tls_version`` and ``cipher_suite`` (numbers as in the standards).
    """
    cipher_name = (ssl_object.cipher() or ("",))[0]
    chain = _client_chain(ssl_object)
    return {
        "server_cert": getattr(ssl_object.context, "server_cert", None),
        "client_cert_chain": chain,
        "client_cert_name": _subject(ssl_object) if chain else None,
        "client_cert_error": None,
        "tls_version": _TLS_VERSIONS.get(ssl_object.version() or ""),
        "cipher_suite": _suite_numbers().get(cipher_name),
    }


def distinguished_name(subject: Any) -> str:
    """Write a subject as RFC 4514 says: last part first, special characters escaped.

    Args:
        subject: as ``getpeercert()["subject"]`` gives it: a tuple of parts, each a tuple of
            (name, value) pairs. Names without a short form stay as OpenSSL writes them, and values of
            unknown types stay text.
    """
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(name, name)}={_escape(value)}" for name, value in part)
        for part in reversed(subject)
    )


def _client_chain(ssl_object: ssl.SSLObject) -> list[str]:
    leaf = ssl_object.getpeercert(binary_form=True)
    if not leaf:
        # Python 3.13.0's get_unverified_chain fails on a peer without a certificate.
        return []
    get_chain = getattr(ssl_object, "get_unverified_chain", None)
    chain = [leaf] if get_chain is None else get_chain()
    return [ssl.DER_cert_to_PEM_cert(der) for der in chain]


def _subject(ssl_object: ssl.SSLObject) -> str:
    return distinguished_name((ssl_object.getpeercert() or {}).get("subject", ()))


def _escape(value: str) -> str:
    """RFC 4514 §2.4."""
    escaped = "".join("\\" + char if char in _ESCAPED else char for char in value).replace("\0", "\\00")
    if escaped.startswith((" ", "#")):
        escaped = "\\" + escaped
    if escaped.endswith(" ") and len(value) > 1:
        escaped = escaped[:-1] + "\\ "
    return escaped


@cache
def _suite_numbers() -> dict[str, int]:
    """OpenSSL's name of every cipher suite it knows -> the standard's 16-bit number."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return {suite["name"]: suite["id"] & 0xFFFF for suite in context.get_ciphers()}
