"""Ways in: ``headrace.run``, ``headrace.serve``, and ``serve_until_signal`` for the command line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import traceback
from collections.abc import AsyncIterator
from typing import Any

from headrace.config import Config, load, load_env_file
from headrace.errors import ApplicationImportError, HeadraceError
from headrace.server.loops import loop_factory
from headrace.server.server import Server
from headrace.telemetry import UNSET, configure

_logger = logging.getLogger("uvicorn.error")

STARTUP_FAILURE = 3
"""Exit status of every start that fails, as uvicorn's."""


def configure_logging(config: Config) -> None:
    """Set up logging as the options say."""
    log = config.log
    is_given = config.sources.get("log_config", "default") != "default"
    configure(
        log_config=log.log_config if is_given else UNSET,
        log_level=log.log_level,
        log_format=log.log_format,
        use_colors=log.use_colors,
        access_log=log.access_log,
    )


def _say_what_is_served_instead(config: Config) -> None:
    """uvicorn's choices of an implementation are taken; there is one here."""
    if config.http.http != "auto":
        _logger.debug("--http %s: served by headrace's own engine", config.http.http)
    if config.websocket.ws not in ("auto", "none"):
        _logger.debug("--ws %s: served by headrace's own engine", config.websocket.ws)


def serve_until_signal(config: Config) -> None:
    """Serve in a loop of its own until a signal, or a limit, ends it.

    A SIGTERM ends the process by that signal, as with uvicorn, when everything is done.

    Raises:
        HeadraceError: it could not start.
    """
    configure_logging(config)
    _say_what_is_served_instead(config)
    server = Server(config)
    with asyncio.Runner(loop_factory=loop_factory(config.process.loop)) as runner, server.capture_signals():
        runner.run(server.serve_until_exit())
    if signal.SIGTERM in server.captured_signals:
        signal.raise_signal(signal.SIGTERM)


def run(app: Any, **options: Any) -> None:
    """Serve an application until a signal ends it; ``uvicorn.run`` under another name.

    Args:
        app: an ASGI application or its name, ``module:attribute``.
        options: as on the command line, in snake case.

    Raises:
        SystemExit: with status 3 and one sentence when it cannot start.
    """
    try:
        config = load({"app": app, **options}, files=False)
        load_env_file(config.application.env_file)
        serve_until_signal(config)
    except HeadraceError as error:
        if isinstance(error, ApplicationImportError) and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(STARTUP_FAILURE)


@contextlib.asynccontextmanager
async def serve(app: Any, **options: Any) -> AsyncIterator[Server]:
    """Serve an application inside the running loop, for as long as the ``async with`` block lasts.

    Logging and signals are left to the program around it.

    Args:
        app: an ASGI application or its name.
        options: as on the command line, in snake case; ``port=0`` takes a free one.

    Yields:
        The started server; ``server.url`` says where it is.

    Raises:
        HeadraceError: it could not start.
    """
    server = Server(load({"app": app, **options}, files=False))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
