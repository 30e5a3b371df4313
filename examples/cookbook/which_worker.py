"""Which of several workers answers, and which of them leads.

``headrace run main:app --workers 4``: the processes accept from the same listener, and a new connection goes
to the one that has fewest. A connection stays with its worker, so the answers below close theirs, and the
page gets a new one for each; over HTTP/2 it has a single one, and stays with one worker.

Exactly one worker leads: the place for what only one may do, such as a scheduler. Its word is in the state of
the lifespan and of each request, and ``await leader.acquired()`` waits for it. When the leader ends, another
leads.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from string import Template

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from recipe import Recipe

WORK_S = 0.05
"""How long an answer takes, as if a database were asked; the connection is open for so long."""

_PAGE = Template(Path(__file__).with_name("which_worker.html").read_text(encoding="utf-8"))

router = APIRouter()


def is_leader(request: Request) -> bool:
    """Whether the worker that serves this request leads; without workers the one process does."""
    return bool(request.scope["state"]["headrace.leader"])


@router.get("/worker", response_class=HTMLResponse, include_in_schema=False)
async def show_worker(request: Request) -> str:
    """The page, with the process that served it; its script asks below, again and again."""
    return _PAGE.substitute(pid=os.getpid(), leads="the leader" if is_leader(request) else "not the leader")


@router.get("/worker/facts")
async def tell_worker(request: Request, response: Response) -> dict[str, int | bool]:
    """The process that answers, and whether it leads."""
    await asyncio.sleep(WORK_S)
    response.headers["connection"] = "close"
    return {"pid": os.getpid(), "is_leader": is_leader(request)}


RECIPE = Recipe(
    title="Which worker answered?",
    sentence="With --workers 4 the page shows which process served it, which one leads, and who is next.",
    source="which_worker.py",
    links=("/worker", "/worker/facts"),
    router=router,
)
