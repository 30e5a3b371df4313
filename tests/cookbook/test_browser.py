"""The cookbook in a browser: headless Chromium over HTTP/2, a WebSocket, and server-sent events."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from browser import Browser

from processes import HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"


@pytest.fixture(scope="module")
def certificate() -> trustme.LeafCert:
    return trustme.CA().issue_cert("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, certificate: trustme.LeafCert) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        reason = "needs Chromium (Debian's package chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    pem = certificate.cert_chain_pems[0].bytes()
    with Browser(program, tmp_path_factory.mktemp("chromium"), pem) as browser:
        yield browser


@pytest.fixture(scope="module")
def secure_cookbook(
    tmp_path_factory: pytest.TempPathFactory, certificate: trustme.LeafCert
) -> Iterator[HeadraceProcess]:
    """The cookbook over TLS, so that a browser speaks HTTP/2 to it."""
    file = tmp_path_factory.mktemp("certificate") / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(file))
    with HeadraceProcess("main:app", "--ssl-certfile", str(file), folder=COOKBOOK) as process:
        yield process


@pytest.fixture(params=["cookbook", "secure_cookbook"], ids=["HTTP/1.1", "HTTP/2 over TLS"])
def served(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_page_over_tls_fetches_over_http2(browser: Browser, secure_cookbook: HeadraceProcess) -> None:
    browser.open(f"{secure_cookbook.url}/")
    fetched = browser.evaluate("""
        fetch("api/client", {headers: {"X-Client-Type": "browser"}}).then((response) => response.json())
    """)
    assert fetched == {"client_type": "browser"}
    # The page itself, its style sheet and what it fetched.
    protocols = browser.evaluate("""
        Object.fromEntries([...performance.getEntriesByType("navigation"),
                            ...performance.getEntriesByType("resource")]
            .map((entry) => [new URL(entry.name).pathname, entry.nextHopProtocol]))
    """)
    assert protocols == {"/": "h2", "/style.css": "h2", "/api/client": "h2"}
    secure_cookbook.wait_line(r'"GET /api/client HTTP/2" 200')


def test_websocket_page_shows_the_echo(browser: Browser, served: HeadraceProcess) -> None:
    browser.open(f"{served.url}/echo")
    browser.wait_until("document.querySelector('#status').dataset.state === 'open'")
    # The focus comes when the page is first drawn, which may be later.
    browser.wait_until("document.activeElement.tagName === 'INPUT'")
    for number, text in enumerate(("hello", "grüße 🌊"), 1):
        browser.type(text)
        browser.press_enter()
        browser.wait_until(f"document.querySelectorAll('.echo').length === {number}")
    shown = "[...document.querySelectorAll('{}')].map((item) => item.firstChild.textContent)"
    assert browser.evaluate(shown.format(".sent")) == ["hello", "grüße 🌊"]
    assert browser.evaluate(shown.format(".echo")) == ["hello", "grüße 🌊"]


@pytest.mark.parametrize(
    ("served", "status"), [("cookbook", 101), ("secure_cookbook", 200)], indirect=["served"]
)
def test_websocket_goes_over_the_page_s_http_version(
    browser: Browser, served: HeadraceProcess, status: int
) -> None:
    """101 is the upgrade of HTTP/1.1, 200 the extended CONNECT on the HTTP/2 connection (RFC 8441)."""
    browser.open(f"{served.url}/echo")
    handshake = browser.wait_event("Network.webSocketHandshakeResponseReceived")
    assert handshake["response"]["status"] == status


def test_websocket_page_says_that_the_server_went_and_connects_again(browser: Browser) -> None:
    with HeadraceProcess("main:app", folder=COOKBOOK) as process:
        port = process.port
        browser.open(f"{process.url}/echo")
        browser.wait_until("document.querySelector('#status').dataset.state === 'open'")
        process.stop()
    browser.wait_until("document.querySelector('#status').textContent === 'closed, code 1012'")
    with HeadraceProcess("main:app", "--port", str(port), folder=COOKBOOK):
        browser.evaluate("document.querySelector('#again').click()")
        browser.wait_until("document.querySelector('#status').dataset.state === 'open'")


def test_clock_page_ticks(browser: Browser, served: HeadraceProcess) -> None:
    browser.open(f"{served.url}/clock")
    browser.wait_until("/^UTC, ([2-9]|\\d\\d+) ticks$/.test(document.querySelector('#facts').textContent)")
    assert browser.evaluate("document.querySelector('#status').textContent") == "connected"
    assert browser.evaluate("/^\\d\\d:\\d\\d:\\d\\d$/.test(document.querySelector('#time').textContent)")


def test_clock_page_comes_back_by_itself(browser: Browser) -> None:
    with HeadraceProcess("main:app", folder=COOKBOOK) as process:
        port = process.port
        browser.open(f"{process.url}/clock")
        browser.wait_until("document.querySelector('#status').dataset.state === 'open'")
        process.stop()
    browser.wait_until("document.querySelector('#status').textContent === 'connecting again'")
    with HeadraceProcess("main:app", "--port", str(port), folder=COOKBOOK):
        browser.wait_until("document.querySelector('#status').dataset.state === 'open'")


def test_worker_page_shows_who_answers(browser: Browser) -> None:
    with HeadraceProcess("main:app", "--workers", "2", folder=COOKBOOK) as process:
        browser.open(f"{process.url}/worker")
        served = int(browser.evaluate("document.querySelector('#pid').textContent"))
        assert served != process.pid
        done = "document.querySelector('#status').dataset.state === 'open'"
        both = "document.querySelectorAll('#workers tr').length === 2"
        browser.wait_until(f"{done} && ({both} || document.querySelector('#ask').click())")
        rows = browser.evaluate("""
            [...document.querySelectorAll('#workers tr')]
                .map((row) => [...row.cells].slice(0, 3).map((cell) => cell.textContent))
        """)
    assert served in {int(pid) for pid, _, _ in rows}
    assert sorted(leads for _, leads, _ in rows) == ["", "yes"]
    assert sum(int(count) for _, _, count in rows) % 24 == 0


def test_cost_page_shows_what_was_measured(browser: Browser, cookbook: HeadraceProcess) -> None:
    browser.open(f"{cookbook.url}/middleware-cost")
    # A real measurement takes seconds, and has its own test.
    browser.evaluate("""
        window.fetch = async () => new Response(JSON.stringify({
            figures: [{name: "nothing", cpu_us: 50}, {name: "a layer", cpu_us: 125.2}],
            python: "3.14.0", connections: 16, requests: 320, rounds: 8,
        }))
    """)
    browser.evaluate("document.querySelector('#measure').click()")
    browser.wait_until("document.querySelector('#status').textContent === 'measured'")
    rows = browser.evaluate("[...document.querySelectorAll('#figures li')].map((row) => row.textContent)")
    assert rows == ["nothing50 µs 1.00 times", "a layer125 µs 2.50 times"]
    how = browser.evaluate("document.querySelector('#how').textContent")
    assert how.startswith(", 320 requests on 16 connections each time, in 8 rounds, of which the cheapest")


def test_cost_page_says_that_there_are_no_figures(browser: Browser, cookbook: HeadraceProcess) -> None:
    browser.open(f"{cookbook.url}/middleware-cost")
    browser.evaluate("window.fetch = async () => new Response('', {status: 500})")
    browser.evaluate("document.querySelector('#measure').click()")
    browser.wait_until("document.querySelector('#status').dataset.state === 'closed'")
    text = browser.evaluate("document.querySelector('#status').textContent")
    assert text == "no figures: the server answered 500"
