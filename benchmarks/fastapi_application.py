"""The FastAPI application of the benchmarks; apart from the raw ones, which must not import FastAPI."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def read_root() -> dict[str, str]:
    """The smallest JSON that a path operation returns."""
    return {"message": "Hello, world!"}
