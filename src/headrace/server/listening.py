"""The listeners of a server: bound, accepting, paused, closed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

from headrace.config import ListenOptions
from headrace.net import sockets
from headrace.net.addresses import addresses_of
from headrace.server.acceptor import Acceptor
from headrace.server.load_board import BoardSlot

Factory = Callable[[], asyncio.Protocol]

HANDSHAKE_TIMEOUT_S = 30.0

SETTLE_PASSES = 4
"""Passes of the loop from asyncio's accepting a connection to the end of the task that does it."""


class Listeners:
    """Listening sockets, and what accepts from them: asyncio's servers, or an ``Acceptor`` beside others.

    Both work on duplicates of the descriptors, so that accepting can stop and start again while connections
    queue in the kernel.

    Args:
        options: what to bind.
        scheme: "http" or "https", for the announcements.
        given: listening sockets in place of the configured ones; they stay the caller's.
        slot: the place on the load board of a worker whose connections are balanced with those of others.

    Attributes:
        announcements: where each listens, as the start-up line says it.
        sockets: the listening sockets.
        servers: asyncio's servers, empty while accepting is paused and where connections are balanced.

    Raises:
        ListenError: a socket cannot be bound.
    """

    def __init__(
        self,
        options: ListenOptions,
        scheme: str,
        given: list[socket.socket] | None = None,
        slot: BoardSlot | None = None,
    ) -> None:
        self._backlog = options.backlog
        self._factory: Factory | None = None
        self._ssl: ssl.SSLContext | None = None
        self._are_ours = given is None
        self._is_changing = False
        self._slot = slot
        self._acceptor: Acceptor | None = None
        self.sockets: list[socket.socket] = list(given or ())
        self.servers: list[asyncio.AbstractServer] = []
        self.announcements: list[str] = []
        if given is not None:
            self.announcements = [f"{scheme}://{sockets.describe(sock)}" for sock in given]
            return
        mode = int(options.uds_mode, 8)
        try:
            for address in addresses_of(options):
                bound = sockets.bind(address, backlog=options.backlog, unix_mode=mode)
                self.sockets += bound
                self.announcements += [sockets.announce(address, sock, scheme) for sock in bound]
        except BaseException:
            sockets.close(self.sockets)
            raise

    async def accept(
        self, factory: Factory, context: ssl.SSLContext | None, count: Callable[[], int] | None = None
    ) -> None:
        """Start accepting.

        Args:
            factory: makes the protocol of each connection.
            context: for TLS.
            count: how many connections are open; needed where they are balanced.
        """
        self._factory = factory
        self._ssl = context
        if self._slot is not None:
            assert count is not None
            self._acceptor = Acceptor(self.sockets, factory, self._tls_options(), count, self._slot)
        await self._start()

    def pause(self) -> None:
        """Stop accepting; the kernel goes on queueing."""
        if self._acceptor is not None:
            self._acceptor.pause()
        for server in self.servers:
            _retire(server)
        self.servers = []

    async def resume(self) -> None:
        """Accept again, unless closed in the meantime."""
        if self._factory is not None and not self.servers and not self._is_changing:
            self._is_changing = True
            try:
                await self._start()
            finally:
                self._is_changing = False

    def close(self) -> None:
        """Stop listening; Unix socket paths of ours go too."""
        self.pause()
        self._factory = None
        if self._acceptor is not None:
            self._acceptor.close()
        if self._are_ours:
            sockets.close(self.sockets)

    async def settle(self) -> None:
        """Wait, behind ``close``, until accepted connections have their protocol.

        Late TLS handshakes are cut where connections are balanced, and else with the loop.
        """
        if self._acceptor is not None:
            await self._acceptor.settle()
            return
        for _ in range(SETTLE_PASSES + 1):
            await asyncio.sleep(0)

    def _tls_options(self) -> dict[str, Any]:
        if self._ssl is None:
            return {}
        return {"ssl": self._ssl, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S}

    async def _start(self) -> None:
        if self._acceptor is not None:
            self._acceptor.start()
            return
        loop = asyncio.get_running_loop()
        servers: list[asyncio.AbstractServer] = []
        try:
            for sock in self.sockets:
                duplicate = socket.socket(fileno=os.dup(sock.fileno()))
                duplicate.setblocking(False)
                servers.append(await self._serve(loop, sock, duplicate))
        except BaseException:
            for server in servers:
                server.close()
            raise
        # All or none: a pause in between finds nothing to stop, and whoever paused looks again.
        self.servers = servers

    async def _serve(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, duplicate: socket.socket
    ) -> asyncio.AbstractServer:
        assert self._factory is not None
        create: Any = loop.create_server
        options: dict[str, Any] = {"sock": duplicate, "backlog": self._backlog, **self._tls_options()}
        if hasattr(socket, "AF_UNIX") and sock.family == socket.AF_UNIX:
            create = loop.create_unix_server
            if sys.version_info >= (3, 13):
                # The path outlives a pause; ``close`` removes it.
                options["cleanup_socket"] = False
        server: asyncio.AbstractServer = await create(self._factory, **options)
        return server


def _retire(server: asyncio.AbstractServer) -> None:
    """Stop accepting, and close ``server`` when all that it has accepted have their protocol.

    A closed server of asyncio gives none to what it accepted in the same pass of the loop, and leaves it open
    until the garbage collector comes: the client waits. uvloop's has no such gap.
    """
    if not isinstance(server, asyncio.Server):
        server.close()
        return
    loop = server.get_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):
        for sock in server.sockets:
            loop.remove_reader(sock)

    def close_after(passes: int) -> None:
        if passes:
            loop.call_soon(close_after, passes - 1)
            return
        server.close()

    close_after(SETTLE_PASSES)
