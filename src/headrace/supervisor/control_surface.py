"""Serves the control surface in the loop of whoever is controlled."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from headrace.admin.application import AdminApplication
from headrace.admin.controls import Controls
from headrace.admin.listeners import AdminListeners
from headrace.server.plain_server import PlainServer


@contextlib.asynccontextmanager
async def control_surface(
    controls: Controls, listeners: AdminListeners, token: str | None
) -> AsyncIterator[None]:
    """Answer on the control surface's sockets while the block lasts; closes them behind it.

    Args:
        controls: what is controlled.
        listeners: the Unix socket, where no token is asked, and those on TCP.
        token: asked for on TCP; None for none.
    """
    servers = [
        PlainServer(AdminApplication(controls, needed), sockets)
        for sockets, needed in ((listeners.unix, None), (listeners.tcp, token))
        if sockets
    ]
    try:
        for server in servers:
            await server.start()
        yield
    finally:
        for server in servers:
            await server.stop()
        listeners.close()
