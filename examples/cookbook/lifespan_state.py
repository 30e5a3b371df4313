"""A resource opened before the first request and closed behind the last, handed to endpoints as state.

The server calls the context manager through ASGI's lifespan protocol. If it raises, nothing is served and
``headrace run`` ends with exit code 3.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, cast

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response

from key_value_store import KeyValueStore
from recipe import Recipe

_logger = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def open_store(app: FastAPI) -> AsyncIterator[Mapping[str, KeyValueStore]]:
    """Open the store, check that it answers, and close it at the end."""
    store = KeyValueStore()
    await store.open()
    try:
        if not await store.ping():
            raise ConnectionError("The store does not answer")
        await store.set("greeting", "hello from the store")
        _logger.info("The store is open.")
        yield {"store": store}
    finally:
        await store.close()
        _logger.info("The store is closed.")


def store_of(request: Request) -> KeyValueStore:
    """The store that the lifespan has opened."""
    return cast("KeyValueStore", request.state.store)


Store = Annotated[KeyValueStore, Depends(store_of)]

router = APIRouter()


@router.get("/cache")
async def read_cache(key: str, store: Store) -> dict[str, str]:
    """Read a value."""
    value = await store.get(key)
    if value is None:
        raise HTTPException(404, f"There is nothing under {key!r}.")
    return {"key": key, "value": value}


@router.put("/cache", status_code=204)
async def write_cache(key: str, value: str, store: Store) -> Response:
    """Write a value."""
    await store.set(key, value)
    return Response(status_code=204)


RECIPE = Recipe(
    title="Lifespan state",
    sentence="A store is opened before the first request, shared by all of them, and closed at the end.",
    source="lifespan_state.py",
    links=("/cache?key=greeting",),
    router=router,
    lifespan=open_store,
)
