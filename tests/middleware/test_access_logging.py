"""The access log under other servers."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.middleware.access_logging import AccessLogging
from headrace.middleware.request_id import RequestID
from live import LiveServer, eventually, read_body, respond
from peer_servers import PeerServer

NAME = "headrace.access"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the status that is in the path, and the body it was sent."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/broken":
        raise LookupError
    await respond(send, await read_body(receive), status=int(scope["path"][1:4]))


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The JSON lines that have been written."""
    stream = io.StringIO()
    logger = logging.getLogger(NAME)
    before = (logger.handlers[:], logger.propagate, logger.level)
    logger.handlers = []
    wrapped = AccessLogging(application)  # gives it a handler
    assert wrapped
    handler = logger.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.handlers, logger.propagate, logger.level = before


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn"])
def test_other_servers(name: str, lines: Callable[[], list[dict[str, Any]]]) -> None:
    layered = AccessLogging(RequestID(application), "json", sample=0.0, skip=("/404/*",), worker=2)
    with PeerServer(name, layered) as server:
        client = server.connect()
        client.request("/200")
        client.request("/404/healthz")
        client.request("/404", "POST", b"body", ["x-request-id: r-1"])
        server.get("/broken")
        eventually(lambda: len(lines()) == 2)
    refused, broken = lines()
    assert (refused["status"], refused["method"], refused["path"]) == (404, "POST", "/404")
    assert (refused["bytes"], refused["received_bytes"]) == (4, 4)
    assert (refused["request_id"], refused["worker"], refused["sampled"]) == ("r-1", 2, 1.0)
    assert (broken["status"], broken["error_type"]) == (500, "LookupError")
    assert len(broken["request_id"]) > 1


def test_headrace_itself(serve: Callable[..., LiveServer], lines: Callable[[], list[dict[str, Any]]]) -> None:
    serve(AccessLogging(application, "json"), access_log=False).get("/204")
    eventually(lambda: [line["status"] for line in lines()] == [204])


def test_loggers_of_the_users_own_keep_their_handlers() -> None:
    logger = logging.getLogger("tests.access")
    own = logging.NullHandler()
    logger.handlers = [own]
    AccessLogging(application, logger="tests.access")
    assert logger.handlers == [own]
    assert logger.propagate


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigError, match="is none of uvicorn"):
        AccessLogging(application, "jsn")
    with pytest.raises(ConfigError, match="not between 0 and 1"):
        AccessLogging(application, sample=2)
