from __future__ import annotations

import asyncio
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from litestar import Litestar
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from headrace.telemetry.tracing import makers
from headrace.telemetry.tracing.makers import find_maker, must_quieten_native

contrib_asgi = pytest.importorskip("opentelemetry.instrumentation.asgi")
contrib_fastapi = pytest.importorskip("opentelemetry.instrumentation.fastapi")
OpenTelemetryMiddleware = contrib_asgi.OpenTelemetryMiddleware
CONTRIB = "opentelemetry-instrumentation"
NATIVE = "FastAPI's telemetry"


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An application."""


def start(application: Any) -> Any:
    """Go through the lifespan, which builds Starlette's layers."""
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        assert message["type"].endswith(".complete")

    asyncio.run(application({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    return application


@pytest.fixture
def instrumented() -> Iterator[Any]:
    """Give a function that has contrib instrument a FastAPI application; undone behind the test."""
    done: list[FastAPI] = []

    def instrument(application: FastAPI) -> FastAPI:
        contrib_fastapi.FastAPIInstrumentor.instrument_app(application)
        done.append(application)
        return application

    yield instrument
    for application in done:
        contrib_fastapi.FastAPIInstrumentor.uninstrument_app(application)


@pytest.mark.parametrize(
    "application",
    [
        bare,
        Starlette(),
        FastAPI(),
        Litestar([]),
        CORSMiddleware(FastAPI()),
        functools.partial(bare),
        None,
        object(),
    ],
)
def test_nobody(application: Any) -> None:
    assert find_maker(application) is None


def test_contrib_around_the_application() -> None:
    assert find_maker(OpenTelemetryMiddleware(bare)) == CONTRIB
    assert find_maker(CORSMiddleware(OpenTelemetryMiddleware(Starlette()))) == CONTRIB
    assert find_maker(functools.partial(OpenTelemetryMiddleware(bare))) == CONTRIB


def test_contrib_behind_a_function() -> None:
    inner = OpenTelemetryMiddleware(bare)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    assert find_maker(outer) == CONTRIB


def test_contrib_in_a_class_of_ones_own() -> None:
    class Mine(OpenTelemetryMiddleware):  # type: ignore[misc,valid-type]
        pass

    assert find_maker(Mine(bare)) == CONTRIB


@pytest.mark.parametrize("is_started", [False, True])
def test_contrib_among_the_layers(is_started: bool) -> None:
    application = Starlette(middleware=[Middleware(OpenTelemetryMiddleware)])
    assert find_maker(start(application) if is_started else application) == CONTRIB
    application = FastAPI()
    application.add_middleware(OpenTelemetryMiddleware)
    assert find_maker(start(application) if is_started else application) == CONTRIB


@pytest.mark.parametrize("is_started", [False, True])
def test_the_instrumentor(is_started: bool, instrumented: Any) -> None:
    application = instrumented(FastAPI())
    assert find_maker(start(application) if is_started else application) == CONTRIB


def test_the_instrumentor_came_too_late(instrumented: Any) -> None:
    """It says that it has instrumented the application, and none of its layers is there."""
    assert find_maker(instrumented(start(FastAPI()))) is None


def test_litestars_layer() -> None:
    contrib = pytest.importorskip("litestar.plugins.opentelemetry")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = contrib.OpenTelemetryConfig()
    assert find_maker(Litestar([], middleware=[config.middleware])) == CONTRIB


def test_what_is_mounted_does_not_count() -> None:
    application = Starlette(routes=[Mount("/sub", OpenTelemetryMiddleware(bare))])
    assert find_maker(start(application)) is None


def native(**telemetry: Any) -> FastAPI:
    application = FastAPI(telemetry=telemetry)
    if not hasattr(application, "_native_telemetry"):
        pytest.skip("this FastAPI has no telemetry of its own")
    return application


def test_fastapis_own_with_a_provider_of_the_application() -> None:
    assert find_maker(native(tracer_provider=TracerProvider(shutdown_on_exit=False))) == NATIVE
    assert (
        find_maker(CORSMiddleware(native(tracer_provider=TracerProvider(shutdown_on_exit=False)))) == NATIVE
    )


def test_fastapis_own_without_spans() -> None:
    application = native(tracing=False, tracer_provider=TracerProvider(shutdown_on_exit=False))
    assert find_maker(application) is None
    assert not must_quieten_native(application)


def test_fastapis_own_that_nobody_has_set_up() -> None:
    application = native()
    assert find_maker(application) is None
    assert must_quieten_native(application)
    assert must_quieten_native(Starlette(routes=[Mount("/sub", application)]))


def test_fastapis_own_of_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    with_provider = native(tracer_provider=TracerProvider(shutdown_on_exit=False))
    monkeypatch.setattr(type(with_provider._native_telemetry), "enabled", None)
    assert find_maker(with_provider) == NATIVE
    assert find_maker(native()) is None


def test_without_fastapi_nothing_is_quietened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(makers.sys, "modules", {})
    assert not must_quieten_native(FastAPI())


def test_layers_that_go_round_in_circles() -> None:
    class Round:
        app: Any

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            """Nothing."""

    one, two = Round(), Round()
    one.app, two.app = two, one
    assert find_maker(one) is None
