from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from contract import FILE_VARIABLE

from processes import PATIENCE_S, HeadraceProcess

FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def served_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file larger than any buffer on the way."""
    path = tmp_path_factory.mktemp("served") / "facts.bin"
    path.write_bytes(os.urandom(300_000))
    return path


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, served_file: Path) -> Iterator[HeadraceProcess]:
    """One process for all tests of a module that ask for the same (framework, further arguments)."""
    framework, arguments = request.param
    variables = {
        FILE_VARIABLE: str(served_file),
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with HeadraceProcess(
        f"{framework}_application:app",
        "--proxy-fields",
        "all",
        *arguments,
        folder=FOLDER,
        variables=variables,
    ) as process:
        yield process


@pytest.fixture
def client(server: HeadraceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as client:
        yield client
