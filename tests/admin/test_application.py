"""The control surface over real sockets, served by our own engine."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from control_host import FakeControls, PlainHost
from headrace.errors import ControlRefused, WorkerError
from headrace.telemetry.metrics.exposition import Format
from headrace.telemetry.metrics.page import PageKind
from live import Client, Records, Response, eventually

Host = Callable[..., PlainHost]

GETS = ("/api/status", "/api/workers", "/api/config", "/metrics", "/metrics/")
POSTS = ("/api/reload", "/api/workers/2/restart", "/api/scale?workers=3", "/api/stop")


def ask(client: Client, target: str, method: str = "GET", body: Any = None, headers: Any = ()) -> Response:
    """One request as a client of this machine makes it."""
    data = b"" if body is None and method == "POST" else body
    lines = [f"{method} {target} HTTP/1.1", "host: 127.0.0.1", *headers]
    if data is not None:
        lines.append(f"content-length: {len(data)}")
    client.send("\r\n".join([*lines, "", ""]).encode() + (data or b""))
    return client.read_response(method)


def error_of(response: Response) -> str:
    assert response.get("content-type") == "application/json"
    sentence = json.loads(response.body)["error"]
    assert isinstance(sentence, str)
    assert sentence.endswith(".")
    return sentence


class TestProbes:
    def test_livez(self, host: Host, controls: FakeControls) -> None:
        controls.is_up = False
        response = ask(host().connect(), "/livez")
        assert (response.status, response.body) == (200, b"ok")
        assert response.get("content-type") == "text/plain; charset=utf-8"
        assert response.get("cache-control") == "no-store"

    def test_readyz(self, host: Host, controls: FakeControls) -> None:
        client = host().connect()
        assert ask(client, "/readyz").status == 200
        controls.is_up = False
        assert ask(client, "/readyz").status == 503


class TestReading:
    def test_status(self, host: Host, controls: FakeControls) -> None:
        response = ask(host().connect(), "/api/status")
        assert (response.status, json.loads(response.body)) == (200, controls.status())

    def test_workers(self, host: Host, controls: FakeControls) -> None:
        answer = json.loads(ask(host().connect(), "/api/workers").body)
        assert answer == {"target": 2, "leader": 2, "workers": controls.status()["workers"]}

    def test_config(self, host: Host) -> None:
        # An application given as an object is no JSON; it is shown as its text.
        options = json.loads(ask(host().connect(), "/api/config").body)["options"]
        assert options["port"] == {"value": 80, "source": "--port"}
        assert "FakeControls" in options["app"]["value"]

    @pytest.mark.parametrize("target", ["/livez", *GETS])
    def test_head(self, host: Host, target: str) -> None:
        client = host().connect()
        response = ask(client, target, "HEAD")
        assert (response.status, response.body) == (200, b"")
        assert response.get("content-length") == str(len(ask(client, target).body))


class TestDoing:
    def test_each(self, host: Host, controls: FakeControls) -> None:
        client = host().connect()
        responses = [ask(client, target, "POST") for target in POSTS]
        assert [response.status for response in responses] == [200, 200, 200, 202]
        assert {response.body for response in responses} == {b'{"ok": true}'}
        assert controls.calls == [("reload", None), ("restart", 2), ("scale", 3), ("stop", None)]

    def test_scale_by_body(self, host: Host, controls: FakeControls) -> None:
        assert ask(host().connect(), "/api/scale", "POST", b'{"workers": 5}').status == 200
        assert controls.calls == [("scale", 5)]

    @pytest.mark.parametrize(
        ("query", "body"),
        [
            ("", b""), ("", b"5"), ("", b"{"), ("", b"[" * 4_000), ("", b"\xff"), ("", b'{"workers": true}'),
            ("", b'{"workers": "5"}'), ("", b'{"workers": 0}'), ("", b'{"workers": 1.5}'),
            ("?workers=0", b""), ("?workers=", b""), ("?workers=-1", b""), ("?workers=x", b'{"workers": 5}'),
            ("?workers=9999999999", b""), ("?workers=5&wait=2", b""), ("?workers=5&wait=", b""),
        ],
    )  # fmt: skip
    def test_bad_request(self, host: Host, controls: FakeControls, query: str, body: bytes) -> None:
        response = ask(host().connect(), f"/api/scale{query}", "POST", body)
        assert response.status == 400
        assert error_of(response)
        assert controls.calls == []

    def test_long_body(self, host: Host, controls: FakeControls) -> None:
        response = ask(host().connect(), "/api/scale", "POST", b'{"workers": 5}'.ljust(5_000))
        assert (response.status, controls.calls) == (413, [])
        assert "4096" in error_of(response)

    def test_unknown_worker(self, host: Host, controls: FakeControls) -> None:
        client = host().connect()
        for query in ("", "?wait=0"):
            response = ask(client, f"/api/workers/7/restart{query}", "POST")
            assert (response.status, error_of(response)) == (404, "There is no worker 7.")
        for name in ("x", "-1", "1234567890"):
            assert ask(client, f"/api/workers/{name}/restart", "POST").status == 404
        assert controls.calls == []

    @pytest.mark.parametrize("target", POSTS[:3])
    @pytest.mark.parametrize("wait", [True, False])
    def test_refused(self, host: Host, controls: FakeControls, target: str, wait: bool) -> None:
        controls.failure = ControlRefused("A reload is under way.")
        query = "" if wait else ("&" if "?" in target else "?") + "wait=0"
        response = ask(host().connect(), target + query, "POST")
        assert (response.status, error_of(response)) == (409, "A reload is under way.")

    def test_came_to_nothing(self, host: Host, controls: FakeControls) -> None:
        controls.failure = WorkerError("The new worker did not come up.")
        response = ask(host().connect(), "/api/reload", "POST")
        assert (response.status, error_of(response)) == (500, "The new worker did not come up.")


class TestWaiting:
    def test_until_it_is_done(self, host: Host, controls: FakeControls) -> None:
        controls.waits = True
        server = host()
        waiting, other = server.connect(), server.connect()
        waiting.send(b"POST /api/reload HTTP/1.1\r\nhost: localhost\r\n\r\n")
        eventually(lambda: controls.calls)
        # Meanwhile others are answered, and this one is not.
        assert ask(other, "/livez").status == 200
        waiting.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.sock.recv(1)
        waiting.sock.settimeout(10)
        server.in_loop(controls.go.set)
        assert waiting.read_response().status == 200

    def test_not_at_all(self, host: Host, controls: FakeControls) -> None:
        controls.waits = True
        server = host()
        assert ask(server.connect(), "/api/reload?wait=0", "POST").status == 202
        assert controls.calls == [("reload", None)]
        server.in_loop(controls.go.set)

    @pytest.mark.parametrize(("failure", "lines"), [(WorkerError("No."), 0), (ZeroDivisionError("x"), 1)])
    def test_later_failure(
        self, host: Host, controls: FakeControls, error_log: Records, failure: Exception, lines: int
    ) -> None:
        # What is foreseen has been logged by whoever raised it; a fault of ours is not lost.
        controls.waits, controls.failure = True, failure
        server = host()
        assert ask(server.connect(), "/api/reload?wait=0", "POST").status == 202
        background = server._application._background
        server.in_loop(controls.go.set)
        eventually(lambda: server.in_loop(lambda: not background))
        assert len(error_log.lines()) == lines


OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class TestMetrics:
    @pytest.mark.parametrize("target", ["/metrics", "/metrics/"])
    def test_page(self, host: Host, controls: FakeControls, target: str) -> None:
        response = ask(host().connect(), target)
        assert (response.status, response.body) == (200, b"up 1\n")
        assert response.get("content-type") == "text/plain; version=0.0.4; charset=utf-8"
        assert response.get("vary") == "accept, accept-encoding"
        assert response.get("content-encoding") is None
        assert controls.calls == [("metrics", PageKind(Format.TEXT, False))]

    def test_what_prometheus_asks_for(self, host: Host, controls: FakeControls) -> None:
        fields = [
            "accept: application/openmetrics-text;version=1.0.0;q=0.5,"
            "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "accept-encoding: gzip",
            "authorization: Bearer secret",
        ]
        response = ask(host("secret").connect(), "/metrics", headers=fields)
        assert (response.status, response.get("content-type")) == (200, OPENMETRICS)
        assert response.get("content-encoding") == "gzip"
        assert controls.calls == [("metrics", PageKind(Format.OPENMETRICS, True))]

    def test_fields_of_one_name_count_together(self, host: Host, controls: FakeControls) -> None:
        fields = ["accept: text/plain;q=0.1", "accept: application/openmetrics-text", "accept-encoding: br"]
        ask(host().connect(), "/metrics", headers=[*fields, "accept-encoding: gzip;q=0.5"])
        assert controls.calls == [("metrics", PageKind(Format.OPENMETRICS, True))]

    def test_none_are_kept(self, host: Host, controls: FakeControls) -> None:
        controls.page = None
        response = ask(host().connect(), "/metrics")
        assert response.status == 404
        assert "--metrics" in error_of(response)


class TestWhatIsNotThere:
    @pytest.mark.parametrize("target", ["/", "/api", "/api/status/", "/livez/x", "/metrics/x", "/%61pi/x"])
    def test_404(self, host: Host, target: str) -> None:
        response = ask(host().connect(), target)
        assert response.status == 404
        assert error_of(response)

    def test_405(self, host: Host, controls: FakeControls) -> None:
        client = host().connect()
        for target in ("/livez", *GETS):
            response = ask(client, target, "POST")
            assert (response.status, response.get("allow")) == (405, "GET, HEAD")
        for target in POSTS:
            for method in ("GET", "HEAD", "DELETE", "OPTIONS"):
                response = ask(client, target, method)
                assert (response.status, response.get("allow")) == (405, "POST")
        assert controls.calls == []


class TestToken:
    def test_needed_for_all_but_probes(self, host: Host, controls: FakeControls) -> None:
        client = host("s3cret").connect()
        assert [ask(client, target).status for target in ("/livez", "/readyz")] == [200, 200]
        for target, method in (
            *((t, "GET") for t in (*GETS, "/nowhere")),
            *((t, "POST") for t in (*POSTS, "/livezz")),
        ):
            response = ask(client, target, method)
            assert response.status == 401
            assert response.get("www-authenticate") == 'Bearer realm="headrace"'
            assert error_of(response)
        assert controls.calls == []

    @pytest.mark.parametrize(
        "value", ["Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer", ""]
    )
    def test_wrong(self, host: Host, value: str) -> None:
        response = ask(host("s3cret").connect(), "/api/status", headers=[f"authorization: {value}"])
        assert response.status == 401
        assert response.get("www-authenticate") == 'Bearer realm="headrace", error="invalid_token"'
        assert b"s3cret" not in response.body

    @pytest.mark.parametrize("value", ["Bearer s3cret", "bearer  s3cret"])
    def test_right(self, host: Host, value: str) -> None:
        client = host("s3cret").connect()
        assert ask(client, "/api/status", headers=[f"authorization: {value}"]).status == 200
        # No browser adds a token by itself, so where the page comes from does not matter.
        headers = [f"authorization: {value}", "origin: https://a.example", "sec-fetch-site: cross-site"]
        assert ask(client, "/api/reload", "POST", headers=headers).status == 200


class TestBrowsers:
    """The rules are in ``test_browser_guard``; here only that they are asked."""

    def test_page_of_another_origin(self, host: Host, controls: FakeControls) -> None:
        client = host().connect()
        response = ask(client, "/api/stop", "POST", headers=["origin: https://a.example"])
        assert response.status == 403
        assert "--admin-token" in error_of(response)
        assert controls.calls == []

    def test_name_that_is_made_to_point_here(self, host: Host) -> None:
        client = host().connect()
        assert client.request("/api/config").status == 403
        assert client.request("/livez").status == 200

    def test_unix_socket_asks_for_nothing(self, host: Host, tmp_path: Path) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.setblocking(False)
        client = host(sockets=[listener]).connect()
        assert client.request("/api/status", headers=["origin: https://a.example"]).status == 200
        assert (
            client.request("/api/reload", "POST", b"", headers=["sec-fetch-site: cross-site"]).status == 200
        )
