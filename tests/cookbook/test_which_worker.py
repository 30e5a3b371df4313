from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import httpx
import pytest

from processes import PATIENCE_S, HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"


@pytest.fixture(scope="module")
def workers() -> Iterator[HeadraceProcess]:
    with HeadraceProcess("main:app", "--workers", "2", folder=COOKBOOK) as process:
        yield process


def facts(process: HeadraceProcess) -> tuple[int, bool]:
    """Who answers on a new connection, and whether it leads."""
    answer = httpx.get(f"{process.url}/worker/facts", timeout=PATIENCE_S, trust_env=False)
    assert answer.headers["connection"] == "close"
    return answer.json()["pid"], answer.json()["is_leader"]


def ask_until(process: HeadraceProcess, is_enough: Callable[[dict[int, bool]], bool]) -> dict[int, bool]:
    """Ask again and again; gives what each process said last, when that is enough."""
    said: dict[int, bool] = {}
    deadline = monotonic() + PATIENCE_S
    while not is_enough(said):
        assert monotonic() < deadline, f"{said} in:\n{process.output}"
        pid, leads = facts(process)
        said[pid] = leads
    return said


def test_a_single_process_leads(client: httpx.Client, cookbook: HeadraceProcess) -> None:
    page = client.get("/worker").text
    assert f'<strong id="pid">{cookbook.pid}</strong>' in page
    assert '<span id="leads">the leader</span>' in page
    assert facts(cookbook) == (cookbook.pid, True)


def test_the_page_says_who_served_it(workers: HeadraceProcess) -> None:
    page = httpx.get(f"{workers.url}/worker", timeout=PATIENCE_S, trust_env=False).text
    served = re.search(r'<strong id="pid">(\d+)</strong>', page)
    assert served is not None
    said = ask_until(workers, lambda said: len(said) == 2)
    assert int(served[1]) in said
    assert workers.pid not in said


def test_one_of_two_workers_leads_and_another_when_it_dies(workers: HeadraceProcess) -> None:
    said = ask_until(workers, lambda said: len(said) == 2)
    (leader,) = (pid for pid, leads in said.items() if leads)
    (other,) = said.keys() - {leader}
    os.kill(leader, signal.SIGKILL)
    # Until then it may still take a connection.
    workers.wait_line(rf"\[{leader}\] was ended by SIGKILL")
    said = ask_until(workers, lambda said: len(said) == 2 and any(said.values()))
    assert leader not in said
    assert said == {pid: pid == other for pid in said}
