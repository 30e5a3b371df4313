"""How far an application's response is, and which message may come then. ASGI HTTP specification 2.3."""

from __future__ import annotations

from enum import IntEnum


class ResponseState(IntEnum):
    """How far the application's response is."""

    EXPECT_START = 0
    HEAD_HELD = 1
    """Started; the head waits for the first piece of body, so that a small response is one write."""
    BODY = 2
    TRAILERS = 3
    COMPLETE = 4


MESSAGES: dict[tuple[ResponseState, str], ResponseState] = {
    (ResponseState.EXPECT_START, "http.response.early_hint"): ResponseState.EXPECT_START,
    (ResponseState.EXPECT_START, "http.response.start"): ResponseState.HEAD_HELD,
    (ResponseState.HEAD_HELD, "http.response.body"): ResponseState.BODY,
    (ResponseState.HEAD_HELD, "http.response.pathsend"): ResponseState.COMPLETE,
    (ResponseState.BODY, "http.response.body"): ResponseState.BODY,
    (ResponseState.BODY, "http.response.pathsend"): ResponseState.COMPLETE,
    (ResponseState.TRAILERS, "http.response.trailers"): ResponseState.TRAILERS,
}
"""The theory: which message may come in which state, and the state behind it while more is promised. The
last body goes on to COMPLETE, or to TRAILERS where the start promised them; the last trailers to COMPLETE.
Every other pair is an ``ASGIError``. ``HTTPExchange.send`` is this table flattened, for speed; a test
holds the two against each other."""
