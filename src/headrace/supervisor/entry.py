"""Ways in: one process, or a supervisor with workers; ``headrace.run`` and the command line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from headrace.admin.listeners import AdminListeners, bind_admin
from headrace.config import Config, load, load_env_file
from headrace.errors import ApplicationImportError, ConfigError, HeadraceError
from headrace.net.addresses import addresses_of
from headrace.net.tls import is_tls_wanted
from headrace.server.entry import configure_logging, say_what_is_served_instead, say_where
from headrace.server.listening import Listeners
from headrace.server.loops import loop_factory
from headrace.server.server import Server
from headrace.supervisor.blueprint import pack
from headrace.supervisor.control_surface import control_surface
from headrace.supervisor.cpus import cpu_count
from headrace.supervisor.once import run_once
from headrace.supervisor.pid_file import PidFile
from headrace.supervisor.preloaded import PreloadedSpawner
from headrace.supervisor.privileges import drop, hand_over, parse_umask, resolve
from headrace.supervisor.process import FreshSpawner
from headrace.supervisor.process_title import set_title
from headrace.supervisor.single import SingleProcess
from headrace.supervisor.supervisor import Supervisor

STARTUP_FAILURE = 3
"""Exit status of every start that fails, as uvicorn's."""


def needs_supervisor(config: Config) -> bool:
    """Whether the options ask for more than one process can do."""
    process = config.process
    return (
        process.workers not in (None, 1)
        or process.reload
        or process.preload
        or process.limit_worker_memory is not None
        or process.worker_lifetime is not None
        or process.user is not None
        or process.group is not None
    )


def serve_until_signal(config: Config, reload_config: Callable[[], Config] | None = None) -> None:
    """Serve until a signal ends it.

    In one process SIGTERM ends it by that signal, as with uvicorn, when everything is done.

    Args:
        config: resolved.
        reload_config: resolves it anew, for a reload.

    Raises:
        HeadraceError: it could not start.
    """
    configure_logging(config)
    say_what_is_served_instead(config)
    if config.process.umask is not None:
        os.umask(parse_umask(config.process.umask))
    if needs_supervisor(config):
        _supervise(config, reload_config)
    else:
        _serve_alone(config)


def run(app: Any, **options: Any) -> None:
    """Serve an application until a signal ends it; ``uvicorn.run`` under another name.

    Args:
        app: an ASGI application or its name, ``module:attribute``; several workers need its name.
        options: as on the command line, in snake case.

    Raises:
        SystemExit: with status 3 and one sentence when it cannot start.
    """

    def resolve_anew() -> Config:
        return load({"app": app, **options}, files=False)

    try:
        serve_until_signal(resolve_anew(), resolve_anew)
    except HeadraceError as error:
        if isinstance(error, ApplicationImportError) and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(STARTUP_FAILURE)


def _serve_alone(config: Config) -> None:
    load_env_file(config.application.env_file)
    with _pid_file(config):
        run_once(config)
        server = Server(config)
        admin = bind_admin(config.admin)
        with (
            asyncio.Runner(loop_factory=loop_factory(config.process.loop)) as runner,
            server.capture_signals(),
        ):
            runner.run(_serve_controlled(server, admin))
    if signal.SIGTERM in server.captured_signals:
        signal.raise_signal(signal.SIGTERM)


async def _serve_controlled(server: Server, admin: AdminListeners) -> None:
    async with control_surface(SingleProcess(server), admin, server.config.admin.admin_token):
        await server.serve_until_exit(owns_process=True)


def _supervise(config: Config, reload_config: Callable[[], Config] | None) -> None:
    process = config.process
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("Several workers need the main thread, as only that is sent signals.")
    if not process.reload:
        # A reload that is asked for during the start; the supervisor takes over soon.
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    # What can be wrong is found before anything is bound, and said by one process.
    pack(config)
    loop = loop_factory(process.loop)
    account = resolve(process.user, process.group)
    addresses_of(config.listen)
    workers = 1 if process.reload else process.workers
    if process.pid is not None:
        PidFile(process.pid).check()
    set_title(f"headrace: supervisor [{config.application.app}]")
    listeners = Listeners(config.listen, "https" if is_tls_wanted(config.tls) else "http")
    try:
        with _pid_file(config):
            paths = [sock.getsockname() for sock in listeners.sockets]
            # Not the file of --pid: whoever may write it chooses whom root's scripts signal.
            hand_over([path for path in paths if isinstance(path, str) and path], account)
            hand_over(_log_files(), account)
            drop(account)
            run_once(config)
            supervisor = Supervisor(
                config,
                listeners.sockets,
                listeners.announcements,
                PreloadedSpawner(config) if process.preload else FreshSpawner(),
                cpu_count() if workers == 0 else workers or 1,
                reload_config,
            )
            for announcement in listeners.announcements:
                say_where(announcement)
            admin = bind_admin(config.admin)
            with asyncio.Runner(loop_factory=loop) as runner:
                runner.run(_supervise_controlled(supervisor, admin))
    finally:
        listeners.close()


async def _supervise_controlled(supervisor: Supervisor, admin: AdminListeners) -> None:
    # The workers go first: who asks on the way is told how far it is.
    async with control_surface(supervisor, admin, supervisor.config.admin.admin_token):
        await supervisor.run()


def _log_files() -> list[str]:
    """What the log is written to: this process has opened the files, and the workers will."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    return [handler.baseFilename for handler in handlers if isinstance(handler, logging.FileHandler)]


@contextlib.contextmanager
def _pid_file(config: Config) -> Iterator[None]:
    """Hold the file of ``--pid`` while the block lasts."""
    path = config.process.pid
    if path is None:
        yield
        return
    file = PidFile(path)
    file.write()
    try:
        yield
    finally:
        file.remove()
