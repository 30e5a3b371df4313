"""What a client gets, and the log says, when the application does not keep to ASGI."""

import asyncio
import gc
import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from headrace.asgi.http import HTTPExchange
from live import PATIENCE_S, LiveServer, eventually, read_body, respond

Serve = Callable[..., LiveServer]

START = {"type": "http.response.start", "status": 200, "headers": []}
PIECE = {"type": "http.response.body", "body": b"piece", "more_body": True}
END = {"type": "http.response.body", "body": b"end"}


def sends(*messages: Any, then: BaseException | None = None) -> Any:
    """An application that sends these, and perhaps raises."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if then is not None:
            raise then

    return application


def start(**changes: Any) -> dict[str, Any]:
    return START | changes


class NeverEnds:
    """Sends for ever and looks at nothing else; who asks for ``/`` is answered."""

    def __init__(self) -> None:
        self.pieces = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            await respond(send, b"hello")
            return
        await send(START)
        while True:
            await send({**PIECE, "body": bytes(65_536)})
            self.pieces += 1


@pytest.mark.parametrize("is_reset", [False, True])
def test_one_that_sends_for_ever_to_nobody_holds_up_no_other(serve: Serve, is_reset: bool) -> None:
    application = NeverEnds()
    server = serve(application, timeout_graceful_shutdown=0)
    client = server.connect()
    client.send(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    eventually(lambda: not all(one.is_writable for one in server.server.runtime.connections))
    client.reset() if is_reset else client.close()
    pieces = application.pieces
    # It goes on, and nobody tells it; but others are served beside it.
    eventually(lambda: application.pieces > pieces + 100)
    assert server.connect().request().body == b"hello"


def test_starlettes_stream_ends_when_its_client_leaves_in_the_middle(serve: Serve) -> None:
    ended = []

    async def endless() -> Any:
        while True:
            yield bytes(65_536)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(endless())(scope, receive, send)
        ended.append(True)

    server = serve(application)
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    client.read_until(b"\r\n\r\n")
    eventually(lambda: not all(one.is_writable for one in server.server.runtime.connections))
    client.close()
    eventually(lambda: ended)


def exchanges() -> set[int]:
    """Those that are alive."""
    return {id(one) for one in gc.get_objects() if type(one) is HTTPExchange}


def test_failed_requests_leave_nothing_behind(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even until the collector of garbage comes by: each may have had a large body."""
    # Who captures records keeps the errors in them.
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "disabled", True)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/waits":
            await asyncio.sleep(0)
        raise LookupError("on purpose")

    for access_log in (True, False):
        server = serve(application, access_log=access_log)
        client = server.connect()
        assert client.request("/waits").status == 500
        gc.collect()
        # Other tests' may be held somewhere.
        before = exchanges()
        gc.disable()
        try:
            for target in ("/", "/waits") * 5:
                client = server.connect()
                assert client.request(target).status == 500
                client.close()
            eventually(lambda server=server: server.in_loop(lambda: not server.server.runtime.connections))
            eventually(lambda before=before: exchanges() <= before)
        finally:
            gc.enable()


def length(count: int) -> dict[str, Any]:
    return start(headers=[(b"content-length", b"%d" % count)])


