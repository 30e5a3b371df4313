"""The opening handshake, server side: RFC 6455 §4.2; over HTTP/2, RFC 8441 §5."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha1
from typing import NamedTuple

from headrace.errors import RemoteProtocolError
from headrace.protocol.events import RequestReceived
from headrace.protocol.fields import TOKEN
from headrace.protocol.websocket.deflate import DeflateAgreement

UPGRADE_REQUIRED_FIELDS = [(b"sec-websocket-version", b"13")]
"""What a response 426 must carry, RFC 6455 §4.4."""

KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
"""16 bytes in base64, RFC 6455 §4.1."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 §1.3."""


class Handshake(NamedTuple):
    """What a client asks for."""

    accept: bytes
    """Value of ``Sec-WebSocket-Accept``; empty over HTTP/2."""
    subprotocols: list[str]
    """Offered, in the client's order of preference; tokens, none twice."""
    extensions: bytes
    """Offered, the fields joined by a comma; empty if there are none."""


def is_websocket(event: RequestReceived) -> bool:
    """Whether a request asks for WebSocket; says nothing of its validity.

    ``Upgrade`` is a list and may offer other protocols too, RFC 9110 §7.8; ``:protocol`` is one of them,
    RFC 8441 §4.
    """
    upgrade = event.upgrade
    if not upgrade or b"websocket" not in upgrade.lower():
        return False
    if event.http_version == "2":
        return upgrade.lower() == b"websocket"
    return b"websocket" in [token.strip(b" \t") for token in upgrade.lower().split(b",")]


def read_handshake(event: RequestReceived) -> Handshake:
    """Check a client's handshake.

    Raises:
        RemoteProtocolError: with the HTTP status that answers it: 400, or 426, whose response must carry
            ``UPGRADE_REQUIRED_FIELDS``.
    """
    versions: list[bytes] = []
    keys: list[bytes] = []
    protocols: list[bytes] = []
    extensions: list[bytes] = []
    wanted = {
        b"sec-websocket-version": versions,
        b"sec-websocket-key": keys,
        b"sec-websocket-protocol": protocols,
        b"sec-websocket-extensions": extensions,
    }
    for name, value in event.headers:
        if name in wanted:
            wanted[name].append(value)
    if not is_websocket(event):
        raise RemoteProtocolError(f"Upgrade does not name websocket: {event.upgrade!r:.80}")
    accept = b""
    if event.http_version == "2":
        # RFC 8441 §5: no key and no Upgrade; the stream's :protocol stands for them.
        if event.method != "CONNECT":
            raise RemoteProtocolError(f"WebSocket over HTTP/2 with {event.method!r:.80}")
        if versions:
            _check_version(versions)
    else:
        if event.method != "GET" or event.http_version != "1.1":
            raise RemoteProtocolError(f"WebSocket with {event.method!r:.80} and HTTP/{event.http_version}")
        _check_version(versions)
        accept = _accept(keys)
    return Handshake(accept, _read_subprotocols(protocols), b", ".join(extensions))


def _check_version(versions: list[bytes]) -> None:
    """RFC 6455 §4.2.1, item 6; §4.4."""
    if len(versions) > 1:
        raise RemoteProtocolError("Sec-WebSocket-Version more than once")
    if versions != [b"13"]:
        raise RemoteProtocolError(f"WebSocket version {b''.join(versions)!r:.80}, not 13", 426)


def _accept(keys: list[bytes]) -> bytes:
    """RFC 6455 §4.2.2, item 5.4."""
    if len(keys) != 1 or not KEY.fullmatch(keys[0]):
        raise RemoteProtocolError(f"Invalid Sec-WebSocket-Key: {b', '.join(keys)!r:.80}")
    return b64encode(sha1(keys[0] + _GUID, usedforsecurity=False).digest())


def _read_subprotocols(values: list[bytes]) -> list[str]:
    """RFC 6455 §4.1, item 10: tokens, "MUST all be unique strings"; several fields are one list."""
    subprotocols: list[str] = []
    for element in b",".join(values).split(b",") if values else ():
        token = element.strip(b" \t")
        if not token:
            continue  # RFC 9110 §5.6.1.2: empty elements do not count
        if not TOKEN.fullmatch(token):
            raise RemoteProtocolError(f"Invalid subprotocol: {token!r:.80}")
        subprotocols.append(token.decode("ascii"))
    if len(set(subprotocols)) != len(subprotocols):
        raise RemoteProtocolError(f"A subprotocol twice: {', '.join(subprotocols)!r:.80}")
    return subprotocols


def accept_fields(
    handshake: Handshake, agreement: DeflateAgreement | None, subprotocol: str | None
) -> list[tuple[bytes, bytes]]:
    """The fields of the accepting response that are WebSocket's, RFC 6455 §4.2.2.

    Args:
        handshake: of the request.
        agreement: on compression, or None.
        subprotocol: one of the handshake's, or None.

    Returns:
        (name, value) byte pairs for the response 101, or over HTTP/2 for 200.

    Raises:
        ValueError: a subprotocol that is not ASCII.
    """
    fields: list[tuple[bytes, bytes]] = []
    if handshake.accept:
        fields += [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", handshake.accept),
        ]
    if subprotocol is not None:
        fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    if agreement is not None:
        fields.append((b"sec-websocket-extensions", agreement.response))
    return fields
