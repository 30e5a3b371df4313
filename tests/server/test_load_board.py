"""The load board: what each worker sees of the others, and whom it waits for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headrace.server.load_board import SLACK, BoardSlot, LoadBoard


@pytest.fixture
def board() -> Iterator[LoadBoard]:
    board = LoadBoard.create(1_025)
    yield board
    board.close()


class TestBoard:
    def test_nobody_at_first(self, board: LoadBoard) -> None:
        assert board.counts() == []
        assert board.least_but(1) is None
        assert board.least() > 1_000_000

    def test_counts(self, board: LoadBoard) -> None:
        board.set(3, 7)
        board.set(1, 2)
        assert board.counts() == [-1, 2, -1, 7]
        assert board.least() == 2
        assert (board.least_but(1), board.least_but(3), board.least_but(2)) == (7, 2, 2)

    def test_cleared_slot_is_not_the_least(self, board: LoadBoard) -> None:
        board.set(0, 0)
        board.set(1, 5)
        board.clear(0)
        assert board.counts() == [-1, 5]
        assert board.least() == 5
        assert board.least_but(1) is None

    def test_last_slot(self, board: LoadBoard) -> None:
        board.set(1_024, 1)
        assert board.least() == 1
        with pytest.raises(IndexError):
            board.set(1_025, 1)

    def test_signs(self, board: LoadBoard) -> None:
        board.set(0, 4)
        board.set(1, 4)
        before = board.signs()
        board.set(1, 4)
        after = board.signs()
        assert before[0] == after[0]
        assert before[1] != after[1]

    def test_another_process_sees_it_and_is_seen(self, board: LoadBoard) -> None:
        board.set(1, 3)
        code = (
            "import sys; from headrace.server.load_board import LoadBoard; "
            "board = LoadBoard.open(int(sys.argv[1])); print(board.counts()); board.set(2, 9); board.close()"
        )
        command = [sys.executable, "-c", code, str(board.fd)]
        done = subprocess.run(command, pass_fds=[board.fd], capture_output=True, text=True, check=True)
        assert done.stdout == "[-1, 3]\n"
        assert board.counts() == [-1, 3, 9]

    def test_without_memfd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "memfd_create", raising=False)
        board = LoadBoard.create(4)
        board.set(3, 1)
        other = LoadBoard.open(os.dup(board.fd))
        assert other.counts() == [-1, -1, -1, 1]
        other.close()
        board.close()

    def test_close(self) -> None:
        board = LoadBoard.create(2)
        fd = board.fd
        board.close()
        board.close()
        with pytest.raises(OSError):
            os.fstat(fd)

    def test_what_is_no_board(self) -> None:
        fd = os.open(os.devnull, os.O_RDWR)
        with pytest.raises((OSError, ValueError)):
            LoadBoard.open(fd)
        os.close(fd)


class TestSlot:
    @pytest.fixture
    def slot(self, board: LoadBoard) -> BoardSlot:
        slot = BoardSlot(board, 1)
        slot.set(0)
        return slot

    @pytest.mark.parametrize(
        ("mine", "others", "is_ahead"),
        [
            (5, [], False),
            (5, [5], False),
            (5, [6, 9], False),
            (5, [9, 4], True),
            (1, [0], True),
            (SLACK, [SLACK - 1], False),
            (SLACK, [SLACK - 2], True),
            (10 * SLACK, [9 * SLACK + 6], False),
            (10 * SLACK, [9 * SLACK + 5], True),
        ],
    )
    def test_who_is_ahead(
        self, board: LoadBoard, slot: BoardSlot, mine: int, others: list[int], is_ahead: bool
    ) -> None:
        for number, count in enumerate(others, 2):
            board.set(number, count)
        assert slot.set(mine) is is_ahead

    def test_who_has_left_does_not_count(self, board: LoadBoard, slot: BoardSlot) -> None:
        other = BoardSlot(board, 2)
        other.set(0)
        assert slot.set(5)
        other.leave()
        assert not slot.set(5)

    def test_who_is_silent_is_not_waited_for(self, board: LoadBoard, slot: BoardSlot) -> None:
        board.set(2, 0)
        board.set(3, 0)
        slot.watch()
        board.set(3, 0)
        slot.judge()
        assert slot.set(5)
        board.clear(3)
        assert not slot.set(5)
        # The same number of connections, but it answers again.
        board.set(2, 0)
        assert slot.set(5)

    def test_judgement_covers_the_time_since_the_last(self, board: LoadBoard, slot: BoardSlot) -> None:
        board.set(2, 0)
        slot.watch()
        board.set(2, 0)
        slot.judge()
        assert slot.set(5)
        slot.judge()
        assert not slot.set(5)

    def test_who_came_after_the_watch_is_waited_for(self, board: LoadBoard, slot: BoardSlot) -> None:
        slot.watch()
        board.set(2, 0)
        slot.judge()
        assert slot.set(5)
