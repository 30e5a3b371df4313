"""How many connections each worker has open, in memory that all of them see.

The memory is a row of 32-bit integers: how many slots are in use, a count for each slot, a sign of life for
each slot. Each slot has one writer, the worker that sits there (and the supervisor, when nobody does); a
store or load of one aligned integer is never seen in halves, so that there is nothing to lock.
"""

from __future__ import annotations

import mmap
import os
import tempfile

ABSENT = 2**31 - 1
"""Stands in the slot of a worker that does not accept, so that it is never the least."""

SLACK = 16
"""One part in so many of its connections is what a worker may have more than the least. With 64 connections
on 4 workers that keeps each below 1.2 times the mean; less slack made them wait for each other more often
and spread no more evenly (2026-11-25, ``benchmarks/spread.py``)."""

_INT_BYTES = 4


class LoadBoard:
    """The number of open connections of each worker.

    Args:
        fd: descriptor of the memory; the board closes it.

    Attributes:
        fd: to be passed on to workers.
    """

    __slots__ = ("_counts", "_memory", "_signs", "_used", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        size_bytes = os.fstat(fd).st_size
        self._memory = mmap.mmap(fd, size_bytes)
        slots = (size_bytes // _INT_BYTES - 1) // 2
        numbers = memoryview(self._memory).cast("i")
        self._used = numbers[:1]
        self._counts = numbers[1 : 1 + slots]
        self._signs = numbers[1 + slots :]
        numbers.release()

    @classmethod
    def create(cls, slots: int) -> LoadBoard:
        """Make a board on which nobody accepts; the supervisor does.

        Args:
            slots: how many workers there can be at a time, 1 or more.

        Raises:
            OSError: there is no memory or file for it.
        """
        fd = _anonymous_file()
        try:
            os.ftruncate(fd, (1 + 2 * slots) * _INT_BYTES)
            board = cls(fd)
        except BaseException:
            os.close(fd)
            raise
        for slot in range(slots):
            board._counts[slot] = ABSENT
        return board

    @classmethod
    def open(cls, fd: int) -> LoadBoard:
        """Use the board that the supervisor made; a worker does.

        Args:
            fd: the inherited descriptor.

        Raises:
            OSError, ValueError: it is no board.
        """
        return cls(fd)

    def set(self, slot: int, count: int) -> None:
        """Say that a worker accepts, and how many connections it has open; a sign of life as well."""
        if slot >= self._used[0]:
            # Two workers that do this at once may leave the lower number; the next ``set`` mends it.
            self._used[0] = slot + 1
        self._counts[slot] = count
        self._signs[slot] = (self._signs[slot] + 1) & ABSENT

    def clear(self, slot: int) -> None:
        """Say that nobody accepts there: the worker drains, or has ended."""
        self._counts[slot] = ABSENT

    def least(self) -> int:
        """The smallest count, ``ABSENT`` when nobody accepts."""
        used = self._used[0]
        return min(self._counts[:used]) if used else ABSENT

    def least_but(self, slot: int) -> int | None:
        """The smallest count of the other accepting workers, None when there are none."""
        others = [count for other, count in enumerate(self.counts()) if other != slot and count >= 0]
        return min(others, default=None)

    def counts(self) -> list[int]:
        """The count of each slot up to the last that was ever used, -1 where nobody accepts."""
        return [-1 if count == ABSENT else count for count in self._counts[: self._used[0]]]

    def signs(self) -> list[int]:
        """A number for each slot that changes whenever its worker looks for connections."""
        return list(self._signs[: self._used[0]])

    def close(self) -> None:
        """Let go of the memory; others keep theirs. Closing again does nothing."""
        if self.fd < 0:
            return
        for view in (self._used, self._counts, self._signs):
            view.release()
        self._memory.close()
        os.close(self.fd)
        self.fd = -1


class BoardSlot:
    """One worker's place on the board, and its judgement of the others.

    Args:
        board: all workers'.
        slot: the worker's own.
    """

    __slots__ = ("_board", "_silent", "_slot", "_watched")

    def __init__(self, board: LoadBoard, slot: int) -> None:
        self._board = board
        self._slot = slot
        self._watched: list[int] = []
        self._silent: dict[int, int] = {}

    def set(self, count: int) -> bool:
        """Say that connections are accepted here, and how many are open; a sign of life as well.

        Returns:
            Whether this worker is ahead: another, which answers, has fewer and should have the next one.
        """
        self._board.set(self._slot, count)
        limit = count - count // SLACK
        if limit <= self._board.least():
            return False
        # One of the lists is longer when a worker takes a new slot between the two.
        others = zip(self._board.counts(), self._board.signs(), strict=False)
        return any(
            0 <= other < limit and self._silent.get(slot) != sign for slot, (other, sign) in enumerate(others)
        )

    def leave(self) -> None:
        """Say that none are accepted here."""
        self._board.clear(self._slot)

    def watch(self) -> None:
        """Begin to look whether the others give a sign of life."""
        self._watched = self._board.signs()

    def judge(self) -> None:
        """Whoever gave none since ``watch`` is not waited for until it gives one; then watch on."""
        self._silent = dict(enumerate(self._watched))
        self._watched = self._board.signs()


def _anonymous_file() -> int:
    """An empty file that goes when the last descriptor of it is closed.

    Raises:
        OSError: as the kernel gave it.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("headrace-load-board")
    fd, path = tempfile.mkstemp()
    os.unlink(path)
    return fd
