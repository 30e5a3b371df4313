"""A request for ``--health-path``."""

from __future__ import annotations

from headrace.asgi.http import HTTPExchange


class Probe(HTTPExchange):
    """Runs beside ``runtime.running``: it is not counted, and nobody is told of it."""

    is_recorded = False

    __slots__ = ()
