"""The stack: every layer between the server and the application, outermost first."""

from __future__ import annotations

from headrace.config import Config
from headrace.middleware.proxy_headers import ProxyHeaders
from headrace.types import ASGIApplication


def build_stack(config: Config, application: ASGIApplication) -> ASGIApplication:
    """Wrap the application in the layers that are on; a layer that is off is not there."""
    layers = [
        (config.proxy.proxy_headers, lambda app: ProxyHeaders(app, config.proxy.forwarded_allow_ips)),
    ]
    for is_on, wrap in reversed(layers):
        if is_on:
            application = wrap(application)
    return application
