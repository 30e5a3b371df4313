"""wsproto as the peer and as the judge, and any order of calls.

Where the engine and wsproto (1.3) differ, and why:

- wsproto refuses close code 1014, which the registry of IANA has since 2020 (RFC 6455 §11.7 gives it the
  last word); the strategies leave it out.
- wsproto takes control frames between the fragments of a compressed message for its end, and inflates a
  message that starts inside another before it refuses it; compressed messages are compared without either.
- wsproto has no size limit and takes any number of empty fragments; the strategies stay below ours.
- wsproto judges text inside a frame that is not whole; the engine when it is whole. Only whole frames are
  compared.
"""

from __future__ import annotations

import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from websocket_vectors import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    VECTORS,
    Expected,
    Failed,
    agree,
    close_payload,
    frame,
    frames_of,
    pieces,
    run,
)
from wsproto.connection import CLIENT, SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from headrace.errors import LocalProtocolError
from headrace.protocol.websocket import (
    CloseReceived,
    ConnectionFailed,
    PongReceived,
    State,
    WebSocketEngine,
)
from headrace.protocol.websocket.closing import CLOSING_HANDSHAKE, Step

LIMIT = 100_000

# What wsproto makes of the same bytes


def judged(connection: Connection, data: bytes) -> tuple[list[Expected], list[bytes]]:
    """wsproto's events in our words, and the payloads of the Pings in them."""
    connection.receive_data(data)
    events: list[Expected] = []
    pings: list[bytes] = []
    parts: list[str | bytes] = []
    for event in connection.events():
        if isinstance(event, Message):
            is_text = isinstance(event, TextMessage)
            parts.append(event.data if is_text else bytes(event.data))
            if event.message_finished:
                events.append(("" if is_text else b"").join(parts))  # type: ignore[arg-type]
                parts = []
        elif isinstance(event, Ping):
            pings.append(bytes(event.payload))
        elif isinstance(event, Pong):
            events.append(PongReceived(bytes(event.payload)))
        elif isinstance(event, CloseConnection):
            if connection.state is ConnectionState.OPEN:
                events.append(Failed(int(event.code)))
            else:
                events.append(CloseReceived(int(event.code), event.reason or ""))
    return events, pings


PAYLOADS = st.one_of(
    st.text(max_size=12).map(str.encode),
    st.binary(max_size=12),
    st.sampled_from([b"\xce", b"\xba", b"\xed\xa0\x80", bytes(125), b"a" * 126, b"a" * 300, b"\xff" * 126]),
)
CODES = st.one_of(
    st.sampled_from([1000, 1001, 1005, 1006, 1013, 1015, 2999, 3000, 4999, 5000]),
    st.integers(0, 65_535).filter(lambda code: code != 1014),
)
SOUND = st.one_of(
    st.builds(frame, st.sampled_from([TEXT, BINARY]), PAYLOADS, mask=st.binary(min_size=4, max_size=4)),
    st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125)),
    st.lists(
        st.one_of(
            st.builds(frame, st.just(CONTINUATION), PAYLOADS, fin=st.just(False)),
            st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=3)),
        ),
        max_size=4,
    ).flatmap(
        lambda middle: st.builds(
            lambda opcode, first, last: (
                frame(opcode, first, fin=False) + b"".join(middle) + frame(CONTINUATION, last)
            ),
            st.sampled_from([TEXT, BINARY]),
            PAYLOADS,
            PAYLOADS,
        )
    ),
)
CLOSES = st.builds(lambda code, reason: frame(CLOSE, close_payload(code, reason)[:125]), CODES, PAYLOADS)
ODD = st.one_of(
    CLOSES,
    st.builds(
        frame,
        st.integers(0, 15),
        PAYLOADS,
        fin=st.booleans(),
        rsv=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
        mask=st.sampled_from([b"mask", b"\0\0\0\0", b"\xff\x80\x01\x7f", None]),
    ),
    st.builds(frame, st.integers(0, 2), st.binary(max_size=3), length_bytes=st.sampled_from([2, 8])),
    st.builds(frame, st.sampled_from([CLOSE]), st.binary(max_size=3)),
)
STREAMS = st.lists(st.one_of(SOUND, SOUND, SOUND, ODD), max_size=6).map(b"".join)


@settings(max_examples=600)
@given(data=STREAMS, seed=st.integers(0, 50))
def test_wsproto_judges_the_same(data: bytes, seed: int) -> None:
    events, pings = judged(Connection(SERVER), data)
    seen = run(WebSocketEngine(LIMIT), pieces(data, seed))
    assert seen.told == events
    assert [payload for first, payload in seen.frames if first == 0x8A] == pings


