"""The engine: vectors at every cut, limits, refusals, end of file, discarding."""

from __future__ import annotations

from typing import Any

import pytest
from vectors import GET, POST_CHUNKED, VECTORS, Serving, Vector, pieces

from headrace.protocol.events import ConnectionFailed, DataReceived, RequestReceived
from headrace.protocol.http1 import HeadParser, HTTP1Engine, HTTP1Limits, ResponseDefaults
from headrace.protocol.http1.engine import MAX_DISCARDED_BYTES, MAX_REMEMBERED_HEAD_BYTES, State

CUTS = range(8)
FOREIGN = b"\x00\r\n\r\nnot a request"


def engine_of(**limits: int) -> HTTP1Engine:
    return HTTP1Engine(HeadParser(HTTP1Limits(**limits)), ResponseDefaults(server=None))


def answer(engine: HTTP1Engine, status: int = 200) -> bytes:
    engine.send_headers(1, status, [], True)
    engine.send_data(1, b"ok", True)
    return engine.data_to_send()


# Vectors


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_vectors_mean_the_same_at_every_cut(vector: Vector, cut: int) -> None:
    serving = Serving().receive_all(pieces(vector.data, cut))
    assert serving.failure is None
    assert serving.seen == vector.requests
    assert serving.engine.state is (State.CLOSED if vector.closes else State.IDLE)
    assert serving.engine.should_close is vector.closes
    assert serving.engine.pending == b""
    assert serving.out.count(b"HTTP/1.1 200 OK\r\n") == len(vector.requests)
    assert serving.out.count(b"connection: close\r\n") == vector.closes


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_what_comes_behind_a_request_waits_for_its_turn(vector: Vector, cut: int) -> None:
    serving = Serving()
    serving.answers = False
    serving.receive_all(pieces(vector.data + FOREIGN, cut))
    assert serving.failure is None
    assert serving.seen == vector.requests[:1]
    assert serving.engine.state is State.ANSWERING
    assert (vector.data + FOREIGN).endswith(serving.engine.pending)
    assert serving.engine.pending.endswith(FOREIGN)
    if len(vector.requests) == 1:
        assert serving.engine.pending == FOREIGN
    assert serving.out == b""


@pytest.mark.parametrize("cut", CUTS)
def test_foreign_bytes_fail_when_their_turn_comes(cut: int) -> None:
    serving = Serving().receive_all(pieces(GET + FOREIGN, cut))
    assert len(serving.seen) == 1
    assert serving.failure is not None
    assert serving.failure.status == 400
    assert serving.out.index(b"HTTP/1.1 200 ") < serving.out.index(b"HTTP/1.1 400 ")
    assert serving.engine.state is State.CLOSED


def test_bytes_behind_the_last_request_are_never_parsed() -> None:
    serving = Serving().receive_all(
        [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + FOREIGN, GET]
    )
    assert len(serving.seen) == 1
    assert serving.failure is None
    assert serving.engine.state is State.CLOSED


# The remembered head


def test_a_remembered_head_gives_the_same_event_and_state() -> None:
    engine = engine_of()
    once = engine.receive_data(GET)
    answer(engine)
    engine.start_next_cycle()
    first = engine.receive_data(GET)
    assert first == once
    assert first is not once
    answer(engine)
    engine.start_next_cycle()
    assert engine.receive_data(GET) is first
    assert engine.state is State.ANSWERING
    answer(engine)
    engine.start_next_cycle()
    engine.forget()
    again = engine.receive_data(GET)
    assert again == first
    assert again is not first


def test_pipelined_requests_are_parsed_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parse = HeadParser.parse

    def counting(self: HeadParser, head: bytes) -> Any:
        parsed.append(len(head))
        return parse(self, head)

    monkeypatch.setattr(HeadParser, "parse", counting)
    engine = engine_of()
    count = 100
    events = engine.receive_data(GET * count)
    while events:
        answer(engine)
        events = engine.start_next_cycle() or ()
    # All of it once, to see whether it is one head, and each head for itself.
    assert sum(parsed) == 2 * count * len(GET)


