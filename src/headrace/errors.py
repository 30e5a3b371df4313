"""Every error headrace raises, one tree.

HeadraceError
├── ConfigError                  an option, a configuration file or the application's name is wrong
│   └── ApplicationImportError   the application's own code raised while it was imported or made
├── ListenError                  a listener cannot be bound
├── WorkerError                  a worker cannot start or go on
├── ControlRefused               a running server does not do what it was asked to over its control surface
├── ASGIError                    the application broke the order or the types of ASGI messages
├── ClientDisconnected           the peer is gone; also an OSError, as the ASGI specification asks
└── ProtocolError
    ├── LocalProtocolError       we asked an engine for something its protocol forbids
    └── RemoteProtocolError      the peer broke the protocol; carries the answer it is due
"""

from __future__ import annotations


class HeadraceError(Exception):
    """The root of the tree; never raised itself."""


class ConfigError(HeadraceError):
    """An option, a configuration file or the application's name is wrong; the operator mends it."""


class ApplicationImportError(ConfigError):
    """The application's own code raised while it was imported or made; ``__cause__`` is what it raised."""


class ListenError(HeadraceError):
    """A listener cannot be bound; the message is one sentence for the operator."""


class WorkerError(HeadraceError):
    """A worker cannot start or go on (lifespan start-up failed, for one)."""


class ControlRefused(HeadraceError):
    """A running server does not do what it was asked to over its control surface; one sentence says why."""


class ASGIError(HeadraceError, RuntimeError):
    """The application broke the order or the types of ASGI messages.

    Also a ``RuntimeError``, which is what uvicorn raises in its place.
    """


class ClientDisconnected(HeadraceError, OSError):
    """The peer is gone. Never logged as an error."""


class ProtocolError(HeadraceError):
    """The root of what concerns a wire protocol."""


class LocalProtocolError(ProtocolError):
    """We asked an engine for something its protocol forbids; a bug on this side."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol. Each engine gives the answer in its own protocol's number.

    Args:
        message: what happened, with the value cut to 80 characters.
        status: the HTTP status that answers it, 400 to 599.
        error_code: of HTTP/2, RFC 9113 §7; 1 is PROTOCOL_ERROR.
        close_code: of WebSocket, RFC 6455 §7.4; 1002 is a protocol error.
    """

    def __init__(
        self, message: str, status: int = 400, *, error_code: int = 1, close_code: int = 1002
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.close_code = close_code
