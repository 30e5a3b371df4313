"""HOST:PORT, as ``--bind`` and ``--admin`` take it."""

from __future__ import annotations

import ipaddress
import re

from headrace.errors import ConfigError

_FORM = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:/\s]*)):(?P<port>[0-9]{1,5})", re.ASCII)


def parse_host_port(text: str, forms: str) -> tuple[str, int]:
    """Read a host and a port.

    Args:
        text: HOST:PORT, :PORT or [v6]:PORT.
        forms: what may be written, for the message.

    Returns:
        The host without brackets, empty for all addresses, and the port, 0 to 65535.

    Raises:
        ConfigError: it is none of these.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text[:80]!r} is no address to listen on; {forms}.")
    port = int(match["port"])
    if port > 65535:
        raise ConfigError(f"Port {port} in {text[:80]!r} is above 65535.")
    if match["v6"] is None:
        return match["host"], port
    try:
        ipaddress.IPv6Address(match["v6"])
    except ValueError:
        raise ConfigError(f"{text[:80]!r} holds no IPv6 address in its brackets; {forms}.") from None
    return match["v6"], port


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listener on the host; of names only ``localhost`` is known to."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