def compressed(data: bytes, cuts: list[int], opcode: int, is_compressed: bool, flush: int) -> bytes:
    payload = data
    if is_compressed:
        compressor = zlib.compressobj(wbits=-9)
        payload = (compressor.compress(data) + compressor.flush(flush)).removesuffix(b"\x00\x00\xff\xff")
    ends = sorted({min(cut, len(payload)) for cut in cuts})
    parts = [payload[start:end] for start, end in zip([0, *ends], [*ends, None], strict=True)]
    return b"".join(
        frame(
            0 if number else opcode,
            part,
            fin=number == len(ends),
            rsv=4 if is_compressed and not number else 0,
        )
        for number, part in enumerate(parts)
    )


COMPRESSED = st.builds(
    compressed,
    st.one_of(PAYLOADS, st.text(max_size=20).map(lambda text: text.encode() * 10)),
    st.lists(st.integers(0, 100), max_size=3),
    st.sampled_from([TEXT, BINARY]),
    st.booleans(),
    st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH]),
)
CORRUPT = st.builds(
    lambda opcode, data: frame(opcode, b"\x07" + data, rsv=4),  # block type 3 does not exist
    st.sampled_from([TEXT, BINARY]),
    st.binary(max_size=10),
)


@settings(max_examples=300)
@given(
    parts=st.lists(st.one_of(COMPRESSED, COMPRESSED, SOUND, CLOSES, CORRUPT), max_size=6),
    seed=st.integers(0, 50),
    takeover=st.booleans(),
)
def test_wsproto_judges_compressed_messages_the_same(parts: list[bytes], seed: int, takeover: bool) -> None:
    extension = PerMessageDeflate(client_no_context_takeover=not takeover)
    response = extension.accept("permessage-deflate")
    assert isinstance(response, str)
    data = b"".join(parts)
    events, pings = judged(Connection(SERVER, [extension]), data)
    engine = WebSocketEngine(LIMIT, agree(client_context_takeover=takeover))
    seen = run(engine, pieces(data, seed))
    assert seen.told == events
    assert [payload for first, payload in seen.frames if first == 0x8A] == pings


# A conversation with wsproto's client


TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(["a" * 125, "\u20ac" * 42, "b" * 70_000]))
DATA = st.one_of(
    st.binary(max_size=20), st.sampled_from([bytes(125), bytes(126), bytes(65_535), bytes(65_536)])
)
MESSAGES = st.one_of(TEXTS, DATA)
TURNS = st.one_of(
    st.tuples(st.sampled_from(["client", "server"]), MESSAGES),
    st.tuples(st.just("fragments"), st.lists(TEXTS, min_size=1, max_size=4)),
    st.tuples(st.just("fragments"), st.lists(DATA, min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["client ping", "server ping"]), st.binary(max_size=125)),
)


def message_of(data: str | bytes, finished: bool = True) -> Event:
    if isinstance(data, str):
        return TextMessage(data, message_finished=finished)
    return BytesMessage(data, message_finished=finished)


class Conversation:
    """Our engine and wsproto's client; each turn is heard by the other side as it was said."""

    def __init__(self, deflate: bool) -> None:
        extensions = []
        agreement = None
        if deflate:
            # Of wsproto's defects with control frames none shows when they come between messages.
            extension = PerMessageDeflate()
            agreement = agree(f"permessage-deflate; {extension.offer()}".encode())
            extension.finalize(agreement.response.decode())
            extensions.append(extension)
        self.engine = WebSocketEngine(1_000_000, agreement)
        self.client = Connection(CLIENT, extensions)

    def take(self, turn: str, content: object, seed: int) -> None:
        if turn in ("client", "fragments"):
            parts = content if isinstance(content, list) else [content]
            last = len(parts) - 1
            data = b"".join(
                bytes(self.client.send(message_of(part, number == last))) for number, part in enumerate(parts)
            )
            whole = ("" if isinstance(parts[0], str) else b"").join(parts)
            assert run(self.engine, pieces(data, seed if len(data) < 1000 else 0)).events == [whole]
        elif turn == "server":
            if isinstance(content, str):
                self.engine.send_text(content)
            else:
                assert isinstance(content, bytes)
                self.engine.send_bytes(content)
            assert judged(self.client, self.engine.data_to_send()) == ([content], [])
        elif turn == "client ping":
            assert isinstance(content, bytes)
            seen = run(self.engine, pieces(bytes(self.client.send(Ping(content))), seed))
            assert seen.events == []
            assert judged(self.client, seen.out) == ([PongReceived(content)], [])
        else:
            assert isinstance(content, bytes)
            self.engine.send_ping(content)
            assert judged(self.client, self.engine.data_to_send()) == ([], [content])
            assert run(self.engine, [self.client.send(Pong(content))]).events == [PongReceived(content)]


