from __future__ import annotations

from typing import Any

import pytest
from traced_scopes import environment, finish, make_scope

from headrace.errors import RemoteProtocolError
from headrace.telemetry.tracing import facts

KNOWN = facts.known_methods()


@pytest.mark.parametrize(
    ("method", "name", "value", "original"),
    [
        ("GET", "GET", "GET", None),
        ("QUERY", "QUERY", "QUERY", None),
        ("get", "HTTP", "_OTHER", "get"),
        ("BREW", "HTTP", "_OTHER", "BREW"),
    ],
)
def test_methods(method: str, name: str, value: str, original: str | None) -> None:
    assert facts.method_of(make_scope(method=method), KNOWN) == (name, value, original)


def test_methods_by_the_variable() -> None:
    with environment(OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS="GET, BREW"):
        known = facts.known_methods()
    assert known == {"GET", "BREW"}


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (b"a=1&b=2", "a=1&b=2"),
        (b"sig=1", "sig=REDACTED"),
        (b"a=1&sig=a%20b&b=2", "a=1&sig=REDACTED&b=2"),
        (b"AWSAccessKeyId=A&Signature=B&X-Goog-Signature=C", "AWSAccessKeyId=REDACTED&Signature=REDACTED&"
         "X-Goog-Signature=REDACTED"),
        (b"X-Amz-Signature=1&X-Amz-Credential=2&X-Amz-Security-Token=", "X-Amz-Signature=REDACTED&"
         "X-Amz-Credential=REDACTED&X-Amz-Security-Token=REDACTED"),
        (b"design=1&mysig=2&sig", "design=1&mysig=2&sig"),
        (b"\xe9=\xff", "\xe9=\xff"),
    ],
)  # fmt: skip
def test_secrets_of_a_query(query: bytes, shown: str) -> None:
    assert facts.query_of(make_scope(query_string=query)) == shown


@pytest.mark.parametrize(
    ("scheme", "host", "server"),
    [
        ("http", b"shop.test", ("shop.test", 80)),
        ("https", b"shop.test", ("shop.test", 443)),
        ("wss", b"shop.test", ("shop.test", 443)),
        ("http", b"shop.test:8080", ("shop.test", 8080)),
        ("http", b"[2001:db8::1]:81", ("2001:db8::1", 81)),
        ("http", b"[2001:db8::1]", ("2001:db8::1", 80)),
        ("http", b"user@shop.test", ("10.0.0.1", 8000)),
        ("http", b"shop.test/x", ("10.0.0.1", 8000)),
        ("http", b"", ("10.0.0.1", 8000)),
        ("http", None, ("10.0.0.1", 8000)),
    ],
)
def test_server(scheme: str, host: bytes | None, server: tuple[str, int]) -> None:
    assert facts.server_of(make_scope(scheme=scheme), host) == server


def test_server_on_a_socket_file() -> None:
    assert facts.server_of(make_scope(server=("/run/app.sock", None)), None) == ("/run/app.sock", None)
    assert facts.server_of(make_scope(server=None), None) is None


@pytest.mark.parametrize(
    ("client", "peer"),
    [(("1.2.3.4", 5), ("1.2.3.4", 5)), (("1.2.3.4", 0), None), (("1.2.3.4", None), None), (None, None)],
)
def test_a_client_that_a_proxy_spoke_for_is_no_peer(client: Any, peer: Any) -> None:
    assert facts.peer_of(make_scope(client=client)) == peer


def test_path_without_its_raw_form() -> None:
    assert facts.path_of(make_scope(raw_path=None, path="/é b")) == "/%C3%A9%20b"
    assert facts.path_of(make_scope(raw_path=None, path="/\udcff")) == "/%3F"


def test_a_scope_with_the_least_that_asgi_asks_for() -> None:
    least = {"type": "http", "method": "GET", "path": "/", "headers": []}
    assert facts.request_facts(least, KNOWN) == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/",
        "network.protocol.version": "1.1",
    }


def test_outcomes() -> None:
    error = OSError("x")
    scope = make_scope()
    assert facts.outcome_of(finish(scope, 404), KNOWN, None)[1:] == ("/items/{id}", 404, None, None)
    assert facts.outcome_of(finish(scope, 502), KNOWN, None)[1:] == ("/items/{id}", 502, None, "502")
    assert facts.outcome_of(finish(scope, 500, error), KNOWN, None)[2:] == (500, error, "OSError")
    assert facts.outcome_of(finish(scope, 200), KNOWN, error)[2:] == (200, error, "OSError")
    assert facts.outcome_of(finish(scope, 499, error), KNOWN, error)[2:] == (None, None, None)
    del scope["headrace.route"]
    assert facts.outcome_of(finish(scope), KNOWN, None)[:2] == ("GET", None)


def test_names_of_errors() -> None:
    assert facts.type_name(ValueError()) == "ValueError"
    assert facts.type_name(RemoteProtocolError("x")) == "headrace.errors.RemoteProtocolError"