@pytest.mark.parametrize("status", [408, 500, 503])
def test_an_error_for_head_has_no_body(status: int) -> None:
    engine = engine_of()
    engine.send_error(1, status, has_body=False)
    sent = engine.data_to_send()
    assert sent.endswith(b"connection: close\r\n\r\n")
    assert b"content-length: 0\r\n" not in sent


def test_a_remembered_head_does_not_match_inside_another() -> None:
    """The same bytes are a body, or the rest of a head, when they come in its place."""
    engine = engine_of()
    engine.receive_data(GET)
    answer(engine)
    engine.start_next_cycle()
    assert engine.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(GET))
    assert engine.receive_data(GET) == (DataReceived(1, GET, True),)
    answer(engine)
    engine.start_next_cycle()
    assert not engine.receive_data(b"GET /b HTTP/1.1\r\nHost: a\r\nX: ")
    (failed,) = engine.receive_data(GET.replace(b" ", b"\x01"))
    assert isinstance(failed, ConnectionFailed)


def test_a_remembered_close_closes() -> None:
    engine = engine_of()
    head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    engine.receive_data(head)
    assert b"connection: close" in answer(engine)
    engine.start_next_cycle()
    assert engine.state is State.CLOSED
    assert not engine.receive_data(head)


def test_long_heads_and_heads_with_a_body_are_not_remembered() -> None:
    engine = engine_of()
    for head in (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * MAX_REMEMBERED_HEAD_BYTES),
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ):
        first = engine.receive_data(head)
        if engine.state is State.BODY:
            engine.receive_data(b"x")
        answer(engine)
        engine.start_next_cycle()
        assert engine.receive_data(head)[0] is not first[0]
        if engine.state is State.BODY:
            engine.receive_data(b"x")
        answer(engine)
        engine.start_next_cycle()


# Limits


def line_of(length: int) -> bytes:
    return b"GET /" + b"a" * (length - len(b"GET / HTTP/1.1")) + b" HTTP/1.1\r\n"


def head_of(length: int) -> bytes:
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    return start + b"a" * (length - len(start) - 4) + b"\r\n\r\n"


def fields_of(count: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (count - 1) + b"\r\n"


def length_of(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (length, b"x" * length)


def chunks_of(length: int) -> bytes:
    return POST_CHUNKED + b"1\r\nx\r\n" * length + b"0\r\n\r\n"


def trailers_of(count: int) -> bytes:
    return POST_CHUNKED + b"0\r\n" + b"X: y\r\n" * count + b"\r\n"


def extensions_of(length: int) -> bytes:
    whole, rest = divmod(length, 4000)
    lines = [b"1;" + b"e" * 3999 + b"\r\nx\r\n"] * whole + [b"1;" + b"e" * (rest - 1) + b"\r\nx\r\n"]
    return POST_CHUNKED + b"".join(lines) + b"0\r\n\r\n"


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("make", "most", "status"),
    [
        (lambda n: line_of(n) + b"Host: a\r\n\r\n", 100, 414),
        (head_of, 500, 431),
        (fields_of, 9, 431),
        (length_of, 20, 413),
        (chunks_of, 20, 413),
        (trailers_of, 9, 431),
        (extensions_of, 16_384, 400),
    ],
    ids=["request line", "head", "fields", "length", "chunked", "trailer fields", "extensions"],
)
def test_limits_let_pass_what_is_equal_and_refuse_what_is_more(make, most, status, cut) -> None:
    limits = HTTP1Limits(request_line_bytes=100, head_bytes=500, fields=9, body_bytes=20)
    at_limit = Serving(limits).receive_all(pieces(make(most), cut))
    assert at_limit.failure is None
    assert [seen.complete for seen in at_limit.seen] == [True]
    above = Serving(limits).receive_all(pieces(make(most + 1), cut))
    assert above.failure is not None
    assert above.failure.status == status
    assert above.engine.state is State.CLOSED


@pytest.mark.parametrize("cut", [0, 2, 3])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 200_000, 414),
        (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
        (POST_CHUNKED + b"1;" + b"e" * 5000, 400),
        (POST_CHUNKED + b"0" * 5000, 400),
        (POST_CHUNKED + b"0\r\nX: " + b"a" * 200_000, 431),
    ],
    ids=["line", "whole line", "head", "whole head", "size line", "size", "trailers"],
)
def test_absurd_lengths_are_refused_as_soon_as_they_pass_the_limit(data, status, cut) -> None:
    serving = Serving()
    fed = 0
    for piece in pieces(data, cut):
        serving.receive(piece)
        fed += len(piece)
        if serving.failure is not None:
            break
    assert serving.failure is not None
    assert serving.failure.status == status
    assert cut == 0 or fed <= 65_536 + 200


