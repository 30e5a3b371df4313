from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from processes import PATIENCE_S, HeadraceProcess

COOKBOOK = Path(__file__).parents[2] / "examples" / "cookbook"


def open_socket(process: HeadraceProcess) -> ClientConnection:
    address = f"{process.url.replace('http', 'ws', 1)}/echo/socket"
    return connect(address, open_timeout=PATIENCE_S, proxy=None)


@pytest.fixture
def websocket(cookbook: HeadraceProcess) -> Iterator[ClientConnection]:
    with open_socket(cookbook) as websocket:
        yield websocket


@pytest.mark.parametrize("message", ["hello", "", "grüße 🌊", b"\x00\xff", b"", "long " * 10_000])
def test_what_is_sent_comes_back_as_it_was(websocket: ClientConnection, message: str | bytes) -> None:
    websocket.send(message)
    assert websocket.recv(PATIENCE_S) == message


def test_the_order_is_kept(websocket: ClientConnection) -> None:
    numbers = [str(number) for number in range(100)]
    for number in numbers:
        websocket.send(number)
    assert [websocket.recv(PATIENCE_S) for _ in numbers] == numbers


def test_a_stopping_server_says_that_the_client_should_come_back() -> None:
    with HeadraceProcess("main:app", folder=COOKBOOK) as process, open_socket(process) as websocket:
        websocket.send("hello")
        assert websocket.recv(PATIENCE_S) == "hello"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosedError) as closed:
            websocket.recv(PATIENCE_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert process.wait() == -signal.SIGTERM
    assert "Exception" not in process.output


def test_a_socket_opened_during_the_drain_delay_is_served() -> None:
    with HeadraceProcess("main:app", "--drain-delay", "1000", folder=COOKBOOK) as process:
        process.send_signal(signal.SIGTERM)
        process.wait_line("Shutting down")
        with open_socket(process) as websocket:
            websocket.send("hello")
            assert websocket.recv(PATIENCE_S) == "hello"
            assert process.stop() == -signal.SIGTERM  # a second signal does not wait
