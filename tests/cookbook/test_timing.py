from __future__ import annotations

import re
from pathlib import Path

import httpx

from processes import PATIENCE_S, HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"


def test_each_response_says_how_long_it_took(client: httpx.Client) -> None:
    for path in ("/", "/api/client", "/cache?key=greeting", "/nowhere"):
        assert 0 <= float(client.get(path).headers["x-process-time"]) < 60


def test_client_type_comes_from_the_header(client: httpx.Client) -> None:
    answer = client.get("/api/client", headers={"X-Client-Type": "phone"})
    assert answer.json() == {"client_type": "phone"}


def test_client_type_is_web_by_default_and_does_not_linger(client: httpx.Client) -> None:
    client.get("/api/client", headers={"X-Client-Type": "phone"})
    assert client.get("/api/client").json() == {"client_type": "web"}


def test_the_database_s_time_stands_beside_the_server_s(client: httpx.Client) -> None:
    headers = client.get("/report").headers
    database, server = headers.get_list("server-timing")
    assert re.fullmatch(r'db;desc="orders of the week";dur=\d+\.\d\d', database)
    assert re.fullmatch(r"queue;dur=\d+\.\d\d, app;dur=\d+\.\d\d", server)
    assert len(headers.get_list("x-process-time")) == 1


def test_without_the_stack_the_recipe_s_own_layer_says_it() -> None:
    with HeadraceProcess("main:app", folder=COOKBOOK) as process:
        headers = httpx.get(f"{process.url}/report", timeout=PATIENCE_S, trust_env=False).headers
    assert len(headers.get_list("server-timing")) == 1
    assert len(headers.get_list("x-process-time")) == 1