@settings(max_examples=150)
@given(
    turns=st.lists(TURNS, max_size=8),
    seed=st.integers(0, 50),
    deflate=st.booleans(),
    closer=st.sampled_from(["client", "server"]),
    code=st.sampled_from([1000, 1001, 1011, 3000, 4999]),
    reason=st.text(max_size=200).filter(lambda reason: len(reason.encode()) < 124),
)
def test_wsproto_converses_with_us(
    turns: list[tuple[str, object]], seed: int, deflate: bool, closer: str, code: int, reason: str
) -> None:
    conversation = Conversation(deflate)
    engine, client = conversation.engine, conversation.client
    for turn, content in turns:
        conversation.take(turn, content, seed)
    if closer == "client":
        seen = run(engine, pieces(bytes(client.send(CloseConnection(code, reason))), seed))
        assert seen.events == [CloseReceived(code, reason)]
        assert judged(client, seen.out) == ([CloseReceived(code, "")], [])
    else:
        engine.send_close(code, reason)
        assert judged(client, engine.data_to_send()) == ([CloseReceived(code, reason)], [])
        seen = run(engine, [bytes(client.send(CloseConnection(code)))])
        assert seen.events == [CloseReceived(code, "")]
        assert seen.out == b""
    assert client.state is ConnectionState.CLOSED
    assert engine.state is State.CLOSED


# Any order of calls and any bytes


CALLS = st.one_of(
    st.sampled_from([vector.data for vector in VECTORS if len(vector.data) < 2000]),
    STREAMS,
    st.binary(max_size=20),
)


class EngineMachine(RuleBasedStateMachine):
    """Every state with every input: what the engine promises holds, whatever the peer and we do."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = WebSocketEngine(200, agree())
        self.state = State.OPEN
        self.has_ended = False
        self.out = b""

    def step(self, step: Step) -> None:
        self.state, _ = CLOSING_HANDSHAKE[self.state, step]

    @rule(data=CALLS, max_messages=st.integers(0, 5))
    def receive(self, data: bytes, max_messages: int) -> None:
        was_open = self.state is State.OPEN
        events = self.engine.receive_data(data, max_messages)
        assert sum(isinstance(event, (str, bytes)) for event in events) <= max_messages
        for event in events:
            assert not self.has_ended, "an event behind the last"
            if isinstance(event, CloseReceived):
                self.step(Step.RECEIVE)
                self.has_ended = True
            elif isinstance(event, ConnectionFailed):
                self.step(Step.FAIL)
                self.has_ended = True
            else:
                assert isinstance(event, PongReceived) or was_open
                assert not isinstance(event, (str, bytes)) or len(event) <= 200

    @rule(max_messages=st.integers(1, 5))
    def go_on(self, max_messages: int) -> None:
        self.receive(b"", max_messages)

    @rule(message=st.one_of(st.text(max_size=200), st.binary(max_size=200)))
    def send(self, message: str | bytes) -> None:
        try:
            if isinstance(message, str):
                self.engine.send_text(message)
            else:
                self.engine.send_bytes(message)
        except LocalProtocolError:
            assert self.state is not State.OPEN
        else:
            assert self.state is State.OPEN

    @rule(payload=st.binary(max_size=125))
    def ping(self, payload: bytes) -> None:
        size = self.engine.out_bytes
        try:
            self.engine.send_ping(payload)
        except LocalProtocolError:
            assert self.state is not State.OPEN
            assert self.engine.out_bytes == size
        else:
            assert self.engine.out_bytes == size + len(payload) + 2

    @rule(code=st.sampled_from([1000, 1005, 4000]), reason=st.text(max_size=150))
    def close(self, code: int, reason: str) -> None:
        self.engine.send_close(code, reason)
        self.step(Step.SEND)

    @rule()
    def take(self) -> None:
        size = self.engine.out_bytes
        data = self.engine.data_to_send()
        assert len(data) == size
        assert self.engine.out_bytes == 0
        self.out += data

    @invariant()
    def is_where_the_table_says(self) -> None:
        assert self.engine.state is self.state
        assert not self.engine.has_unread or self.state is not State.CLOSED

    def teardown(self) -> None:
        self.take()
        firsts = [first for first, _ in frames_of(self.out)]
        assert firsts.count(0x88) == (self.state is not State.OPEN)
        if 0x88 in firsts:
            assert set(firsts[firsts.index(0x88) + 1 :]) <= {0x8A}


EngineMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=25)
TestEngineMachine = EngineMachine.TestCase
