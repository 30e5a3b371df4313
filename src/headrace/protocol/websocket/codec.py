"""The codecs of DEFLATE (RFC 1951) for messages: the quickest that are installed, else Python's zlib.

- ``isal`` compresses messages that stand alone and have ``LONG_BYTES`` or more: 16 KiB of JSON in 14 us where
  zlib takes 58, into fewer bytes; of short ones it makes more. It is not asked to decompress: of streams that
  were changed at random it took 1 in 1,000 that zlib refuses, and made other data of some.
- ``zlib_ng`` decompresses, in 9 us where zlib takes 19, and did the same as zlib with three million such
  streams. It also compresses those messages at the levels that ``isal`` does not have.
- zlib compresses short messages, and those that refer to earlier ones: each connection then has a compressor,
  of 39 KiB with a window of 12 bits, which would be 165 of zlib-ng's.

(isal 1.9.1, zlib-ng 1.1.0, zlib 1.2.13, 2 vCPU x86-64, 2026-11.)
"""

from __future__ import annotations

import zlib
from types import ModuleType
from typing import Protocol, cast

isal: ModuleType | None
zlib_ng: ModuleType | None
try:
    from isal import isal_zlib as isal
except ImportError:
    isal = None
try:
    from zlib_ng import zlib_ng
except ImportError:
    zlib_ng = None

CORRUPT: tuple[type[Exception], ...] = (zlib.error,) if zlib_ng is None else (zlib.error, zlib_ng.error)
"""What a decompressor raises for data that is not DEFLATE."""

LONG_BYTES = 512

_ISAL_LEVELS = {1: 1, 2: 3}
"""From a level of zlib's to the one of isal's that is quicker and no larger; above them there is none."""

_MIN_ZLIB_NG_LEVEL = 2
"""Level 1 makes a third more bytes than zlib's; this one is quicker than zlib's level 1, and smaller."""


class Compressor(Protocol):
    """As ``zlib.compressobj`` gives it."""

    def compress(self, data: bytes, /) -> bytes:
        """Take data; what comes out may lag behind."""

    def flush(self, mode: int, /) -> bytes:
        """Give the rest of what has been taken."""


class Decompressor(Protocol):
    """As ``zlib.decompressobj`` gives it."""

    @property
    def eof(self) -> bool:
        """The final block has been read."""

    @property
    def unused_data(self) -> bytes:
        """What came behind it."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Give at most ``max_length`` bytes of what ``data`` holds."""


def make_compressor(bits: int, level: int, memory_level: int, is_for_long: bool) -> Compressor:
    """Make a compressor of raw DEFLATE.

    Args:
        bits: log2 of its window in bytes, 9 to 15.
        level: 1 to 9 in zlib's terms.
        memory_level: 1 to 9, of zlib.
        is_for_long: for messages of ``LONG_BYTES`` or more which do not refer to earlier ones.
    """
    if is_for_long and isal is not None and level in _ISAL_LEVELS:
        made = isal.compressobj(_ISAL_LEVELS[level], zlib.DEFLATED, -bits, memory_level)
    elif is_for_long and zlib_ng is not None:
        made = zlib_ng.compressobj(max(level, _MIN_ZLIB_NG_LEVEL), zlib.DEFLATED, -bits, memory_level)
    else:
        made = zlib.compressobj(level, zlib.DEFLATED, -bits, memory_level)
    return cast("Compressor", made)


def make_decompressor(bits: int) -> Decompressor:
    """Make a decompressor of raw DEFLATE for a window of 2^``bits`` bytes, 9 to 15."""
    return cast("Decompressor", (zlib_ng or zlib).decompressobj(-bits))
