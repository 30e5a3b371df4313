"""A client of HTTP/2 over a real socket: it sends the frames that a test says, and reads strictly.

Frames are hyperframe's; header blocks are written here, one literal after the other, so that a test can send
what no encoder would (upper-case names, control characters) and no table stands between two of them. What
the server sends is decoded by ``hpack``, in the order it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import hyperframe.frame as hf
from hpack import Decoder

from live import PATIENCE_S, LiveServer, eventually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
MAX_HEADER_LIST_SIZE, ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES = 6, 8, 9

Fields = Iterable[tuple[bytes, bytes]]


def request_fields(
    path: bytes = b"/",
    method: bytes = b"GET",
    more: Fields = (),
    authority: bytes | None = b"a.test",
    scheme: bytes = b"http",
) -> list[tuple[bytes, bytes]]:
    """The fields of a request."""
    named = [] if authority is None else [(b":authority", authority)]
    return [(b":method", method), (b":scheme", scheme), (b":path", path), *named, *more]


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """An integer of HPACK, RFC 7541 §5.1; ``first`` has the bits in front of it."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([first | value])
    encoded = [first | most]
    value -= most
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def literal(name: bytes, value: bytes, first: int = 0x00) -> bytes:
    """One field, not indexed by default; 0x40 puts it into the table. RFC 7541 §6.2."""
    return bytes([first]) + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields: Fields) -> bytes:
    """A header block of literals."""
    return b"".join(literal(name, value) for name, value in fields)


def raw_frame(
    kind: int, flags: int, stream_id: int, payload: bytes = b"", length: int | None = None
) -> bytes:
    """A frame of any type, also with a length that is not its payload's. RFC 9113 §4.1."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def headers_frame(
    stream_id: int,
    fields: Fields | None = None,
    end_stream: bool = True,
    end_headers: bool = True,
    data: bytes | None = None,
) -> bytes:
    """HEADERS of ``fields``, or with ``data`` as it is."""
    flags = (0x1 if end_stream else 0) | (0x4 if end_headers else 0)
    if data is None:
        data = block(request_fields() if fields is None else fields)
    return raw_frame(0x1, flags, stream_id, data)


def data_frame(stream_id: int, data: bytes, end_stream: bool = False) -> bytes:
    """DATA without padding."""
    return raw_frame(0x0, 0x1 if end_stream else 0, stream_id, data)


def continuation_frame(stream_id: int, data: bytes, end_headers: bool = True) -> bytes:
    """CONTINUATION."""
    return raw_frame(0x9, 0x4 if end_headers else 0, stream_id, data)


def settings_frame(settings: dict[int, int] | None = None, ack: bool = False) -> bytes:
    """SETTINGS."""
    pairs = (settings or {}).items()
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs)
    return raw_frame(0x4, 0x1 if ack else 0, 0, payload)


def reset_frame(stream_id: int, error_code: int = CANCEL) -> bytes:
    """RST_STREAM."""
    return raw_frame(0x3, 0, stream_id, error_code.to_bytes(4, "big"))


def window_frame(stream_id: int, increment: int) -> bytes:
    """WINDOW_UPDATE."""
    return raw_frame(0x8, 0, stream_id, increment.to_bytes(4, "big"))


def ping_frame(data: bytes = b"12345678", ack: bool = False) -> bytes:
    """PING."""
    return raw_frame(0x6, 0x1 if ack else 0, 0, data)


def goaway_frame(last_stream_id: int = 0, error_code: int = NO_ERROR) -> bytes:
    """GOAWAY."""
    return raw_frame(0x7, 0, 0, last_stream_id.to_bytes(4, "big") + error_code.to_bytes(4, "big"))


def priority_update_frame(stream_id: int, value: bytes) -> bytes:
    """PRIORITY_UPDATE, RFC 9218 §7.1."""
    return raw_frame(0x10, 0, 0, stream_id.to_bytes(4, "big") + value)


@dataclass
class Received:
    """What has come on one stream.

    Attributes:
        early: responses of 1xx, in order.
        headers: of the response.
        is_ended: END_STREAM has come.
        reset: the error code of RST_STREAM.
        flow_bytes: DATA that no WINDOW_UPDATE has been sent for.
    """

    early: list[list[tuple[str, str]]] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    is_ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """Of the response; 0 before it has begun."""
        return int(self.headers[0][1]) if self.headers else 0

    def get(self, name: str) -> str | None:
        """The value of the only field of that name, None when there is none."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} {len(values)} times"
        return values[0] if values else None


