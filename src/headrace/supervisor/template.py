"""The process of ``--preload``: imports the application once, and forks workers from there.

In: lines of JSON from the supervisor, and beside them, as descriptors, the pipes of a new worker and its
store of metrics.
Out: lines of JSON: how the import went, the numbers of workers, how they ended.
It lives as long as one of its workers, because only a parent learns how a child ended.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import selectors
import signal
import socket
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from headrace.asgi.importer import find_application, load_application
from headrace.config import Config, load_env_file
from headrace.errors import ApplicationImportError, HeadraceError
from headrace.net.sockets import describe
from headrace.server.entry import configure_logging
from headrace.supervisor.blueprint import unpack
from headrace.supervisor.lifeline import end_with_parent
from headrace.supervisor.process_title import set_title
from headrace.supervisor.worker import STARTUP_FAILURE, become_worker, ignore_signals
from headrace.telemetry.metrics.bridge import install_bridge
from headrace.telemetry.metrics.registry import Registry, process_registry, use_registry

MAX_FDS = 3
"""Descriptors that may come with each request for a worker: its control pipe, its lifeline, its metrics."""

_logger = logging.getLogger("uvicorn.error")


class Forked(Exception):
    """This process is a worker now; raised so that nothing of the template is left on its stack.

    Args:
        fds: of the control pipe, the lifeline and, with metrics, its store of them.
    """

    def __init__(self, fds: list[int]) -> None:
        super().__init__()
        self.fds = fds


class Template:
    """The supervisor's requests, and the children.

    Args:
        sock: to the supervisor, blocking.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""
        self._fds: list[int] = []
        self._children: set[int] = set()
        self._is_retired = False
        self._is_cut_off = False
        self._woken, self._wake = socket.socketpair()

    def read_blueprint(self) -> str | None:
        """What the first line is; None when the supervisor ended in this moment."""
        while not self._is_cut_off:
            for message in self._receive():
                blueprint: str = message["blueprint"]
                return blueprint
        return None

    def tell(self, **message: Any) -> None:
        """Send a line; nobody may be there any more."""
        with contextlib.suppress(OSError):
            self._sock.sendall(json.dumps(message).encode() + b"\n")

    def serve(self) -> None:
        """Do what is asked, until nothing more will be and the last child has ended.

        Raises:
            Forked: in each child.
        """
        for end in (self._woken, self._wake):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ, self._reap)
            selector.register(self._sock, selectors.EVENT_READ, self._obey)
            while self._children or not (self._is_retired or self._is_cut_off):
                for key, _ in selector.select():
                    key.data()
                if self._is_cut_off and self._sock in selector.get_map():
                    # At its end a socket is readable for ever.
                    selector.unregister(self._sock)

    def leave(self) -> None:
        """In a child: let go of what is the template's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for sock in (self._sock, self._woken, self._wake):
            sock.close()

    def _obey(self) -> None:
        for message in self._receive():
            if "fork" in message:
                self._fork(message["fork"])
            elif "signal" in message:
                pid, number = message["signal"]
                # Not reaped yet, so the number is still the child's.
                if pid in self._children:
                    with contextlib.suppress(OSError):
                        os.kill(pid, number)
            elif "retire" in message:
                self._is_retired = True

    def _receive(self) -> Iterator[dict[str, Any]]:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 65_536, 4 * MAX_FDS)
        except OSError:
            data, fds = b"", []
        self._fds += fds
        self._is_cut_off = not data
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return map(json.loads, lines)

    def _fork(self, count: int) -> None:
        fds, self._fds = self._fds[:count], self._fds[count:]
        flush()
        try:
            pid = os.fork()
        except OSError as error:
            self.tell(refused=f"No process can be forked for a worker: {error}.")
        else:
            if pid == 0:
                raise Forked(fds)
            self._children.add(pid)
            self.tell(forked=pid)
        # Held open here, the pipes would have no end when the worker dies.
        for fd in fds:
            os.close(fd)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        for pid in list(self._children):
            code: int | None = None
            # The application's own handling of children may have taken it.
            with contextlib.suppress(ChildProcessError):
                found, status = os.waitpid(pid, os.WNOHANG)
                if not found:
                    continue
                code = os.waitstatus_to_exitcode(status)
            self._children.discard(pid)
            self.tell(exited=[pid, code])


def load(config: Config) -> Callable[..., Any]:
    """Import the application as a worker does, and say what a fork will not carry over.

    Raises:
        HeadraceError: it could not be imported.
    """
    configure_logging(config)
    load_env_file(config.application.env_file)
    if config.stack.has("metrics"):
        # Of this process alone; each worker takes what stands in it by then along into its own.
        use_registry(Registry(max_series=config.stack.metrics_max_series))
        install_bridge(process_registry(), config.stack.metrics_preset)
    sockets = open_sockets()
    options = config.application
    found = find_application(options.app, options.app_dir)
    application = load_application(found, options.factory, options.interface)
    for number, words in open_sockets().items():
        if number not in sockets:
            _logger.warning(
                "--preload: importing %s opened %s, which all workers will share; open it in the lifespan's "
                "start-up.",
                found.name, words,
            )  # fmt: skip
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            _logger.warning(
                "--preload: importing %s started the thread %r, which no worker will have; start it in the "
                "lifespan's start-up.",
                found.name, thread.name,
            )  # fmt: skip
    # What lives now lives as long as the process: never looked at again, its memory stays shared.
    gc.collect()
    gc.freeze()
    return application


def open_sockets() -> dict[int, str]:
    """The sockets of this process: descriptor and, in a few words, what it is."""
    found = {}
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    found[int(name)] = f"{_words(sock)} (descriptor {name})"
    return found


def _words(sock: socket.socket) -> str:
    with contextlib.suppress(OSError):
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return f"a listener on {describe(sock)}"
    with contextlib.suppress(OSError):
        peer = sock.getpeername()
        return f"a connection to {peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "a connection"
    return "a socket"


def flush() -> None:
    """Write what is buffered; else both sides of a fork would."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def main() -> NoReturn:
    """Be a template, and in each child a worker; the argument is the descriptor of the socket to obey."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)
    end_with_parent(os.getppid())
    ignore_signals()
    template = Template(sock)
    blueprint = template.read_blueprint()
    if blueprint is None:
        sys.exit(1)
    try:
        config = unpack(blueprint)
        set_title(f"headrace: template [{config.application.app}]")
        application = load(config)
    except (Exception, SystemExit) as error:
        template.tell(failed=_sentence(error), traceback=_traceback_of(error))
        sys.exit(STARTUP_FAILURE)
    template.tell(loaded=True)
    try:
        template.serve()
        sys.exit(0)
    except Forked as forked:
        control_fd, lifeline_fd, *metrics = forked.fds
        control, lifeline = socket.socket(fileno=control_fd), socket.socket(fileno=lifeline_fd)
    template.leave()
    for pipe in (control, lifeline):
        pipe.set_inheritable(False)
    become_worker(control, lifeline, metrics[0] if metrics else -1, application)


def _sentence(error: BaseException) -> str:
    if isinstance(error, HeadraceError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"The application ended its process while it was imported ({error})."
    return f"The template of --preload failed: {type(error).__name__}: {error}"


def _traceback_of(error: BaseException) -> str:
    """Of the application's own fault and of headrace's; those of an operator are sentences."""
    if isinstance(error, ApplicationImportError) and error.__cause__ is not None:
        return "".join(traceback.format_exception(error.__cause__))
    return (
        "" if isinstance(error, (HeadraceError, SystemExit)) else "".join(traceback.format_exception(error))
    )


def _nothing(number: int, frame: FrameType | None) -> None:
    """Only a handler makes the signal write to the wake-up descriptor."""


if __name__ == "__main__":
    main()
