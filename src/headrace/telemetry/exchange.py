"""What is known of a request when it is finished, and who wants to know.

The server makes one tuple for each request, also for those it refuses, and hands it to every consumer. What
they make of it (lines, figures, spans) they make in batches, off the request's path.
"""

from __future__ import annotations

from typing import Protocol

from headrace.types import Headers, Scope

FinishedExchange = tuple[Scope, int, int, float, float, Headers | None, int, BaseException | None]
"""One request and its response, in this order:

scope            the ASGI http scope, as the application left it
status           status sent; 499 when the client left before the response started
sent_bytes       bytes of the response's body that were sent
started_s        the request's head was complete, seconds of ``time.monotonic``
finished_s       the response was complete or given up, same clock
response_headers (name, value) byte pairs as sent, or None when no response was started
received_bytes   bytes of the request's body that came
error            what the application raised, or None
"""


class Consumer(Protocol):
    """Takes finished exchanges; none of its methods raises into the server."""

    def add(self, exchange: FinishedExchange, /) -> None:
        """Take one. Look the method up for each call; no await, no cost to speak of."""

    def flush(self) -> None:
        """Do with what has been taken what is to be done; called about ten times a second."""

    def close(self) -> None:
        """Flush, and let go of what is held. Nothing may be added afterwards."""
