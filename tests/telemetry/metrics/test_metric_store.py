"""The memory figures are written into, seen from a second reader and from other processes."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headrace.telemetry.metrics.store import MAX_LINE_BYTES, Exemplar, Store, write_exemplar

SMALL_BYTES = 8_192
ONE = struct.Struct("d")


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store.create(SMALL_BYTES)
    made.claim()
    yield made
    made.close()


def lines_of(store: Store) -> list[bytes]:
    return [entry.line for _, entry in store.entries()]


def test_other_mapping_sees_entries_and_numbers(store: Store) -> None:
    other = Store.open(os.dup(store.fd))
    first = store.append(b"a line", 3, reserve_bytes=0)
    store.doubles[first + 2] = 1.5
    [(_, entry)] = other.entries()
    assert entry == (b"a line", first, 3)
    assert other.values(first, struct.Struct("3d")) == (0.0, 0.0, 1.5)
    assert other.pid == os.getpid()
    other.close()


def test_reader_goes_on_where_it_was(store: Store) -> None:
    store.append(b"one", 1, reserve_bytes=0)
    [(position, _)] = store.entries()
    assert list(store.entries(position)) == []
    store.append(b"another", 2, reserve_bytes=0)
    assert [entry.line for _, entry in store.entries(position)] == [b"another"]


@pytest.mark.parametrize("length", range(1, 18))
def test_numbers_are_aligned_and_behind_the_line(store: Store, length: int) -> None:
    line = b"x" * length
    slots = [store.append(line, 1, reserve_bytes=0) for _ in range(3)]
    for slot in slots:
        store.doubles[slot] = -1.0
    assert lines_of(store) == [line] * 3
    assert len(set(slots)) == 3


def test_full_store_takes_nothing_more_and_stays_whole(store: Store) -> None:
    count = 0
    while store.append(b"%d" % count, 16, reserve_bytes=0) >= 0:
        count += 1
    assert count > 10
    assert lines_of(store) == [b"%d" % number for number in range(count)]
    assert store.used_bytes <= store.size_bytes


def test_reserve_is_kept(store: Store) -> None:
    assert store.append(b"x", 1, reserve_bytes=SMALL_BYTES) == -1
    assert store.append(b"x", 1, reserve_bytes=SMALL_BYTES // 2) > 0


def test_line_above_the_limit_is_refused() -> None:
    store = Store.local()
    store.claim()
    assert store.append(b"x" * (MAX_LINE_BYTES + 1), 1) == -1
    assert store.append(b"x" * MAX_LINE_BYTES, 1) > 0


def test_only_who_claimed_it_appends(store: Store) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0 if store.append(b"x", 1, reserve_bytes=0) == -1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert lines_of(store) == []


def test_nobody_appends_before_it_is_claimed() -> None:
    assert Store.local(SMALL_BYTES).append(b"x", 1, reserve_bytes=0) == -1


def test_half_an_entry_is_not_seen(store: Store) -> None:
    """A writer that is killed has not moved the mark yet."""
    store.append(b"whole", 1, reserve_bytes=0)
    used = store.used_bytes
    store.append(b"half", 1, reserve_bytes=0)
    store.words[1] = used
    assert lines_of(store) == [b"whole"]
    store.claim()
    store.append(b"other", 1, reserve_bytes=0)
    assert lines_of(store) == [b"whole", b"other"]


def test_entry_that_is_not_there_yet_is_waited_for(store: Store) -> None:
    slots = [store.append(line, 1, reserve_bytes=0) for line in (b"one", b"two!!", b"three")]
    damaged = slots[1] - 1
    before, store.words[damaged] = store.words[damaged], 0
    assert lines_of(store) == [b"one"]
    store.words[damaged] = before
    assert lines_of(store) == [b"one", b"two!!", b"three"]


def test_garbage_can_be_passed_over(store: Store) -> None:
    slots = [store.append(line, 1, reserve_bytes=0) for line in (b"one", b"two!!", b"three")]
    store.words[slots[1] - 1] = 0
    found = [entry.line for _, entry in store.entries(skips_garbage=True)]
    assert found == [b"one", b"three"]


@pytest.mark.parametrize("used", [0, 63, 65, 2**40, 2**63])
def test_nonsense_in_the_mark_is_survived(store: Store, used: int) -> None:
    store.append(b"one", 1, reserve_bytes=0)
    store.words[1] = used
    assert lines_of(store) in ([], [b"one"])


def test_nonsense_in_a_length_is_survived(store: Store) -> None:
    store.append(b"one", 1, reserve_bytes=0)
    store.words[8] = 2**64 - 1
    assert [entry for _, entry in store.entries(skips_garbage=True)] == []


def test_other_memory_is_refused() -> None:
    fd = os.memfd_create("x")
    os.ftruncate(fd, 4_096)
    with pytest.raises(ValueError, match="no metrics"):
        Store.open(fd)
    os.close(fd)


def test_pages_are_taken_when_they_are_written() -> None:
    store = Store.create()
    assert os.fstat(store.fd).st_blocks * 512 <= 4_096
    store.close()


def test_closed_store_keeps_its_numbers_and_no_descriptor(store: Store) -> None:
    slot = store.append(b"x", 1, reserve_bytes=0)
    fd = store.fd
    store.close()
    store.close()
    store.doubles[slot] = 2.0
    assert store.values(slot, ONE) == (2.0,)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_memory_is_let_go_with_the_store() -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    if before is None:
        pytest.skip("no /proc here")
    store = Store.create()
    store.close()
    del store
    assert set(os.listdir("/proc/self/fd")) == before


def test_local_store_is_copied_by_a_fork() -> None:
    store = Store.local(SMALL_BYTES)
    store.claim()
    slot = store.append(b"x", 1, reserve_bytes=0)
    child = os.fork()
    if child == 0:
        store.doubles[slot] = 5.0
        os._exit(0)
    os.waitpid(child, 0)
    assert store.values(slot, ONE) == (0.0,)


def test_exemplar_is_read_whole(store: Store) -> None:
    slot = store.append(b"x", 6, reserve_bytes=0)
    assert store.exemplar(slot) is None
    words, doubles = store.words[slot : slot + 6], store.doubles[slot : slot + 6]
    for exemplar in (Exemplar(2**128 - 1, 2**64 - 1, 0.25, 1e9), Exemplar(5, 0, 3.0, 2e9)):
        write_exemplar(words, doubles, exemplar)
        assert store.exemplar(slot) == exemplar
    words[0] |= 1  # the writer is at it
    assert store.exemplar(slot) is None
    write_exemplar(words, doubles, Exemplar(6, 7, 4.0, 3e9))
    assert store.exemplar(slot) == Exemplar(6, 7, 4.0, 3e9)


WRITER = """
import os, sys
from headrace.telemetry.metrics.store import Exemplar, Store, write_exemplar
store = Store.open(int(sys.argv[1]))
store.claim()
slot = store.append(b"exemplar", 7, reserve_bytes=0)
words, doubles = store.words[slot : slot + 6], store.doubles[slot : slot + 6]
number, parent = 0, os.getppid()
while number % 1000 or os.getppid() == parent:
    number += 1
    write_exemplar(words, doubles, Exemplar(number << 64 | number, number, number, number))
    store.doubles[slot + 6] = number
    store.append(b"%d" % number * (number % 7 + 1), number % 5, reserve_bytes=0)
