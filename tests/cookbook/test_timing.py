from __future__ import annotations

import httpx


def test_each_response_says_how_long_it_took(client: httpx.Client) -> None:
    for path in ("/", "/api/client", "/cache?key=greeting", "/nowhere"):
        assert 0 <= float(client.get(path).headers["x-process-time"]) < 60


def test_client_type_comes_from_the_header(client: httpx.Client) -> None:
    answer = client.get("/api/client", headers={"X-Client-Type": "phone"})
    assert answer.json() == {"client_type": "phone"}


def test_client_type_is_web_by_default_and_does_not_linger(client: httpx.Client) -> None:
    client.get("/api/client", headers={"X-Client-Type": "phone"})
    assert client.get("/api/client").json() == {"client_type": "web"}
