"""The core of Autobahn's fuzzing client; ``autobahn.py`` runs it whole."""

from __future__ import annotations

import os

import autobahn
import pytest

CORE = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)] + [
    "12.1.1",
    "12.2.5",
    "12.3.10",
    "13.3.1",
    "13.5.1",
]
"""All but limits and performance (9), and some of compression (12, 13)."""


@pytest.fixture(scope="module")
def report() -> dict[str, dict[str, str]]:
    try:
        return autobahn.run(CORE, [], [], autobahn.default_folder().absolute())
    except autobahn.CannotRun as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))


def test_core_passes(report: dict[str, dict[str, str]]) -> None:
    assert len(report) > 240
    assert autobahn.failures(report) == {}


def test_a_bad_outcome_is_a_failure() -> None:
    outcomes = {
        "1.1.1": {"behavior": "OK", "behaviorClose": "INFORMATIONAL"},
        "1.1.2": {"behavior": "NON-STRICT", "behaviorClose": "OK"},
        "1.1.3": {"behavior": "UNIMPLEMENTED", "behaviorClose": "OK"},
        "1.1.4": {"behavior": "OK", "behaviorClose": "WRONG CODE"},
    }
    assert list(autobahn.failures(outcomes)) == ["1.1.3", "1.1.4"]
