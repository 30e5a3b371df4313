from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.asgi.importer import find_application, load_application
from headrace.errors import ApplicationImportError, ConfigError, WorkerError
from headrace.server.error_page import ErrorPage, describe
from live import PATIENCE_S, Client, LiveServer, eventually, respond
from websocket_client import handshake

Serve = Callable[..., LiveServer]
BROWSER = ("accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",)
SENTENCE = "Importing main failed: NameError: name '<x>' is not defined"


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BaseException]]:
    """Give a function that imports a module of that source, and gives the error."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def find(source: str, **more: Any) -> BaseException:
        (tmp_path / "faulty.py").write_text(source)
        try:
            load_application(find_application("faulty:app"), **more)
        except BaseException as error:
            # Without this frame, which in a worker is headrace's own.
            return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        raise AssertionError("nothing was raised")

    yield find
    sys.modules.pop("faulty", None)


def ask(server: LiveServer, method: str = "GET", **more: Any) -> Any:
    return server.connect().request("/any/path?x=1", method, **more)


def test_text_for_everybody_but_browsers(serve: Serve) -> None:
    server = serve(ErrorPage(SENTENCE, "Traceback\n"))
    for method in ("GET", "PUT", "OPTIONS", "DELETE"):
        response = ask(server, method, body=b"some" if method == "PUT" else None)
        assert (response.status, response.body) == (500, f"{SENTENCE}\n\nTraceback\n".encode())
        assert response.get("content-type") == "text/plain; charset=utf-8"
        assert response.get("cache-control") == "no-store"
    assert ask(serve(ErrorPage(SENTENCE, ""))).body == f"{SENTENCE}\n".encode()


def test_a_page_for_browsers(serve: Serve) -> None:
    server = serve(ErrorPage(SENTENCE, "<script>alert(1)</script>\n"))
    response = ask(server, headers=BROWSER)
    page = response.body.decode()
    assert (response.status, response.get("content-type")) == (500, "text/html; charset=utf-8")
    assert "<h1>Importing main failed: NameError: name &#x27;&lt;x&gt;&#x27; is not defined</h1>" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script>") == 1
    assert f'data-error="{response.get("headrace-error")}"' in page
    assert not re.search(r"(src|href)=|url\(|@import|https?:", page)
    assert "<pre>" not in ask(serve(ErrorPage(SENTENCE, "")), headers=BROWSER).body.decode()


def test_head(serve: Serve) -> None:
    server = serve(ErrorPage(SENTENCE, "Traceback\n"))
    client = server.connect()
    for headers in ((), BROWSER):
        head = client.request("/", "HEAD", headers=headers)
        whole = client.request("/", headers=headers)
        assert head.status == 500
        assert int(head.get("content-length") or 0) == len(whole.body) > 0
        assert head.get("headrace-error") == whole.get("headrace-error")


def test_a_large_body_that_nobody_reads(serve: Serve) -> None:
    server = serve(ErrorPage(SENTENCE, ""))
    client = server.connect()
    assert client.request("/", "POST", body=b"x" * 300_000).status == 500


def test_text_that_is_no_unicode(serve: Serve) -> None:
    server = serve(ErrorPage("bad \udcff", "worse \udcff\n"))
    assert ask(server).body == b"bad \\udcff\n\nworse \\udcff\n"
    assert b"bad \\udcff" in ask(server, headers=BROWSER).body


def test_websockets_are_refused(serve: Serve) -> None:
    server = serve(ErrorPage(SENTENCE, ""))
    client = server.connect()
    client.send(handshake("/ws"))
    assert client.read_response().status == 403


def test_lifespan(serve: Serve) -> None:
    assert ask(serve(ErrorPage(SENTENCE, ""), lifespan="on")).status == 500


def test_lifespan_messages() -> None:
    told = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(told)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(ErrorPage(SENTENCE, "")({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


class TestWaitingForTheNextWorker:
    """What the page's script does, and a browser that does it."""

    def wait(self, server: LiveServer, error: str) -> Client:
        client = Client(socket.create_connection(("127.0.0.1", server.server.port), PATIENCE_S))
        client.send(f"GET / HTTP/1.1\r\nhost: a.test\r\nheadrace-error: {error}\r\n\r\n".encode())
        return client

    def test_the_response_lasts_as_long_as_the_worker(self, loop_name: str) -> None:
        # A drain ends it at once, and does not wait for this time.
        server = LiveServer(ErrorPage(SENTENCE, ""), loop_name, timeout_graceful_shutdown=1_000.0)
        server.start()
        marker = ask(server).get("headrace-error")
        client = self.wait(server, marker)
        assert f"headrace-error: {marker}\r\n".encode() in client.read_until(b": wait\n\n")
        server.stop()
        assert client.read_to_end().endswith(b"0\r\n\r\n")
        client.close()

    def test_a_client_that_leaves(self, serve: Serve) -> None:
        server = serve(ErrorPage(SENTENCE, ""))
        client = self.wait(server, ask(server).get("headrace-error"))
        client.read_until(b": wait\n\n")
        client.reset()
        eventually(lambda: not server.in_loop(lambda: list(server.server.runtime.running)))

    def test_another_error_is_shown_at_once(self, serve: Serve) -> None:
        first, second = serve(ErrorPage(SENTENCE, "a\n")), serve(ErrorPage(SENTENCE, "b\n"))
        before = ask(first).get("headrace-error")
        client = self.wait(second, before)
        response = client.read_response()
        assert response.status == 500
        assert response.get("headrace-error") not in (None, before)
        client.close()

    def test_in_a_browser(
        self, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop_name: str
    ) -> None:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if loop_name == "uvloop" or program is None:
            assert program or os.environ.get("CI") != "true"
            pytest.skip("once, where there is Chromium")
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "cookbook"))
        from browser import Browser

        async def mended(scope: Any, receive: Any, send: Any) -> None:
            await respond(send, b"<title>mended</title>", headers=[(b"content-type", b"text/html")])

        now: Any = ErrorPage("first", "")
        waiting: list[bytes] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            waiting.extend(value for name, value in scope["headers"] if name == b"headrace-error")
            await now(scope, receive, send)

        server = serve(application)

        def become(page: Any) -> None:
            """Another worker: what the old one sends ends, the next request is the new one's."""
            nonlocal now
            eventually(lambda: server.in_loop(lambda: list(server.server.runtime.running)))
            browser.events.clear()
            waiting.clear()
            now = page
            for exchange in server.in_loop(lambda: list(server.server.runtime.running)):
                server.in_loop(exchange.tell_to_end)

        with Browser(program, tmp_path) as browser:
            browser.open(f"{server.server.url}/a?b=c#d")
            browser.evaluate("window.isSame = true")
            become(ErrorPage("first", ""))
            eventually(lambda: waiting, "the page asks again")
            assert browser.evaluate("window.isSame") is True
            become(ErrorPage("second", ""))
            browser.wait_event("Page.loadEventFired")
            assert browser.evaluate("document.querySelector('h1').textContent") == "second"
            become(mended)
            browser.wait_event("Page.loadEventFired")
            assert browser.evaluate("document.title + location.hash") == "mended#d"


