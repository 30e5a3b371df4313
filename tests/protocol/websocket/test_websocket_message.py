"""A message in fragments, alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import RemoteProtocolError
from headrace.protocol.websocket.message import (
    MAX_EMPTY_COMPRESSED_FRAGMENTS,
    MAX_EMPTY_FRAGMENTS,
    FragmentedMessage,
)


@given(text=st.text(), cuts=st.lists(st.integers(0, 40)))
def test_any_text_at_any_cuts(text: str, cuts: list[int]) -> None:
    data = text.encode()
    message = FragmentedMessage(True, False)
    start = 0
    for end in sorted(cuts):
        message.add(data[start:end])
        start = max(start, end)
    assert message.end(data[start:]) == text


@given(data=st.binary(max_size=12), cut=st.integers(0, 12))
def test_text_is_what_python_decodes(data: bytes, cut: int) -> None:
    message = FragmentedMessage(True, False)
    try:
        expected = data.decode()
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):  # noqa: PT012, in either of the two
            message.add(data[:cut])
            message.end(data[cut:])
    else:
        message.add(data[:cut])
        assert message.end(data[cut:]) == expected


def test_binary_is_not_checked() -> None:
    message = FragmentedMessage(False, True)
    message.add(b"\xff")
    whole = message.end(b"\xfe")
    assert type(whole) is bytes
    assert whole == b"\xff\xfe"
    assert message.is_compressed


@pytest.mark.parametrize("is_compressed", [False, True])
def test_empty_fragments(is_compressed: bool) -> None:
    message = FragmentedMessage(True, is_compressed)
    take = message.hold if is_compressed else message.add
    for _ in range(MAX_EMPTY_COMPRESSED_FRAGMENTS if is_compressed else MAX_EMPTY_FRAGMENTS):
        take(b"")
        take(b"a")
    with pytest.raises(RemoteProtocolError, match="empty fragments") as caught:
        take(b"")
    assert caught.value.close_code == 1008
