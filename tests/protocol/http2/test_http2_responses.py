"""The HTTP/2 engine alone: what calls become, and what waits for windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from http2_pair import Pair, answer, new, ngh2, request

from headrace.protocol.events import DataReceived, RequestRepeated, StreamsClosed
from headrace.protocol.http2 import HTTP2Defaults, HTTP2Engine, HTTP2Limits
from http2_client import (
    CANCEL,
    data_frame,
    headers_frame,
    priority_update_frame,
    request_fields,
    reset_frame,
    window_frame,
)

POST = request_fields(method=b"POST")


class TestResponses:
    def response(self, send: Callable[[HTTP2Engine, int], Any], **request: Any) -> list[Any]:
        """What a client reads of what ``send`` does."""
        pair = Pair()
        pair.engine = HTTP2Engine(HTTP2Limits(), HTTP2Defaults(b"s", False, ((b"X-Default", b"1"),)))
        method = request.get("method", b"GET")
        fields = [(b":method", method), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
        stream_id = pair.client.send_request(
            [*fields, *request.get("more", ())], end_stream=request.get("end", True)
        )
        pair.exchange()
        send(pair.engine, stream_id)
        found = [event for event in pair.exchange()[1] if getattr(event, "stream_id", 0)]
        return [event for event in found if not isinstance(event, (ngh2.StreamClosed, ngh2.WindowUpdated))]

    def test_whole(self) -> None:
        head, data = self.response(answer)
        assert head.headers == (
            (b":status", b"200"), (b"server", b"s"), (b"x-default", b"1"), (b"x-a", b"b"),
        )  # fmt: skip
        assert (data.data, data.end_stream) == (b"hello", True)

    @pytest.mark.parametrize("field", [(b"x-a", b"1"), [b"x-a", b"1"]], ids=["tuple", "list"])
    def test_fields_that_the_application_changes_afterwards(self, field: Any) -> None:
        def send(engine: HTTP2Engine, stream_id: int) -> None:
            fields = [field]
            engine.send_headers(stream_id, 200, fields, True)
            if isinstance(field, list):
                field[1] = b"2"
            else:
                fields[0] = (b"x-a", b"2")
            engine.send_headers(stream_id, 200, fields, True)
            engine.send_data(stream_id, b"", True)

        (head,) = self.response(send)
        assert head.headers[-1] == (b"x-a", b"2")

    def test_head_alone(self) -> None:
        def send(engine: HTTP2Engine, stream_id: int) -> None:
            engine.send_headers(stream_id, 204, [(b"content-length", b"0")], False)
            engine.send_data(stream_id, b"", True)

        (head,) = self.response(send)
        assert head.end_stream
        assert b"content-length" not in dict(head.headers)

    def test_error(self) -> None:
        head, data = self.response(lambda engine, stream_id: engine.send_error(stream_id, 431))
        assert dict(head.headers)[b":status"] == b"431"
        assert int(dict(head.headers)[b"content-length"]) == len(data.data)

    def test_trailers(self) -> None:
        def send(engine: HTTP2Engine, stream_id: int) -> None:
            engine.send_headers(stream_id, 200, [], True)
            engine.send_data(stream_id, b"abc", False)
            engine.send_trailers(stream_id, [(b"X-Sum", b"6")])

        _, data, trailers = self.response(send)
        assert (data.data, trailers.headers) == (b"abc", ((b"x-sum", b"6"),))

    def test_informational(self) -> None:
        def send(engine: HTTP2Engine, stream_id: int) -> None:
            engine.send_continue(stream_id)
            engine.send_continue(stream_id)
            engine.send_informational(stream_id, 103, [(b"link", b"</a>")])
            answer(engine, stream_id)

        found = self.response(send, method=b"POST", more=[(b"expect", b"100-continue")], end=False)
        assert [event.headers for event in found[:2]] == [
            ((b":status", b"100"),),
            ((b":status", b"103"), (b"link", b"</a>")),
        ]
        assert isinstance(found[2], ngh2.ResponseReceived)

    @pytest.mark.parametrize(
        "field", [(b"x", b"a\nb"), (b"x", b"\0"), (b"x y", b""), (b"", b""), (b"content-length", b"+1")]
    )
    def test_fields_that_cannot_be_sent(self, field: Any) -> None:
        engine = new()
        engine.receive_data(headers_frame(1))
        with pytest.raises(ValueError):
            engine.send_headers(1, 200, [field], True)
        with pytest.raises(TypeError):
            engine.send_headers(1, 200, [("x", "y")], True)
        answer(engine, 1)
        assert engine.data_to_send()

    def test_promised_length(self) -> None:
        engine = new()
        engine.receive_data(headers_frame(1))
        assert engine.send_headers(1, 200, [(b"Content-Length", b"5"), (b"content-length", b"5")], True) == 5
        with pytest.raises(ValueError, match="twice"):
            engine.send_headers(1, 200, [(b"content-length", b"5"), (b"content-length", b"6")], True)

    def test_on_streams_that_are_gone(self) -> None:
        engine = new()
        engine.receive_data(headers_frame(1) + reset_frame(1))
        answer(engine, 1)
        engine.send_trailers(1, [])
        engine.send_informational(1, 103, [])
        engine.reset(1, CANCEL)
        engine.consumed(1, 5)
        assert engine.queued_bytes(1) == 0
        assert engine.receive_data(headers_frame(3)) == [RequestRepeated(request(1), [3])]

    def test_rest_of_a_request_is_refused_behind_the_answer(self) -> None:
        # RFC 9113 §8.1
        engine = new()
        engine.receive_data(headers_frame(1, POST, False))
        answer(engine, 1)
        assert engine.data_to_send().endswith(reset_frame(1, 0))
        assert engine.events() == [StreamsClosed([1])]

    def test_date(self) -> None:
        defaults = HTTP2Defaults()
        defaults.set_date(b"now")
        assert defaults.head(200) == [(b":status", b"200"), (b"date", b"now"), (b"server", b"headrace")]
        defaults.set_date(b"later")
        assert defaults.head(200)[1] == (b"date", b"later")


class TestWindows:
    def test_body_waits_and_is_counted(self) -> None:
        engine = new()
        engine.receive_data(headers_frame(1) + headers_frame(3))
        answer(engine, 1, bytes(100_000))
        answer(engine, 3, bytes(1000))
        engine.data_to_send()
        assert engine.queued_bytes(1) == 100_000 - (65_535 - (1000 - engine.queued_bytes(3)))
        assert engine.all_queued_bytes == 101_000 - 65_535
        engine.receive_data(window_frame(0, 200_000) + window_frame(1, 200_000))
        engine.data_to_send()
        assert engine.all_queued_bytes == 0

    def test_client_may_send_what_was_consumed(self) -> None:
        engine = new(window_bytes=65_536)
        engine.receive_data(headers_frame(1, POST, False) + data_frame(1, bytes(16_384)) * 3)
        assert engine.data_to_send() == b""
        engine.consumed(1, 49_152)
        assert window_frame(1, 49_152) in engine.data_to_send()

    @pytest.mark.parametrize("streams", [1, 2, 100])
    def test_one_stream_goes_on_while_all_others_stand(self, streams: int) -> None:
        engine = new(streams=streams, window_bytes=65_536)
        for stream_id in range(1, 2 * streams, 2):
            engine.receive_data(headers_frame(stream_id, POST, False))
        for stream_id in range(3, 2 * streams, 2):
            engine.receive_data(data_frame(stream_id, bytes(16_384)) * 4)
        for _ in range(4 * streams):
            # The whole of its window, every time.
            events = engine.receive_data(data_frame(1, bytes(16_384)) * 4)
            assert sum(len(event.data) for event in events if isinstance(event, DataReceived)) == 65_536
            engine.consumed(1, 65_536)
            engine.data_to_send()
        assert not engine.is_failed


class TestPriorities:
    """RFC 9218: what is more urgent goes first, libnghttp2 sees to it."""

    def order(self, engine: HTTP2Engine) -> list[int]:
        """The streams of the DATA frames that go out."""
        data = engine.data_to_send()
        streams = []
        while data:
            size = int.from_bytes(data[:3], "big")
            if data[3] == 0 and size:
                streams.append(int.from_bytes(data[5:9], "big"))
            data = data[9 + size :]
        return streams

    def test_field(self) -> None:
        engine = new()
        for stream_id, priority in ((1, b"u=7"), (3, b"u=0"), (5, b"u=3")):
            engine.receive_data(headers_frame(stream_id, request_fields(more=[(b"priority", priority)])))
        for stream_id in (1, 3, 5):
            answer(engine, stream_id, bytes(20_000))
        assert self.order(engine) == [3, 3, 5, 5, 1, 1]

    def test_update(self) -> None:
        engine = new()
        engine.receive_data(headers_frame(1) + headers_frame(3) + priority_update_frame(3, b"u=0"))
        for stream_id in (1, 3):
            answer(engine, stream_id, bytes(20_000))
        assert self.order(engine) == [3, 3, 1, 1]
