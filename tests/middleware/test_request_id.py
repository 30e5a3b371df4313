"""Ids of requests: where they come from and where they are seen."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket

from headrace.middleware.request_id import RequestID
from headrace.telemetry import sortable_id as sortable
from headrace.telemetry.request_context import request_id_var
from live import LiveServer, respond
from peer_servers import PeerServer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = (b"traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())
MADE = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


class Seen:
    """An application that notes the ids it sees, and answers with given messages."""

    def __init__(self, *messages: Any) -> None:
        self.messages = messages
        self.state: list[str] = []
        self.variable: list[str | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.state.append(scope["state"]["request_id"])
        self.variable.append(request_id_var.get(None))
        for message in self.messages:
            await send(message)


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
BODY = {"type": "http.response.body"}


async def nothing() -> Any:
    raise AssertionError("nobody receives")


def scope_of(*headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {"type": "http", "headers": [(b"host", b"a"), *headers], "state": {}, **more}


@pytest.fixture(params=["call", "enter"])
def way(request: pytest.FixtureRequest) -> Any:
    """How a server calls the layer: any, or ours."""
    return (lambda layer: layer) if request.param == "call" else (lambda layer: layer.enter)


def call(way: Any, layer: RequestID, scope: Any) -> list[Any]:
    """One request in a context of its own; what was sent."""
    sent: list[Any] = []

    async def keep(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        await way(layer)(scope, nothing, keep)

    asyncio.run(main())
    return sent


def id_of(way: Any, *headers: tuple[bytes, bytes], header: str = "X-Request-ID", **more: Any) -> str:
    seen = Seen(START, BODY)
    sent = call(way, RequestID(seen, header), scope_of(*headers, **more))
    (request_id,) = seen.state
    assert seen.variable == [request_id]
    assert sent[0]["headers"] == [(b"content-length", b"0"), (header.lower().encode(), request_id.encode())]
    assert sent[1] is BODY
    return request_id


@pytest.mark.parametrize(
    "given", ["a", "A" * 128, str(uuid.uuid4()), "Root=1-67891233-abcdef", "a_b.c:d/e+f@g~", TRACE]
)
def test_the_request_s_own(way: Any, given: str) -> None:
    assert id_of(way, (b"x-request-id", given.encode()), TRACEPARENT) == given


@pytest.mark.parametrize(
    "given",
    [
        [b""], [b"a" * 129], [b"a b"], [b"a\nb"], [b"a\x00"], [b'"a"'], [b"a;b"], [b"a,b"], [b"a%20"],
        [b"<a>"], [b"\xc3\xa4"], [b"a", b"a"], [b"a", b"b"], [b"", b"a"], [b"a", b"b", b"c"],
    ],
)  # fmt: skip
def test_what_is_not_taken(way: Any, given: list[bytes]) -> None:
    headers = [(b"x-request-id", value) for value in given]
    assert re.fullmatch(MADE, id_of(way, *headers))
    assert id_of(way, *headers, TRACEPARENT) == TRACE


def test_another_field(way: Any) -> None:
    field = (b"x-correlation-id", b"abc")
    assert id_of(way, field, (b"x-request-id", b"no"), header="X-Correlation-ID") == "abc"


def test_the_trace_s(way: Any) -> None:
    assert id_of(way, TRACEPARENT) == TRACE
    span = SimpleNamespace(trace_id=0xABC, span_id=1, is_sampled=False)
    assert id_of(way, **{"headrace.span": span}) == "0" * 29 + "abc"
    assert id_of(way, TRACEPARENT, **{"headrace.span": span}) == "0" * 29 + "abc"
    assert id_of(way, (b"x-request-id", b"mine"), **{"headrace.span": span}) == "mine"


@pytest.mark.parametrize("value", [b"", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01", b"ff", b"x" * 600])
def test_a_trace_that_is_none(way: Any, value: bytes) -> None:
    assert re.fullmatch(MADE, id_of(way, (b"traceparent", value)))


def test_two_traces_are_none(way: Any) -> None:
    assert re.fullmatch(MADE, id_of(way, TRACEPARENT, TRACEPARENT))


def test_a_state_where_the_server_has_none(way: Any) -> None:
    seen = Seen(START, BODY)
    scope = scope_of()
    del scope["state"]
    call(way, RequestID(seen), scope)
    assert scope["state"] == {"request_id": seen.state[0]}


@pytest.mark.parametrize("name", [b"x-request-id", b"X-Request-ID"])
def test_a_field_of_the_application_s_stands(way: Any, name: bytes) -> None:
    start = {**START, "headers": [(name, b"its own")]}
    sent = call(way, RequestID(Seen(start, BODY)), scope_of())
    assert sent[0]["headers"] == [(name, b"its own")]


@pytest.mark.parametrize("fields", [None, [(b"a", b"b")], ((b"a", b"b"),), ([b"a", b"b"],)])
def test_messages_that_the_application_keeps_stay_as_they_are(way: Any, fields: Any) -> None:
    start: dict[str, Any] = {"type": "http.response.start", "status": 200, "trailers": True}
    if fields is not None:
        start["headers"] = fields
    kept = dict(start)
    layer = RequestID(Seen(start, BODY))
    for _ in range(2):
        sent = call(way, layer, scope_of())
        assert sent[0]["trailers"] is True
        assert [pair[0] for pair in sent[0]["headers"]] == [b"a", b"x-request-id"][fields is None :]
    assert start == kept
    assert fields is None or len(fields) == 1


def test_fields_that_can_be_read_once(way: Any) -> None:
    start = {**START, "headers": iter([(b"a", b"b")])}
    sent = call(way, RequestID(Seen(start, BODY)), scope_of())
    assert [pair[0] for pair in sent[0]["headers"]] == [b"a", b"x-request-id"]


@pytest.mark.parametrize("kind", ["websocket.accept", "websocket.http.response.start"])
def test_websockets(way: Any, kind: str) -> None:
    answer = {"type": kind, "status": 403} if "http" in kind else {"type": kind}
    message = {"type": "websocket.send", "text": "a"}
    scope = scope_of((b"x-request-id", b"abc"), type="websocket")
    sent = call(way, RequestID(Seen(answer, message)), scope)
    assert sent == [{**answer, "headers": [(b"x-request-id", b"abc")]}, message]


def test_nothing_in_the_response_where_the_server_puts_it(way: Any) -> None:
    seen = Seen(START, BODY)
    layer = RequestID(seen, answers=False)
    assert call(way, layer, scope_of((b"x-request-id", b"abc"))) == [START, BODY]
    assert seen.state == seen.variable == ["abc"]


def test_other_scopes_pass(way: Any) -> None:
    seen: list[Any] = []

    async def application(*arguments: Any) -> None:
        seen.append(arguments)
        assert request_id_var.get(None) is None

    async def drop(message: Any) -> None:
        pass

    async def main() -> None:
        await way(RequestID(application))(scope, nothing, drop)

    scope = {"type": "lifespan", "state": {}}
    asyncio.run(main())
    assert seen == [(scope, nothing, drop)]
    assert scope["state"] == {}


def test_the_variable_goes_where_the_request_goes(way: Any) -> None:
    ids: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def child() -> None:
            ids.append(request_id_var.get())

        await asyncio.create_task(child())
        await asyncio.to_thread(lambda: ids.append(request_id_var.get()))

    call(way, RequestID(application), scope_of((b"x-request-id", b"abc")))
    assert ids == ["abc", "abc"]


def test_requests_at_once_have_each_their_own(way: Any) -> None:
    pairs: list[tuple[str, str]] = []

    async def main() -> None:
        meeting = asyncio.Barrier(3)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await meeting.wait()
            pairs.append((scope["state"]["request_id"], request_id_var.get()))

        layer = way(RequestID(application))

        async def request(number: int) -> None:
            await layer(scope_of((b"x-request-id", b"%d" % number)), nothing, nothing)

        await asyncio.gather(*(asyncio.create_task(request(number)) for number in range(3)))

    asyncio.run(main())
    assert sorted(pairs) == [(str(number), str(number)) for number in range(3)]


def test_the_variable_is_as_before_when_the_call_is_over() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        for before in (None, "outer"):
            if before is not None:
                request_id_var.set(before)
            await RequestID(Seen())(scope_of(), nothing, nothing)  # type: ignore[arg-type]
            assert request_id_var.get(None) == before
            with pytest.raises(ZeroDivisionError):
                await RequestID(broken)(scope_of(), nothing, nothing)  # type: ignore[arg-type]
            assert request_id_var.get(None) == before

    asyncio.run(main())


def test_a_server_of_ours_logs_the_application_s_error_with_its_id() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await RequestID(broken).enter(scope_of((b"x-request-id", b"abc")), nothing, nothing)  # type: ignore[arg-type]
        assert request_id_var.get() == "abc"

    asyncio.run(main())


def test_a_coroutine_that_is_thrown_away() -> None:
    class Never:
        def __await__(self) -> Iterator[None]:
            yield

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await Never()

    running = RequestID(application)(scope_of(), nothing, nothing)  # type: ignore[arg-type]
    contextvars.copy_context().run(running.send, None)
    running.close()


# Ids that are made


def test_made_ids_are_uuids_that_rise_with_time() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = [sortable.sortable_id() for _ in range(10_000)]
    after_ms = time.time_ns() // 1_000_000
    assert made == sorted(set(made))
    first = uuid.UUID(made[0])
    assert (first.version, first.variant, str(first)) == (7, uuid.RFC_4122, made[0])
    # The clock may run behind what was made: each block has a millisecond of its own.
    assert before_ms - 100 <= first.int >> 80 <= after_ms + 10


def test_ids_rise_although_the_clock_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = itertools.count(2_000_000_000_000_000_000, -3_600_000_000_000)
    monkeypatch.setattr(sortable.time, "time_ns", lambda: next(clocks))
    ids = sortable.SortableIDs()
    made = []
    for _ in range(5):
        made += [ids.make(), ids.make()]
        ids.restart()
    assert made == sorted(set(made))


def test_ids_of_threads_differ() -> None:
    ids = sortable.SortableIDs()
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend([ids.make() for _ in range(20_000)])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == len(made) == 80_000


FORKS = """
import json, os, sys
from headrace.telemetry.sortable_id import sortable_id

