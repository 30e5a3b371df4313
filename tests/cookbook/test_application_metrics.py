from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from live import eventually
from processes import PATIENCE_S, HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"


@pytest.fixture(scope="module")
def workers() -> Iterator[HeadraceProcess]:
    """As the recipe says to run it."""
    with HeadraceProcess("main:app", "--metrics", "--workers", "2", folder=COOKBOOK) as process:
        yield process


def get(process: HeadraceProcess, path: str) -> httpx.Response:
    return httpx.get(f"{process.url}{path}", timeout=PATIENCE_S, trust_env=False)


def value_of(page: str, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_own_metrics_are_summed_over_the_workers(workers: HeadraceProcess) -> None:
    for _ in range(6):
        assert get(workers, "/coffee/espresso").json() == {"kind": "espresso"}
    assert get(workers, "/coffee/tea").status_code == 422

    def page() -> str:
        text = get(workers, "/metrics").text
        return text if value_of(text, 'coffee_cups_total{kind="espresso"}') == 6 else ""

    text = eventually(page, "six cups")
    assert value_of(text, "coffee_brewing_seconds_count") == 6
    assert value_of(text, "coffee_machines_busy") == 0


def test_the_server_s_stand_beside_them(workers: HeadraceProcess) -> None:
    get(workers, "/coffee/lungo")
    series = r'http_request_duration_seconds_count\{[^\n]*endpoint="/coffee/\{kind\}"'
    eventually(lambda: re.search(series, get(workers, "/metrics").text), "the endpoint's own series")


def test_one_process_alone_shows_its_own(client: httpx.Client) -> None:
    client.get("/coffee/lungo")
    page = client.get("/metrics")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