def test_a_declared_body_above_the_limit_is_refused_before_it_is_asked_for() -> None:
    engine = engine_of(body_bytes=10)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n"
    (failed,) = engine.receive_data(head)
    assert isinstance(failed, ConnectionFailed)
    assert failed.error.status == 413
    engine.send_continue(1)
    assert engine.data_to_send().startswith(b"HTTP/1.1 413 ")


# Refusals


@pytest.mark.parametrize(
    "start",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x80\x2e\x01\x03\x01",
        b"\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"get / HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\rX",
        b"GET / HTTP/1.1\r\nHost: a\n",
        b"GET / HTTP/1.1\r\nHost: a\rb",
        b"GET / HTTP/1.1\r\nHost : a",
        b"GET / HTTP/1.1\r\n Host: a",
        b"GET / HTTP/1.1\r\nX: a\r\n b",
        b"GET / HTTP/1.1\r\nX: a\x00",
        b"GET / HTTP/1.1\r\nX: a\x7f",
        b"GET / HTTP/1.1\r\nX\x00: a",
        b"GET / HTTP/1.1\r\nContent-Length: +",
        b"GET / FTP/1.1",
        b"{\"json\": 1}",
        b"<?xml",
    ],
)  # fmt: skip
@pytest.mark.parametrize("cut", [0, 1])
def test_what_cannot_become_a_head_is_refused_at_once(start: bytes, cut: int) -> None:
    serving = Serving().receive_all(pieces(start, cut))
    assert serving.failure is not None
    assert serving.failure.status == 400
    assert serving.out.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert serving.out.endswith(b"connection: close\r\n\r\nInvalid HTTP request received.")
    assert serving.engine.should_close
    serving.receive(GET)
    assert serving.seen == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"GET / RTSP/1.1\r\nHost: a\r\n\r\n", 505),
        (b"DESCRIBE / RTSP/1.0\r\nHost: a\r\n\r\n", 505),
        (b"SOURCE / ICE/1.1\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: magic\r\n\r\nx", 417),
    ],
)
def test_refusals_that_are_not_400(data: bytes, status: int) -> None:
    serving = Serving().receive_all([data])
    assert serving.failure is not None
    assert serving.failure.status == status
    assert serving.out.startswith(b"HTTP/1.1 %d " % status)
    assert serving.seen == []


@pytest.mark.parametrize("cut", CUTS)
def test_a_bad_body_is_answered_by_the_engine_only_when_no_exchange_has_begun(cut: int) -> None:
    """With the head in one read: 400 and no request. Later: the exchange under way has the answer."""
    serving = Serving().receive_all(pieces(POST_CHUNKED + b"zz\r\n", cut))
    assert serving.failure is not None
    assert serving.failure.status == 400
    assert bool(serving.out) is not bool(serving.seen)
    if cut == 0:
        assert serving.out.startswith(b"HTTP/1.1 400 ")


