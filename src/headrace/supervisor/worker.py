"""A worker's process: gets its sockets and its configuration, serves, and does what its supervisor says."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import traceback
from dataclasses import replace
from types import FrameType
from typing import Any, NoReturn

from headrace.config import Config, load_env_file
from headrace.errors import ApplicationImportError, ConfigError, HeadraceError
from headrace.server.entry import configure_logging
from headrace.server.error_page import ErrorPage, describe
from headrace.server.leadership import Leadership
from headrace.server.load_board import BoardSlot, LoadBoard
from headrace.server.loops import loop_factory
from headrace.server.seat import Cause, Reason, Seat
from headrace.server.server import Server
from headrace.supervisor.blueprint import unpack
from headrace.supervisor.control import (
    HEADER_BYTES,
    Collect,
    Collected,
    Drain,
    Failed,
    Force,
    Lead,
    Message,
    PagePiece,
    Ping,
    Pong,
    Ready,
    Retire,
    Start,
    decode,
    encode,
)
from headrace.supervisor.lifeline import GRACE_S, Lifeline, end_with_parent
from headrace.supervisor.memory import memory_bytes
from headrace.supervisor.pipe import ControlPipe
from headrace.supervisor.process_title import set_title
from headrace.supervisor.relay import Relay
from headrace.supervisor.remote_pages import RemotePages
from headrace.supervisor.worker_registry import open_registry
from headrace.telemetry.loop_lag import LoopLag
from headrace.telemetry.metrics.bridge import refresh_collected
from headrace.telemetry.metrics.page import COLLECT_S, use_pages
from headrace.telemetry.metrics.registry import Registry

STARTUP_FAILURE = 3

_logger = logging.getLogger("uvicorn.error")


def main() -> NoReturn:
    """Be a worker; the arguments are descriptors: control pipe, lifeline and, with metrics, their store."""
    control_fd, lifeline_fd, *metrics = map(int, sys.argv[1:])
    control, lifeline = socket.socket(fileno=control_fd), socket.socket(fileno=lifeline_fd)
    for sock in (control, lifeline):
        sock.set_inheritable(False)
    end_with_parent(os.getppid())
    become_worker(control, lifeline, metrics[0] if metrics else -1)


def become_worker(
    control: socket.socket, lifeline: socket.socket, metrics: int, application: Any = None
) -> NoReturn:
    """Serve until told to end; does not come back.

    Args:
        control, lifeline: this process's ends, blocking.
        metrics: descriptor of the memory that its figures go to, -1 for none.
        application: loaded already, by a template; else it is imported.
    """
    ignore_signals()
    if not faulthandler.is_enabled():
        # A crash in native code leaves its stack in the log.
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            faulthandler.enable()
    try:
        start = _read_start(control)
    except (OSError, EOFError):
        sys.exit(1)  # the supervisor ended in this moment
    try:
        path = list(sys.path)
        config = unpack(start.config)
        name = str(config.application.app)
        if application is not None:
            # The template's path has the application's folder in it.
            sys.path[:] = path
            options = replace(config.application, app=application, factory=False, interface="asgi3")
            config = replace(config, application=options)
        set_title(f"headrace: worker {start.worker_id} [{name}]")
        registry = None
        if metrics >= 0:
            registry = open_registry(metrics, config.stack, is_forked=application is not None)
        code = Worker(start, config, control, lifeline, registry).run()
    except HeadraceError as error:
        code = STARTUP_FAILURE
        _tell(control, Failed(str(error), _traceback_of(error)))
    except SystemExit as error:
        code = STARTUP_FAILURE
        _tell(control, Failed(f"The application ended its process while it started ({error}).", ""))
    except Exception as error:
        code = STARTUP_FAILURE
        text = "".join(traceback.format_exception(error))
        _tell(control, Failed(f"The worker failed: {type(error).__name__}: {error}", text))
    control.close()
    sys.exit(code)


def ignore_signals() -> None:
    """Leave to the supervisor what a terminal's Ctrl-C, or a shell, sends to the whole group.

    By a handler that does nothing, as SIG_IGN would be inherited by whatever the application starts.
    """
    for name in ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTTIN", "SIGTTOU"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


class Worker:
    """One server under a supervisor.

    Args:
        start: the supervisor's first message.
        config: unpacked from it.
        control, lifeline: this process's ends.
        metrics: keeps its figures; None without metrics.
    """

    def __init__(
        self,
        start: Start,
        config: Config,
        control: socket.socket,
        lifeline: socket.socket,
        metrics: Registry | None = None,
    ) -> None:
        self._start = start
        self._metrics = metrics
        self._config = config
        # A second descriptor: the first is the event loop's, and ends with it.
        self._control = control.dup()
        self._lifeline = Lifeline(lifeline, self._on_orphaned)
        self._leadership: Leadership | None = None
        self._sockets: list[socket.socket] = []
        self._board: LoadBoard | None = None
        self._pipe: ControlPipe | None = None
        self._relay: Relay | None = None
        self._pages: RemotePages | None = None
        self._collecting: asyncio.Task[None] | None = None
        self._server: Server | None = None
        self._lag: LoopLag | None = None
        self._lifetime: asyncio.TimerHandle | None = None
        self._most_bytes: int | None = None

    def run(self) -> int:
        """Serve; gives the exit code.

        Raises:
            HeadraceError, SystemExit: it could not start.
        """
        config = self._config
        for fd in self._start.listeners:
            sock = socket.socket(fileno=fd)
            sock.set_inheritable(False)
            self._sockets.append(sock)
        if self._start.load_board >= 0:
            os.set_inheritable(self._start.load_board, False)
            self._board = LoadBoard.open(self._start.load_board)
        configure_logging(config)
        load_env_file(config.application.env_file)
        self._lifeline.start()
        with asyncio.Runner(loop_factory=loop_factory(config.process.loop)) as runner:
            self._lifeline.loop = runner.get_loop()
            runner.run(self._serve())
        return 0

    async def _serve(self) -> None:
        self._leadership = Leadership(self._start.is_leader)
        self._lag = LoopLag()
        self._pipe = ControlPipe(self._on_frames, self._on_orphaned)
        self._relay = Relay(self._pipe)
        self._pages = RemotePages(self._pipe)
        if self._metrics is not None:
            use_pages(self._pages)
        await self._pipe.open(self._control)
        try:
            try:
                await self._serve_one(self._config)
            except (HeadraceError, SystemExit) as error:
                if not self._shows(error):
                    raise
                await self._serve_error(error)
        finally:
            self._lag.stop()
            if self._lifetime is not None:
                self._lifetime.cancel()
            # While pings are still answered: what runs in threads may take its time.
            await asyncio.get_running_loop().shutdown_default_executor()
            self._relay.flush()
            self._pipe.close()

    async def _serve_one(self, config: Config) -> None:
        assert self._leadership is not None
        seat = Seat(
            sockets=self._sockets,
            board_slot=BoardSlot(self._board, self._start.worker_id) if self._board is not None else None,
            leadership=self._leadership,
            on_ready=self._on_ready,
            on_retire=self._on_retire,
            worker_id=self._start.worker_id,
            metrics=self._metrics,
        )
        server = self._server = Server(config, seat)
        with server.capture_signals((signal.SIGTERM,)):
            await server.serve_until_exit(owns_process=True)

    async def _serve_error(self, error: BaseException) -> None:
        """In development the port stays open, with a page that says what is wrong."""
        sentence, text = describe(error)
        print(f"{text}Error: {sentence}", file=sys.stderr, flush=True)
        page = ErrorPage(sentence, text)
        options = replace(
            self._config.application, app=page, factory=False, interface="asgi3", lifespan="off"
        )
        await self._serve_one(replace(self._config, application=options))

    def _shows(self, error: BaseException) -> bool:
        if self._start.shows == "application":
            # The name leads nowhere, or an option is wrong: nothing that saving a file would mend.
            return not isinstance(error, ConfigError) or isinstance(error, ApplicationImportError)
        return self._start.shows == "every"

    # What the server says

    def _on_ready(self) -> None:
        assert self._pipe is not None
        assert self._lag is not None
        self._lag.start()
        self._check_memory_limit()
        lifetime_s = self._config.process.worker_lifetime
        if lifetime_s is not None:
            # Workers that were started together must not end together.
            spread_s = lifetime_s * (1 + 0.1 * int.from_bytes(os.urandom(2), "big") / 65_536)
            self._lifetime = asyncio.get_running_loop().call_later(
                spread_s, self._retire, Reason(Cause.LIFETIME, f"it has lived for {lifetime_s:g} s")
            )
        self._pipe.send(Ready())

    def _check_memory_limit(self) -> None:
        limit, memory = self._config.process.limit_worker_memory, memory_bytes()
        if limit is not None and memory > limit:
            # Its successor would be no smaller: it would be replaced for ever.
            _logger.warning(
                "The limit for a worker's memory, %d MiB, is below what it holds when it starts, %d MiB; it "
                "is not applied.",
                limit >> 20, memory >> 20,
            )  # fmt: skip
            return
        self._most_bytes = limit

    def _on_retire(self, reason: Reason) -> None:
        assert self._pipe is not None
        self._pipe.send(Retire(reason.cause, reason.words))

    def _retire(self, reason: Reason) -> None:
        assert self._server is not None
        self._server.retire(reason)

    # What the supervisor says

    def _on_frames(self, frames: list[tuple[int, bytes]]) -> None:
        assert self._relay is not None
        for kind, payload in frames:
            if kind == Ping.kind:
                self._on_ping(decode(kind, payload))
            elif kind == Drain.kind:
                self._on_drain(decode(kind, payload))
            elif kind == Force.kind:
                self._on_force()
            elif kind == Lead.kind:
                assert self._leadership is not None
                self._leadership.acquire()
            elif kind == PagePiece.kind:
                self._on_page_piece(decode(kind, payload))
            elif kind == Collect.kind:
                self._on_collect()
        self._relay.on_frames(frames)

    def _on_ping(self, ping: Message) -> None:
        assert isinstance(ping, Ping)
        assert self._pipe is not None
        assert self._lag is not None
        server = self._server
        if server is None or not server.has_started:
            self._pipe.send(Pong(ping.number, 0, 0, 0, memory_bytes(), 0.0))
            return
        runtime = server.runtime
        memory = memory_bytes()
        self._pipe.send(
            Pong(
                ping.number,
                len(runtime.connections),
                len(runtime.running),
                runtime.total_requests,
                memory,
                round(self._lag.take(), 6),
            )
        )
        if self._most_bytes is not None and memory > self._most_bytes:
            words = f"it holds {memory >> 20} MiB, more than {self._most_bytes >> 20}"
            server.retire(Reason(Cause.MEMORY, words))

    def _on_drain(self, drain: Message) -> None:
        assert isinstance(drain, Drain)
        assert self._server is not None
        self._server.drain(None if drain.graceful_s < 0 else drain.graceful_s, drain.is_replaced)

    def _on_page_piece(self, piece: Message) -> None:
        assert isinstance(piece, PagePiece)
        assert self._pages is not None
        self._pages.on_piece(piece)

    def _on_collect(self) -> None:
        task = self._collecting = asyncio.get_running_loop().create_task(self._collect())
        task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _collect(self) -> None:
        assert self._pipe is not None
        self._pipe.send(Collected(await refresh_collected(COLLECT_S)))

    def _on_force(self) -> None:
        assert self._server is not None
        self._server.force_exit = True
        self._server.should_exit = True

    def _on_orphaned(self) -> None:
        """The supervisor is gone: end what can end within a moment. Called by the loop and the lifeline."""
        loop, server = self._lifeline.loop, self._server
        if loop is None or server is None:
            os._exit(1)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(server.drain, GRACE_S / 2)


def _read_start(control: socket.socket) -> Start:
    head = _read_exactly(control, HEADER_BYTES)
    message = decode(head[4], _read_exactly(control, int.from_bytes(head[:4], "big")))
    assert isinstance(message, Start)
    return message


def _read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _tell(control: socket.socket, message: Message) -> None:
    with contextlib.suppress(OSError):
        control.setblocking(True)
        control.sendall(encode(message))


def _traceback_of(error: HeadraceError) -> str:
    """Of the application's own fault; ours are sentences."""
    if isinstance(error, ApplicationImportError) and error.__cause__ is not None:
        return "".join(traceback.format_exception(error.__cause__))
    return ""


if __name__ == "__main__":
    main()
