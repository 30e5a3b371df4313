"""Any order of calls and any bytes: the engine's promises hold in every state."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from vectors import GET, POST_CHUNKED, VECTORS, pieces

from headrace.protocol.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    RequestReceived,
    TrailersReceived,
)
from headrace.protocol.http1 import HeadParser, HTTP1Engine, HTTP1Limits, ResponseDefaults
from headrace.protocol.http1.engine import State

BYTES = st.one_of(
    st.sampled_from([vector.data for vector in VECTORS]),
    st.sampled_from([
        GET, GET[:9], GET[9:], POST_CHUNKED, b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"\r\n",
        b"\r", b"\n", b"x", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"hello",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
    ]),
    st.binary(max_size=20),
)  # fmt: skip
HEADERS = st.lists(
    st.sampled_from([
        (b"x", b"y"), (b"content-length", b"2"), (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"), (b"date", b"z"), (b"x", b"\n"), (b"", b""),
        (b"content-length", b"z"),
    ]),
    max_size=3,
)  # fmt: skip


class EngineMachine(RuleBasedStateMachine):
    """The calls a connection and an exchange may make, in any order their own rules allow."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = HTTP1Engine(HeadParser(HTTP1Limits(body_bytes=100)), ResponseDefaults())
        self.fed_bytes = 0
        self.failed = False
        self.is_under_way = False
        self.is_head_held = False
        self.has_ended = False

    def take(self, events: object) -> None:
        for event in events or ():  # type: ignore[attr-defined]
            assert not self.failed, "an event behind the failure"
            self.take_one(event)

    def take_one(self, event: Event) -> None:
        if isinstance(event, ConnectionFailed):
            self.failed = True
            assert self.engine.state is State.CLOSED
        elif isinstance(event, RequestReceived):
            assert not self.is_under_way
            self.is_under_way = True
            self.has_ended = event.end_stream
        else:
            assert self.is_under_way
            assert not self.has_ended
            assert isinstance(event, TrailersReceived | DataReceived)
            self.has_ended = isinstance(event, TrailersReceived) or event.end_stream

    @rule(data=BYTES)
    def receive(self, data: bytes) -> None:
        self.fed_bytes += len(data)
        if data:
            self.take(self.engine.receive_data(data))

    @rule()
    def receive_eof(self) -> None:
        self.engine.receive_eof()

    @precondition(lambda self: self.is_under_way and not self.is_head_held)
    @rule(headers=HEADERS, has_body=st.booleans(), status=st.sampled_from([200, 204, 304, 599]))
    def send_headers(self, headers: list[tuple[bytes, bytes]], has_body: bool, status: int) -> None:
        try:
            self.engine.send_headers(1, status, headers, has_body)
        except ValueError:
            return
        self.is_head_held = True

    @precondition(lambda self: self.is_head_held)
    @rule(more=st.lists(st.binary(max_size=5), max_size=2), trailers=st.booleans())
    def respond(self, more: list[bytes], trailers: bool) -> None:
        for piece in more:
            self.engine.send_data(1, piece, False)
        if trailers:
            self.engine.send_data(1, b"", False)
            self.engine.send_trailers(1, [(b"x", b"y")])
        else:
            self.engine.send_data(1, b"", True)
        self.is_head_held = self.is_under_way = False
        self.take(self.engine.start_next_cycle())

    @precondition(lambda self: self.is_under_way)
    @rule()
    def give_up(self) -> None:
        self.engine.drop_headers(1)
        self.engine.send_error(1, 500)
        self.is_head_held = self.is_under_way = False
        assert not self.engine.start_next_cycle()
        assert self.engine.should_close

    @precondition(lambda self: self.is_under_way)
    @rule()
    def ask_for_the_body(self) -> None:
        self.engine.send_continue(1)

    @precondition(lambda self: self.is_under_way and not self.is_head_held)
    @rule()
    def hint(self) -> None:
        self.engine.send_informational(1, 103, [(b"link", b"</a>")])

    @rule()
    def flush(self) -> None:
        sent = self.engine.data_to_send()
        assert isinstance(sent, bytes)
        assert self.engine.data_to_send() == b""

    @rule()
    def forget(self) -> None:
        self.engine.forget()

    @invariant()
    def is_bounded_by_what_was_fed(self) -> None:
        assert len(self.engine.pending) <= self.fed_bytes

    @invariant()
    def closed_is_closed(self) -> None:
        if self.engine.state is State.CLOSED:
            assert self.engine.should_close
            assert not self.engine.receive_data(GET)
        if self.failed:
            assert self.engine.state is State.CLOSED
            assert self.engine.pending == b""

    @invariant()
    def a_request_is_under_way_when_the_engine_says_so(self) -> None:
        state = self.engine.state
        if state is State.IDLE:
            assert not self.is_under_way
        elif state is State.ANSWERING:
            assert self.is_under_way
            assert self.has_ended
        elif state is State.BODY:
            assert self.is_under_way is not self.engine.discarding


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(0, 300), st.binary(max_size=50), st.integers(0, 99))
def test_bytes_given_are_bytes_of_the_body_and_bytes_that_wait(
    body: bytes, short: int, behind: bytes, cut: int
) -> None:
    """A body of known length, perhaps cut short."""
    given_bytes = body[: len(body) - short] if short < len(body) else body + behind
    engine = HTTP1Engine(HeadParser(HTTP1Limits()), ResponseDefaults())
    engine.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
    read = b""
    for piece in pieces(given_bytes, cut):
        for event in engine.receive_data(piece):
            assert isinstance(event, DataReceived)
            read += event.data
    assert read + engine.pending == given_bytes
    assert read == body[: len(given_bytes)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(VECTORS), min_size=1, max_size=5), st.integers(0, 99), st.data())
def test_what_waits_is_what_was_not_read(vectors: list, cut: int, data: st.DataObject) -> None:
    """Of a train of requests, each answer takes exactly one off what waits."""
    train = b"".join(vector.data for vector in vectors if not vector.closes)
    count = sum(len(vector.requests) for vector in vectors if not vector.closes)
    engine = HTTP1Engine(HeadParser(HTTP1Limits()), ResponseDefaults())
    seen = 0
    for piece in pieces(train, cut):
        seen += sum(isinstance(event, RequestReceived) for event in engine.receive_data(piece))
        while engine.state is State.ANSWERING and data.draw(st.booleans()):
            waiting = engine.pending
            engine.send_headers(1, 204, [], False)
            engine.send_data(1, b"", True)
            events = engine.start_next_cycle() or ()
            seen += sum(isinstance(event, RequestReceived) for event in events)
            assert waiting.endswith(engine.pending)
    while engine.state is State.ANSWERING:
        engine.send_headers(1, 204, [], False)
        engine.send_data(1, b"", True)
        seen += sum(isinstance(event, RequestReceived) for event in engine.start_next_cycle() or ())
    assert seen == count
    assert engine.state is State.IDLE