def test_after_a_bad_body_the_response_under_way_is_the_last() -> None:
    engine = engine_of()
    assert isinstance(engine.receive_data(POST_CHUNKED)[0], RequestReceived)
    (failed,) = engine.receive_data(b"zz\r\n")
    assert isinstance(failed, ConnectionFailed)
    assert engine.data_to_send() == b""
    assert b"connection: close\r\n" in answer(engine, 400)
    assert not engine.start_next_cycle()
    assert engine.should_close


def test_a_body_that_grows_above_the_limit_fails_while_its_exchange_is_under_way() -> None:
    engine = engine_of(body_bytes=3)
    engine.receive_data(POST_CHUNKED)
    assert engine.receive_data(b"3\r\nabc\r\n") == (DataReceived(1, b"abc", False),)
    (failed,) = engine.receive_data(b"1\r\nd\r\n")
    assert isinstance(failed, ConnectionFailed)
    assert failed.error.status == 413


# End of file


def test_end_of_file_between_requests() -> None:
    engine = engine_of()
    assert not engine.should_close
    engine.receive_eof()
    assert engine.should_close


@pytest.mark.parametrize(
    "sent", [GET[:1], GET[:-1], POST_CHUNKED, POST_CHUNKED + b"5\r\nab", POST_CHUNKED + b"0\r\nX:"]
)
def test_end_of_file_inside_a_request_closes(sent: bytes) -> None:
    engine = engine_of()
    engine.receive_data(sent)
    engine.receive_eof()
    assert engine.state is State.CLOSED
    assert not engine.receive_data(b"more")
    assert not engine.start_next_cycle()


def test_end_of_file_behind_a_request_lets_it_be_answered() -> None:
    engine = engine_of()
    engine.receive_data(GET + GET)
    engine.receive_eof()
    assert not engine.should_close
    assert answer(engine).startswith(b"HTTP/1.1 200 ")
    assert len(engine.start_next_cycle()) == 1
    assert not engine.should_close
    assert answer(engine).startswith(b"HTTP/1.1 200 ")
    assert engine.start_next_cycle() is None
    assert engine.should_close


@pytest.mark.parametrize(
    "rest", [b"\r\n", GET[:-2], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", POST_CHUNKED]
)
def test_end_of_file_inside_a_pipelined_request_closes_when_its_turn_comes(rest: bytes) -> None:
    """Nobody shall wait for the rest of a body whose end can no longer come."""
    engine = engine_of()
    engine.receive_data(GET + rest)
    engine.receive_eof()
    answer(engine)
    assert engine.start_next_cycle() is None
    assert engine.should_close
    assert engine.data_to_send() == b""


def test_end_of_file_behind_a_bad_pipelined_request_still_answers_it() -> None:
    engine = engine_of()
    engine.receive_data(GET + FOREIGN)
    engine.receive_eof()
    answer(engine)
    (failed,) = engine.start_next_cycle()
    assert isinstance(failed, ConnectionFailed)
    assert engine.data_to_send().startswith(b"HTTP/1.1 400 ")


def test_end_of_file_while_the_body_is_discarded_closes() -> None:
    engine = engine_of()
    engine.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
    answer(engine)
    engine.start_next_cycle()
    assert engine.discarding
    engine.receive_eof()
    assert engine.should_close


def test_end_of_file_when_closed_changes_nothing() -> None:
    engine = engine_of()
    engine.receive_data(b"\x00")
    engine.receive_eof()
    assert engine.should_close


# A response before the end of the request's body


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("head", "rest"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nh", b"ello you"),
        (POST_CHUNKED + b"3\r\na", b"bc\r\n2\r\nde\r\n0\r\n\r\n"),
        (POST_CHUNKED + b"3\r\na", b"bc\r\n0\r\nX: y\r\n\r\n"),
    ],
    ids=["length", "chunked", "trailers"],
)
def test_the_rest_of_an_unread_body_is_dropped_and_the_next_request_served(head, rest, cut) -> None:
    engine = engine_of()
    engine.receive_data(head)
    assert b"connection: close" not in answer(engine)
    assert not engine.start_next_cycle()
    assert engine.discarding
    events = [event for piece in pieces(rest + GET, cut) for event in engine.receive_data(piece)]
    assert [type(event) for event in events] == [RequestReceived]
    assert engine.state is State.ANSWERING
    assert not engine.discarding


