"""The closing handshake, RFC 6455 §7: who has sent a Close frame, and which codes may stand in one.

Each side sends one Close frame and answers the other's. Whoever has sent it sends no more data; whoever has
received it reads no more. The server ends the TCP connection when both are through, RFC 6455 §7.1.1. So
there are three states; a fourth, "theirs has come and ours is due", cannot last, because the engine answers
in the same call. A peer that breaks the protocol gets a Close frame and is read no more, which is the
same state as after its own Close frame. RFC 6455 §7.1.7.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """Which Close frames are through."""

    OPEN = auto()
    """None."""
    CLOSING = auto()
    """Ours is sent, theirs has not come; their data is still checked, and dropped."""
    CLOSED = auto()
    """Theirs has come, or they broke the protocol. Nothing is read any more."""


class Step(Enum):
    """What moves the closing handshake on."""

    SEND = auto()
    """This side closes."""
    RECEIVE = auto()
    """The peer's Close frame came."""
    FAIL = auto()
    """The peer broke the protocol."""


CLOSING_HANDSHAKE = {
    (State.OPEN, Step.SEND): (State.CLOSING, True),
    (State.OPEN, Step.RECEIVE): (State.CLOSED, True),
    (State.OPEN, Step.FAIL): (State.CLOSED, True),
    (State.CLOSING, Step.SEND): (State.CLOSING, False),
    (State.CLOSING, Step.RECEIVE): (State.CLOSED, False),
    (State.CLOSING, Step.FAIL): (State.CLOSED, False),
    (State.CLOSED, Step.SEND): (State.CLOSED, False),
}
"""(state, step) -> (new state, whether a Close frame is written). A closed engine reads nothing, so it can
neither receive nor fail."""

NORMAL_CLOSURE = 1000
PROTOCOL_ERROR = 1002
NO_STATUS = 1005
"""Never on the wire; stands for a Close frame without a code. RFC 6455 §7.1.5."""
INVALID_DATA = 1007
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009

MAX_REASON_BYTES = 123
"""A control frame's 125 bytes less the code, RFC 6455 §5.5."""


def is_valid_close_code(code: int) -> bool:
    """Whether a code may stand in a Close frame.

    RFC 6455 §7.4: 1004, 1005, 1006 and 1015 may not, the rest below 3000 is for registered codes, of which
    the registry of IANA has 1012 to 1014 besides the RFC's own; 3000 to 4999 are for everyone.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def cut_reason(reason: str) -> bytes:
    """Encode a reason, cut to ``MAX_REASON_BYTES`` at a character's boundary; surrogates become ``?``."""
    encoded = reason.encode("utf-8", "replace")
    if len(encoded) <= MAX_REASON_BYTES:
        return encoded
    return encoded[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode("utf-8")
