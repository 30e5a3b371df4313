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
from headrace.telemetry.access_lines.facts import (
    client_host,
    duration_s,
    error_type,
    header_text,
    request_id,
    trace_ids,
    wire_request_line,
)
from headrace.telemetry.exchange import FinishedExchange
from headrace.telemetry.log_text import clf_time, escape_text, escape_word
from headrace.telemetry.route import route_template

Atom = Callable[[FinishedExchange, float], str | int]
"""(exchange, wall_offset_s) to the atom's value, escaped."""

NAMES = ("uvicorn", "combined", "json", "logfmt", "ecs", "gcp")
"""Formats that are no templates."""

_PLACE = re.compile(r"%(?:%|\((\{[^{}]+\}[ioe]|[^(){}]*)\)([-#0 +]*\d*(?:\.\d+)?)([sd])|)")
_NUMBERS = frozenset("sBTDM")


def _user(exchange: FinishedExchange, _: float) -> str:
    for name, value in exchange[0]["headers"]:
        if name == b"authorization" and value[:6].lower() == b"basic ":
            try:
                user = base64.b64decode(value[6:], validate=True).partition(b":")[0]
            except binascii.Error:
                return "-"
            return escape_word(user) or "-"
    return "-"


def _microseconds(exchange: FinishedExchange) -> int:
    return round(duration_s(exchange[3], exchange[4]) * 1_000_000)


def _seconds_text(exchange: FinishedExchange, _: float) -> str:
    seconds, microseconds = divmod(_microseconds(exchange), 1_000_000)
    return f"{seconds}.{microseconds:06d}"


ATOMS: dict[str, Atom] = {
    "h": lambda exchange, _: client_host(exchange[0]),
    "l": lambda exchange, _: "-",
    "u": _user,
    "t": lambda exchange, wall_offset_s: clf_time(exchange[4] + wall_offset_s),
    "r": lambda exchange, _: wire_request_line(exchange[0]),
    "s": lambda exchange, _: exchange[1],
    "m": lambda exchange, _: escape_word(exchange[0]["method"]),
    "U": lambda exchange, _: escape_word(exchange[0]["path"]),
    "q": lambda exchange, _: escape_word(exchange[0]["query_string"]),
    "H": lambda exchange, _: f"HTTP/{exchange[0]['http_version']}",
    "b": lambda exchange, _: str(exchange[2]) if exchange[2] else "-",
    "B": lambda exchange, _: exchange[2],
    "f": lambda exchange, _: header_text(exchange[0]["headers"], b"referer"),
    "a": lambda exchange, _: header_text(exchange[0]["headers"], b"user-agent"),
    "T": lambda exchange, _: _microseconds(exchange) // 1_000_000,
    "D": lambda exchange, _: _microseconds(exchange),
    "M": lambda exchange, _: _microseconds(exchange) // 1000,
    "L": _seconds_text,
    "p": lambda exchange, _: f"<{os.getpid()}>",
}
"""Gunicorn's atoms; ``{name}i``, ``{name}o`` and ``{name}e`` are made from the template."""

FACTS: dict[str, Callable[[FinishedExchange], str | None]] = {
    "route": lambda exchange: route_template(exchange[0]),
    "request_id": lambda exchange: request_id(exchange[0]),
    "trace_id": lambda exchange: trace_ids(exchange[0])[0],
    "span_id": lambda exchange: trace_ids(exchange[0])[1],
    "error_type": lambda exchange: None if exchange[7] is None else error_type(exchange[7]),
    "received_bytes": lambda exchange: str(exchange[6]),
}
"""What ``{name}e`` means before it means an environment variable: facts for which gunicorn has no atom."""


class TemplateText:
    """Lines by a template.

    Args:
        template: literal text with ``%(atom)s``; ``%%`` is a per cent sign; flags, width and precision of
            %-formatting may stand before ``s``, and ``d`` fits the atoms that are numbers.
        worker: what ``{worker}e`` says; None for ``-``.

    Raises:
        ConfigError: an atom is unknown, a per cent sign begins none, or there is no atom at all.
    """

    def __init__(self, template: str, worker: int | None = None) -> None:
        self._atoms: list[Atom] = []
        self._worker = "-" if worker is None else str(worker)
        self._format = _PLACE.sub(self._compile_place, template)
        if not self._atoms:
            raise ConfigError(
                f"The access log format {template[:80]!r} is none of {', '.join(NAMES)}, "
                "and holds no atom such as %(r)s."
            )

    def lines(self, exchanges: Sequence[FinishedExchange], wall_offset_s: float) -> list[str]:
        """See ``LineFormat``."""
        format_, atoms = self._format, self._atoms
        return [format_ % tuple([atom(exchange, wall_offset_s) for atom in atoms]) for exchange in exchanges]

    def _compile_place(self, match: re.Match[str]) -> str:
        place, name, width, conversion = match[0], match[1], match[2], match[3]
        if place == "%%":
            return place
        if name is None:
            behind = match.string[match.start() : match.start() + 20]
            raise ConfigError(
                f"The access log format has a % that begins no atom, at {behind!r}; write %% for the sign."
            )
        worker = self._worker
        self._atoms.append((lambda exchange, _: worker) if name == "{worker}e" else _atom(name))
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
        if inner in FACTS:
            fact = FACTS[inner]
            return lambda exchange, _: escape_text(fact(exchange) or "-")
        value = escape_text(os.environ.get(inner, "-"))
        return lambda exchange, _: value
    header = inner.lower().encode("utf-8", "replace")
    if source == "i":
        return lambda exchange, _: header_text(exchange[0]["headers"], header)
    return lambda exchange, _: header_text(exchange[5], header)
