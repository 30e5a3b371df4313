from __future__ import annotations

import signal
from pathlib import Path

import httpx

from processes import HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"


def test_a_value_written_is_read(client: httpx.Client) -> None:
    assert client.get("/cache", params={"key": "greeting"}).json()["value"] == "hello from the store"
    written = client.put("/cache", params={"key": "k", "value": "v"})
    assert (written.status_code, written.content) == (204, b"")
    assert client.get("/cache", params={"key": "k"}).json() == {"key": "k", "value": "v"}


def test_a_missing_value_is_not_found(client: httpx.Client) -> None:
    assert client.get("/cache", params={"key": "absent"}).status_code == 404


def test_the_store_is_open_before_the_first_request_and_closed_at_the_end() -> None:
    with HeadraceProcess("main:app", folder=COOKBOOK) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        lines = process.lines
    opened, running, closed, finished = (
        next(number for number, line in enumerate(lines) if words in line)
        for words in (
            "The store is open.",
            "Uvicorn running on",
            "The store is closed.",
            "Finished server process",
        )
    )
    assert opened < running < closed < finished
