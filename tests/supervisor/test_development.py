"""``headrace dev`` and ``--reload``, by real processes and saved files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from live import Client, eventually
from supervised import APP, Supervised
from websocket_client import connect

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are read from /proc")

Develop = Callable[..., Supervised]

STREAMS = APP.replace(
    '    if path == "/leader":',
    """    if path == "/events":
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", b"text/event-stream")]})
        while True:
            await send({"type": "http.response.body", "body": b"data: x\\n\\n", "more_body": True})
            await asyncio.sleep(3600)
    if path == "/leader":""",
)


@pytest.fixture
def develop(supervise: Callable[..., Supervised]) -> Develop:
    """Give a function that runs ``headrace run --reload`` on ``app.py``."""

    def start(*arguments: str, **more: Any) -> Supervised:
        return supervise("--reload", *arguments, workers=1, **more)

    return start


def answer(server: Supervised, headers: tuple[str, ...] = ()) -> tuple[int, str]:
    """Status and body of one response, on a connection of its own."""
    client = server.connect()
    try:
        response = client.request(headers=("connection: close", *headers))
        return response.status, response.body.decode()
    finally:
        client.close()


def save(path: Path, text: str) -> None:
    """As editors do: another file in its place."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)


def version(number: int) -> str:
    return APP.replace('path, body = scope["path"], PID', f'path, body = scope["path"], b"version {number}"')


def test_saved_code_answers(develop: Develop, tmp_path: Path) -> None:
    server = develop(source=version(1))
    server.wait_ready(1)
    assert answer(server) == (200, "version 1")
    for number in (2, 3):
        save(tmp_path / "app.py", version(number))
        server.wait_line(r"Reloading: app\.py changed")
        eventually(lambda number=number: answer(server) == (200, f"version {number}"))


def test_streams_do_not_hold_it_up(develop: Develop, tmp_path: Path) -> None:
    server = develop(source=STREAMS)
    (old,) = server.wait_ready(1)
    websocket = connect(server)
    events = server.connect()
    events.send(b"GET /events HTTP/1.1\r\nhost: a.test\r\n\r\n")
    events.read_until(b"data: x")
    held = server.connect()
    held.send(b"GET /held HTTP/1.1\r\nhost: a.test\r\n\r\n")
    save(tmp_path / "app.py", version(2))
    eventually(lambda: answer(server) == (200, "version 2"))
    assert websocket.read_close()[0] == 1012
    # A request that never ends is cut soon.
    eventually(lambda: old not in server.workers())


def test_import_error_is_a_page_until_it_is_fixed(develop: Develop, tmp_path: Path) -> None:
    server = develop(source=version(1))
    server.wait_ready(1)
    save(tmp_path / "app.py", "def broken(:\n")
    eventually(lambda: answer(server)[0] == 500)
    _, page = answer(server, ("accept: text/html",))
    assert "SyntaxError" in page
    assert "def broken(:" in page
    assert "def broken(:" in server.text
    save(tmp_path / "app.py", version(2))
    eventually(lambda: answer(server) == (200, "version 2"))


def test_broken_from_the_beginning(develop: Develop, tmp_path: Path) -> None:
    server = develop(source="1 / 0\n")
    status, page = answer(server)
    assert status == 500
    assert "ZeroDivisionError" in page
    save(tmp_path / "app.py", version(1))
    eventually(lambda: answer(server) == (200, "version 1"))


def test_failing_lifespan_is_a_page(develop: Develop) -> None:
    server = develop(
        source="async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    status, page = answer(server)
    assert (status, "no database" in page) == (500, True)


def test_wrong_name_ends_with_3(develop: Develop) -> None:
    server = develop(source="other = 1\n")
    assert server.wait_exit() == 3
    assert "Traceback" not in server.text
    assert "has no attribute 'app'" in server.text


def test_name_lost_later_is_a_page(develop: Develop, tmp_path: Path) -> None:
    server = develop(source=version(1))
    server.wait_ready(1)
    save(tmp_path / "app.py", "other = 1\n")
    eventually(lambda: answer(server)[0] == 500)
    assert "has no attribute" in answer(server)[1]


def test_process_that_ends_comes_back_with_a_change(develop: Develop, tmp_path: Path) -> None:
    server = develop(source=version(1))
    server.wait_ready(1)
    client: Client = server.connect()
    client.send(b"GET /exit HTTP/1.1\r\nhost: a.test\r\n\r\n")
    server.wait_line("Waiting for a change")
    save(tmp_path / "app.py", version(2))
    eventually(lambda: answer(server) == (200, "version 2"))


def test_blocked_loop_does_not_hold_it_up(develop: Develop, tmp_path: Path) -> None:
    server = develop(source=version(1))
    (old,) = server.wait_ready(1)
    client = server.connect()
    client.send(b"GET /block HTTP/1.1\r\nhost: a.test\r\n\r\n")
    server.wait_line("blocking")
    save(tmp_path / "app.py", version(2))
    eventually(lambda: answer(server) == (200, "version 2"))
    eventually(lambda: old not in server.workers())


def test_closed_terminal_ends_it(develop: Develop) -> None:
    server = develop(source=version(1))
    server.wait_ready(1)
    server.signal(signal.SIGHUP)
    assert server.wait_exit() == 0


def test_debugger_may_hold_the_loop(develop: Develop) -> None:
    # Longer than --timeout-worker-healthcheck allows in production, where that is not given.
    source = version(1).replace("time.sleep(120)", "time.sleep(6.5)")
    server = develop(source=source)
    server.wait_ready(1)
    assert server.connect().request("/block").status == 200
    assert "has been blocked" not in server.text


def test_several_workers_are_one(supervise: Callable[..., Supervised]) -> None:
    server = supervise("--reload", workers=4)
    server.wait_ready(1)
    assert "--workers" in server.text
