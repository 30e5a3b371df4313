"""Which requests without a token are refused, because a browser may have sent them for a strange page."""

from typing import Any

import pytest

from headrace.admin.browser_guard import find_objection

LOOPBACK = ("127.0.0.1", 9000)
OPEN = ("192.0.2.1", 9000)


def objection(method: str = "GET", server: Any = LOOPBACK, **fields: str) -> str | None:
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    return find_objection({"method": method, "scheme": "http", "server": server, "headers": headers})


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9000", "127.0.0.1", "[::1]:9000", "localhost", "LocalHost:9000", "app.localhost:9", ""],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_own_names(method: str, host: str) -> None:
    assert objection(method, host=host) is None
    assert objection(method, ("::1", 9000), host=host) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9000", "localhost.evil.example", "[::1", "a b"]
)
def test_other_names_lead_here_by_rebinding(host: str) -> None:
    for method in ("GET", "POST"):
        for server in (LOOPBACK, ("::1", 9000), None):
            sentence = objection(method, server, host=host)
            assert sentence is not None
            assert repr(host) in sentence


def test_other_addresses_have_names() -> None:
    assert objection("GET", OPEN, host="node1.internal:9000") is None
    assert objection("POST", OPEN, host="node1.internal:9000") is None


def test_client_without_host() -> None:
    assert objection("POST") is None


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://127.0.0.1:8000", "https://127.0.0.1:9000", "null", "127.0.0.1:9000"],
)
def test_other_origins_may_read_and_not_change(origin: str) -> None:
    assert objection("GET", host="127.0.0.1:9000", origin=origin) is None
    assert objection("HEAD", host="127.0.0.1:9000", origin=origin) is None
    assert objection("POST", host="127.0.0.1:9000", origin=origin) is not None
    assert objection("POST", OPEN, host="127.0.0.1:9000", origin=origin) is not None


def test_own_origin_is_the_dashboard() -> None:
    fields = {"host": "127.0.0.1:9000", "origin": "http://127.0.0.1:9000"}
    assert objection("POST", **fields) is None
    assert objection("POST", **fields, sec_fetch_site="same-origin") is None
    assert objection("POST", OPEN, **fields) is None


def test_origin_that_is_the_host_s_by_rebinding() -> None:
    assert objection("POST", OPEN, host="evil.example", origin="http://evil.example") is not None


@pytest.mark.parametrize(("site", "refused"), [("cross-site", True), ("same-site", True), ("none", False)])
def test_site(site: str, refused: bool) -> None:
    assert (objection("POST", host="localhost", sec_fetch_site=site) is not None) is refused
    assert objection("GET", host="localhost", sec_fetch_site=site) is None


def test_unix_socket() -> None:
    fields = {"host": "evil.example", "origin": "http://evil.example", "sec_fetch_site": "cross-site"}
    assert objection("POST", ("/run/1.sock", None), **fields) is None