class TestFrames:
    def kinds(self, text: str) -> list[tuple[str, str]]:
        page = ErrorPage("x", text)._page.decode()
        return re.findall(r'<span class="(\w+)">([^<\n]*)', page)

    def test_the_applications_stand_out(self) -> None:
        library = os.path.dirname(os.__file__)
        text = (
            "Traceback (most recent call last):\n"
            '  File "/srv/app/main.py", line 1, in <module>\n'
            "    import own\n"
            '  File "<frozen importlib._bootstrap>", line 1, in _find_and_load\n'
            f'  File "{library}/json/decoder.py", line 5, in decode\n'
            "    raise error\n"
            f'  File "{describe.__code__.co_filename}", line 5, in describe\n'
            '  File "/venv/lib/python3/site-packages/fastapi/routing.py", line 5, in route\n'
            '  File "/srv/app/own.py", line 2\n'
            "    def (:\n"
            "        ^\n"
            "SyntaxError: invalid syntax\n"
            "\n"
            "During handling of the above exception, another exception occurred:\n"
            "\n"
            "ValueError: no\n"
        )
        frames = [
            (kind, re.sub(r".*?([\w.]+)(&gt;)?&quot;.*", r"\1", line)) for kind, line in self.kinds(text)
        ]
        assert [(kind, line) for kind, line in frames if line] == [
            ("heading", "Traceback (most recent call last):"),
            ("own", "main.py"),
            ("other", "importlib._bootstrap"),
            ("other", "decoder.py"),
            ("other", "error_page.py"),
            ("other", "routing.py"),
            ("own", "own.py"),
            ("error", "SyntaxError: invalid syntax"),
            ("heading", "During handling of the above exception, another exception occurred:"),
            ("error", "ValueError: no"),
        ]

    def test_of_a_group(self) -> None:
        try:
            raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])
        except ExceptionGroup as group:
            text = "".join(traceback.format_exception(group))
        kinds = [kind for kind, _ in self.kinds(text)]
        assert kinds[:3] == ["heading", "own", "error"]
        assert kinds.count("error") == 3
        # Nothing is lost on the way.
        page = ErrorPage("x", text)._page.decode()
        assert "".join(re.findall(r"<span[^>]*>([^<]*)</span>", page)).count("| TypeError: two") == 1


