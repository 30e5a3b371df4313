from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import http2_client
from live import LiveServer, eventually, respond

Serve = Callable[..., LiveServer]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, b"Hello")


def get(server: LiveServer, http2: bool) -> Any:
    """The response to a request over either version."""
    if not http2:
        return server.get()
    client = http2_client.connect(server)
    response = client.get()
    client.close()
    return response


@pytest.mark.parametrize("http2", [False, True])
def test_fields_are_there(serve: Serve, http2: bool) -> None:
    response = get(serve(hello, stack=True), http2)
    assert response.get("x-request-id")
    assert float(response.get("x-process-time") or -1) >= 0
    assert (response.get("server-timing") or "").startswith("queue;dur=")


def test_layers_that_are_off_say_nothing(serve: Serve) -> None:
    response = serve(hello, stack=True, timing=False, request_id=False).get()
    assert response.get("x-request-id") is None
    assert response.get("server-timing") is None


def test_what_the_application_says_stands(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, headers=[(b"X-Request-ID", b"own"), (b"x-process-time", b"7")])

    response = serve(application, stack=True).get()
    assert [value for name, value in response.headers if name.lower() == "x-request-id"] == ["own"]
    assert [value for name, value in response.headers if name.lower() == "x-process-time"] == ["7"]


@pytest.mark.parametrize("made", ["a\r\nset-cookie: x=1", "ü", 7, None, b"bytes"])
def test_what_the_application_makes_of_the_id(serve: Serve, made: Any) -> None:
    """It may be anything: the response is whole, and nothing of it ends a line."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["request_id"] = made
        await respond(send, b"Hello")

    response = serve(application, stack=True).get()
    assert response.status == 200
    assert response.get("x-request-id") is None
    assert response.get("set-cookie") is None


@pytest.mark.parametrize("made", [None, [], "text"])
def test_what_the_application_makes_of_the_state(serve: Serve, made: Any) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = made
        await respond(send, b"Hello")

    assert serve(application, stack=True).get().status == 200


def test_our_own_answer_has_them(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("on purpose")

    response = serve(application, stack=True).get()
    assert response.status == 500
    assert response.get("x-request-id")
    assert response.get("server-timing")


@pytest.mark.parametrize("http2", [False, True])
def test_a_refusal_is_timed_too(serve: Serve, http2: bool) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        waiting.append(True)
        await asyncio.Event().wait()

    waiting: list[bool] = []
    server = serve(application, stack=True, limit_concurrency=1, on_disconnect="cancel")
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    eventually(lambda: waiting)
    response = get(server, http2)
    assert response.status == 503
    assert (response.get("server-timing") or "").startswith("queue;dur=")
    client.close()
