"""The cookbook: one application, one module for each recipe. Run it with ``headrace run main:app``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse

import application_metrics
import lifespan_state
import log_configuration
import middleware_cost
import order_span
import sse_clock
import streamed_response
import timing
import websocket_echo
import which_worker
from index import render_index
from recipe import Recipe

RECIPES: tuple[Recipe, ...] = (
    timing.RECIPE,
    lifespan_state.RECIPE,
    websocket_echo.RECIPE,
    streamed_response.RECIPE,
    sse_clock.RECIPE,
    which_worker.RECIPE,
    order_span.RECIPE,
    application_metrics.RECIPE,
    log_configuration.RECIPE,
    middleware_cost.RECIPE,
)
"""A new recipe is one module and one line here."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Open what the recipes need, in their order, and close it in the opposite one."""
    state: dict[str, Any] = {}
    async with AsyncExitStack() as resources:
        for recipe in RECIPES:
            if recipe.lifespan is not None:
                state.update(await resources.enter_async_context(recipe.lifespan(app)))
        yield state


app = FastAPI(
    title="headrace cookbook",
    lifespan=lifespan,
    middleware=[layer for recipe in RECIPES for layer in recipe.middleware],
)
for recipe in RECIPES:
    app.include_router(recipe.router)

_INDEX = render_index(RECIPES)
_STYLE = Path(__file__).with_name("style.css")


@app.get("/", response_class=HTMLResponse, include_in_schema=False)
async def index() -> str:
    """List the recipes."""
    return _INDEX


@app.get("/style.css", response_class=FileResponse, include_in_schema=False)
async def style() -> Path:
    """The style of all pages."""
    return _STYLE
