from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx

FIGURES = {
    "nothing",
    "headrace --stack: request id, timing, metrics",
    "timing in a BaseHTTPMiddleware",
    "timing, and a histogram in a second BaseHTTPMiddleware",
}


def test_the_measurement_has_a_figure_of_each_variant(client: httpx.Client) -> None:
    response = client.post("/middleware-cost/measurement")
    assert response.status_code == 200, response.text
    measured = response.json()
    assert {figure["name"] for figure in measured["figures"]} == FIGURES
    assert all(figure["cpu_us"] > 0 for figure in measured["figures"])
    assert measured["connections"] * measured["rounds"] > 0


def test_two_at_once_are_one_measurement(client: httpx.Client) -> None:
    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(client.post, "/middleware-cost/measurement") for _ in range(3)]
    assert sorted(one.result().status_code for one in asked) == [200, 409, 409]


def test_only_a_post_measures(client: httpx.Client) -> None:
    assert client.get("/middleware-cost/measurement").status_code == 405


def test_the_page_says_how_it_is_measured(client: httpx.Client) -> None:
    page = " ".join(client.get("/middleware-cost").text.split())
    assert "processor time that the serving process has taken for one request" in page