BEFORE_ANYTHING_LEFT = {
    "raises at once": sends(then=KeyError("x")),
    "raises behind the held head": sends(START, then=KeyError("x")),
    "raises OSError with the client there": sends(then=OSError("the database is gone")),
    "raises CancelledError itself": sends(then=asyncio.CancelledError()),
    "returns without a response": sends(),
    "returns behind the head": sends(START),
    "body before start": sends(END),
    "unknown message": sends({"type": "http.response.nonsense"}),
    "trailers before start": sends({"type": "http.response.trailers"}),
    "start twice": sends(START, START),
    "hint behind start": sends(START, {"type": "http.response.early_hint", "links": []}),
    "status is text": sends(start(status="200"), END),
    "status 101": sends(start(status=101), END),
    "status 1000": sends(start(status=1000), END),
    "no status": sends({"type": "http.response.start"}, END),
    "header is text": sends(start(headers=[("a", "b")]), END),
    "line break in a value": sends(start(headers=[(b"a", b"b\r\nc: d")]), END),
    "NUL in a value": sends(start(headers=[(b"a", b"b\0c")]), END),
    "colon in a name": sends(start(headers=[(b"a:b", b"c")]), END),
    "two lengths": sends(start(headers=[(b"content-length", b"3"), (b"content-length", b"4")]), END),
    "length is no number": sends(start(headers=[(b"content-length", b"+3")]), END),
    "body too long": sends(length(2), END),
    "body too short": sends(length(4), END),
    "text for a body": sends(START, {"type": "http.response.body", "body": "text"}),
    "number for a body": sends(START, {"type": "http.response.body", "body": 5}),
    "link with a line break": sends(
        {"type": "http.response.early_hint", "links": [b"a\r\nb: c"]}, START, END
    ),
}


@pytest.mark.parametrize("case", BEFORE_ANYTHING_LEFT)
def test_answered_with_500(serve: Serve, error_log: Any, case: str) -> None:
    client = serve(BEFORE_ANYTHING_LEFT[case]).connect()
    response = client.request()
    assert response.status == 500
    assert response.body == b"Internal Server Error"
    assert response.get("content-type") == "text/plain; charset=utf-8"
    assert response.get("connection") == "close"
    assert client.is_ended()
    assert error_log.lines(logging.ERROR)


@pytest.mark.parametrize(
    "application",
    [
        sends(START, PIECE, then=KeyError("x")),
        sends(START, PIECE),
        sends(START, PIECE, START),
        sends(START, PIECE, {"type": "http.response.body", "body": "text"}),
        sends(start(trailers=True), PIECE, END),
        sends(
            start(trailers=True), PIECE, END, {"type": "http.response.trailers", "headers": [(b"a", b"\n")]}
        ),
        sends(length(9), PIECE),
        sends(length(9), PIECE, PIECE),
        sends(length(9), PIECE, END),
    ],
)
def test_cut_behind_the_first_piece(serve: Serve, error_log: Any, application: Any) -> None:
    client = serve(application).connect()
    response = client.request()
    # Nothing may look like the end of a response.
    assert not response.is_whole
    assert error_log.lines(logging.ERROR)


def test_traceback_in_the_log(serve: Serve, error_log: Any) -> None:
    serve(sends(then=KeyError("the reason"))).get()
    (record,) = [r for r in error_log.records if r.levelno >= logging.ERROR]
    assert record.getMessage() == "Exception in ASGI application\n"
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == "KeyError('the reason')"


@pytest.mark.parametrize(
    ("application", "text"),
    [
        (sends(), "ASGI callable returned without starting response."),
        (sends(START), "ASGI callable returned without completing response."),
    ],
)
def test_what_was_missing_is_said(serve: Serve, error_log: Any, application: Any, text: str) -> None:
    serve(application).get()
    assert error_log.lines(logging.ERROR) == [text]


def test_returned_value_is_reported(serve: Serve, error_log: Any) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> Any:
        await respond(send, b"fine")
        return "a value"

    assert serve(application).get().body == b"fine"
    eventually(lambda: error_log.lines(logging.ERROR))
    assert error_log.lines(logging.ERROR) == ["ASGI callable should return None, but returned 'a value'."]


def test_sending_past_the_end(serve: Serve, error_log: Any) -> None:
    client = serve(sends(START, END, END)).connect()
    # The response is whole; only the log says what is wrong.
    assert client.request().body == b"end"
    eventually(lambda: error_log.lines(logging.ERROR))
    assert client.request().body == b"end"
    error = error_log.records[-1].exc_info[1]
    assert "'http.response.body' sent, after response already completed." in str(error)


