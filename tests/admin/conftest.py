from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from control_host import FakeControls, PlainHost, loopback
from headrace.admin.application import AdminApplication

Host = Callable[..., PlainHost]


@pytest.fixture
def controls() -> FakeControls:
    return FakeControls()


@pytest.fixture
def host(controls: FakeControls, loop_name: str) -> Iterator[Host]:
    """Give a function that serves the control surface, by default on a free port of 127.0.0.1."""
    hosts: list[PlainHost] = []

    def start(token: str | None = None, sockets: list[Any] | None = None) -> PlainHost:
        host = PlainHost(AdminApplication(controls, token), sockets or [loopback()], loop_name)
        host.start()
        hosts.append(host)
        return host

    yield start
    for host in hosts:
        host.stop()
