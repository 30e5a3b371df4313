"""The worker's end of its lifeline: heard by a thread, also while the event loop is blocked."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

from headrace.supervisor.control import DumpStacks, FrameDecoder, Stacks, encode
from headrace.supervisor.stacks import describe_stacks

GRACE_S = 1.0
"""What a worker has to end in when its supervisor is gone: an orphan would hold the port."""

_PR_SET_PDEATHSIG = 1


class Lifeline:
    """Answers when the supervisor asks where the worker is, and ends the worker when the supervisor is gone.

    Args:
        sock: the worker's end.
        on_orphaned: called in the lifeline's thread; the process ends ``GRACE_S`` later, whatever it does.

    Attributes:
        loop: whose tasks are described, once there is one.
    """

    def __init__(self, sock: socket.socket, on_orphaned: Callable[[], None]) -> None:
        self._sock = sock
        self._on_orphaned = on_orphaned
        self.loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._listen, name="headrace-lifeline", daemon=True)

    def start(self) -> None:
        """Listen; called by the thread that runs the event loop."""
        self._thread.start()

    def _listen(self) -> None:
        self._sock.setblocking(True)
        decoder = FrameDecoder()
        with contextlib.suppress(OSError):
            while data := self._sock.recv(4096):
                for kind, _ in decoder.feed(data):
                    if kind == DumpStacks.kind:
                        self._sock.sendall(encode(Stacks(*describe_stacks(self._loop_thread, self.loop))))
        with contextlib.suppress(Exception):
            self._on_orphaned()
        threading.Event().wait(GRACE_S)
        os._exit(1)


def end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the process that started this one ends; Linux only.

    It is the net below the lifeline, and also holds before that is listened to.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        # It was gone before the kernel knew.
        os._exit(1)
