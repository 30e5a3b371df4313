from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.telemetry.tracing import MISSING, environment, missing_sentence, wants_tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("asked", "is_stack_on", "environ", "wanted"),
    [
        (None, False, {}, False),
        (None, False, ENDPOINT, False),
        (None, True, {}, False),
        (None, True, ENDPOINT, True),
        (None, True, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, True),
        (None, True, {"OTEL_TRACES_EXPORTER": "console"}, True),
        (None, True, {"OTEL_TRACES_EXPORTER": "none"}, False),
        (None, True, {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        (None, True, {**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        (None, True, {**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True),
        (True, False, {}, True),
        (True, False, {"OTEL_TRACES_EXPORTER": "none"}, True),
        (True, True, {"OTEL_SDK_DISABLED": " TRUE "}, False),
        (False, True, ENDPOINT, False),
    ],
)
def test_wish(asked: bool | None, is_stack_on: bool, environ: dict[str, str], wanted: bool) -> None:
    assert wants_tracing(asked, is_stack_on, environ) is wanted


def test_a_provider_of_the_application_is_a_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_own_provider", lambda: True)
    assert wants_tracing(None, True, {})
    assert not wants_tracing(None, False, {})


@pytest.mark.parametrize(
    ("absent", "environ", "sentence"),
    [
        ((), {}, None),
        (("opentelemetry.sdk",), {}, MISSING),
        (("opentelemetry.exporter.otlp.proto.http",), {}, MISSING),
        (("opentelemetry.exporter.otlp.proto.http",), {"OTEL_TRACES_EXPORTER": "console"}, None),
        (("opentelemetry.exporter.otlp.proto.http",), {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
        (
            ("opentelemetry.exporter.otlp.proto.grpc",),
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            environment.MISSING_GRPC,
        ),
    ],
)
def test_what_is_missing(
    absent: tuple[str, ...], environ: dict[str, str], sentence: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> Any:
        return None if name in absent else SimpleNamespace()

    monkeypatch.setattr(environment, "find_spec", find_spec)
    assert missing_sentence(environ) == sentence


def test_without_even_the_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> Any:
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setattr(environment, "find_spec", find_spec)
    assert missing_sentence({}) == MISSING


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({}, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": " gRPC "}, "grpc"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "http/protobuf",
        ),
    ],
)
def test_protocol(environ: dict[str, str], protocol: str) -> None:
    assert environment.otlp_protocol(environ) == protocol


def test_several_exporters() -> None:
    assert environment.exporter_names({"OTEL_TRACES_EXPORTER": "otlp, console,none"}) == ["otlp", "console"]