def test_a_rest_that_is_not_worth_reading_closes() -> None:
    engine = engine_of()
    engine.receive_data(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_DISCARDED_BYTES + 1)
    )
    answer(engine)
    assert not engine.start_next_cycle()
    assert engine.should_close


def test_a_chunked_rest_is_dropped_up_to_a_limit() -> None:
    engine = engine_of()
    engine.receive_data(POST_CHUNKED + b"1\r\na\r\n")
    answer(engine)
    engine.start_next_cycle()
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for _ in range(MAX_DISCARDED_BYTES // 0x10000):
        assert not engine.receive_data(piece)
        assert engine.state is State.BODY
    assert not engine.receive_data(piece)
    assert engine.should_close


def test_a_dropped_rest_that_is_malformed_closes() -> None:
    engine = engine_of()
    engine.receive_data(POST_CHUNKED)
    answer(engine)
    engine.start_next_cycle()
    (failed,) = engine.receive_data(b"zz\r\n")
    assert isinstance(failed, ConnectionFailed)
    assert engine.data_to_send() == b""
    assert engine.should_close


def test_the_body_limit_does_not_count_what_is_dropped() -> None:
    engine = engine_of(body_bytes=5)
    engine.receive_data(POST_CHUNKED + b"5\r\nhello\r\n")
    answer(engine)
    engine.start_next_cycle()
    (event,) = engine.receive_data(b"5\r\nworld\r\n0\r\n\r\n" + GET)
    assert isinstance(event, RequestReceived)


def test_a_body_is_not_dropped_when_the_connection_is_to_close() -> None:
    engine = engine_of()
    engine.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nConnection: close\r\n\r\n")
    answer(engine)
    engine.start_next_cycle()
    assert engine.should_close
    assert engine.is_abandoning_body


# Several connections, one parser


def test_connections_that_share_a_parser_do_not_meet() -> None:
    """One's head fails, another's wants a body, a third's upgrades: the rest is not touched."""
    parser = HeadParser(HTTP1Limits())
    sessions = [(vector, Serving(parser=parser)) for vector in VECTORS]
    bad = Serving(parser=parser)
    queues = [(serving, list(pieces(vector.data, 5))) for vector, serving in sessions]
    while any(queue for _, queue in queues):
        for serving, queue in queues:
            if queue:
                serving.receive(queue.pop(0))
            bad.receive(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
            bad = Serving(parser=parser)
    for vector, serving in sessions:
        assert serving.failure is None
        assert serving.seen == vector.requests


def test_is_reading_head_tells_an_incomplete_head() -> None:
    engine = engine_of()
    assert not engine.is_reading_head
    engine.receive_data(b"\r\n")
    assert not engine.is_reading_head
    engine.receive_data(GET[:5])
    assert engine.is_reading_head
    engine.receive_data(GET[5:])
    assert not engine.is_reading_head


def test_events_of_one_request_are_those_of_any_reader() -> None:
    """``Seen`` is what the other tests compare; here the events themselves, once."""
    engine = engine_of()
    request, first = engine.receive_data(POST_CHUNKED + b"1\r\na\r\n")
    assert request == RequestReceived(
        1,
        "POST",
        "/c",
        b"/c",
        b"",
        [(b"host", b"a"), (b"transfer-encoding", b"chunked")],
        "1.1",
        False,
        False,
        b"",
    )
    assert first == DataReceived(1, b"a", False)
    assert engine.receive_data(b"0\r\n\r\n") == (DataReceived(1, b"", True),)
