"""Access lines by a template of gunicorn's %-atoms, compiled once.

A template such as ``%(h)s "%(r)s" %(s)s %(L)s %({x-request-id}i)s`` becomes one %-format and a tuple of
functions, one for each atom.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Sequence

from headrace.errors import ConfigError
from headrace.telemetry.access_formats import (
    AccessEntry,
    client_host,
    duration_s,
    header_text,
    wire_request_line,
)
from headrace.telemetry.log_text import clf_time, escape_text, escape_word

Atom = Callable[[AccessEntry, float], str | int]
"""(entry, wall_offset_s) to the atom's value, escaped."""

_PLACE = re.compile(r"%(?:%|\((\{[^{}]+\}[ioe]|[^(){}]*)\)([-#0 +]*\d*(?:\.\d+)?)([sd])|)")
_NUMBERS = frozenset("sBTDM")


def _user(entry: AccessEntry, _: float) -> str:
    for name, value in entry[0]["headers"]:
        if name == b"authorization" and value[:6].lower() == b"basic ":
            try:
                user = base64.b64decode(value[6:], validate=True).partition(b":")[0]
            except binascii.Error:
                return "-"
            return escape_word(user) or "-"
    return "-"


def _microseconds(entry: AccessEntry) -> int:
    return round(duration_s(entry[3], entry[4]) * 1_000_000)


def _seconds_text(entry: AccessEntry, _: float) -> str:
    seconds, microseconds = divmod(_microseconds(entry), 1_000_000)
    return f"{seconds}.{microseconds:06d}"


ATOMS: dict[str, Atom] = {
    "h": lambda entry, _: client_host(entry[0]),
    "l": lambda entry, _: "-",
    "u": _user,
    "t": lambda entry, wall_offset_s: clf_time(entry[4] + wall_offset_s),
    "r": lambda entry, _: wire_request_line(entry[0]),
    "s": lambda entry, _: entry[1],
    "m": lambda entry, _: escape_word(entry[0]["method"]),
    "U": lambda entry, _: escape_word(entry[0]["path"]),
    "q": lambda entry, _: escape_word(entry[0]["query_string"]),
    "H": lambda entry, _: f"HTTP/{entry[0]['http_version']}",
    "b": lambda entry, _: str(entry[2]) if entry[2] else "-",
    "B": lambda entry, _: entry[2],
    "f": lambda entry, _: header_text(entry[0]["headers"], b"referer"),
    "a": lambda entry, _: header_text(entry[0]["headers"], b"user-agent"),
    "T": lambda entry, _: _microseconds(entry) // 1_000_000,
    "D": lambda entry, _: _microseconds(entry),
    "M": lambda entry, _: _microseconds(entry) // 1000,
    "L": _seconds_text,
    "p": lambda entry, _: f"<{os.getpid()}>",
}
"""Gunicorn's atoms; ``{name}i``, ``{name}o`` and ``{NAME}e`` are made from the template."""


class TemplateText:
    """Lines by a template.

    Args:
        template: literal text with ``%(atom)s``; ``%%`` is a per cent sign; flags, width and precision of
            %-formatting may stand before ``s``, and ``d`` fits the atoms that are numbers.

    Raises:
        ConfigError: an atom is unknown, a per cent sign begins none, or there is no atom at all.
    """

    def __init__(self, template: str) -> None:
        self._atoms: list[Atom] = []
        self._format = _PLACE.sub(self._compile_place, template)
        if not self._atoms:
            raise ConfigError(
                f"The access log format {template[:80]!r} is none of uvicorn, combined, json, "
                "and holds no atom such as %(r)s."
            )

    def lines(self, entries: Sequence[AccessEntry], wall_offset_s: float) -> list[str]:
        """See ``LineFormat``."""
        format_, atoms = self._format, self._atoms
        return [format_ % tuple([atom(entry, wall_offset_s) for atom in atoms]) for entry in entries]

    def _compile_place(self, match: re.Match[str]) -> str:
        place, name, width, conversion = match[0], match[1], match[2], match[3]
        if place == "%%":
            return place
        if name is None:
            behind = match.string[match.start() : match.start() + 20]
            raise ConfigError(
                f"The access log format has a % that begins no atom, at {behind!r}; write %% for the sign."
            )
        self._atoms.append(_atom(name))
        if conversion == "d" and name not in _NUMBERS:
            raise ConfigError(f"The access log format's atom %({name})d is no number; write %({name})s.")
        return f"%{width}{conversion}"


def _atom(name: str) -> Atom:
    if name in ATOMS:
        return ATOMS[name]
    if not name.startswith("{"):
        known = " ".join(ATOMS)
        raise ConfigError(
            f"The access log format's atom %({name[:80]})s is unknown; there are {known}, "
            "{header}i, {header}o and {variable}e."
        )
    inner, source = name[1:-2], name[-1]
    if source == "e":
        value = escape_text(os.environ.get(inner, "-"))
        return lambda entry, _: value
    header = inner.lower().encode("utf-8", "replace")
    if source == "i":
        return lambda entry, _: header_text(entry[0]["headers"], header)
    return lambda entry, _: header_text(entry[5], header)
