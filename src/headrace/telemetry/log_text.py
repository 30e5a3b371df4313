"""Pieces of log lines: colours, times, status phrases, and the escaping of what clients send.

A client chooses its path, query and headers, so in a text line each byte outside printable ASCII, each
quote and each backslash is written ``\\xNN``. A line can then neither be broken nor forged, and the escape
can be undone. JSON lines are escaped by JSON itself.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from http import HTTPStatus
from json.encoder import encode_basestring_ascii as encode_string

_BRIGHT_WHITE, _GREEN, _YELLOW, _RED, _BRIGHT_RED = 97, 32, 33, 31, 91
_STATUS_COLOURS = {1: _BRIGHT_WHITE, 2: _GREEN, 3: _YELLOW, 4: _RED, 5: _BRIGHT_RED}
_LEVEL_COLOURS = {5: 34, 10: 36, 20: _GREEN, 30: _YELLOW, 40: _RED, 50: _BRIGHT_RED}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_NOT_TEXT = re.compile(r"[^ !#-\[\]-~]")
_NOT_WORD = re.compile(r"[^!#-\[\]-~]")
_LOGFMT_WORD = re.compile(r"[!#-<>-\[\]-~]+")


def _hex_escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def _latin1(value: str | bytes) -> str:
    """One character per byte on the wire."""
    if isinstance(value, str):
        if value.isascii():
            return value
        value = value.encode("utf-8", "surrogatepass")
    return value.decode("latin-1")


def escape_text(value: str | bytes) -> str:
    """``value`` fit to stand between quotes in a line; spaces stay."""
    return _NOT_TEXT.sub(_hex_escape, _latin1(value))


def escape_word(value: str | bytes) -> str:
    """``value`` fit to stand as a column of its own; spaces are escaped as well."""
    return _NOT_WORD.sub(_hex_escape, _latin1(value))


def logfmt_value(value: str) -> str:
    """``value`` as it is if it is a plain word, else between quotes, escaped as in JSON."""
    return value if _LOGFMT_WORD.fullmatch(value) else encode_string(value)


def colour_level(level_name: str, level: int) -> str:
    """The level's name in its colour; a level of the user's own stays plain."""
    code = _LEVEL_COLOURS.get(level)
    return level_name if code is None else f"\033[{code}m{level_name}\033[0m"


def bold(text: str) -> str:
    """``text`` in bold."""
    return f"\033[1m{text}\033[0m"


def status_text(status: int, use_colors: bool) -> str:
    """``200 OK``; a status without a phrase keeps the space, as uvicorn prints it."""
    if status == 499:  # nginx's number for a client that left before the response began
        phrase = "Client Closed Request"
    else:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = ""
    text = f"{status} {phrase}"
    code = _STATUS_COLOURS.get(status // 100) if use_colors else None
    return text if code is None else f"\033[{code}m{text}\033[0m"


def iso_utc(wall_s: float) -> str:
    """``2026-03-01T12:00:00.123Z`` for a Unix time in seconds."""
    return iso_utc_ms(int(wall_s * 1000))


def iso_utc_ms(wall_ms: int) -> str:
    """``2026-03-01T12:00:00.123Z`` for a Unix time in milliseconds."""
    second, millisecond = divmod(wall_ms, 1000)
    return f"{_iso_second(second)}.{millisecond:03d}Z"


def clf_time(wall_s: float) -> str:
    """``[01/Mar/2026:13:00:00 +0100]``, local time, for a Unix time in seconds; English in every locale."""
    return _clf_second(int(wall_s))


@lru_cache(maxsize=4)  # the lines of a batch fall into one or two seconds
def _iso_second(second: int) -> str:
    at = time.gmtime(second)
    return (
        f"{at.tm_year:04d}-{at.tm_mon:02d}-{at.tm_mday:02d}T{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}"
    )


@lru_cache(maxsize=4)
def _clf_second(second: int) -> str:
    at = time.localtime(second)
    sign = "-" if at.tm_gmtoff < 0 else "+"
    hours, minutes = divmod(abs(at.tm_gmtoff) // 60, 60)
    return (
        f"[{at.tm_mday:02d}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year:04d}:"
        f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d} {sign}{hours:02d}{minutes:02d}]"
    )
