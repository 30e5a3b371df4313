"""What middleware costs: the usual recipe, a ``BaseHTTPMiddleware`` each, beside ``headrace run --stack``.

The page asks for a measurement, which runs in processes of its own, so that this one goes on serving. A
``BaseHTTPMiddleware`` starts a task for each request and passes the response through a queue in memory; the
stack does what must be done inside a request in a few microseconds, and the rest in batches when it is over.
See ``cost_measurement.py`` for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

from recipe import Recipe

_FOLDER = Path(__file__).parent
_PAGE = _FOLDER / "middleware_cost.html"
_PATIENCE_S = 120.0
_OTHERS = ("HEADRACE_", "UVICORN_", "OTEL_", "PROMETHEUS_", "WEB_CONCURRENCY")
"""Variables that would configure the servers that are measured."""

_one_at_a_time = asyncio.Lock()

router = APIRouter()


@router.get("/middleware-cost", response_class=FileResponse, include_in_schema=False)
async def show_page() -> FileResponse:
    """The page; its script asks below."""
    return FileResponse(_PAGE, media_type="text/html")


@router.post("/middleware-cost/measurement")
async def measure() -> Any:
    """Measure anew, which takes some seconds; two at once would disturb each other."""
    if _one_at_a_time.locked():
        raise HTTPException(409, "A measurement is under way; ask again when it has ended.")
    async with _one_at_a_time:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            _FOLDER / "cost_measurement.py",
            stdout=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)},
        )
        try:
            async with asyncio.timeout(_PATIENCE_S):
                output, _ = await process.communicate()
        except BaseException:
            # The client has left, or it takes too long.
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
    if process.returncode:
        raise HTTPException(500, "The measurement failed; the log says why.")
    return json.loads(output)


RECIPE = Recipe(
    title="What middleware costs",
    sentence="The usual recipe with BaseHTTPMiddleware beside --stack, measured on this machine.",
    source="middleware_cost.py",
    links=("/middleware-cost",),
    router=router,
)
