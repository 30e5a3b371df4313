"""A span of the application's own inside the request's, so that a trace shows where the time went.

``headrace run main:app --tracing`` makes one span of each request; OTEL_* variables say where spans go::

    OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 headrace run main:app --tracing
    OTEL_TRACES_EXPORTER=console headrace run main:app --tracing

What is begun in the endpoint stands inside it, and whatever that calls inside that. Without ``--tracing`` the
same lines cost next to nothing.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, HTTPException
from opentelemetry import trace

from recipe import Recipe

_tracer = trace.get_tracer("cookbook.order_span")
_ORDERS = {1: ("tea", 2), 2: ("bread", 1), 3: ("honey", 5)}

router = APIRouter()


@router.get("/order/{order_id}")
async def show_order(order_id: int) -> dict[str, int | str | None]:
    """One order, and the trace in which it was looked up."""
    with _tracer.start_as_current_span("get_order") as span:
        span.set_attribute("order.id", order_id)
        order = await _read_order(order_id)
        if order is None:
            # An answer, not a fault: the span is no error.
            span.set_attribute("order.is_missing", True)
            raise HTTPException(404, f"There is no order {order_id}.")
        item, count = order
        return {"order_id": order_id, "item": item, "count": count, "trace_id": _trace_id(span)}


async def _read_order(order_id: int) -> tuple[str, int] | None:
    with _tracer.start_as_current_span("read_order"):
        await asyncio.sleep(0.01)  # as if a database were asked
        return _ORDERS.get(order_id)


def _trace_id(span: trace.Span) -> str | None:
    context = span.get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


RECIPE = Recipe(
    title="Order endpoint with a span",
    sentence="With --tracing the trace of a request shows the span get_order, and what it waited for.",
    source="order_span.py",
    links=("/order/1",),
    router=router,
)
