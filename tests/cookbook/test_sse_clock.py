from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from processes import PATIENCE_S, HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"


def ticks(lines: Iterable[str]) -> Iterator[datetime]:
    """The times of the stream's events."""
    kind = ""
    for line in lines:
        name, _, value = line.rstrip("\n").partition(": ")
        if name == "event":
            kind = value
        elif name == "data" and kind == "tick":
            yield datetime.fromisoformat(json.loads(value)["time"])


def is_ended(stream: socket.socket) -> bool:
    """Read a chunked response; whether it ends whole, and before another 20 ticks."""
    last = b""
    for _ in range(20):
        data = stream.recv(65_536)
        if not data:
            return last.endswith(b"0\r\n\r\n")
        last = data
    return False


def test_time_goes_on(client: httpx.Client) -> None:
    with client.stream("GET", "/clock/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        times = ticks(response.iter_lines())
        first, second = next(times), next(times)
    assert first < second
    assert first.utcoffset() is not None


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_the_stream_ends_by_itself_when_the_server_stops(version: str) -> None:
    # curl, as httpx 0.28 gives a stream of HTTP/2 up when GOAWAY comes.
    curl = ("curl", "-sSN", "--noproxy", "*", "--max-time", str(PATIENCE_S), version)
    with (
        HeadraceProcess("main:app", "--timeout-graceful-shutdown", "1000", folder=COOKBOOK) as process,
        subprocess.Popen([*curl, f"{process.url}/clock/events"], stdout=subprocess.PIPE, text=True) as client,
    ):
        assert client.stdout is not None
        next(ticks(client.stdout))
        process.send_signal(signal.SIGTERM)
        client.stdout.read()
        assert client.wait(PATIENCE_S) == 0  # so there was a last chunk, or END_STREAM
        assert process.wait() == -signal.SIGTERM
    assert "Exception" not in process.output
    assert "Cancel" not in process.output


def test_a_stream_that_begins_while_the_server_stops_ends_too() -> None:
    """Browsers keep a connection in reserve, and come back on it."""
    request = b"GET /clock/events HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with HeadraceProcess("main:app", "--timeout-graceful-shutdown", "1000", folder=COOKBOOK) as process:
        address = ("127.0.0.1", process.port)
        with (
            socket.create_connection(address, PATIENCE_S) as first,
            socket.create_connection(address, PATIENCE_S) as reserve,
        ):
            first.sendall(request)
            assert b"200" in first.recv(65_536)
            process.send_signal(signal.SIGTERM)
            assert is_ended(first)
            reserve.sendall(request)
            assert is_ended(reserve)
            assert process.wait() == -signal.SIGTERM
