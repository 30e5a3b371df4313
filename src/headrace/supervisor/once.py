"""``--once``: functions that run in a process of their own before the first worker starts.

The supervisor imports nothing of the application, so each function has a fresh interpreter, which this module
is the entry point of as well. Request and answer pass over a socket pair; what is printed goes where the
server's lines go.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any

from headrace.asgi.importer import find_application
from headrace.config import Config, TLSOptions, load_env_file
from headrace.errors import ApplicationImportError, ConfigError, HeadraceError, WorkerError
from headrace.net.systemd import without_systemd
from headrace.server.entry import configure_logging
from headrace.server.loops import loop_factory
from headrace.supervisor.blueprint import pack, unpack
from headrace.supervisor.lifeline import end_with_parent
from headrace.supervisor.process import end_words
from headrace.supervisor.process_title import set_title

END_S = 5.0
"""What a function has to clean up in when a stop signal comes; then it is killed."""

_MAX_ANSWER_BYTES = 65_536
_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGQUIT")

_logger = logging.getLogger("uvicorn.error")


def run_once(config: Config) -> None:
    """Call the functions of ``--once``, one behind the other; blocks until the last has ended.

    Each has the import path, the variables of ``--env-file``, the log and the event loop of a worker. It may
    be plain or asynchronous. A stop signal ends it: SIGTERM, which it sees as a ``KeyboardInterrupt``, and
    SIGKILL after ``END_S`` or at the second signal.

    Raises:
        WorkerError: one of them cannot be found or failed; those behind it are not called. The traceback is
            on stderr by then.
        SystemExit: a stop signal came; with 128 plus its number, as shells have it.
    """
    for name in config.process.once:
        _logger.info("Running %s once.", name)
        sentence = _run(name, _blueprint(config))
        if sentence:
            raise WorkerError(f"--once {name}: {sentence}")


def _blueprint(config: Config) -> str:
    # What only this process may know has no part in it: an application that is an object, a context factory.
    return pack(replace(config, application=replace(config.application, app=None), tls=TLSOptions()))


def _run(name: str, blueprint: str) -> str:
    """Run one in a process of its own; gives what went wrong, in a sentence."""
    ours, its = socket.socketpair()
    with ours:
        with its:
            try:
                process = _start(its.fileno())
            except OSError as error:
                return f"No process can be started for it: {error}."
        with _ended_by_signals(process):
            # It may have ended already; then its exit code says more.
            with contextlib.suppress(OSError):
                ours.sendall(json.dumps([name, blueprint]).encode())
                ours.shutdown(socket.SHUT_WR)
            code = process.wait()
        return "" if code == 0 else _answer(ours) or f"The process {end_words(code)}."


def _start(fd: int) -> subprocess.Popen[bytes]:
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return subprocess.Popen(
        [sys.executable, *flags, "-P", "-m", __spec__.name, str(fd)],
        stdin=subprocess.DEVNULL,
        pass_fds=(fd,),
        env=without_systemd(os.environ),
        # A terminal's Ctrl-C is ours to take, and what it starts ends with it.
        process_group=0,
    )


def _answer(sock: socket.socket) -> str:
    """What the child wrote before it ended; does not wait for processes that it left behind."""
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        return sock.recv(_MAX_ANSWER_BYTES).decode()
    return ""


@contextlib.contextmanager
def _ended_by_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Hand stop signals on while the block lasts, and raise ``SystemExit`` behind it if there was one."""
    if threading.current_thread() is not threading.main_thread():
        # Signals are another's business there.
        yield
        return
    received: list[int] = []
    patience = threading.Timer(END_S, _signal_group, (process, signal.SIGKILL))
    patience.daemon = True

    def hand_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            _signal_group(process, signal.SIGKILL)
            return
        patience.start()
        _signal_group(process, signal.SIGTERM)

    before = {
        number: signal.signal(number, hand_on) for number in (getattr(signal, name) for name in _STOP_SIGNALS)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        patience.cancel()
    if received:
        # Children of its own that did not heed the first signal.
        _signal_group(process, signal.SIGKILL)
        raise SystemExit(128 + received[0])


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, number)


# ---- the child


def main() -> None:
    """Call one function; the argument is the descriptor of the socket with the request."""
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        sock.set_inheritable(False)
        end_with_parent(os.getppid())
        # So that its ``finally`` blocks run.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        request = b""
        while piece := sock.recv(65_536):
            request += piece
        if not request:
            # The parent ended in this moment.
            sys.exit(1)
        name, blueprint = json.loads(request)
        set_title(f"headrace: once {name}")
        sentence = _outcome(name, blueprint)
        if not sentence:
            return
        with contextlib.suppress(OSError):
            sock.sendall(sentence.encode(errors="replace")[: _MAX_ANSWER_BYTES // 2])
    sys.exit(1)


def _outcome(name: str, blueprint: str) -> str:
    """Call the function, show the traceback of what it raises, and say in a sentence what went wrong."""
    try:
        config = unpack(blueprint)
        configure_logging(config)
        load_env_file(config.application.env_file)
        _call(_find(name, config.application.app_dir), config.process.loop)
    except HeadraceError as error:
        if isinstance(error, ApplicationImportError) and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return str(error)
    except KeyboardInterrupt:
        return "It was interrupted."
    except SystemExit as error:
        if error.code is None or error.code == 0:
            return ""
        return f"It ended with exit code {error.code}." if isinstance(error.code, int) else str(error.code)
    except Exception as error:
        traceback.print_exception(error.with_traceback(_own_traceback(error.__traceback__)))
        return f"It failed: {type(error).__name__}: {error}"
    return ""


def _find(name: str, app_dir: str) -> Callable[[], Any]:
    target = find_application(name, app_dir).target
    if not callable(target):
        raise ConfigError(f"It is of type {type(target).__name__}, not a function.")
    function: Callable[[], Any] = target
    return function


def _call(function: Callable[[], Any], loop: str) -> None:
    async def wait() -> None:
        result = function() if is_asynchronous else begun
        if inspect.isawaitable(result):
            await result

    # A plain function is called outside of a loop, so that it may run its own.
    is_asynchronous = inspect.iscoroutinefunction(function)
    begun = None if is_asynchronous else function()
    if is_asynchronous or inspect.isawaitable(begun):
        with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            runner.run(wait())


def _own_traceback(whole: TracebackType | None) -> TracebackType | None:
    """The traceback from the function's first frame on, which is behind the last one of this file."""
    own, link = whole, whole
    while link is not None:
        if link.tb_frame.f_code.co_filename == __file__:
            own = link.tb_next
        link = link.tb_next
    return own or whole


if __name__ == "__main__":
    main()
