"""The closing handshake's table and codes."""

from __future__ import annotations

import pytest

from headrace.protocol.websocket import State, is_valid_close_code
from headrace.protocol.websocket.closing import CLOSING_HANDSHAKE, MAX_REASON_BYTES, Step, cut_reason

VALID_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


def test_codes() -> None:
    assert {code for code in range(70_000) if is_valid_close_code(code)} == VALID_CODES
    assert not is_valid_close_code(-1)


def test_each_open_end_is_in_the_table() -> None:
    assert set(CLOSING_HANDSHAKE) == {
        (state, step)
        for state in State
        for step in Step
        if state is not State.CLOSED or step is Step.SEND
    }  # fmt: skip


def test_one_close_frame_at_most_is_written() -> None:
    def written(state: State, path: tuple[Step, ...]) -> int:
        return max(
            (
                is_due + written(after, (*path, step))
                for step in Step
                if step not in path and (state, step) in CLOSING_HANDSHAKE
                for after, is_due in [CLOSING_HANDSHAKE[state, step]]
            ),
            default=0,
        )

    assert written(State.OPEN, ()) == 1


@pytest.mark.parametrize("character", ["a", "\u00fc", "\u20ac", "\U0001f600"])
def test_reasons_are_cut_between_characters(character: str) -> None:
    size = len(character.encode())
    for count in range(130):
        cut = cut_reason(character * count)
        assert cut.decode() == character * min(count, MAX_REASON_BYTES // size)
        cut = cut_reason("b" + character * count)
        assert cut.decode() == "b" + character * min(count, (MAX_REASON_BYTES - 1) // size)
