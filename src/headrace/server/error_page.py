"""What a worker serves in development while the application cannot be imported or started."""

from __future__ import annotations

import contextlib
import hashlib
import html
import importlib
import os
import re
import traceback
from collections.abc import Iterator
from types import TracebackType

from headrace.errors import HeadraceError
from headrace.types import Headers, Receive, Scope, Send

MARKER = b"headrace-error"
"""Header of every response of this page: which error it shows. The page's own script sends it too, and gets a
response that lasts as long as the error does."""

_HEADRACE = os.path.dirname(os.path.dirname(__file__))
_LIBRARY = os.path.dirname(os.__file__)
_IMPORTLIB = os.path.dirname(importlib.__file__)

_FRAME = re.compile(r'(?P<lead>[ |+]*)File "(?P<file>.+)", line \d+(?:, in .*)?')
_HEADING = re.compile(
    r"\s*|[ |+]*(?:Exception Group )?Traceback \(most recent call last\):|[ |]*\+[-+ \d]*"
    r"|.*(?:was the direct cause of the following|exception occurred:).*|[ |]*\[Previous line repeated .*"
)
_TRACEBACK = "Traceback (most recent call last):"


class ErrorPage:
    """An ASGI application that answers every request with 500 and what is wrong.

    A browser gets a page that reloads itself when there is something else to see; everybody else gets text.
    WebSockets are refused before they are accepted; the lifespan starts and stops.

    Args:
        sentence: what is wrong, in one line.
        traceback: the application's; empty for none.
    """

    def __init__(self, sentence: str, traceback: str) -> None:
        text = f"{sentence}\n\n{traceback}" if traceback else f"{sentence}\n"
        self._text = text.encode(errors="backslashreplace")
        self._id = hashlib.blake2b(self._text, digest_size=8).hexdigest()
        self._page = _page(sentence, traceback, self._id).encode(errors="backslashreplace")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope of any type."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1011})
        elif _header(scope, MARKER) == self._id.encode():
            await self._last(receive, send)
        else:
            is_browser = b"text/html" in _header(scope, b"accept").lower()
            kind, body = ("html", self._page) if is_browser else ("plain", self._text)
            length = (b"content-length", b"%d" % len(body))
            await send(self._head(f"text/{kind}; charset=utf-8", length))
            await send({"type": "http.response.body", "body": body})

    async def _last(self, receive: Receive, send: Send) -> None:
        """Answer nothing more until this worker ends. The script then asks the next one.

        Polling would do without, but write a line into the access log every time.
        """
        await send(self._head("text/event-stream"))
        await send({"type": "http.response.body", "body": b": wait\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b""})

    def _head(self, content_type: str, *more: tuple[bytes, bytes]) -> dict[str, object]:
        headers: Headers = [
            (b"content-type", content_type.encode()),
            (b"cache-control", b"no-store"),
            (MARKER, self._id.encode()),
            *more,
        ]
        return {"type": "http.response.start", "status": 500, "headers": headers}


def describe(error: BaseException) -> tuple[str, str]:
    """What to say of an application that did not start.

    Args:
        error: what its import or start raised; a ``HeadraceError`` speaks for itself.

    Returns:
        One sentence, and the traceback with a line end, which begins in the application; it is empty when
        the application's code is not to blame.
    """
    if isinstance(error, HeadraceError):
        fault = error.__cause__
        sentence, told = _split(str(error))
        if fault is None:
            return sentence, told
    else:
        fault = error
        sentence = f"The application failed to start: {_name(error)}"
        if isinstance(error, SystemExit):
            code = "" if error.code is None else repr(error.code)
            sentence = f"The application ended its process while it was started: sys.exit({code})"
    fault = fault.with_traceback(_in_application(fault.__traceback__) or fault.__traceback__)
    return sentence, "".join(traceback.format_exception(fault))


async def _live(receive: Receive, send: Send) -> None:
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})


def _header(scope: Scope, name: bytes) -> bytes:
    return b",".join(value for key, value in scope["headers"] if key == name)