def test_caught_fault_can_be_mended(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(RuntimeError):
            await send(start(headers=[(b"a", b"b\r\nc")]))
        await respond(send, b"mended")

    assert serve(application).get().body == b"mended"


@pytest.mark.parametrize("body", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a.b.c.")[::2]])
def test_other_byte_strings(serve: Serve, body: Any) -> None:
    assert serve(sends(START, {"type": "http.response.body", "body": body})).get().body == b"abc"


def test_headers_may_be_missing_or_an_iterator(serve: Serve) -> None:
    server = serve(sends({"type": "http.response.start", "status": 200}, END))
    assert server.get().body == b"end"
    assert serve(sends(start(headers=iter([[b"a", b"b"]])), END)).get().get("a") == "b"


def test_send_as_a_task(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.create_task(send(START))
        await asyncio.gather(send(PIECE), asyncio.wait_for(send(PIECE), PATIENCE_S))
        await asyncio.shield(send(END))

    assert serve(application).get().body == b"piecepieceend"


class TestBehindADisconnect:
    def test_send_does_nothing(self, serve: Serve, error_log: Any) -> None:
        sent: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await read_body(receive)
            for message in (START, PIECE, END):
                await send(message)
            sent.append("all")

        client = serve(application).connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab")
        client.reset()
        eventually(lambda: sent)
        assert not error_log.lines(logging.ERROR)

    @pytest.mark.parametrize("error", [OSError("gone"), ConnectionResetError(), BrokenPipeError()])
    def test_oserror_is_no_error(self, serve: Serve, error_log: Any, error: OSError) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await read_body(receive)
            raise error

        client = serve(application).connect()
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab")
        client.close()
        eventually(lambda: error_log.lines())
        assert not error_log.lines(logging.ERROR)

    def test_starlette_stream_is_ended_quietly(self, serve: Serve, error_log: Any) -> None:
        ended: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            async def forever() -> Any:
                yield b"first"
                await asyncio.Event().wait()

            await StreamingResponse(forever())(scope, receive, send)
            ended.append("yes")

        client = serve(application).connect()
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        client.read_until(b"first")
        client.close()
        eventually(lambda: ended)
        assert not error_log.lines(logging.WARNING)

    def test_application_that_asks_first(self, serve: Serve, error_log: Any) -> None:
        seen: list[bool] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            request = Request(scope, receive)
            while not await request.is_disconnected():
                await asyncio.sleep(0)
            seen.append(True)

        client = serve(application).connect()
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        client.close()
        eventually(lambda: seen)
        assert not error_log.lines(logging.WARNING)


def test_cancelled_when_the_client_leaves(serve: Serve, error_log: Any) -> None:
    ends: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            ends.append("begun")
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ends.append(str(error))
            raise

    client = serve(application, on_disconnect="cancel").connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    eventually(lambda: ends)
    client.close()
    eventually(lambda: len(ends) == 2)
    assert ends == ["begun", "The client disconnected"]
    assert not error_log.lines(logging.ERROR)


def test_not_cancelled_by_default(serve: Serve) -> None:
    ends: list[str] = []
    go_on = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        ends.append("begun")
        await go_on.wait()
        await respond(send)
        ends.append("ended")

    server = serve(application)
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    eventually(lambda: ends)
    client.reset()
    eventually(lambda: not server.server.runtime.connections)
    server.in_loop(go_on.set)
    eventually(lambda: len(ends) == 2)


def test_system_exit_is_an_error_like_others(serve: Serve) -> None:
    # A library that calls sys.exit() must not take the other requests with it.
    server = serve(sends(then=SystemExit(7)))
    assert [server.get().status for _ in range(2)] == [500, 500]


class TestHead:
    HEAD = b"HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"

    def test_error_has_no_body(self, serve: Serve) -> None:
        client = serve(sends(then=KeyError("x"))).connect()
        client.send(self.HEAD)
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 500 ")
        assert client.read_to_end() == b""

    def test_application_that_changes_the_method_in_its_scope(self, serve: Serve) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            scope["method"] = "GET"
            await respond(send, b"hello")

        client = serve(application).connect()
        client.send(self.HEAD)
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        assert client.read_to_end() == b""
