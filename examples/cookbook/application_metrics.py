"""Metrics of the application's own, on one page with the server's, of all workers together.

``headrace run main:app --metrics --workers 4``, then ``curl http://127.0.0.1:8000/metrics``: whichever worker
answers, the page has the sums over all four. ``http_request_duration_seconds`` and its kin are there without
a line of code; what only the application knows it counts with ``prometheus_client``, as anywhere.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter
from prometheus_client import Counter, Gauge, Histogram
from starlette.routing import Route

import headrace.metrics
from recipe import Recipe

_cups = Counter("coffee_cups", "Cups that were made.", ["kind"])
_brewing = Histogram("coffee_brewing_seconds", "Time a cup took.", buckets=(0.005, 0.01, 0.02, 0.05, 0.1))
# Of several workers the sum; of one that has ended nothing.
_machines = Gauge("coffee_machines_busy", "Machines at work.", multiprocess_mode="livesum")

BREWING_S = {"espresso": 0.005, "lungo": 0.015}

router = APIRouter()
# ``app.mount("/metrics", ...)`` does as well, with --metrics.
router.routes.append(Route("/metrics", headrace.metrics.asgi_app()))


@router.get("/coffee/{kind}")
async def make_coffee(kind: Literal["espresso", "lungo"]) -> dict[str, str]:
    """Make a cup. A label has few values: the kinds there are, never what a client sends."""
    with _machines.track_inprogress(), _brewing.time():
        await asyncio.sleep(BREWING_S[kind])
    _cups.labels(kind).inc()
    return {"kind": kind}


RECIPE = Recipe(
    title="Metrics of the application",
    sentence="Its own counter, histogram and gauge stand beside the server's, summed over all workers.",
    source="application_metrics.py",
    links=("/coffee/espresso", "/metrics"),
    router=router,
)
