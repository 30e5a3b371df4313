"""The load over cleartext HTTP/2 with prior knowledge: one checked request of our own, and then h2load."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

from benchmarks.clients import ANSWER_LIMIT_S, HOST, WrongAnswer
from benchmarks.measure import H2loadResult, parse_h2load

CONNECTIONS = 16
STREAMS = 32
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, PADDED = 1, 8
ACK = 1
# RFC 7541: GET, http and / are fields of the static table, and :authority is a literal beside its name there.
REQUEST = b"\x82\x86\x84\x01\x09127.0.0.1"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as it is on the wire (RFC 9113 §4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def check_http2(port: int, expected: bytes) -> None:
    """Makes one GET and compares the body of the answer.

    The fields of the answer are not decoded: the status is h2load's to count.

    Raises:
        WrongAnswer: the server speaks no HTTP/2 here, or answered otherwise.
    """
    with socket.create_connection((HOST, port), timeout=ANSWER_LIMIT_S) as connection:
        request = frame(HEADERS, 5, 1, REQUEST)  # END_STREAM and END_HEADERS
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + request)
        body = b"".join(read_body(connection))
    if body != expected:
        raise WrongAnswer(f"answered {body[:40]!r} for {expected[:40]!r}")


def read_body(connection: socket.socket) -> Iterator[bytes]:
    """The pieces of the response on stream 1; settings are acknowledged, and all else is passed over."""
    stream = connection.makefile("rb")
    is_first = True
    while True:
        head = stream.read(9)
        kind = head[3] if len(head) == 9 else -1
        if is_first and kind != SETTINGS:
            got = f"answers HTTP/2 with {head!r}" if head else "closes when it is spoken to in HTTP/2"
            raise WrongAnswer(f"no cleartext HTTP/2: {got}")
        is_first = False
        if kind in (-1, RST_STREAM, GOAWAY):
            raise WrongAnswer("closed or reset the stream over HTTP/2")
        payload = stream.read(int.from_bytes(head[:3], "big"))
        if kind == SETTINGS and not head[4] & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0))
        if kind == DATA:
            yield payload[1 : len(payload) - payload[0]] if head[4] & PADDED else payload
        if kind in (DATA, HEADERS) and head[4] & END_STREAM:
            return


def run_h2load(port: int, requests: int) -> H2loadResult:
    """So many requests, over 16 connections with 32 streams each, from one thread on the harness's core.

    A number and not a duration: at the end of a duration h2load has requests under way, which have cost the
    server time and are not counted.

    Raises:
        WrongAnswer: h2load says that not all of them were answered with a status of 2xx.
    """
    arguments = ["h2load", "--clients", str(CONNECTIONS), "--max-concurrent-streams", str(STREAMS)]
    arguments += ["--threads", "1", "--requests", str(requests), f"http://{HOST}:{port}/"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise WrongAnswer(f"h2load ended with {done.returncode}: {(done.stderr or done.stdout).strip()[:80]}")
    result = parse_h2load(done.stdout)
    if result.succeeded != requests or result.failed:
        raise WrongAnswer(
            f"h2load: {result.succeeded} of {requests} requests succeeded, {result.failed} failed or errored"
        )
    return result
