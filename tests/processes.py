"""A real ``headrace run`` in a process of its own, for tests that look at it from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

PATIENCE_S = 30.0
"""How long a test waits for what must come; only a failing test ever waits that long."""

_RUNNING = re.compile(r"Uvicorn running on (?P<url>\S+) \(Press CTRL\+C to quit\)")


class HeadraceProcess:
    """``headrace run`` with the given arguments; use it as a context manager.

    Args:
        arguments: behind ``headrace run``. Without ``--port``, ``--uds``, ``--fd`` or ``--bind`` among them a
            free port is taken.
        folder: the current folder of the process.
        variables: added to the environment, from which headrace's and uvicorn's variables are removed.
        python: the interpreter.

    Attributes:
        url: where the first listener is, known once the server runs.
        lines: of standard output and standard error, in the order they came.
    """

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        variables: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        self.url = ""
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        listens = any(argument.startswith(("--port", "--uds", "--fd", "--bind")) for argument in arguments)
        command = [python, "-m", "headrace", "run", *arguments, *(() if listens else ("--port", "0"))]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**clean_environment(), **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> HeadraceProcess:
        try:
            self.url = self.wait_line(_RUNNING)["url"]
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """Of the first listener."""
        return int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything it has written so far."""
        return "\n".join(self.lines)

    def wait_line(self, pattern: re.Pattern[str] | str) -> re.Match[str]:
        """Wait until it has written a line in which the pattern is found.

        Raises:
            AssertionError: it ended, or took too long, without one.
        """
        with self._news:
            self._news.wait_for(lambda: self._ended or self._find(pattern) is not None, PATIENCE_S)
            match = self._find(pattern)
        assert match is not None, f"no line with {pattern!r} in:\n{self.output}"
        return match

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until it has ended; returns its exit code, negative for a signal."""
        code = self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def stop(self) -> int:
        """End it by SIGTERM, and by SIGKILL if that does not help; returns its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self.wait()
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()

    def _find(self, pattern: re.Pattern[str] | str) -> re.Match[str] | None:
        return next((match for line in self.lines if (match := re.search(pattern, line))), None)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def clean_environment() -> dict[str, str]:
    """The environment without the variables that configure servers."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HEADRACE_", "UVICORN_", "LISTEN_", "NOTIFY_"))
        and name not in ("WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")
    }
