from __future__ import annotations

from pathlib import Path

import httpx

from otlp import http_receiver
from processes import PATIENCE_S, HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_without_tracing_there_is_no_trace(client: httpx.Client) -> None:
    assert client.get("/order/1").json() == {"order_id": 1, "item": "tea", "count": 2, "trace_id": None}
    assert client.get("/order/9").status_code == 404
    assert client.get("/order/tea").status_code == 422


def test_the_span_stands_inside_the_request_s() -> None:
    with http_receiver() as receiver:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with HeadraceProcess("main:app", "--tracing", folder=COOKBOOK, variables=variables) as process:
            headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            url = f"{process.url}/order/2"
            answer = httpx.get(url, headers=headers, timeout=PATIENCE_S, trust_env=False)
            assert answer.json()["trace_id"] == TRACE
            server = receiver.one("GET /order/{order_id}")
            order = receiver.one("get_order")
            read = receiver.one("read_order")
    assert {span.trace_id for span in (server, order, read)} == {TRACE}
    assert server.parent_id == "00f067aa0ba902b7"
    assert order.parent_id == server.span_id
    assert read.parent_id == order.span_id
    assert order.attributes == {"order.id": 2}
