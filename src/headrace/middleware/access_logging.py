"""Writes the access log under servers that are not headrace."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from headrace.middleware.recording import Recorded
from headrace.telemetry.access_log import AccessLog
from headrace.telemetry.access_sampling import Sampling
from headrace.telemetry.log_formatters import ACCESS_FMT, AccessFormatter
from headrace.types import ASGIApplication, Receive, Scope, Send


class AccessLogging:
    """Writes a line for each HTTP request that goes through it; put it outside of everything else.

    headrace writes its access log itself, for the requests it refuses too. Under another server let its own
    access log be off, ``uvicorn --no-access-log``.

    Lines go to the logger's own handlers; a logger without any gets one that writes to stdout.

    Args:
        app: the application.
        access_log_format: ``uvicorn``, ``combined``, ``json``, ``logfmt``, ``ecs``, ``gcp``, or a template
            of gunicorn's %-atoms.
        sample: share of the lines of 2xx and 3xx responses that is written, 0 to 1; errors always are.
        slow_s: a request that took as long as this, in seconds, always has a line.
        skip: paths without a line; a ``*`` at the end stands for the rest.
        worker: which process this is, if there are several; stands in structured lines.
        logger: the logger's name.

    Raises:
        ConfigError: the format, the share or the duration is wrong.
    """

    def __init__(
        self,
        app: ASGIApplication,
        access_log_format: str = "uvicorn",
        *,
        sample: float = 1.0,
        slow_s: float = 1.0,
        skip: Sequence[str] = (),
        worker: int | None = None,
        logger: str = "headrace.access",
    ) -> None:
        _give_handler(logging.getLogger(logger))
        sampling = Sampling(sample, slow_s=slow_s, skip=skip)
        self._recorded = Recorded(
            app, AccessLog(access_log_format, sampling=sampling, worker=worker, logger=logger)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Record one request; WebSockets pass on."""
        await self._recorded(scope, receive, send)


def _give_handler(logger: logging.Logger) -> None:
    if logger.handlers:
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(AccessFormatter(ACCESS_FMT))
    logger.addHandler(handler)
    logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
