"""The syntax of forwarding fields: RFC 7239 ``Forwarded`` and the nodes of ``X-Forwarded-For``.

Nothing here raises: what does not match is None, and the caller ignores the field.
"""

from __future__ import annotations

import ipaddress
import re

_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::(?:([0-9]{1,5})|_[A-Za-z0-9._-]+))?", re.ASCII)
_BARE_V6 = re.compile(r"[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*", re.ASCII)
_BLANK = re.compile(r"[ \t]*")
# RFC 7239 §4, with ":", "[" and "]" allowed outside quotes as well: many proxies forget to quote.
_PAIR = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r"(?:([!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]+)"
    r'|"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)")'
)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


def parse_node(text: str) -> tuple[str, int] | None:
    """Read the address of a hop.

    Args:
        text: IPv4, IPv6 bare or in brackets, with or without a port; "unknown" and obfuscated names
            (RFC 7239 §6.2, §6.3) are no addresses.

    Returns:
        (address as written, port), port 0 when there is none; None when it is no address.
    """
    match = _NODE.fullmatch(text)
    if match is not None:
        host = match[1] or match[2]
        port = int(match[3] or 0)
    elif _BARE_V6.fullmatch(text) is not None:
        host, port = text, 0
    else:
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    # Brackets are IPv6's alone.
    if port > 65535 or (match is not None and match[1] is not None and address.version == 4):
        return None
    return host, port


def parse_forwarded(text: str) -> list[dict[str, str]] | None:
    """Read a whole ``Forwarded`` field, RFC 7239 §4.

    Args:
        text: the value; several fields joined by ", ".

    Returns:
        One dict for each element, in wire order: parameter name in lower case -> value, unquoted. Empty
        elements are left out. None when it is malformed or an element names a parameter twice.
    """
    elements: list[dict[str, str]] = []
    element: dict[str, str] = {}
    position = _after_blanks(text, 0)
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is not None:
            name = pair[1].lower()
            if name in element:
                return None
            element[name] = _QUOTED_PAIR.sub(r"\1", pair[3]) if pair[2] is None else pair[2]
            position = _after_blanks(text, pair.end())
        separator = text[position : position + 1]
        if separator == ",":
            elements.append(element)
            element = {}
        elif separator not in (";", ""):
            return None
        position = _after_blanks(text, position + 1)
    elements.append(element)
    return [element for element in elements if element]


def _after_blanks(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match is not None else position
