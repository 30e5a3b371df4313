"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.sync.client import connect

from processes import PATIENCE_S

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
    "--no-first-run", "--no-proxy-server", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--remote-debugging-port=0", "--hide-scrollbars",
)  # fmt: skip


class Browser:
    """One Chromium with one page; use it as a context manager.

    Args:
        program: the browser.
        folder: an empty one, for its profile.
        trusted: certificates that are taken whoever has signed them, PEM.
    """

    def __init__(self, program: str, folder: Path, *trusted: bytes) -> None:
        hashes = ",".join(_key_hash(pem) for pem in trusted)
        self._process = subprocess.Popen(
            [
                program,
                *_FLAGS,
                f"--user-data-dir={folder}",
                f"--ignore-certificate-errors-spki-list={hashes}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._numbers = itertools.count(1)
        self._session = ""
        self._resources = contextlib.ExitStack()
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Browser:
        try:
            # It writes where it listens and, if it cannot start, why it ends. The rest is read and dropped.
            assert self._process.stderr is not None
            lines: list[str] = []
            for line in self._process.stderr:
                lines.append(line)
                if found := re.search(r"DevTools listening on (ws://\S+)", line):
                    break
            else:
                raise AssertionError(f"{self._process.args!r} does not start: {''.join(lines)}")
            self._drain = threading.Thread(target=self._process.stderr.read, daemon=True)
            self._drain.start()
            self._socket = self._resources.enter_context(
                connect(found[1], max_size=None, proxy=None, open_timeout=PATIENCE_S)
            )
            target = next(
                target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page"
            )
            attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            self._session = attached["sessionId"]
            self.call("Page.enable")
            self.call("Network.enable")
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol; events that come before its answer are kept."""
        number = next(self._numbers)
        self._deadline = monotonic() + 2 * PATIENCE_S
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def wait_event(self, method: str) -> dict[str, Any]:
        """The parameters of the first event of that name since the page was opened."""
        seen = 0
        self._deadline = monotonic() + 2 * PATIENCE_S
        while True:
            for event in self.events[seen:]:
                if event["method"] == method:
                    return dict(event["params"])
            seen = len(self.events)
            self._receive()

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self.events.clear()
        failure = self.call("Page.navigate", url=url).get("errorText")
        assert not failure, f"{url}: {failure}"
        self.wait_event("Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; of a promise, what it becomes."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, f"{script}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait_until(self, condition: str) -> None:
        """Wait until an expression in the page is true."""
        script = f"""new Promise((resolve) => {{
            const end = performance.now() + {PATIENCE_S * 1000};
            const look = () => {{
                if ({condition}) resolve(true);
                else if (performance.now() > end) resolve(false);
                else setTimeout(look, 10);
            }};
            look();
        }})"""
        assert self.evaluate(script), f"never true: {condition}"

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press_enter(self) -> None:
        """Press the Enter key."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                windowsVirtualKeyCode=13,
            )  # fmt: skip

    def screenshot(self, file: Path, width: int = 900, height: int = 720, is_dark: bool = False) -> None:
        """Write the page as PNG."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _receive(self) -> dict[str, Any]:
        # A page can be full of news while what is waited for never comes.
        message: dict[str, Any] = json.loads(self._socket.recv(self._deadline - monotonic()))
        if "method" in message:
            self.events.append(message)
        return message

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            # Its session: the processes it has started, and no others.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)
        self._resources.close()
        if hasattr(self, "_drain"):
            self._drain.join(PATIENCE_S)
        assert self._process.stderr is not None
        self._process.stderr.close()


def _key_hash(pem: bytes) -> str:
    """SHA-256 of the certificate's public key, in base64."""
    key = x509.load_pem_x509_certificate(pem).public_key()
    subject = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(subject).digest()).decode("ascii")
