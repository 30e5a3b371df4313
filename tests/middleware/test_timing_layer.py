"""What responses say of their time."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import Any

import pytest

from headrace.middleware import timing
from headrace.middleware.timing import Timing
from live import LiveServer, respond
from peer_servers import PeerServer

START = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
BODY = {"type": "http.response.body"}


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "server" not in request.fixturenames:
        # 10.0 where the layer begins, 10.00125 where the response does.
        monkeypatch.setattr(timing, "monotonic", itertools.count(10.0, 0.00125).__next__)


async def nothing() -> Any:
    raise AssertionError("nobody receives")


def call(*messages: Any) -> list[Any]:
    """One request; what was sent."""
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async def keep(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        await Timing(application)({"type": "http"}, nothing, keep)

    asyncio.run(main())
    return sent


def test_both_fields() -> None:
    start, body = call(START, BODY)
    assert start["headers"] == [
        (b"a", b"b"),
        (b"x-process-time", b"0.001250"),
        (b"server-timing", b"app;dur=1.25"),
    ]
    assert body is BODY


@pytest.mark.parametrize("name", [b"x-process-time", b"X-Process-Time"])
def test_a_time_of_the_application_s_stands(name: bytes) -> None:
    start, _ = call({**START, "headers": [(name, b"5")]}, BODY)
    assert start["headers"] == [(name, b"5"), (b"server-timing", b"app;dur=1.25")]


def test_server_timing_of_the_application_s_stands_beside_ours() -> None:
    start, _ = call({**START, "headers": [(b"server-timing", b"db;dur=5")]}, BODY)
    assert [value for name, value in start["headers"] if name == b"server-timing"] == [
        b"db;dur=5",
        b"app;dur=1.25",
    ]


@pytest.mark.parametrize("fields", [None, [(b"a", b"b")], ((b"a", b"b"),), ([b"a", b"b"],)])
def test_messages_that_the_application_keeps_stay_as_they_are(fields: Any) -> None:
    start: dict[str, Any] = {"type": "http.response.start", "status": 200, "trailers": True}
    if fields is not None:
        start["headers"] = fields
    kept = dict(start)
    sent, _ = call(start, BODY)
    assert start == kept
    assert sent["trailers"] is True
    assert [pair[0] for pair in sent["headers"]] == [b"a", b"x-process-time", b"server-timing"][
        fields is None :
    ]
    assert fields is None or len(fields) == 1


def test_only_the_response_s_head_is_changed() -> None:
    hint = {"type": "http.response.early_hint", "links": []}
    trailers = {"type": "http.response.trailers", "headers": []}
    sent = call(hint, START, BODY, trailers)
    assert [sent[0] is hint, sent[2] is BODY, sent[3] is trailers] == [True] * 3


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_scopes_pass(kind: str) -> None:
    seen: list[Any] = []

    async def application(*arguments: Any) -> None:
        seen.append(arguments)

    async def main() -> None:
        await Timing(application)({"type": kind}, nothing, nothing)

    asyncio.run(main())
    assert seen == [({"type": kind}, nothing, nothing)]


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await respond(send, b"abc")


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
def test_under_another_server(server: str) -> None:
    with PeerServer(server, Timing(application)) as peer:
        response = peer.get()
    assert re.fullmatch(r"\d+\.\d{6}", response.get("x-process-time") or "")
    assert re.fullmatch(r"app;dur=\d+\.\d\d", response.get("server-timing") or "")


@pytest.mark.parametrize("server", ["headrace"])
def test_under_headrace(server: str) -> None:
    live = LiveServer(application, "asyncio", timing=True)
    live.start()
    response = live.get()
    live.stop()
    assert re.fullmatch(r"\d+\.\d{6}", response.get("x-process-time") or "")
    assert re.fullmatch(r"queue;dur=\d+\.\d\d, app;dur=\d+\.\d\d", response.get("server-timing") or "")
