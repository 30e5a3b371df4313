"""Log lines of the application's own, in its own format, each with the id of its request.

``headrace run main:app --request-id --log-config logging.ini`` writes what ``logging.ini`` beside this file
says: ``%(request_id)s`` is the id that the response has in ``X-Request-ID``, in the lines of the application,
of its libraries and of the server alike; a hyphen outside of requests. A caller may bring its id along::

    curl -H 'X-Request-ID: my-first' http://127.0.0.1:8000/stock/tea
"""

from __future__ import annotations

import logging

from fastapi import APIRouter, HTTPException, Request

from recipe import Recipe

_logger = logging.getLogger("cookbook.stock")
_STOCK = {"tea": 12, "bread": 0}

router = APIRouter()


@router.get("/stock/{item}")
async def show_stock(item: str, request: Request) -> dict[str, int | str | None]:
    """How much there is of an item; what is worth knowing of it is in the log."""
    count = _STOCK.get(item)
    if count is None:
        # %r: an item with a line break in it does not become a second line.
        _logger.warning("Nobody knows the item %r", item)
        raise HTTPException(404, f"Nobody knows the item {item!r}.")
    if count == 0:
        _logger.info("The stock of %s is used up", item)
    request_id = getattr(request.state, "request_id", None)
    return {"item": item, "count": count, "request_id": request_id}


RECIPE = Recipe(
    title="Log configuration",
    sentence="A logging.ini of one's own, and the request's id in every line that a request has written.",
    source="log_configuration.py",
    links=("/stock/tea", "/stock/bread"),
    router=router,
)
