"""Clients that keep asking, in a thread with a loop of its own, and note everything that goes wrong."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

from live import PATIENCE_S


class Load:
    """``count`` keep-alive clients, each with one request under way at any time.

    Nothing is tried again: a connection that ends without an answer, is refused or is answered with anything
    but 200 is a failure.

    Attributes:
        failures: what went wrong, one line each.
        answers: how many came, by body.
        requests: answered so far.
    """

    def __init__(self, port: int, count: int, path: str = "/", pause_s: float = 0.0) -> None:
        self._port = port
        self._count = count
        self._request = f"GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n".encode()
        self._pause_s = pause_s
        self._is_stopping = False
        self.failures: list[str] = []
        self.answers: Counter[str] = Counter()
        self.requests = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopping = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "a client hangs"

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask_for_ever() for _ in range(self._count)))

    async def _ask_for_ever(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._is_stopping:
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", self._port)
                if not await asyncio.wait_for(self._ask(*streams), PATIENCE_S):
                    streams[1].close()
                    streams = None
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self.failures.append(repr(error))
                if streams is not None:
                    streams[1].close()
                streams = None
            if self._pause_s:
                await asyncio.sleep(self._pause_s)
        if streams is not None:
            streams[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One exchange; gives whether the connection may be used again."""
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(size)
        if not head.startswith("http/1.1 200 "):
            raise ValueError(head.partition("\r\n")[0])
        self.answers[body.decode()] += 1
        self.requests += 1
        return "connection: close" not in head
