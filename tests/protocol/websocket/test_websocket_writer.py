"""The sending half: frames to the byte, refusals, the out-buffer."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from websocket_vectors import agree, close, close_payload, frame, frames_of, server_frame

from headrace.errors import LocalProtocolError
from headrace.protocol.websocket import State, WebSocketEngine

SIZES = [0, 1, 125, 126, 65_535, 65_536]


def engine() -> WebSocketEngine:
    return WebSocketEngine(100)


@pytest.mark.parametrize("size", SIZES)
def test_messages_to_the_byte(size: int) -> None:
    writer = engine()
    writer.send_text("a" * size)
    writer.send_bytes(b"b" * size)
    expected = server_frame(1, b"a" * size) + server_frame(2, b"b" * size)
    assert writer.out_bytes == len(expected)
    assert writer.data_to_send() == expected
    assert writer.out_bytes == 0
    assert writer.data_to_send() == b""


@pytest.mark.parametrize("size", [0, 1, 125])
def test_short_frame_is_what_would_have_waited(size: int) -> None:
    writer = engine()
    text, data = "a" * size, b"b" * size
    frames = [writer.short_text_frame(text), writer.short_binary_frame(data)]
    assert writer.out_bytes == 0
    writer.send_text(text)
    writer.send_bytes(data)
    assert b"".join(frame or b"" for frame in frames) == writer.data_to_send()


@pytest.mark.parametrize("text", ["a" * 126, "\u00e4", "\ud800", b"bytes", 5, None])
def test_no_short_frame_of_text_that_needs_a_closer_look(text: object) -> None:
    assert engine().short_text_frame(text) is None


@pytest.mark.parametrize("data", [b"b" * 126, bytearray(b"c"), "text", 5, None])
def test_no_short_frame_of_bytes_that_need_a_closer_look(data: object) -> None:
    assert engine().short_binary_frame(data) is None


def test_no_short_frame_past_what_waits_or_behind_the_end() -> None:
    writer = engine()
    writer.send_ping(b"first")
    assert writer.short_binary_frame(b"second") is None
    writer.data_to_send()
    assert writer.short_binary_frame(b"second")
    writer.send_close()
    writer.data_to_send()
    assert writer.short_binary_frame(b"third") is None
    assert writer.short_text_frame("third") is None


def test_no_short_frame_of_what_is_compressed() -> None:
    writer = WebSocketEngine(100_000, agree(server_context_takeover=True))
    assert writer.short_binary_frame(b"short, but like those before it") is None


def test_text_is_utf_8() -> None:
    writer = engine()
    writer.send_text("\u00e4\U0001f600")
    assert writer.data_to_send() == b"\x81\x06\xc3\xa4\xf0\x9f\x98\x80"


@pytest.mark.parametrize(
    "data",
    [bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"axbxcxdx")[::2], array("H", [0x6261, 0x6463])],
    ids=["bytearray", "memoryview", "with steps", "of words"],
)
def test_bytes_like(data: bytearray | memoryview) -> None:
    writer = engine()
    writer.send_bytes(data)
    assert writer.data_to_send() == b"\x82\x04abcd"


def test_a_bytearray_may_change_afterwards() -> None:
    writer = engine()
    data = bytearray(b"x" * 200)
    writer.send_bytes(data)
    data[:] = b""
    assert writer.data_to_send() == server_frame(2, b"x" * 200)


@pytest.mark.parametrize("data", [7, "text", None])
def test_what_is_not_bytes_like_is_refused(data: object) -> None:
    writer = engine()
    with pytest.raises(TypeError):
        writer.send_bytes(data)  # type: ignore[arg-type]
    assert writer.data_to_send() == b""


def test_a_surrogate_is_refused() -> None:
    writer = engine()
    with pytest.raises(LocalProtocolError, match="UTF-8"):
        writer.send_text("a\ud800" * 1000)
    assert writer.out_bytes == 0


def test_ping() -> None:
    writer = engine()
    writer.send_ping(b"")
    writer.send_ping(b"x" * 125)
    assert writer.data_to_send() == server_frame(9) + server_frame(9, b"x" * 125)
    with pytest.raises(LocalProtocolError, match="125"):
        writer.send_ping(b"x" * 126)
    assert writer.data_to_send() == b""


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (1000, "", close_payload(1000)),
        (1005, "", b""),
        (1005, "not sent", b""),
        (4999, "gr\u00fcn", close_payload(4999, b"gr\xc3\xbcn")),
        (3000, "x" * 124, close_payload(3000, b"x" * 123)),
        (3000, "x" * 122 + "\u00fc", close_payload(3000, b"x" * 122)),
        (3000, "\U0001f600" * 31, close_payload(3000, "\U0001f600".encode() * 30)),
        (3000, "a\ud800", close_payload(3000, b"a?")),
    ],
)
def test_close(code: int, reason: str, payload: bytes) -> None:
    writer = engine()
    writer.send_close(code, reason)
    assert writer.state is State.CLOSING
    assert writer.data_to_send() == server_frame(8, payload)
    writer.send_close(1000)
    assert writer.data_to_send() == b""
    assert writer.state is State.CLOSING


def test_close_without_arguments_is_normal() -> None:
    writer = engine()
    writer.send_close()
    assert writer.data_to_send() == server_frame(8, close_payload(1000))


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1006, 1015, 2999, 5000, 70_000])
def test_codes_that_may_not_be_sent(code: int) -> None:
    writer = engine()
    with pytest.raises(LocalProtocolError, match=str(code)):
        writer.send_close(code)
    assert writer.state is State.OPEN
    assert writer.data_to_send() == b""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1008.0, ""),
        (1005.0, ""),
        ("1000", ""),
        (True, ""),
        (None, ""),
        (1008, ValueError("bad token")),
        (1008, b"bytes"),
        (1005, 7),
        (1008, None),
    ],
)
def test_close_of_another_type(code: Any, reason: Any) -> None:
    writer = engine()
    with pytest.raises(LocalProtocolError, match=r"A close (code|reason) is a"):
        writer.send_close(code, reason)
    assert writer.state is State.OPEN
    assert writer.data_to_send() == b""


@pytest.mark.parametrize("ending", ["ours", "theirs", "failure"])
def test_nothing_is_sent_behind_a_close(ending: str) -> None:
    writer = engine()
    if ending == "ours":
        writer.send_close()
    else:
        writer.receive_data(close(1000) if ending == "theirs" else frame(3))
    writer.data_to_send()
    with pytest.raises(LocalProtocolError):
        writer.send_text("a")
    with pytest.raises(LocalProtocolError):
        writer.send_bytes(b"a")
    with pytest.raises(LocalProtocolError):
        writer.send_ping(b"")
    assert writer.data_to_send() == b""


def test_frames_keep_their_order() -> None:
    writer = engine()
    writer.send_text("a")
    writer.receive_data(frame(9, b"p"))
    writer.send_ping(b"q")
    writer.send_bytes(b"b" * 300)
    writer.send_close(4000)
    firsts = [first for first, _ in frames_of(writer.data_to_send())]
    assert firsts == [0x81, 0x8A, 0x89, 0x82, 0x88]


@pytest.mark.parametrize(
    ("size", "takeover", "first"),
    [(0, False, 0x82), (127, False, 0x82), (128, False, 0xC2), (0, True, 0x82), (1, True, 0xC2)],
)
def test_which_messages_are_compressed(size: int, takeover: bool, first: int) -> None:
    writer = WebSocketEngine(100, agree(server_context_takeover=takeover))
    writer.send_bytes(b"a" * size)
    writer.send_text("a" * size)
    frames = frames_of(writer.data_to_send())
    assert [first for first, _ in frames] == [first, first - 1]


def test_what_compression_would_enlarge_goes_as_it_is() -> None:
    writer = WebSocketEngine(100, agree())
    data = bytes((number * 167 + number // 3) % 256 for number in range(128))
    writer.send_bytes(data)
    assert writer.data_to_send() == server_frame(2, data)
