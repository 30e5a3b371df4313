"""Accepts connections one at a time, and leaves them to other workers when those have fewer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from headrace.server.load_board import BoardSlot

HANDSHAKE_TIMEOUT_S = 30.0
MAX_TAKEN = int(os.environ.get("MAX_TAKEN", "8"))
REPOLLS = int(os.environ.get("REPOLLS", "0"))
WAIT_S = float(os.environ.get("WAIT_S", "0.001"))
PATIENCE = int(os.environ.get("PATIENCE", "20"))
MAX_WAITS = 4 * PATIENCE
USE_TASK = os.environ.get("USE_TASK")
RETRY_S = 1.0

_logger = logging.getLogger("uvicorn.error")


class Acceptor:
    def __init__(self, sockets: list[socket.socket], factory: Any, context: ssl.SSLContext | None, count: Callable[[], int], slot: BoardSlot) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = []
        for sock in sockets:
            d = socket.socket(fileno=os.dup(sock.fileno()))
            d.setblocking(False)
            self._sockets.append(d)
        self._factory = factory
        self._tls: dict[str, Any] = {}
        if context is not None:
            self._tls = {"ssl": context, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S}
        self._count = count
        self._slot = slot
        self._attaching: set[Attachment] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._deferred = 0
        self._waits = 0
        self.stats = [0] * 6

    def start(self) -> None:
        self._slot.set(self._open())
        self._watch()

    def _watch(self) -> None:
        for sock in self._sockets:
            self._loop.add_reader(sock, self._on_ready, sock)

    def _unwatch(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    def _open(self) -> int:
        return self._count() + len(self._attaching)

    def _on_ready(self, sock: socket.socket, forced: bool = False) -> None:
        slot = self._slot
        self.stats[0] += 1
        for taken in range(MAX_TAKEN):
            count = self._open()
            slot.set(count)
            if not forced and slot.is_ahead(count):
                if not taken:
                    self._step_back()
                return
            forced = False
            self._deferred = self._waits = 0
            if not self._accept(sock):
                self.stats[4] += taken == 0
                return

    def _step_back(self) -> None:
        self._deferred += 1
        if self._deferred <= REPOLLS:
            self.stats[1] += 1
            return
        self.stats[2] += 1
        if not self._waits:
            self._slot.watch()
        self._waits += 1
        self._unwatch()
        self._timer = self._loop.call_later(WAIT_S, self._on_waited)

    def _on_waited(self) -> None:
        self._timer = None
        if self._waits % PATIENCE == 0:
            self._slot.judge()
            self._slot.watch()
        self._watch()
        forced = self._waits >= MAX_WAITS
        self.stats[5] += forced
        for sock in self._sockets:
            self._on_ready(sock, forced)
            if self._timer is not None: break

    def _accept(self, sock: socket.socket) -> bool:
        try:
            conn, _ = sock.accept()
        except BlockingIOError:
            return False
        self.stats[3] += 1
        conn.setblocking(False)
        co = self._loop.connect_accepted_socket(self._factory, conn, **self._tls)
        if USE_TASK:
            t: Any = self._loop.create_task(co)
            self._attaching.add(t)
            t.add_done_callback(self._attaching.discard)
            return True
        a = Attachment(self._attaching, co)
        a.advance()
        return True


class Attachment:
    __slots__ = ("_attaching", "_coroutine")

    def __init__(self, attaching: set[Attachment], coroutine: Coroutine[Any, Any, Any]) -> None:
        self._attaching = attaching
        self._coroutine = coroutine
        attaching.add(self)

    def advance(self, _: Any = None) -> None:
        try:
            waited = self._coroutine.send(None)
        except StopIteration:
            self._attaching.discard(self)
        except Exception as error:
            self._attaching.discard(self)
            _logger.debug("%s", error)
        else:
            waited.add_done_callback(self.advance)
