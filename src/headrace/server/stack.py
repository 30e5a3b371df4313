"""The stack: every layer between the server and the application, outermost first."""

from __future__ import annotations

from functools import partial
from typing import cast

from headrace.config import Config
from headrace.config.rules import proxy_fields
from headrace.middleware.proxy_headers import Field, ProxyHeaders
from headrace.types import ASGIApplication


def _proxy_headers(config: Config, application: ASGIApplication) -> ASGIApplication:
    fields = cast("tuple[Field, ...]", proxy_fields(config))
    return ProxyHeaders(application, config.proxy.forwarded_allow_ips, fields=fields)


def build_stack(config: Config, application: ASGIApplication) -> ASGIApplication:
    """Wrap the application in the layers that are on; a layer that is off is not there."""
    layers = [
        (config.proxy.proxy_headers, partial(_proxy_headers, config)),
    ]
    for is_on, wrap in reversed(layers):
        if is_on:
            application = wrap(application)
    return application
