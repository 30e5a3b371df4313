"""Other ASGI servers in a thread of this process, for layers that must run under any of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import uvicorn
from hypercorn.asyncio import serve
from hypercorn.config import Config

from live import PATIENCE_S, Client, Response, eventually


class PeerServer:
    """One application on a free port of 127.0.0.1; use it as a context manager.

    Args:
        name: uvicorn or hypercorn.
        application: what it serves, lifespan included.
    """

    def __init__(self, name: str, application: Any) -> None:
        self._application = application
        self._clients: list[Client] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._serve = {"uvicorn": self._serve_uvicorn, "hypercorn": self._serve_hypercorn}[name]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._is_ready = False

    def __enter__(self) -> PeerServer:
        self._thread.start()
        eventually(lambda: self._is_ready or not self._thread.is_alive(), "the start")
        assert self._is_ready
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self._stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server does not stop"
        self._socket.close()

    def connect(self) -> Client:
        """A new connection."""
        client = Client(socket.create_connection(self._socket.getsockname(), PATIENCE_S))
        self._clients.append(client)
        return client

    def get(self, target: str = "/") -> Response:
        """One GET on a connection of its own."""
        return self.connect().request(target)

    async def _serve_uvicorn(self) -> None:
        config = uvicorn.Config(
            self._application, lifespan="on", http="h11", ws="wsproto", loop="asyncio", log_config=None
        )
        server = uvicorn.Server(config)
        self._stop = lambda: setattr(server, "should_exit", True)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        while not server.started and not serving.done():
            await asyncio.sleep(0)
        self._is_ready = server.started
        await serving

    async def _serve_hypercorn(self) -> None:
        config = Config()
        # It closes the descriptor.
        config.bind = [f"fd://{self._socket.dup().detach()}"]
        config.errorlog = config.accesslog = None
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        self._is_ready = True
        await serve(self._application, config, shutdown_trigger=stopping.wait, mode="asgi")
