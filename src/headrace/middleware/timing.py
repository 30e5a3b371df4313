"""Says in each response how long it took, where the server does not."""

from __future__ import annotations

from collections.abc import Awaitable
from time import monotonic

from headrace.types import ASGIApplication, Message, Receive, Scope, Send


class Timing:
    """Adds ``X-Process-Time`` and ``Server-Timing`` to every HTTP response.

    ``X-Process-Time: 0.001250`` has the seconds from the call of this layer to the begin of the response,
    ``Server-Timing: app;dur=1.25`` the same in milliseconds (W3C Server Timing §2), which browsers show in
    their developer tools. headrace does this itself, from the moment at which the request's head had been
    read, and says how long the request had waited: ``queue;dur=0.12, app;dur=1.25``.

    An ``X-Process-Time`` that the application sets itself stands; its ``Server-Timing`` fields stand beside
    this one.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApplication) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Time one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_s = monotonic()

        def send_with_times(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                total_s = monotonic() - begun_s
                headers = list(message.get("headers", ()))
                for pair in headers:
                    # Django sends names as the application wrote them.
                    if len(pair[0]) == 14 and pair[0].lower() == b"x-process-time":
                        break
                else:
                    headers.append((b"x-process-time", b"%.6f" % total_s))
                headers.append((b"server-timing", b"app;dur=%.2f" % (total_s * 1e3)))
                # Another one, for the application may send this one for every request.
                message = {**message, "headers": headers}
            return send(message)

        await self._app(scope, receive, send_with_times)
