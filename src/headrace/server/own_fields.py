"""The fields that the server adds to responses: what ``middleware.request_id`` and ``timing`` say.

Under another server these layers wrap ``send``. Here the exchange asks when it has the response's head: that
is a third of the cost, and the server's own answers have them too.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from headrace.asgi.http import HTTPExchange, OwnFields
from headrace.config import StackOptions

Pair = tuple[bytes, bytes]


def own_fields(options: StackOptions) -> OwnFields | None:
    """What adds the fields of the layers that are on; None when none does."""
    name = options.request_id_header.lower().encode("ascii") if options.has("request_id") else None
    if not options.has("timing"):
        return None if name is None else _with_request_id(name)
    return _timed if name is None else _timed_with_request_id(name)


def handshake_fields(options: StackOptions) -> OwnFields | None:
    """The same for the answer to a WebSocket's handshake, which is not timed."""
    if not options.has("request_id"):
        return None
    return _with_request_id(options.request_id_header.lower().encode("ascii"))


def _with_request_id(name: bytes) -> OwnFields:
    def fields(exchange: HTTPExchange, given: Iterable[Pair]) -> list[Pair]:
        for pair in given:
            if pair[0].lower() == name:
                return []
        request_id = _request_id(exchange)
        return [] if request_id is None else [(name, request_id)]

    return fields


def _request_id(exchange: HTTPExchange) -> bytes | None:
    """The id as the application left it; None where it took it away, or made something else of it."""
    state = exchange.scope.get("state")
    request_id = state.get("request_id") if isinstance(state, dict) else None
    # It goes out unchecked: nothing in it may end the line.
    if type(request_id) is not str or not request_id.isascii() or not request_id.isprintable():
        return None
    return request_id.encode("ascii")


def _timed(exchange: HTTPExchange, given: Iterable[Pair]) -> list[Pair]:
    total_s, parts = server_timing(exchange.started_s, exchange.begun_s, monotonic())
    for pair in given:
        if pair[0].lower() == b"x-process-time":
            return [(b"server-timing", parts)]
    return [(b"x-process-time", total_s), (b"server-timing", parts)]


def _timed_with_request_id(name: bytes) -> OwnFields:
    """Both at once, as most have it: the application's fields are walked once."""

    def fields(exchange: HTTPExchange, given: Iterable[Pair]) -> list[Pair]:
        total_s, parts = server_timing(exchange.started_s, exchange.begun_s, monotonic())
        says_time = says_id = False
        for pair in given:
            lower = pair[0].lower()
            if lower == name:
                says_id = True
            elif lower == b"x-process-time":
                says_time = True
        added = [(b"server-timing", parts)]
        if not says_time:
            added.append((b"x-process-time", total_s))
        request_id = None if says_id else _request_id(exchange)
        if request_id is not None:
            added.append((name, request_id))
        return added

    return fields


def server_timing(received_s: float, begun_s: float, now_s: float) -> tuple[bytes, bytes]:
    """Write the values of ``X-Process-Time`` and of ``Server-Timing``.

    Args:
        received_s: when the request's head had been read.
        begun_s: when the application was called; 0.0 when it was not.
        now_s: when the response begins; the three are seconds of one clock.
    """
    total_s = now_s - received_s
    if not begun_s:
        return b"%.6f" % total_s, b"queue;dur=%.2f" % (total_s * 1e3)
    queue_s = begun_s - received_s
    return b"%.6f" % total_s, b"queue;dur=%.2f, app;dur=%.2f" % (queue_s * 1e3, (total_s - queue_s) * 1e3)
