"""The HTTP/2 engine alone: who is taken for a flood, and above all who is not."""

from __future__ import annotations

import pytest
from http2_pair import Pair, answer, new, ngh2

from headrace.protocol.events import (
    ConnectionFailed,
    RequestReceived,
    RequestRepeated,
    StreamFailed,
    StreamsClosed,
)
from headrace.protocol.http2 import HTTP2Engine
from headrace.protocol.http2.engine import MAX_CONTROL, MAX_RESETS
from http2_client import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    data_frame,
    goaway_frame,
    headers_frame,
    ping_frame,
    request_fields,
    reset_frame,
    settings_frame,
    window_frame,
)

POST = request_fields(method=b"POST")


class TestAllowances:
    def test_a_hundred_thousand_requests(self) -> None:
        # Nobody ticks: all of them come in less than a second.
        pair = Pair()
        pair.exchange()
        served = 0
        for _ in range(1000):
            for _ in range(100):
                pair.client.send_request(request_fields(more=[(b"user-agent", b"x")]), end_stream=True)
            events, _ = pair.exchange()
            for event in events:
                assert not isinstance(event, (ConnectionFailed, StreamFailed))
                if isinstance(event, RequestReceived):
                    answer(pair.engine, event.stream_id)
                elif isinstance(event, RequestRepeated):
                    for stream_id in event.stream_ids:
                        answer(pair.engine, stream_id)
            served += sum(isinstance(event, ngh2.ResponseReceived) for event in pair.exchange()[1])
        assert served == 100_000
        assert not pair.engine.is_failed

    def test_a_hundred_thousand_of_which_some_are_cancelled(self) -> None:
        pair = Pair()
        pair.exchange()
        cancelled = 0
        for turn in range(1000):
            ids = [pair.client.send_request(request_fields(), end_stream=True) for _ in range(100)]
            events, _ = pair.exchange()
            for stream_id in ids[:: 20 if turn else 1]:
                pair.client.reset_stream(stream_id, CANCEL)
                cancelled += 1
            events += pair.exchange()[0]
            gone = {n for event in events if isinstance(event, StreamsClosed) for n in event.stream_ids}
            for event in events:
                assert not isinstance(event, ConnectionFailed)
                if isinstance(event, RequestReceived) and event.stream_id not in gone:
                    answer(pair.engine, event.stream_id)
            pair.exchange()
        assert cancelled > 5000
        assert not pair.engine.is_failed

    def test_resets_run_out(self) -> None:
        engine = new()
        sent = b"".join(headers_frame(n) + reset_frame(n) for n in range(1, 2 * MAX_RESETS, 2))
        engine.receive_data(sent)
        assert not engine.is_failed
        *_, last = engine.receive_data(headers_frame(90_001) + reset_frame(90_001))
        assert isinstance(last, ConnectionFailed)
        assert last.error.error_code == ENHANCE_YOUR_CALM
        assert engine.data_to_send().endswith(ENHANCE_YOUR_CALM.to_bytes(4, "big"))

    def test_resets_come_back_with_time(self) -> None:
        engine = new()
        for n in range(1, 6 * MAX_RESETS, 2):
            engine.receive_data(headers_frame(n) + reset_frame(n))
            if n % 21 == 0:
                engine.tick()
        assert not engine.is_failed

    def test_resets_by_the_server_are_free(self) -> None:
        engine = new()
        for n in range(1, 6 * MAX_RESETS, 2):
            engine.receive_data(headers_frame(n))
            engine.reset(n, 2)
            engine.data_to_send()
            assert engine.events() == [StreamsClosed([n])]
        assert not engine.is_failed

    @pytest.mark.parametrize(
        "frame", [ping_frame(), ping_frame(ack=True), settings_frame(), goaway_frame(), data_frame(1, b"")]
    )
    def test_control_frames_run_out_and_come_back(self, frame: bytes) -> None:
        engine = new()
        engine.receive_data(headers_frame(1, POST, False))
        for _ in range(5):
            engine.tick()
            engine.receive_data(frame * (MAX_CONTROL // 10))
            engine.data_to_send()
        assert not engine.is_failed
        engine.receive_data(frame * 10)
        assert engine.is_failed

    def test_windows_are_paid_for_by_bodies(self) -> None:
        # A client that opens its windows for each 16 KiB, without a tick in between.
        engine = new()
        engine.receive_data(headers_frame(1))
        engine.send_headers(1, 200, [], True)
        for _ in range(20_000):
            engine.send_data(1, bytes(1000), False)
            engine.data_to_send()
            engine.receive_data(window_frame(1, 1000) + window_frame(0, 1000))
        assert not engine.is_failed

    def test_limits_of_libnghttp2(self) -> None:
        """Its count of resets is out of the way, that of what nobody needs is not."""
        engine = new()
        engine.receive_data(headers_frame(1) + reset_frame(1))
        engine.receive_data(reset_frame(1) * 20_000)
        assert not engine.is_failed
        for _ in range(30):
            engine.receive_data(b"\0\0\0\xfa\0\0\0\0\0" * 1000)
        (event,) = _failure(engine)
        assert event.error.error_code == ENHANCE_YOUR_CALM


def _failure(engine: HTTP2Engine) -> list[ConnectionFailed]:
    engine.data_to_send()
    return [event for event in engine.events() if isinstance(event, ConnectionFailed)]
