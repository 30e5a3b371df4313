"""Route templates on every framework and version, each under a real ``headrace run``."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import httpx
import pytest
from labelled import LABELS_PATH, Case
from matrix import NEWEST, InstallFailed, is_newest_here, python_of
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from live import eventually
from processes import PATIENCE_S, HeadraceProcess

FOLDER = Path(__file__).parent
SOURCE = FOLDER.parents[1] / "src"

SERVED = [
    (NEWEST, "starlette"),
    (NEWEST, "fastapi"),
    (NEWEST, "litestar"),
    (NEWEST, "django"),
    (NEWEST, "quart"),
    ("fastapi-0.136", "starlette"),
    ("fastapi-0.136", "fastapi"),
    ("fastapi-0.141", "starlette"),
    ("fastapi-0.141", "fastapi"),
    ("django-5.2", "django"),
]


@pytest.fixture
def python(environment: str) -> str:
    """The interpreter whose packages are meant; CI has a network, a train perhaps not."""
    if is_newest_here(environment):
        pytest.skip("this is what the newest is here")
    try:
        return python_of(environment)
    except InstallFailed as error:
        reason = f"cannot make the environment {environment}: {error}"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def ask(process: HeadraceProcess, client: httpx.Client, method: str, path: str) -> None:
    if method != "WS":
        client.request(method, path)
        return
    try:
        with connect(f"ws://127.0.0.1:{process.port}{path}", proxy=None, open_timeout=PATIENCE_S) as socket:
            socket.recv(PATIENCE_S)
    except (ConnectionClosed, InvalidStatus):
        # Each of these applications closes or refuses.
        pass


def cases_in(client: httpx.Client, part: str) -> list[Case]:
    answer = client.get(LABELS_PATH).json()
    return [(method, path, template) for method, path, template in answer[part]]


@pytest.mark.parametrize(("environment", "framework"), SERVED)
def test_templates(python: str, environment: str, framework: str) -> None:
    module, variables = f"routed_{framework}:app", {"PYTHONPATH": str(SOURCE)}
    with (
        HeadraceProcess(module, folder=FOLDER, variables=variables, python=python) as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        expected = cases_in(client, "expected")
        for method, path, _ in expected:
            ask(process, client, method, path)
        # The client has an answer before the application is done with the request.
        eventually(lambda: len(cases_in(client, "noted")) == len(expected))
        assert Counter(cases_in(client, "noted")) == Counter(expected)
