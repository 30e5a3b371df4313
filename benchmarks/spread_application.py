"""What the workers of ``benchmarks.spread`` serve: the number of the process that answers."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.applications import TEXT, Message, Receive, Send


async def which(scope: Message, receive: Receive, send: Send) -> None:
    """The process number, in one message; run with ``--lifespan off``."""
    body = b"%d" % os.getpid()
    headers: list[Any] = [TEXT, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