class HTTP2Client:
    """One connection.

    Args:
        sock: connected.
        settings: of the client's first SETTINGS.
        takes: send WINDOW_UPDATE for all DATA that comes; else the server's windows shut.
        greets: send preface and SETTINGS at once.

    Attributes:
        streams: what has come, by stream.
        goaways: (last stream, error code) of each GOAWAY.
        is_ended: the server has closed.
        windows: bytes that may still be sent, by stream; 0 is the connection's.
        unused_stream_id: of the next request; to be set by who sends frames of its own.
    """

    def __init__(
        self,
        sock: socket.socket,
        settings: dict[int, int] | None = None,
        takes: bool = True,
        greets: bool = True,
    ) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE_S)
        self._takes = takes
        self._buffer = b""
        self._decoder = Decoder()
        self._fragments: tuple[int, int, bytes] | None = None
        self.unused_stream_id = 1
        self.streams: dict[int, Received] = {}
        self.goaways: list[tuple[int, int]] = []
        self.server_settings: dict[int, int] = {}
        self.settings_acks = 0
        self.pongs: list[bytes] = []
        self.is_ended = False
        self.windows: dict[int, int] = {0: 65_535}
        if greets:
            self.send(PREFACE + settings_frame(settings))

    # Sending

    def send(self, *frames: bytes) -> None:
        """Send bytes; a server that has closed already is no error, as its last words are what counts."""
        try:
            self.sock.sendall(b"".join(frames))
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            return

    def next_stream_id(self) -> int:
        """A stream that has not been used."""
        stream_id = self.unused_stream_id
        self.unused_stream_id += 2
        return stream_id

    def start(
        self,
        path: bytes = b"/",
        method: bytes = b"GET",
        more: Fields = (),
        end_stream: bool = True,
        **rest: Any,
    ) -> int:
        """Begin a request; gives its stream."""
        stream_id = self.next_stream_id()
        self.send(headers_frame(stream_id, request_fields(path, method, more, **rest), end_stream))
        return stream_id

    def get(self, path: bytes = b"/", more: Fields = ()) -> Received:
        """One whole exchange."""
        return self.response(self.start(path, more=more))

    def post(self, path: bytes, body: bytes, more: Fields = ()) -> Received:
        """The same with a body."""
        stream_id = self.start(path, b"POST", more, end_stream=False)
        self.send_body(stream_id, body)
        return self.response(stream_id)

    def send_body(self, stream_id: int, body: bytes, end_stream: bool = True) -> None:
        """Send DATA as the server's windows allow."""
        while body:
            self.wait(lambda: min(self.window(stream_id), self.windows[0]) > 0, "room for DATA")
            piece = body[: min(self.window(stream_id), self.windows[0], 16_384)]
            body = body[len(piece) :]
            self.windows[stream_id] = self.window(stream_id) - len(piece)
            self.windows[0] -= len(piece)
            self.send(data_frame(stream_id, piece, end_stream and not body))
            if not body:
                return
        self.send(data_frame(stream_id, b"", end_stream))

    def window(self, stream_id: int) -> int:
        """Bytes that may be sent on the stream."""
        self.wait(lambda: bool(self.server_settings), "the server's SETTINGS")
        return self.windows.setdefault(stream_id, self.server_settings.get(INITIAL_WINDOW_SIZE, 65_535))

    # Reading

    def stream(self, stream_id: int) -> Received:
        """What has come on the stream so far."""
        return self.streams.setdefault(stream_id, Received())

    def response(self, stream_id: int) -> Received:
        """The whole response, or what there is of it when the stream is reset or the connection ends."""
        received = self.stream(stream_id)
        self.wait(
            lambda: received.is_ended or received.reset is not None or self.is_ended,
            f"stream {stream_id}'s end",
        )
        return received

    def wait(self, condition: Callable[[], bool], what: str = "the condition") -> None:
        """Read until it is true."""
        while not condition():
            if not self.read_more():
                assert condition(), f"the server ended before {what}"
                return

    def round_trip(self, mark: bytes = b"headrace") -> None:
        """Ping, and read what the server sends until its pong."""
        count = self.pongs.count(mark)
        self.send(ping_frame(mark))
        self.wait(lambda: self.pongs.count(mark) > count, "the pong")

    def read_to_end(self) -> None:
        """Read until the server closes."""
        while self.read_more():
            pass

    def read_more(self) -> bool:
        """Take what comes next; False at the server's end."""
        if self.is_ended:
            return False
        try:
            data = self.sock.recv(65_536)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        if not data:
            self.is_ended = True
            return False
        self._buffer += data
        self._parse()
        return True

    def close(self) -> None:
        """Leave."""
        self.sock.close()

    # Within

    def _parse(self) -> None:
        buffer = self._buffer
        at = 0
        while len(buffer) - at >= 9:
            frame, size = hf.Frame.parse_frame_header(memoryview(buffer[at : at + 9]))
            if len(buffer) - at < 9 + size:
                break
            frame.parse_body(memoryview(buffer[at + 9 : at + 9 + size]))
            at += 9 + size
            self._on_frame(frame)
        self._buffer = buffer[at:]

    def _on_frame(self, frame: hf.Frame) -> None:
        if isinstance(frame, hf.HeadersFrame):
            assert frame.stream_id % 2 == 1
            self._on_block(
                frame.stream_id, "END_STREAM" in frame.flags, frame.data, "END_HEADERS" in frame.flags
            )
        elif isinstance(frame, hf.ContinuationFrame):
            assert self._fragments is not None
            stream_id, end_stream, begun = self._fragments
            self._on_block(stream_id, bool(end_stream), begun + frame.data, "END_HEADERS" in frame.flags)
        elif isinstance(frame, hf.DataFrame):
            self._on_data(frame)
        elif isinstance(frame, hf.RstStreamFrame):
            self.stream(frame.stream_id).reset = frame.error_code
        elif isinstance(frame, hf.GoAwayFrame):
            self.goaways.append((frame.last_stream_id, frame.error_code))
        elif isinstance(frame, hf.SettingsFrame):
            self._on_settings(frame)
        elif isinstance(frame, hf.PingFrame):
            if "ACK" in frame.flags:
                self.pongs.append(frame.opaque_data)
            else:
                self.send(ping_frame(frame.opaque_data, ack=True))
        elif isinstance(frame, hf.WindowUpdateFrame):
            assert frame.window_increment > 0
            left = self.windows[0] if not frame.stream_id else self.window(frame.stream_id)
            self.windows[frame.stream_id] = left + frame.window_increment

    def _on_block(self, stream_id: int, end_stream: bool, data: bytes, is_whole: bool) -> None:
        if not is_whole:
            self._fragments = (stream_id, int(end_stream), data)
            return
        self._fragments = None
        fields = [(str(name), str(value)) for name, value in self._decoder.decode(data)]
        received = self.stream(stream_id)
        assert not received.is_ended, f"HEADERS behind the end of stream {stream_id}"
        if received.headers:
            assert end_stream
            received.trailers = fields
        elif fields[0][1].startswith("1"):
            received.early.append(fields)
        else:
            assert fields[0][0] == ":status"
            received.headers = fields
        received.is_ended = end_stream

    def _on_data(self, frame: hf.DataFrame) -> None:
        received = self.stream(frame.stream_id)
        assert received.headers, f"DATA before the head on stream {frame.stream_id}"
        assert not received.is_ended, f"DATA behind the end of stream {frame.stream_id}"
        received.body += frame.data
        received.is_ended = "END_STREAM" in frame.flags
        size = frame.flow_controlled_length
        if size and self._takes:
            opened = window_frame(0, size)
            if not received.is_ended:
                opened += window_frame(frame.stream_id, size)
            self.send(opened)

    def _on_settings(self, frame: hf.SettingsFrame) -> None:
        if "ACK" in frame.flags:
            self.settings_acks += 1
            return
        self.server_settings = {int(key): value for key, value in frame.settings.items()}
        self.send(settings_frame(ack=True))


def connect(
    server: LiveServer,
    settings: dict[int, int] | None = None,
    context: ssl.SSLContext | None = None,
    **rest: Any,
) -> HTTP2Client:
    """A new connection to the server; with a context over TLS, where ALPN has chosen ``h2``."""
    client = server.connect(context)
    if context is not None:
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.selected_alpn_protocol() == "h2"
    return HTTP2Client(client.sock, settings, **rest)


class Drained(LiveServer):
    """A server that has been told to stop already; its loop may be closed."""

    def stop(self) -> None:
        """As any server's, but the word to the loop goes nowhere."""
        self._loop = asyncio.new_event_loop()
        with contextlib.closing(self._loop):
            super().stop()


def drain(server: LiveServer) -> None:
    """Tell the server to stop, and come back when it has begun to; its clients live on."""
    server.in_loop(server._stopping.set)
    server.__class__ = Drained
    eventually(lambda: server.server.runtime.is_draining)
