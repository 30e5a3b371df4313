"""The request-smuggling corpus: nothing ambiguous is accepted, at whatever place the bytes are cut."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from smuggling import ACCEPTED, REFUSED, SMUGGLED, Request

from headrace.protocol.events import ConnectionFailed, DataReceived, Event, RequestReceived, TrailersReceived
from headrace.protocol.http1 import HeadParser, HTTP1Engine, HTTP1Limits, ResponseDefaults
from headrace.protocol.http1.engine import State

CUTS = range(4)


def pieces(data: bytes, cut: int) -> Iterator[bytes]:
    """Whole, in single bytes, or at random places."""
    if cut == 0:
        yield data
        return
    chance = random.Random(cut)
    while data:
        size = 1 if cut == 1 and len(data) < 5000 else chance.randint(1, 9 if len(data) < 5000 else 3000)
        yield data[:size]
        data = data[size:]


class Reader:
    """Answers each whole request, and notes what was read."""

    def __init__(self) -> None:
        self.engine = HTTP1Engine(HeadParser(HTTP1Limits()), ResponseDefaults())
        self.requests: list[Request] = []
        self.failed: int | None = None
        self.out = b""
        self._request: RequestReceived | None = None
        self._body = b""

    def read(self, data: bytes, cut: int) -> None:
        for piece in pieces(data, cut):
            events = self.engine.receive_data(piece)
            while events:
                for event in events:
                    self._note(event)
                events = ()
                if self.engine.state is State.ANSWERING:
                    self.engine.send_headers(1, 200, [], True)
                    self.engine.send_data(1, b"", True)
                    events = self.engine.start_next_cycle() or ()
            sent = self.engine.data_to_send()
            assert isinstance(sent, bytes)
            self.out += sent

    def _note(self, event: Event) -> None:
        assert self.failed is None
        if isinstance(event, ConnectionFailed):
            self.failed = event.error.status
            return
        if isinstance(event, RequestReceived):
            self._request = event
            self._body = b""
            ended = event.end_stream
        elif isinstance(event, DataReceived):
            self._body += event.data
            ended = event.end_stream
        else:
            assert isinstance(event, TrailersReceived)
            ended = True
        if ended:
            assert self._request is not None
            self.requests.append((self._request.method, self._request.raw_path, self._body))


def test_the_corpus_is_large_and_its_names_tell_its_entries_apart() -> None:
    assert len(REFUSED) + len(ACCEPTED) >= 200
    names = [name for name, *_ in REFUSED] + [name for name, *_ in ACCEPTED]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("data", "status"), [entry[1:] for entry in REFUSED], ids=[entry[0] for entry in REFUSED]
)
def test_refused(data: bytes, status: int, cut: int) -> None:
    reader = Reader()
    reader.read(data + SMUGGLED, cut)
    # In pieces a head may be refused before its line tells an unknown method or expectation from noise.
    assert reader.failed == status or (cut and reader.failed == 400)
    assert reader.requests == []
    assert reader.engine.state is State.CLOSED
    assert reader.engine.should_close
    assert reader.engine.pending == b""
    assert reader.out.count(b"HTTP/1.1 ") <= 1
    if cut == 0:
        assert reader.out.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nconnection: close\r\n" in reader.out
    assert not reader.engine.receive_data(SMUGGLED)
    assert not reader.engine.start_next_cycle()
    assert reader.engine.data_to_send() == b""


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("data", "requests"), [entry[1:] for entry in ACCEPTED], ids=[entry[0] for entry in ACCEPTED]
)
def test_accepted_in_one_way_only(data: bytes, requests: list[Request], cut: int) -> None:
    reader = Reader()
    reader.read(data + SMUGGLED, cut)
    assert reader.failed is None
    assert reader.requests == [*requests, ("GET", b"/smuggled", b"")]
    assert reader.engine.pending == b""
