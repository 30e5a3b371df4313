from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from processes import PATIENCE_S, HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"


@pytest.fixture(scope="module")
def configured() -> Iterator[HeadraceProcess]:
    """As the recipe says to run it."""
    with HeadraceProcess(
        "main:app", "--request-id", "--log-config", "logging.ini", folder=COOKBOOK
    ) as process:
        yield process


def get(process: HeadraceProcess, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{process.url}{path}", headers=headers, timeout=PATIENCE_S, trust_env=False)


def test_the_stack_has_the_id_too(client: httpx.Client) -> None:
    response = client.get("/stock/tea")
    assert response.json() == {"item": "tea", "count": 12, "request_id": response.headers["x-request-id"]}
    assert client.get("/stock/unicorns").status_code == 404


def test_lines_have_the_id_of_their_request(configured: HeadraceProcess) -> None:
    response = get(configured, "/stock/bread")
    request_id = response.headers["x-request-id"]
    assert response.json() == {"item": "bread", "count": 0, "request_id": request_id}
    line = configured.wait_line(rf"^\d{{4}}-.* {re.escape(request_id)} cookbook\.stock: .*$")[0]
    assert re.search(r"INFO +\S+ cookbook\.stock: The stock of bread is used up$", line)
    configured.wait_line(rf' {re.escape(request_id)} uvicorn\.access: .*"GET /stock/bread HTTP/1\.1" 200$')


def test_an_id_that_the_caller_brings(configured: HeadraceProcess) -> None:
    response = get(configured, "/stock/x%0Ay", **{"X-Request-ID": "my-first"})
    assert (response.status_code, response.headers["x-request-id"]) == (404, "my-first")
    configured.wait_line(r"WARNING my-first cookbook\.stock: Nobody knows the item 'x\\ny'$")


def test_lines_outside_of_requests_have_a_hyphen(configured: HeadraceProcess) -> None:
    configured.wait_line(r"INFO +- uvicorn\.error: Application startup complete\.$")
