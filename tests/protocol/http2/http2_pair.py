"""Engines whose client has greeted, and an engine with a client beside it."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.protocol.events import Event, RequestReceived
from headrace.protocol.http2 import HTTP2Defaults, HTTP2Engine, HTTP2Limits
from http2_client import PREFACE, settings_frame

ngh2 = pytest.importorskip("ngh2", reason="the extra http2 is not installed")


def new(**limits: Any) -> HTTP2Engine:
    """An engine whose client has greeted."""
    engine = HTTP2Engine(HTTP2Limits(**limits), HTTP2Defaults(server=None, send_date=False))
    assert engine.receive_data(PREFACE + settings_frame() + settings_frame(ack=True)) == []
    engine.data_to_send()
    return engine


def answer(engine: HTTP2Engine, stream_id: int, body: bytes = b"hello") -> None:
    engine.send_headers(stream_id, 200, [(b"x-a", b"b")], True)
    engine.send_data(stream_id, body, True)


def request(
    stream_id: int, *, method: str = "GET", end_stream: bool = True, **fields: Any
) -> RequestReceived:
    event = RequestReceived(
        stream_id, method, "/", b"/", b"", [(b"host", b"a.test")], "2", end_stream, False, b""
    )
    return event._replace(**fields)


class Pair:
    """An engine, and libnghttp2 as its client; bytes go between the two in memory."""

    def __init__(self, **limits: Any) -> None:
        self.engine = HTTP2Engine(HTTP2Limits(**limits), HTTP2Defaults())
        self.client: Any = ngh2.Connection(ngh2.Role.CLIENT)
        self.client.initiate_connection({ngh2.Setting.ENABLE_PUSH: 0})

    def exchange(self) -> tuple[list[Event], list[Any]]:
        """Both ways once; gives the events of each side."""
        got = list(self.engine.receive_data(self.client.data_to_send()))
        self.client.receive_data(self.engine.data_to_send())
        got += self.engine.events()
        return got, self.client.events()
