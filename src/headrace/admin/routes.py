"""What the control surface answers: one function for each route, and the table of them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from headrace.admin.answer import Answer, data, error, text
from headrace.admin.controls import Controls
from headrace.errors import ControlRefused, HeadraceError
from headrace.telemetry.metrics.exposition import choose_format
from headrace.telemetry.metrics.page import PageKind, wants_gzip

_logger = logging.getLogger("uvicorn.error")


class Request(NamedTuple):
    """What a route is asked.

    Attributes:
        controls: whom to ask.
        arguments: the parts of the path that the route's pattern names.
        query: its parameters; of several of one name the last.
        headers: its fields; of several of one name, joined by commas.
        body: all of it.
        background: keeps what goes on behind its answer.
    """

    controls: Controls
    arguments: dict[str, str]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    background: set[asyncio.Task[None]]


class Route(NamedTuple):
    """One method on one path.

    Attributes:
        method: "GET", which serves HEAD too, or "POST".
        path: the whole path must match.
        answer: the function.
        is_open: asks for no token: a probe.
    """

    method: str
    path: re.Pattern[str]
    answer: Callable[[Request], Awaitable[Answer]]
    is_open: bool = False


async def livez(request: Request) -> Answer:
    """Whoever answers lives."""
    return text(200, "ok")


async def readyz(request: Request) -> Answer:
    """Whether requests should be sent here."""
    return text(200, "ok") if request.controls.is_ready() else text(503, "not ready")


async def status(request: Request) -> Answer:
    """How everything is."""
    return data(request.controls.status())


async def workers(request: Request) -> Answer:
    """The workers, how many there should be, and which of them leads."""
    whole = request.controls.status()
    return data({key: whole[key] for key in ("target", "leader", "workers")})


async def metrics(request: Request) -> Answer:
    """The figures of all workers, for Prometheus: in the format and the coding that it takes."""
    page_format = choose_format(request.headers.get("accept", ""))
    is_gzipped = wants_gzip(request.headers.get("accept-encoding", ""))
    page = await request.controls.metrics(PageKind(page_format, is_gzipped))
    if page is None:
        return error(404, "No metrics are kept; --metrics or --stack has them kept.")
    fields = [(b"vary", b"accept, accept-encoding")]
    if is_gzipped:
        fields.append((b"content-encoding", b"gzip"))
    return Answer(200, page, page_format.content_type.encode(), fields)


async def config(request: Request) -> Answer:
    """Every option with its value and its place."""
    return data({"options": request.controls.options()})


async def reload(request: Request) -> Answer:
    """Replace every worker."""
    return await _do(request, request.controls.reload)


async def restart(request: Request) -> Answer:
    """Replace one worker."""
    worker_id = int(request.arguments["id"])
    try:
        return await _do(request, lambda: request.controls.restart(worker_id))
    except KeyError:
        return error(404, f"There is no worker {worker_id}.")


async def scale(request: Request) -> Answer:
    """Have as many workers as the query or the body says."""
    count = _wanted_workers(request)
    if count is None or count < 1:
        return error(400, 'Say how many workers, 1 or more: ?workers=4, or {"workers": 4} as the body.')
    return await _do(request, lambda: request.controls.scale(count))


async def stop(request: Request) -> Answer:
    """Begin to stop; 202, because requests may still run for a while."""
    request.controls.stop()
    return data({"ok": True}, 202)


ROUTES = (
    Route("GET", re.compile("/livez"), livez, is_open=True),
    Route("GET", re.compile("/readyz"), readyz, is_open=True),
    Route("GET", re.compile("/metrics/?"), metrics),
    Route("GET", re.compile("/api/status"), status),
    Route("GET", re.compile("/api/workers"), workers),
    Route("GET", re.compile("/api/config"), config),
    Route("POST", re.compile("/api/reload"), reload),
    Route("POST", re.compile("/api/workers/(?P<id>[0-9]{1,9})/restart"), restart),
    Route("POST", re.compile("/api/scale"), scale),
    Route("POST", re.compile("/api/stop"), stop),
)


async def _do(request: Request, work: Callable[[], Coroutine[Any, Any, None]]) -> Answer:
    """Answer when the work is done, or, with ``?wait=0``, when it has begun without being refused."""
    wait = request.query.get("wait", "1")
    if wait not in ("0", "1"):
        return error(400, "The parameter wait is 0 or 1.")
    try:
        if wait == "1":
            await work()
            return data({"ok": True})
        task = asyncio.create_task(work())
        # A task takes its first step before what was called behind it: a refusal shows by then.
        await asyncio.sleep(0)
        if task.done():
            task.result()
        else:
            request.background.add(task)
            task.add_done_callback(request.background.discard)
            task.add_done_callback(_log_fault)
        return data({"ok": True}, 202)
    except ControlRefused as refusal:
        return error(409, str(refusal))
    except HeadraceError as failure:
        return error(500, str(failure))


def _log_fault(task: asyncio.Task[None]) -> None:
    """Why it came to nothing, whoever was asked has logged; what nobody foresaw is logged here."""
    fault = None if task.cancelled() else task.exception()
    if fault is not None and not isinstance(fault, HeadraceError):
        _logger.error("What the control surface began has failed", exc_info=fault)


def _wanted_workers(request: Request) -> int | None:
    """The number of workers that is asked for; None when it is no number."""
    if "workers" in request.query:
        number = request.query["workers"]
        return int(number) if re.fullmatch("[0-9]{1,9}", number) else None
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    count = body.get("workers") if isinstance(body, dict) else None
    return count if type(count) is int else None
