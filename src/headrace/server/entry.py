"""The way in from a program that has a running loop: ``headrace.serve``; and what every way in does first."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from headrace.config import Config, load
from headrace.config.rules import ignored_options
from headrace.server.server import Server
from headrace.telemetry import UNSET, configure

_logger = logging.getLogger("uvicorn.error")


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


def say_what_is_served_instead(config: Config) -> None:
    """uvicorn's choices of an implementation are taken; there is one here."""
    for sentence in ignored_options(config):
        _logger.warning("%s", sentence)
    if config.http.http != "auto":
        _logger.debug("--http %s: served by headrace's own engine", config.http.http)
    if config.websocket.ws not in ("auto", "none"):
        _logger.debug("--ws %s: served by headrace's own engine", config.websocket.ws)


def say_where(announcement: str) -> None:
    """The start-up line that says where the server listens."""
    _logger.info("Uvicorn running on %s (Press CTRL+C to quit)", announcement)


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