sortable_id()
pipes = []
for _ in range(4):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, json.dumps([sortable_id() for _ in range(50)]).encode())
        os._exit(0)
    os.close(writer)
    pipes.append(reader)
made = [sortable_id() for _ in range(50)]
for reader in pipes:
    with open(reader) as file:
        made += json.load(file)
    os.wait()
print(json.dumps(made))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_ids_of_forked_processes_differ() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    assert len(set(made)) == len(made) == 250


# Under servers

api = FastAPI()


@api.get("/")
async def show(request: Request) -> list[str]:
    return [request.state.request_id, request_id_var.get()]


@api.get("/thread")
def show_in_thread(request: Request) -> list[str]:
    return [request.state.request_id, request_id_var.get()]


@api.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(request_id_var.get())
    await websocket.close()


async def plain(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"] == "/plain":
        await respond(send, request_id_var.get().encode(), headers=[(b"x-a", b"b")])
    else:
        await api(scope, receive, send)


@pytest.fixture(scope="module", params=["uvicorn", "hypercorn", "headrace"])
def server(request: pytest.FixtureRequest) -> Iterator[PeerServer | LiveServer]:
    if request.param != "headrace":
        with PeerServer(request.param, RequestID(plain)) as peer:
            yield peer
        return
    live = LiveServer(RequestID(plain), "asyncio", lifespan="on")
    live.start()
    yield live
    live.stop()


@pytest.mark.parametrize("target", ["/", "/thread"])
def test_under_any_server(server: PeerServer | LiveServer, target: str) -> None:
    client = server.connect()
    responses = [client.request(target) for _ in range(3)]
    ids = [json.loads(response.body) for response in responses]
    assert [[response.get("x-request-id")] * 2 for response in responses] == ids
    assert len({own for own, _ in ids}) == 3
    given = client.request(target, headers=["X-Request-ID: abc"])
    assert (given.get("x-request-id"), json.loads(given.body)) == ("abc", ["abc", "abc"])


def test_a_raw_application_under_any_server(server: PeerServer | LiveServer) -> None:
    response = server.get("/plain")
    assert response.get("x-request-id") == response.body.decode()
    assert response.get("x-a") == "b"


def test_a_websocket_under_any_server(server: PeerServer | LiveServer) -> None:
    client = server.connect()
    client.send(
        b"GET /socket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"x-request-id: abc\r\n\r\n"
    )
    head = client.read_until(b"\r\n\r\n").lower()
    assert head.startswith(b"http/1.1 101")
    assert b"\r\nx-request-id: abc\r\n" in head
    assert client.read_until(b"abc") == b"\x81\x03abc"