class TestDescribe:
    def test_an_error_at_import(self, fault: Any, tmp_path: Path) -> None:
        sentence, text = describe(fault("def f():\n    return 1 / 0\nf()\n"))
        assert sentence == "Importing faulty failed: ZeroDivisionError: division by zero"
        first, frame, *_, last = text.splitlines()
        assert first == "Traceback (most recent call last):"
        assert frame == f'  File "{tmp_path}/faulty.py", line 3, in <module>'
        assert last == "ZeroDivisionError: division by zero"
        assert text.endswith("\n")

    def test_a_syntax_error(self, fault: Any, tmp_path: Path) -> None:
        sentence, text = describe(fault("x = 1\ny = (\n"))
        assert sentence == "Importing faulty failed: SyntaxError: '(' was never closed (faulty.py, line 2)"
        assert text.startswith(f'  File "{tmp_path}/faulty.py", line 2\n    y = (\n')
        # The same when somebody else raised it.
        error = fault("x = 1\ny = (\n").__cause__
        assert describe(error)[0] == (
            "The application failed to start: SyntaxError: '(' was never closed (faulty.py, line 2)"
        )

    @pytest.mark.parametrize(("call", "shown"), [("3", "3"), ("", ""), ("'no database'", "'no database'")])
    def test_an_exit(self, fault: Any, tmp_path: Path, call: str, shown: str) -> None:
        sentence, text = describe(fault(f"import sys\nsys.exit({call})\n"))
        assert sentence == f"The application ended its process while it was started: sys.exit({shown})"
        assert text.splitlines()[1] == f'  File "{tmp_path}/faulty.py", line 2, in <module>'

    def test_a_factory(self, fault: Any) -> None:
        error = fault("def app():\n    raise RuntimeError\n", factory=True)
        assert isinstance(error, ApplicationImportError)
        assert describe(error)[0] == "The factory faulty:app failed: RuntimeError"

    def test_our_own_sentences(self) -> None:
        assert describe(ConfigError("There is no module 'x'.")) == ("There is no module 'x'.", "")
        error = WorkerError("It failed")
        error.__cause__ = KeyError("k")
        assert describe(error) == ("It failed", "KeyError: 'k'\n")

    def test_a_message_that_holds_a_traceback(self) -> None:
        """Starlette's, of a lifespan that raised."""
        told = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nOSError: down\n'
        assert describe(WorkerError(f"Application startup failed: {told}")) == (
            "Application startup failed: OSError: down", told,
        )  # fmt: skip

    def test_anything_else(self) -> None:
        try:
            raise OSError(2, "gone")
        except OSError as error:
            sentence, text = describe(error)
        assert sentence == "The application failed to start: FileNotFoundError: [Errno 2] gone"
        assert text.startswith("Traceback")
        assert describe(ValueError("a\nb"))[0] == "The application failed to start: ValueError: a"
