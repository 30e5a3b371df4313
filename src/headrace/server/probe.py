"""A request for ``--health-path``."""

from __future__ import annotations

from headrace.asgi.http import HTTPExchange


class Probe(HTTPExchange):
    """Runs beside ``runtime.running``: it is not counted, nor written into the access log."""

    has_access_line = False

    __slots__ = ()
