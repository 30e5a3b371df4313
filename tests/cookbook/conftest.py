from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from processes import PATIENCE_S, HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"


@pytest.fixture(scope="module")
def cookbook() -> Iterator[HeadraceProcess]:
    """The cookbook as its README says to run it, on a free port."""
    with HeadraceProcess("main:app", "--stack", folder=COOKBOOK) as process:
        yield process


@pytest.fixture
def client(cookbook: HeadraceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cookbook.url, timeout=PATIENCE_S, trust_env=False) as client:
        yield client
