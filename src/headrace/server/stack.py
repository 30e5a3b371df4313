"""The stack: every layer between the server and the application, outermost first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from headrace.config import Config
from headrace.config.rules import proxy_fields
from headrace.middleware.proxy_headers import Field, ProxyHeaders
from headrace.middleware.websocket_limit import WebSocketLimit
from headrace.telemetry.exchange import Consumer
from headrace.types import ASGIApplication


class Layer(NamedTuple):
    """One layer.

    Attributes:
        name: as people know it.
        is_on: whether the configuration asks for it.
        wrap: puts it around an application; None where it only listens to finished exchanges.
    """

    name: str
    is_on: Callable[[Config], bool]
    wrap: Callable[[Config, ASGIApplication], ASGIApplication] | None


def _is_behind_proxies(config: Config) -> bool:
    return config.proxy.proxy_headers


def _has_access_log(config: Config) -> bool:
    return config.log.access_log


def _limits_websockets(config: Config) -> bool:
    return config.websocket.ws_max_connections_per_ip is not None


def _proxy_headers(config: Config, application: ASGIApplication) -> ASGIApplication:
    fields = cast("tuple[Field, ...]", proxy_fields(config))
    return ProxyHeaders(application, config.proxy.forwarded_allow_ips, fields=fields)


def _websocket_limit(config: Config, application: ASGIApplication) -> ASGIApplication:
    limit = config.websocket.ws_max_connections_per_ip
    assert limit is not None
    return WebSocketLimit(application, limit)


LAYERS = (
    Layer("proxy_headers", _is_behind_proxies, _proxy_headers),
    Layer("access_log", _has_access_log, None),
    Layer("websocket_limit", _limits_websockets, _websocket_limit),
)
"""Outermost first."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The application in its layers.

    Attributes:
        whole: with every layer that is on.
        unforwarded: for requests without a forwarding field, to which the outermost layer has nothing to
            do; the engine knows which these are, the layer would have to look at every field of each.
        consumers: are told of each finished exchange.
        tells_time: a layer asks when the request's head had been read.
    """

    whole: ASGIApplication
    unforwarded: ASGIApplication
    consumers: tuple[Consumer, ...]
    tells_time: bool


def build_stack(config: Config, application: ASGIApplication, consumers: Sequence[Consumer]) -> Stack:
    """Wrap the application in the layers that are on; a layer that is off is not there."""
    unforwarded = whole = application
    for layer in reversed(LAYERS):
        if layer.wrap is not None and layer.is_on(config):
            unforwarded, whole = whole, layer.wrap(config, whole)
    if not config.proxy.proxy_headers:
        unforwarded = whole
    return Stack(whole, unforwarded, tuple(consumers), config.stack.has("timing"))


def describe_stack(config: Config) -> list[str]:
    """The names of the layers that are on, outermost first, and the application."""
    return [*(layer.name for layer in LAYERS if layer.is_on(config)), "application"]
