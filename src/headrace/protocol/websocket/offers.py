"""The negotiation of permessage-deflate, RFC 7692 §5 and §7.1; syntax of RFC 6455 §9.1."""

from __future__ import annotations

import re

from headrace.protocol.websocket.deflate import DeflateAgreement, DeflateOptions

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = rb"[ \t]*;[ \t]*(%b)(?:[ \t]*=[ \t]*(?:(%b)|\"(%b)\"))?" % (_TOKEN, _TOKEN, _TOKEN)
"""A quoted value must be a token inside its quotes, RFC 6455 §9.1."""

ELEMENT = re.compile(rb'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
"""An element of the list; a comma inside quotes does not end it."""
NAME = re.compile(rb"[ \t]*(%b)[ \t]*" % _TOKEN)
PARAMETER = re.compile(_PARAMETER)
OFFER = re.compile(rb"[ \t]*%b(?:%b)*[ \t]*" % (_TOKEN, _PARAMETER))
WINDOW_BITS = re.compile(rb"[89]|1[0-5]")
"""RFC 7692 §7.1.2: "a decimal integer value without leading zeroes between 8 to 15"."""


def negotiate_deflate(offers: bytes, options: DeflateOptions) -> DeflateAgreement | None:
    """Accept the first offer of permessage-deflate that can be met.

    An offer that is malformed, or has parameters that are unknown, doubled or out of range, is declined,
    and the next is looked at, RFC 7692 §5 and §7.

    Args:
        offers: the value of ``Sec-WebSocket-Extensions``, several fields joined by a comma; may be empty.
        options: the server's own configuration.

    Returns:
        What this one connection agreed; None when there is no compression.
    """
    for element in ELEMENT.findall(offers):
        name = NAME.match(element)
        if name is None or name[1] != b"permessage-deflate":
            continue
        parameters = _read_parameters(element)
        if parameters is None:
            continue
        agreement = _accept(parameters, options)
        if agreement is not None:
            return agreement
    return None


def _read_parameters(element: bytes) -> dict[bytes, bytes | None] | None:
    """Parameters of an offer by name, None for one without value; None for a malformed offer."""
    if not OFFER.fullmatch(element):
        return None
    parameters: dict[bytes, bytes | None] = {}
    for match in PARAMETER.finditer(element):
        if match[1] in parameters:
            return None
        parameters[match[1]] = match[2] or match[3]
    return parameters


def _accept(parameters: dict[bytes, bytes | None], options: DeflateOptions) -> DeflateAgreement | None:
    server_context_takeover = options.server_context_takeover
    client_context_takeover = options.client_context_takeover
    server_bits = options.server_max_window_bits
    client_bits = 15
    says_server_bits = says_client_bits = False
    for name, value in parameters.items():
        if name == b"server_no_context_takeover" and value is None:
            server_context_takeover = False
        elif name == b"client_no_context_takeover" and value is None:
            client_context_takeover = False
        elif name == b"server_max_window_bits" and value is not None and WINDOW_BITS.fullmatch(value):
            server_bits = min(server_bits, int(value))
            says_server_bits = True
        elif name == b"client_max_window_bits" and (value is None or WINDOW_BITS.fullmatch(value)):
            client_bits = min(options.client_max_window_bits, int(value or b"15"))
            says_client_bits = True
        else:
            return None
    if server_bits < 9:
        return None  # zlib cannot write raw deflate with a window of 256 bytes
    response = b"permessage-deflate"
    if not server_context_takeover:
        response += b"; server_no_context_takeover"
    if not client_context_takeover:
        response += b"; client_no_context_takeover"
    if says_server_bits:
        response += b"; server_max_window_bits=%d" % server_bits
    if says_client_bits:
        # RFC 7692 §7.1.2.2: only to a client that has offered it.
        response += b"; client_max_window_bits=%d" % client_bits
    return DeflateAgreement(
        options,
        server_context_takeover=server_context_takeover,
        client_context_takeover=client_context_takeover,
        server_bits=server_bits,
        client_bits=client_bits,
        response=response,
    )
