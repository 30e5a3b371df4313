"""What one recipe brings to the cookbook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One recipe: what the index says of it, and what it adds to the application.

    Attributes:
        title: a few words.
        sentence: one sentence on what it shows.
        source: the file to read.
        links: paths that answer a GET, to try it out.
        router: its endpoints.
        middleware: its layers, outermost first.
        lifespan: opened before the first request and closed behind the last; what it yields is in
            ``request.state``.
    """

    title: str
    sentence: str
    source: str
    links: tuple[str, ...]
    router: APIRouter
    middleware: tuple[Middleware, ...] = ()
    lifespan: Lifespan | None = None
