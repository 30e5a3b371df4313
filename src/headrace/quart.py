"""Tell headrace the route of a Quart request.

Quart keeps the route on its request object, where no server sees it. In the application::

    from headrace.quart import note_routes

    app = note_routes(Quart(__name__))

Then metrics, spans and the access log name the request ``/items/<int:id>``; without it, they do not know its
route.
"""

from __future__ import annotations

from typing import Any, TypeVar

from quart import request, websocket

App = TypeVar("App", bound=Any)


def note_routes(app: App) -> App:
    """Put the route of each request and WebSocket into its ASGI scope, as ``headrace.route``.

    Call it once, with the application before it serves. Requests whose path no route matches get none.

    Args:
        app: a ``quart.Quart``.

    Returns:
        The same application.
    """
    # First of all, for a function that answers keeps those behind it from running.
    app.before_request_funcs[None].insert(0, _note_request)
    app.before_websocket_funcs[None].insert(0, _note_websocket)
    return app


async def _note_request() -> None:
    _note(request)


async def _note_websocket() -> None:
    _note(websocket)


def _note(connection: Any) -> None:
    rule = connection.url_rule
    if rule is not None:
        connection.scope["headrace.route"] = rule.rule
