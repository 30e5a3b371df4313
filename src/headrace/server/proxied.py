"""A connection that begins with a PROXY protocol header; behind it, it is an ``HTTPConnection``."""

from __future__ import annotations

import asyncio
from typing import cast

from headrace.errors import RemoteProtocolError
from headrace.middleware.trusted_proxies import TrustedProxies
from headrace.net import proxy_protocol
from headrace.net.sockets import local_address, peer_address
from headrace.server.connection import HTTPConnection
from headrace.server.runtime import Runtime


class ProxiedConnection(asyncio.Protocol):
    """Reads the header, then hands the transport over to the connection it makes.

    The header comes from a trusted proxy or not at all; everything else is aborted, as the specification of
    the PROXY protocol demands.
    """

    def __init__(self, runtime: Runtime, trusted: TrustedProxies) -> None:
        self._runtime = runtime
        self._trusted = trusted
        self._buffer = b""
        self._transport = cast("asyncio.Transport", None)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check the peer and start its clock."""
        self._transport = cast("asyncio.Transport", transport)
        self._runtime.connections.add(self)
        if not self._trusted.trusts_peer(peer_address(self._transport), local_address(self._transport)):
            self._refuse("not a trusted proxy (--forwarded-allow-ips)")
            return
        limit = self._runtime.connection_limit
        if limit is not None and not limit.admit(self):
            self._transport.pause_reading()
            return
        self._start_clock()

    def on_admitted(self) -> None:
        """It had to wait for ``--limit-connections``, and now is served."""
        self._transport.resume_reading()
        self._start_clock()

    def _start_clock(self) -> None:
        timeout_s = self._runtime.timeouts.header_s
        if timeout_s:
            self._timer = self._runtime.loop.call_later(timeout_s, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Go on with the header, and hand over behind it."""
        self._buffer += data
        try:
            header = proxy_protocol.parse(self._buffer)
        except RemoteProtocolError as error:
            self._refuse(str(error))
            return
        if header is None:
            return
        self._leave()
        connection = HTTPConnection(self._runtime, header.client, header.server)
        if self._runtime.connection_limit is not None:
            self._runtime.connection_limit.replace(self, connection)
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        rest = self._buffer[header.consumed :]
        if rest:
            connection.data_received(rest)

    def connection_lost(self, error: Exception | None) -> None:
        """It went before its header was whole."""
        self._leave()
        if self._runtime.connection_limit is not None:
            self._runtime.connection_limit.release(self)
        self._runtime.on_connection_lost()

    def on_sweep(self, now: float) -> None:
        """Its clock is its own."""

    def drain(self) -> None:
        """There is no exchange to wait for, but where another process serves on, it may still come."""
        if not self._runtime.is_replaced:
            self.abort()

    def abort(self) -> None:
        """Cut it."""
        self._transport.abort()

    def _leave(self) -> None:
        self._runtime.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def _refuse(self, reason: str) -> None:
        self._runtime.bad_requests.add(peer_address(self._transport), reason, self._buffer)
        self._transport.abort()
