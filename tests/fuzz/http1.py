"""Fuzz the HTTP/1.1 engine: accepted, or refused with the documented error, nothing else.

    python tests/fuzz/http1.py [--seconds S] [--runs N] [--seed N] [--random]

Guided by atheris (libFuzzer) where it is installed, else by random mutation of the same seeds. One run cuts
its input in three ways, reads each with an engine and compares what was read. An input that fails stands in
the traceback, and beside it as ``crash-*`` when atheris found it.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

if atheris is None:
    from headrace.protocol import events, http1
    from headrace.protocol.http1.engine import State
else:
    with atheris.instrument_imports(include=["headrace.protocol"]):
        from headrace.protocol import events, http1
        from headrace.protocol.http1.engine import State

LIMITS = http1.HTTP1Limits(request_line_bytes=200, head_bytes=600, fields=12, body_bytes=2000)
PARSER = http1.HeadParser(LIMITS)
"""Shared by all runs: what one leaves behind would show in the next."""

_GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
_POST = b"POST /p?q HTTP/1.1\r\nHost: a\r\n"
SEEDS = [
    _GET + b"\r\n",
    (_GET + b"\r\n") * 3,
    _POST + b"Content-Length: 5\r\n\r\nhello" + _GET + b"\r\n",
    _POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;a=b\r\nx\r\n0\r\nX: y\r\n\r\n" + _GET + b"\r\n",
    _POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    _GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
    _GET + b"Connection: close\r\n\r\n",
    b"GET http://b:80/c?d HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    b"\r\n\r\nBREW /pot HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]
WORDS = [
    b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b";", b"=", b'"', b",", b"0",
    b"0\r\n\r\n", b"1\r\na\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n",
    b"Host: b\r\n", b"X: y\r\n",
    b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"chunked", b"Connection: ", b"Upgrade: ", b"Expect: ", b"\xff",
    b"a" * 300,
]  # fmt: skip

Read = tuple[list[tuple[events.RequestReceived, bytes, object]], bool]


class Reading:
    """Reads one input, answers each whole request, and holds the engine to its promises."""

    def __init__(self, data: bytes, cut: int) -> None:
        self.engine = http1.HTTP1Engine(PARSER, http1.ResponseDefaults(server=None))
        self.whole: list[tuple[events.RequestReceived, bytes, object]] = []
        self.failed = False
        self._head: events.RequestReceived | None = None
        self._body = b""
        fed = 0
        for piece in _pieces(data, cut):
            self._take(self.engine.receive_data(piece))
            fed += len(piece)
            assert len(self.engine.pending) <= fed
        self.engine.receive_eof()
        if self.engine.state is not State.CLOSED:
            assert self.engine.should_close

    def _take(self, received: object) -> None:
        while received:
            for event in received:
                assert not self.failed, "an event behind the failure"
                self._note(event)
            received = self._answer()
        sent = self.engine.data_to_send()
        assert isinstance(sent, bytes)

    def _note(self, event: events.Event) -> None:
        if isinstance(event, events.ConnectionFailed):
            assert 400 <= event.error.status <= 599
            assert self.engine.state is State.CLOSED
            assert self.engine.should_close
            assert not self.engine.keep_alive
            assert self.engine.pending == b""
            self.failed = True
        elif isinstance(event, events.RequestReceived):
            assert self._head is None, "a request inside another"
            _check_head(event)
            self._head = event
            self._body = b""
            if event.end_stream:
                self._end(None)
        else:
            assert self._head is not None, "a body without a request"
            if isinstance(event, events.TrailersReceived):
                _check_fields(event.headers)
                self._end(event.headers)
                return
            self._body += event.data
            assert len(self._body) <= LIMITS.body_bytes
            if event.end_stream:
                self._end(None)

    def _end(self, trailers: object) -> None:
        assert self._head is not None
        self.whole.append((self._head, self._body, trailers))
        self._head = None

    def _answer(self) -> object:
        engine = self.engine
        if engine.state is not State.ANSWERING:
            return ()
        assert self._head is None
        engine.send_headers(1, 200, [(b"x", b"y")], True)
        engine.send_data(1, b"ok", True)
        return engine.start_next_cycle()


def _check_head(event: events.RequestReceived) -> None:
    assert event.http_version in ("1.0", "1.1")
    assert event.raw_path[:1] in (b"/", b"*")
    assert b"?" not in event.raw_path
    assert len(event.headers) <= LIMITS.fields
    assert not event.upgrade or event.end_stream
    hosts = [value for name, value in event.headers if name == b"host"]
    assert len(hosts) == 1 or (event.http_version == "1.0" and not hosts)
    framing = [name for name, _ in event.headers if name in (b"content-length", b"transfer-encoding")]
    assert len(framing) <= 1
    _check_fields(event.headers)


def _check_fields(fields: list[tuple[bytes, bytes]]) -> None:
    for name, value in fields:
        assert name
        assert name == name.lower()
        assert value == value.strip(b" \t")
        assert not any(byte in name + value for byte in b"\r\n\x00")


def _pieces(data: bytes, cut: int) -> Iterator[bytes]:
    if cut == 0:
        yield data
        return
    chance = random.Random(cut)
    while data:
        size = 1 if cut == 1 else chance.randint(1, 40)
        yield data[:size]
        data = data[size:]


def check(data: bytes) -> None:
    """One run."""
    whole = Reading(data, 0)
    for cut in (1, 2 + sum(data[:8])):
        pieces = Reading(data, cut)
        assert pieces.whole == whole.whole, "the meaning hangs on where the bytes are cut"
        assert pieces.failed == whole.failed, "the verdict hangs on where the bytes are cut"


def mutated(chance: random.Random) -> bytes:
    """A seed, or two, with some harm done to it."""
    data = bytearray(chance.choice(SEEDS))
    if chance.random() < 0.3:
        data += chance.choice(SEEDS)
    for _ in range(chance.choice((0, 1, 1, 2, 3, 6))):
        place = chance.randrange(len(data) + 1)
        kind = chance.random()
        if kind < 0.5:
            data[place:place] = chance.choice(WORDS)
        elif kind < 0.7:
            data[place : place + chance.randint(1, 6)] = b""
        elif kind < 0.85:
            data[place : place + 1] = bytes([chance.randrange(256)])
        else:
            end = place + chance.randint(1, 30)
            data[end:end] = data[place:end]
    return bytes(data)


def run_random(seconds: float, runs: int, seed: int) -> None:
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    done = 0
    for data in SEEDS:
        check(data)
    while done < runs and (done % 100 or time.monotonic() < end):
        data = mutated(chance)
        try:
            check(data)
        except BaseException:
            print(f"seed {seed}, run {done}: {data!r}", file=sys.stderr)
            raise
        done += 1
    print(f"{done} random runs")


def _quoted(word: bytes) -> str:
    """A line of libFuzzer's dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


def run_guided(seconds: float, runs: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(SEEDS):
            Path(corpus, f"seed-{number}").write_bytes(data)
        words = Path(corpus, "words.dict")
        words.write_text("".join(map(_quoted, WORDS)))
        limits = [
            f"-max_total_time={max(int(seconds), 1)}",
            f"-runs={runs}",
            f"-seed={seed}",
            "-max_len=2000",
        ]
        atheris.Setup([sys.argv[0], corpus, f"-dict={words}", *limits, "-verbosity=0"], check)
        atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the HTTP/1.1 engine.")
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time")
    parser.add_argument("--runs", type=int, default=10_000_000, help="stop after so many inputs")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers")
    parser.add_argument("--random", action="store_true", help="random mutation even where atheris is there")
    options = parser.parse_args()
    run = run_random if atheris is None or options.random else run_guided
    run(options.seconds, options.runs, options.seed)


if __name__ == "__main__":
    main()
