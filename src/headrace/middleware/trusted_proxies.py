"""Which peers may speak for a client: addresses, networks, ``unix``, ``*``."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from headrace.types import Address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_VERDICTS = 4096
_MAX_HOST_LENGTH = 253
"""A DNS name's; a longer text is not remembered."""


class TrustedProxies:
    """The list of ``--forwarded-allow-ips``, with what it says of each host remembered.

    Args:
        trusted: addresses, networks (CIDR), the literal ``unix`` for connections over Unix sockets, and any
            other text, which stands for itself; comma-separated or one by one. ``*`` alone trusts everybody.

    Attributes:
        everybody: the list is ``*``.
        unix: connections over Unix sockets are trusted.
        verdicts: host -> trusted, for a caller that cannot afford the call; ask ``in`` when it has no answer.
        odd: entries that are no address or network and stand for themselves.
    """

    __slots__ = ("_literals", "_networks", "everybody", "odd", "unix", "verdicts")

    def __init__(self, trusted: str | Sequence[str]) -> None:
        entries = trusted.split(",") if isinstance(trusted, str) else list(trusted)
        entries = [entry.strip() for entry in entries if entry.strip()]
        self.everybody = entries == ["*"]
        self.unix = self.everybody or "unix" in entries
        self.verdicts: dict[str, bool] = {}
        self._networks: list[Network] = []
        self._literals: set[str] = set()
        for entry in entries:
            try:
                # Strict: 10.0.0.1/8 is a slip of the pen, and taking it as 10.0.0.0/8 would widen trust.
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                self._literals.add(entry)
        self.odd = sorted(self._literals - {"unix"} - ({"*"} if self.everybody else set()))

    def __contains__(self, host: str) -> bool:
        verdict = self.verdicts.get(host)
        if verdict is not None:
            return verdict
        verdict = self.everybody or self._is_listed(host)
        if len(host) <= _MAX_HOST_LENGTH:
            if len(self.verdicts) >= _MAX_VERDICTS:
                self.verdicts.clear()
            self.verdicts[host] = verdict
        return verdict

    def trusts_peer(self, client: Address | None, server: Address | None) -> bool:
        """Whether the other end of a connection is trusted.

        Args:
            client: ``scope["client"]``; None over a Unix socket.
            server: ``scope["server"]``; a port number in it tells that this is no Unix socket.
        """
        if client:
            return client[0] in self
        # uvicorn's "*" trusts a client it does not know.
        return self.everybody or (self.unix and (server is None or server[1] is None))

    def _is_listed(self, host: str) -> bool:
        if host in self._literals:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        # A dual-stack listener shows 10.0.0.1 as ::ffff:10.0.0.1.
        mapped = getattr(address, "ipv4_mapped", None)
        return any(address in network or (mapped and mapped in network) for network in self._networks)


def warnings(trusted: str | Sequence[str]) -> list[str]:
    """Sentences on what is unsafe or without effect in a list of trusted proxies; log each once at start."""
    proxies = TrustedProxies(trusted)
    found = []
    if proxies.everybody:
        found.append(
            "Trusting '*' takes the leftmost address of X-Forwarded-For, which any client can forge; "
            "name the networks of your proxies instead."
        )
    found += [
        f"The trusted proxy {entry[:80]!r} is no address and no network, so it matches only this very text."
        for entry in proxies.odd
    ]
    return found
