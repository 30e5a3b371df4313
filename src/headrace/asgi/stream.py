"""What an exchange needs of the engine and the connection below it, whatever the HTTP version."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, Protocol


class Engine(Protocol):
    """The sending half of a protocol engine, as far as one response needs it."""

    def send_headers(
        self, stream_id: int, status: int, headers: Iterable[tuple[bytes, bytes]], has_body: bool
    ) -> int | None:
        """Check and keep the head; returns the Content-Length it promises."""

    def add_fields(self, stream_id: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Add fields of the server's own to the head that is kept: valid, and in lower case."""

    def drop_headers(self, stream_id: int) -> None:
        """Forget the head that is kept."""

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """Encode a piece of body, behind the head."""

    def send_trailers(self, stream_id: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """End with trailers."""

    def send_informational(self, stream_id: int, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Encode a 1xx response."""

    def send_continue(self, stream_id: int) -> None:
        """Ask for the body if the client waits to be asked."""

    def send_error(
        self, stream_id: int, status: int, has_body: bool = True, fields: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Encode a whole response of our own, for HEAD its head."""


class Turn(Protocol):
    """Knows the exchanges whose heads wait for their bodies."""

    current: Any

    @property
    def thread_id(self) -> int:
        """The thread in which all happens, as ``threading.get_ident`` says it."""

    def hold_head(self, exchange: Any) -> None:
        """Call the exchange's ``flush_head`` when its application waits for something else."""


class Stream(Protocol):
    """What carries one exchange: a connection of HTTP/1.1, or a stream of HTTP/2."""

    @property
    def stream_id(self) -> int:
        """By which the engine knows it."""

    @property
    def is_writable(self) -> bool:
        """The write brake is off."""

    @property
    def turn(self) -> Turn:
        """Knows when an application waits."""

    @property
    def engine(self) -> Engine:
        """Encodes the response."""

    @property
    def is_draining(self) -> bool:
        """The server stops."""

    def flush(self) -> None:
        """Write what the engine has encoded."""

    def finish(self, exchange: Any, is_small: bool) -> None:
        """The same behind a whole response; a small one may wait for others of the same turn."""

    def wait_writable(self) -> Awaitable[None]:
        """Wait while the write brake is on."""

    def on_consumed(self) -> None:
        """The application took what was waiting of the body."""

    def on_body_wanted(self) -> None:
        """The application waits for the body."""

    def on_response_complete(self, exchange: Any) -> None:
        """The response is encoded whole, or nobody takes what is missing; ``finish`` says so too."""

    def send_file(self, file: int, offset: int, count: int) -> Awaitable[int]:
        """Write ``count`` bytes of an open file; gives how many went out before the client left."""

    def abort(self) -> None:
        """Cut the connection or reset the stream."""
