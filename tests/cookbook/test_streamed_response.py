from __future__ import annotations

import signal
from pathlib import Path

import httpx

from processes import PATIENCE_S, HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"


def test_every_line_is_there(client: httpx.Client) -> None:
    response = client.get("/lines", params={"count": 3, "pause_s": 0})
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == "line 1 of 3\nline 2 of 3\nline 3 of 3\n"


def test_a_line_leaves_before_the_next_is_made(client: httpx.Client) -> None:
    # The second line comes later than this client is ready to wait.
    with client.stream("GET", "/lines", params={"count": 2, "pause_s": 60}) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        assert next(response.iter_raw()) == b"line 1 of 2\n"


def test_senseless_numbers_are_refused(client: httpx.Client) -> None:
    assert client.get("/lines", params={"count": 0}).status_code == 422
    assert client.get("/lines", params={"pause_s": -1}).status_code == 422


def test_a_connection_opened_during_the_drain_delay_is_served() -> None:
    with HeadraceProcess("main:app", "--drain-delay", "1000", folder=COOKBOOK) as process:
        process.send_signal(signal.SIGTERM)
        process.wait_line("Shutting down")
        for is_http2 in (False, True):
            with httpx.Client(
                http1=not is_http2, http2=is_http2, timeout=PATIENCE_S, trust_env=False
            ) as client:
                response = client.get(f"{process.url}/lines?count=2")
            assert (response.status_code, response.http_version) == (200, ("HTTP/1.1", "HTTP/2")[is_http2])
            assert response.text.endswith("line 2 of 2\n")
        assert process.stop() == -signal.SIGTERM  # a second signal does not wait
