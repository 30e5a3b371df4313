"""The memory that one process writes its figures into, and any other may read at any moment.

It is a log that only grows. A header says how much of it is in use; each entry is a directory line (bytes,
meaning nothing here) and behind it the numbers it describes:

    header   magic | used_bytes | pid of the writer | replaced lines | ...    64 bytes
    entry    length of the line | slots | CRC-32 | 0   (four 32-bit integers)  16 bytes
             the line, filled up to 8 bytes
             the slots: 64-bit floats, 0 at first

The writer completes an entry and then moves the mark, so that what is killed in between leaves nothing.
Numbers change in place: a load or store of one aligned 64-bit word is never seen in halves. A reader keeps
the position it has read to and parses only what is new. Pages that are not written take no memory.

A line may be replaced by another of its length, when nobody needs it any more; the header counts how often
that was, so that readers know when to look at what they have read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIZE_BYTES = 32 * 1_048_576
"""Room for 100,000 series of 16 buckets. It is address space: pages are taken when they are written."""

RESERVE_BYTES = 65_536
"""Kept for entries that say what found no room."""

MAX_LINE_BYTES = 65_536

_MAGIC = int.from_bytes(b"headrac1", "little")
_HEADER_BYTES = 64
_HEAD = struct.Struct("=IIII")
_HEAD_BYTES = _HEAD.size
_USED, _PID, _REPLACED = 1, 2, 3
_MAX_SLOTS = 4_096


class Entry(NamedTuple):
    """One line of the directory, and where its numbers begin."""

    line: bytes
    first_slot: int
    slots: int


class Place(NamedTuple):
    """Where an entry is: its first number, and the length of its line, with which it may be replaced."""

    first_slot: int
    line_bytes: int


class Exemplar(NamedTuple):
    """A value and the trace it was seen in.

    Attributes:
        trace_id, span_id: 128 and 64 bits, as W3C Trace Context has them.
        value: as observed.
        time_s: Unix time.
    """

    trace_id: int
    span_id: int
    value: float
    time_s: float


class Store:
    """One process's figures.

    Args:
        memory: mapped; the store's to close.
        fd: descriptor of the memory, to be passed on to the writer; -1 when there is none.

    Attributes:
        doubles: every 64-bit word of it as a float.
        words: the same as integers.

    Raises:
        ValueError: the memory is no store.
    """

    __slots__ = ("_end", "_memory", "doubles", "fd", "size_bytes", "words")

    def __init__(self, memory: mmap.mmap, fd: int) -> None:
        self._memory = memory
        self.fd = fd
        self.size_bytes = len(memory)
        view = memoryview(memory)
        self.doubles = view.cast("d")
        self.words = view.cast("Q")
        if self.words[0] != _MAGIC:
            raise ValueError("the memory holds no metrics")
        self._end = self.words[_USED]

    @classmethod
    def create(cls, size_bytes: int = SIZE_BYTES) -> Store:
        """Make one that another process can open by its descriptor.

        Raises:
            OSError: there is no memory or file for it.
        """
        fd = _anonymous_file()
        try:
            os.ftruncate(fd, size_bytes)
            return cls(_begin(mmap.mmap(fd, size_bytes)), fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def local(cls, size_bytes: int = SIZE_BYTES) -> Store:
        """Make one for this process alone; a fork gets a copy, not the same memory.

        Raises:
            OSError: there is no memory for it.
        """
        if os.name == "nt":
            return cls(_begin(mmap.mmap(-1, size_bytes)), -1)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        return cls(_begin(mmap.mmap(-1, size_bytes, flags=flags)), -1)

    @classmethod
    def open(cls, fd: int) -> Store:
        """Use one that another process made; the store closes the descriptor.

        Raises:
            OSError, ValueError: it is no store; the descriptor is left open.
        """
        return cls(mmap.mmap(fd, os.fstat(fd).st_size), fd)

    @property
    def pid(self) -> int:
        """The process that writes; 0 before it does."""
        return self.words[_PID]

    @property
    def used_bytes(self) -> int:
        """How far entries go."""
        return self.words[_USED]

    @property
    def free_bytes(self) -> int:
        """Room for more."""
        return self.size_bytes - self.words[_USED]

    @property
    def replaced_lines(self) -> int:
        """How often a line has been replaced."""
        return self.words[_REPLACED]

    def claim(self) -> None:
        """Be its writer: from now on no other process appends, a fork of this one neither."""
        self.words[_PID] = os.getpid()
        self._end = self.words[_USED]

    def append(self, line: bytes, slots: int, *, reserve_bytes: int = RESERVE_BYTES) -> int:
        """Add an entry; its numbers are 0. Only the process that claimed it does, one thread at a time.

        Args:
            line: 1 to ``MAX_LINE_BYTES``.
            slots: how many numbers.
            reserve_bytes: what must be left afterwards.

        Returns:
            The first number's index in ``doubles``; -1 when there is no room, or it is another's store.
        """
        line_bytes = len(line)
        checksum = _checksum(line, slots)
        if not 0 < line_bytes <= MAX_LINE_BYTES or slots > _MAX_SLOTS or self.pid != os.getpid():
            return -1
        # Nothing is called before the place is taken: a finaliser that the collector of garbage runs in
        # between may append as well.
        start = self._end
        first = (start + _HEAD_BYTES + line_bytes + 7) // 8
        end = (first + slots) * 8
        if end + reserve_bytes > self.size_bytes:
            return -1
        self._end = end
        _HEAD.pack_into(self._memory, start, line_bytes, slots, checksum, 0)
        self._memory[start + _HEAD_BYTES : start + _HEAD_BYTES + line_bytes] = line
        if end > self.words[_USED]:
            self.words[_USED] = end  # last: nothing of the entry is seen before
        return first

    def replace(self, place: Place, slots: int, line: bytes) -> None:
        """Give the numbers of an entry another line, as long as the one before.

        Whoever has read the old one must be able to tell by the numbers that it is not valid any more.
        """
        start = place.first_slot * 8 - _HEAD_BYTES - (place.line_bytes + 7) // 8 * 8
        self._memory[start + _HEAD_BYTES : start + _HEAD_BYTES + place.line_bytes] = line
        _HEAD.pack_into(self._memory, start, place.line_bytes, slots, _checksum(line, slots), 0)
        self.words[_REPLACED] += 1

    def line(self, place: Place, slots: int) -> bytes | None:
        """The line of an entry as it is now; None while it is being replaced."""
        end = place.first_slot * 8 - (place.line_bytes + 7) // 8 * 8 + place.line_bytes
        _, _, checksum, _ = _HEAD.unpack_from(self._memory, end - place.line_bytes - _HEAD_BYTES)
        line = self._memory[end - place.line_bytes : end]
        return line if _checksum(line, slots) == checksum else None

    def entries(self, position: int = 0, *, skips_garbage: bool = False) -> Iterator[tuple[int, Entry]]:
        """What stands behind ``position``, each with the position behind it.

        An entry that is not what its checksum says ends the walk: on machines that reorder stores the mark
        may be seen before the entry is, and the next walk meets it whole.

        Args:
            position: where an earlier walk has ended; 0 for the beginning.
            skips_garbage: leave such an entry out for good and go on behind it.
        """
        position = max(position, _HEADER_BYTES)
        used = min(self.used_bytes, self.size_bytes)
        while position + _HEAD_BYTES <= used:
            length, slots, checksum, _ = _HEAD.unpack_from(self._memory, position)
            first = (position + _HEAD_BYTES + length + 7) // 8
            end = (first + slots) * 8
            if end > used or not 0 < length <= MAX_LINE_BYTES:
                return
            line = self._memory[position + _HEAD_BYTES : position + _HEAD_BYTES + length]
            position = end
            if _checksum(line, slots) == checksum:
                yield position, Entry(line, first, slots)
            elif not skips_garbage:
                return

    def values(self, first_slot: int, layout: struct.Struct) -> tuple[float, ...]:
        """Numbers as they are now; ``layout`` is so many ``d``."""
        return layout.unpack_from(self._memory, first_slot * 8)

    def exemplar(self, first_slot: int) -> Exemplar | None:
        """The exemplar whose words begin there; None when there is none, or it is just being written."""
        words, doubles = self.words, self.doubles
        version = words[first_slot]
        if version == 0 or version & 1:
            return None
        found = Exemplar(
            words[first_slot + 1] << 64 | words[first_slot + 2],
            words[first_slot + 3],
            doubles[first_slot + 4],
            doubles[first_slot + 5],
        )
        return found if words[first_slot] == version else None

    def close(self) -> None:
        """Close the descriptor; numbers handed out stay usable. Closing again does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def write_exemplar(words: memoryview[int], doubles: memoryview[float], exemplar: Exemplar) -> None:
    """Replace an exemplar in the two views of its words; a reader sees it whole or not at all.

    The version is odd while the others change (a sequence lock, as for one writer).
    """
    version = words[0]
    words[0] = version | 1
    words[1] = exemplar.trace_id >> 64 & 0xFFFF_FFFF_FFFF_FFFF
    words[2] = exemplar.trace_id & 0xFFFF_FFFF_FFFF_FFFF
    words[3] = exemplar.span_id & 0xFFFF_FFFF_FFFF_FFFF
    doubles[4] = exemplar.value
    doubles[5] = exemplar.time_s
    words[0] = (version | 1) + 1


def _begin(memory: mmap.mmap) -> mmap.mmap:
    """Write the header of an empty store."""
    struct.pack_into("=QQ", memory, 0, _MAGIC, _HEADER_BYTES)
    return memory


def _checksum(line: bytes, slots: int) -> int:
    return zlib.crc32(line, slots)


def _anonymous_file() -> int:
    """An empty file that goes when the last descriptor of it is closed.

    Raises:
        OSError: as the kernel gave it.
    """
    if hasattr(os, "memfd_create"):
        # A container's filter of system calls may refuse it.
        with contextlib.suppress(OSError):
            return os.memfd_create("headrace-metrics")
    fd, path = tempfile.mkstemp()
    os.unlink(path)
    return fd
