"""A server's place among others: what a worker is given by its supervisor."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from headrace.server.leadership import Leadership
from headrace.server.load_board import BoardSlot
from headrace.telemetry.metrics.registry import Registry


class Cause(StrEnum):
    """Why a worker's place becomes another's; the values are those of the label ``reason``."""

    RELOAD = "reload"
    OPERATOR = "operator"
    REQUESTS = "requests"
    LIFETIME = "lifetime"
    MEMORY = "memory"
    SIGNAL = "signal"
    BLOCKED = "blocked"
    KILLED = "killed"
    CRASHED = "crashed"
    EXITED = "exited"


class Reason(NamedTuple):
    """Why a worker is to be replaced.

    Attributes:
        cause: for figures.
        words: for the log, behind "is replaced: ".
    """

    cause: Cause
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One of several workers that accept from the same sockets.

    Attributes:
        sockets: listening; they stay the supervisor's.
        board_slot: where the number of open connections is written for the others; None without balance.
        leadership: put into the lifespan's state.
        on_ready: called when the listeners accept.
        on_retire: called once with the reason when the worker should be replaced; it serves on until it is
            told to drain.
        worker_id: the worker's place: small, and reused.
        metrics: keeps the worker's figures where the supervisor reads them; None without metrics.
    """

    sockets: list[socket.socket]
    board_slot: BoardSlot | None
    leadership: Leadership
    on_ready: Callable[[], None]
    on_retire: Callable[[Reason], None]
    worker_id: int | None = None
    metrics: Registry | None = None
