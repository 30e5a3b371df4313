"""The stack: every layer between the server and the application, outermost first."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from headrace.asgi.http import OwnFields
from headrace.config import Config
from headrace.config.rules import proxy_fields
from headrace.middleware.metrics import Metrics
from headrace.middleware.metrics_page import expose_pages
from headrace.middleware.proxy_headers import Field, ProxyHeaders
from headrace.middleware.request_id import RequestID
from headrace.middleware.tracing import Tracing
from headrace.middleware.websocket_limit import WebSocketLimit
from headrace.server.observation import Observation
from headrace.server.own_fields import handshake_fields, own_fields
from headrace.server.turn import Variables
from headrace.telemetry.exchange import Consumer
from headrace.telemetry.request_context import request_id_var
from headrace.types import ASGIApplication

_Wrap = Callable[[Config, Observation, ASGIApplication], ASGIApplication]


class Layer(NamedTuple):
    """One layer.

    Attributes:
        name: as people know it.
        is_on: whether the configuration asks for it.
        wrap: puts it around an application; None where the server does all of it: it is told of finished
            exchanges, or asked for fields.
        scopes: the types it has something to do for; it is not there for others.
    """

    name: str
    is_on: Callable[[Config], bool]
    wrap: _Wrap | None
    scopes: tuple[str, ...] = ("http", "websocket")


def _proxy_headers(config: Config, _: Observation, app: ASGIApplication) -> ASGIApplication:
    fields = cast("tuple[Field, ...]", proxy_fields(config))
    return ProxyHeaders(app, config.proxy.forwarded_allow_ips, fields=fields)


def _tracing(_: Config, observation: Observation, app: ASGIApplication) -> ASGIApplication:
    tracer = observation.tracer
    # Each exchange has a context of its own here.
    return app if tracer is None else Tracing(app, tracer).enter


def _request_id(config: Config, _: Observation, app: ASGIApplication) -> ASGIApplication:
    return RequestID(app, config.stack.request_id_header, answers=False).enter


def _metrics(config: Config, observation: Observation, app: ASGIApplication) -> ASGIApplication:
    return Metrics(app, observation.registry, preset=config.stack.metrics_preset, records=False)


def _websocket_limit(config: Config, observation: Observation, app: ASGIApplication) -> ASGIApplication:
    limit = config.websocket.ws_max_connections_per_ip
    assert limit is not None
    layer = observation.websocket_limit = WebSocketLimit(app, limit)
    return layer


def _mounts(_: Config, __: Observation, app: ASGIApplication) -> ASGIApplication:
    return expose_pages(app)


LAYERS = (
    Layer("proxy_headers", lambda config: config.proxy.proxy_headers, _proxy_headers),
    # Outside of the request id, which is the trace's where nothing else says one.
    Layer("tracing", lambda config: config.stack.has("tracing"), _tracing),
    Layer("request_id", lambda config: config.stack.has("request_id"), _request_id),
    Layer("access_log", lambda config: config.log.access_log, None),
    Layer("metrics", lambda config: config.stack.has("metrics"), _metrics, ("websocket",)),
    Layer("timing", lambda config: config.stack.has("timing"), None),
    Layer(
        "websocket_limit",
        lambda config: config.websocket.ws_max_connections_per_ip is not None,
        _websocket_limit,
        ("websocket",),
    ),
    Layer("mounts", lambda config: config.stack.has("metrics"), _mounts, ("http",)),
)
"""Outermost first."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The application in its layers.

    Attributes:
        whole: for a request that carries a forwarding field.
        unforwarded: for requests without one, to which the outermost layer has nothing to do; the engine
            knows which these are, the layer would have to look at every field of each.
        websocket: for WebSockets.
        consumers: are told of each finished exchange.
        own_fields, handshake_fields: give the fields that the server adds to responses.
        variables: that a layer sets in each request, with what they are elsewhere.
    """

    whole: ASGIApplication
    unforwarded: ASGIApplication
    websocket: ASGIApplication
    consumers: tuple[Consumer, ...] = ()
    own_fields: OwnFields | None = None
    handshake_fields: OwnFields | None = None
    variables: Variables = ()


def build_stack(config: Config, application: ASGIApplication, observation: Observation) -> Stack:
    """Wrap the application in the layers that are on; a layer that is off is not there."""
    on = [layer for layer in LAYERS if layer.is_on(config)]

    def wrapped(scope_type: str, layers: list[Layer]) -> ASGIApplication:
        app = application
        for layer in reversed(layers):
            if layer.wrap is not None and scope_type in layer.scopes:
                app = layer.wrap(config, observation, app)
        return app

    return Stack(
        wrapped("http", on),
        wrapped("http", [layer for layer in on if layer.wrap is not _proxy_headers]),
        wrapped("websocket", on),
        observation.consumers(),
        own_fields(config.stack),
        handshake_fields(config.stack),
        _variables(config, observation),
    )


def _variables(config: Config, observation: Observation) -> Variables:
    found: list[tuple[ContextVar[Any], Any]] = []
    if config.stack.has("request_id"):
        found.append((request_id_var, ""))
    if observation.tracer is not None:
        found += observation.tracer.variables()
    return found


def describe_stack(config: Config) -> list[str]:
    """The names of the layers that are on, outermost first, and the application."""
    return [*(layer.name for layer in LAYERS if layer.is_on(config)), "application"]