def _split(message: str) -> tuple[str, str]:
    """Sentence and traceback of a message that holds both: Starlette's ``lifespan.startup.failed``."""
    head, mark, rest = message.partition(_TRACEBACK)
    if not mark:
        return message, ""
    last = next((line for line in reversed(rest.splitlines()) if line.strip()), "")
    return f"{head.strip(' :')}: {last}", f"{mark}{rest.rstrip()}\n"


def _name(error: BaseException) -> str:
    """The error's type and message in one line; where it is, for a syntax error."""
    name = traceback.format_exception_only(error)[-1].strip().partition("\n")[0]
    if isinstance(error, SyntaxError) and error.lineno is not None and error.filename:
        return f"{name} ({os.path.basename(error.filename)}, line {error.lineno})"
    return name


def _in_application(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and _is_machinery(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _is_machinery(file: str) -> bool:
    """Whether a frame only led to the application: headrace's own, or the import system's."""
    return file.startswith(("<frozen ", f"{_HEADRACE}{os.sep}", f"{_IMPORTLIB}{os.sep}"))


def _is_applications(file: str) -> bool:
    if _is_machinery(file) or file.startswith(f"{_LIBRARY}{os.sep}"):
        return False
    return not {"site-packages", "dist-packages"} & set(file.split(os.sep))


# ---- the page


def _page(sentence: str, traceback: str, error_id: str) -> str:
    body = "".join(_blocks(traceback.splitlines()))
    title = html.escape(sentence)
    return (
        f'<!doctype html>\n<html lang="en" data-error="{error_id}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"{f'<pre>{body}</pre>' if body else ''}\n"
        "<p>This page gives way to the application as soon as it starts.</p>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _blocks(lines: list[str]) -> Iterator[str]:
    """Each frame with its source as one element, and each line between frames."""
    at = 0
    while at < len(lines):
        start, frame = at, _FRAME.fullmatch(lines[at])
        at += 1
        if frame is None:
            kind = "heading" if _HEADING.fullmatch(lines[start]) else "error"
        else:
            kind = "own" if _is_applications(frame["file"]) else "other"
            while at < len(lines) and lines[at].startswith(f"{frame['lead']}  "):
                at += 1
        yield f'<span class="{kind}">{html.escape(chr(10).join(lines[start:at]))}</span>'


_STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --paper: #fcfcfd; --dim: #80868d; --error: #b3261e;
  --own: #fff3d6; --edge: #e0a100 }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7eb; --paper: #16181b; --dim: #7b828a;
  --error: #ff8a80; --own: #2f2812; --edge: #d9a514 } }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1.5rem; color: var(--text); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; color: var(--error) }
pre { overflow-x: auto; font: .875rem/1.6 ui-monospace, monospace }
span { display: block; width: max-content; min-width: 100%; box-sizing: border-box; padding: 0 .75rem;
  border-left: 3px solid transparent; min-height: 1.6em }
.own { background: var(--own); border-color: var(--edge); font-weight: 600 }
.other, .heading, p { color: var(--dim) }
.error { color: var(--error); font-weight: 600 }
"""

# Redirects are not followed, as one that leads elsewhere could not be read. A hidden page asks nothing: a
# browser opens six connections to a server at most, and pages that wait would leave none.
_SCRIPT = """
"use strict";
const error = document.documentElement.dataset.error;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const wait = async () => {
  for (;; await pause(250)) {
    const asked = new AbortController();
    const look = () => document.hidden && asked.abort();
    document.addEventListener("visibilitychange", look);
    try {
      if (document.hidden) {
        await new Promise((done) => document.addEventListener("visibilitychange", done, {once: true}));
        continue;
      }
      const response = await fetch(location.href, {
        headers: {"headrace-error": error}, cache: "no-store", redirect: "manual", signal: asked.signal,
      });
      if (response.headers.get("headrace-error") !== error) {
        location.reload();
        return;
      }
      const reader = response.body.getReader();
      while (!(await reader.read()).done);
    } catch {
      // The server is between two workers, or gone; or the page is hidden.
    } finally {
      document.removeEventListener("visibilitychange", look);
    }
  }
};
wait();
"""