"""


def test_reader_of_a_busy_writer_sees_nothing_in_halves() -> None:
    store = Store.create(1_048_576)
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(store.fd)], pass_fds=[store.fd])
    position, number, entries = 0, 0, 0
    first_slot = last = 0
    try:
        while number < 3_000 or entries < 3_000:
            assert process.poll() is None
            for behind, entry in store.entries(position):
                position = behind
                if not entries:
                    first_slot = entry.first_slot
                else:
                    assert entry.line == b"%d" % entries * (entries % 7 + 1)
                    assert entry.slots == entries % 5
                entries += 1
            if entries and (exemplar := store.exemplar(first_slot)) is not None:
                number = exemplar.span_id
                assert exemplar == (number << 64 | number, number, number, number)
                (now,) = store.values(first_slot + 6, ONE)
                assert now >= last
                last = now
    finally:
        process.kill()
        process.wait()
    # Whatever it was doing, the next reader finds all that was complete.
    assert [entry.line for _, entry in store.entries()][1:2] == [b"11"]
    assert len(lines_of(store)) >= entries
    store.close()


def test_files_stand_in_for_memory_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    store = Store.create(SMALL_BYTES)
    store.claim()
    assert store.append(b"a line", 1, reserve_bytes=0) > 0
    other = Store.open(os.dup(store.fd))
    assert lines_of(other) == [b"a line"]
    other.close()
    store.close()
