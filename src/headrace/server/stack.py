"""The stack: every layer between the server and the application, outermost first."""

from __future__ import annotations

from typing import NamedTuple, cast

from headrace.config import Config
from headrace.config.rules import proxy_fields
from headrace.middleware.proxy_headers import Field, ProxyHeaders
from headrace.middleware.websocket_limit import WebSocketLimit
from headrace.types import ASGIApplication


def _proxy_headers(config: Config, application: ASGIApplication) -> ASGIApplication:
    fields = cast("tuple[Field, ...]", proxy_fields(config))
    return ProxyHeaders(application, config.proxy.forwarded_allow_ips, fields=fields)


class Stack(NamedTuple):
    """The application in its layers.

    Attributes:
        whole: with every layer that is on.
        unforwarded: for requests without a forwarding field, to which the outermost layer has nothing to
            do; the engine knows which these are, the layer would have to look at every field of each.
    """

    whole: ASGIApplication
    unforwarded: ASGIApplication


def build_stack(config: Config, application: ASGIApplication) -> Stack:
    """Wrap the application in the layers that are on; a layer that is off is not there."""
    limit = config.websocket.ws_max_connections_per_ip
    if limit is not None:
        application = WebSocketLimit(application, limit)
    if not config.proxy.proxy_headers:
        return Stack(application, application)
    return Stack(_proxy_headers(config, application), application)
