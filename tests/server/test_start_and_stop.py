"""Processes: start-up lines, exit codes, and a stop that loses nothing and is held up by nothing."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from live import Client, ServerProcess, eventually

Spawn = Callable[..., ServerProcess]

HEAD = b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n"

APP = """
    import asyncio

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                print("lifespan", step, flush=True)
                await send({"type": f"lifespan.{step}.complete"})
            return
        if scope["path"] == "/slow":
            # Ends when another request asks for it.
            print("slow begun", flush=True)
            await released.wait()
        if scope["path"] == "/release":
            released.set()
        if scope["path"] == "/stuck":
            print("stuck begun", flush=True)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                print("stuck cancelled:", error, flush=True)
                raise
        kind = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        if scope["path"] in ("/events", "/half"):
            await send({"type": "http.response.body", "body": b"data: 1\\n\\n", "more_body": True})
            await receive()
            message = await receive()
            print("told", message["type"], flush=True)
            if scope["path"] == "/half":
                await asyncio.Event().wait()
            return
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    released = asyncio.Event()
    """


def ask(process: ServerProcess, path: str) -> Client:
    client = process.connect()
    client.send(HEAD % path.encode())
    return client


class TestStart:
    def test_lines(self, spawn: Spawn) -> None:
        process = spawn(APP, "--no-use-colors")
        port = process.port
        assert process.err == [
            f"INFO:     Started server process [{process.pid}]\n",
            "INFO:     Waiting for application startup.\n",
            "INFO:     Application startup complete.\n",
            f"INFO:     Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)\n",
        ]

    @pytest.mark.parametrize(
        ("source", "arguments", "sentence"),
        [
            ("other = 1", (), "app"),
            ("app = 5", (), "not an ASGI application"),
            ("raise KeyError('the reason')", (), "the reason"),
            ("import no_such_module", (), "no_such_module"),
            ("def app(:", (), "SyntaxError"),
            (APP, ("--ssl-certfile", "/no/such/file"), "/no/such/file"),
            (APP, ("--bind", "unix:/no/such/folder/a.sock", "--lifespan", "off"), "/no/such/folder"),
            (APP, ("--fd", "77"), "77"),
            (APP, ("--bind", "systemd"), "LISTEN_FDS"),
            (APP, ("--loop", "no_such:loop"), "no_such"),
        ],
    )
    def test_failures_end_with_3(
        self, spawn: Spawn, source: str, arguments: tuple[str, ...], sentence: str
    ) -> None:
        process = spawn(source, *arguments)
        assert process.wait_exit() == 3
        assert process.err[-1].startswith("Error: ")
        assert sentence in process.text
        assert ("Traceback" in process.text) is source.startswith(("raise", "import no"))

    def test_traceback_begins_in_the_application(self, spawn: Spawn) -> None:
        process = spawn("def inner():\n    raise KeyError('the reason')\n\ninner()\n")
        process.wait_exit()
        files = [line for line in process.err if line.startswith("  File ")]
        assert all("app.py" in line for line in files)
        assert len(files) == 2

    def test_port_in_use(self, spawn: Spawn) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            process = spawn(APP, "--port", str(taken.getsockname()[1]))
            assert process.wait_exit() == 3
        assert "already in use" in process.err[-1]
        # The application had been started, so it is stopped.
        assert process.out == ["lifespan startup\n", "lifespan shutdown\n"]

    @pytest.mark.parametrize(
        ("what", "arguments"),
        [
            ('await send({"type": "lifespan.startup.failed", "message": "no database"})', ()),
            ('raise RuntimeError("no database")', ("--lifespan", "on")),
        ],
    )
    def test_lifespan_failure(self, spawn: Spawn, what: str, arguments: tuple[str, ...]) -> None:
        source = f"async def app(scope, receive, send):\n    await receive()\n    {what}\n"
        process = spawn(source, *arguments)
        assert process.wait_exit() == 3
        assert "no database" in process.err[-1]
        assert "Application startup failed. Exiting." in process.text

    def test_application_without_lifespan_is_served(self, spawn: Spawn) -> None:
        process = spawn("async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n")
        assert process.connect().request().status == 500
        assert "ASGI 'lifespan' protocol appears unsupported." in process.text

    def test_lifespan_start_over_its_limit(self, spawn: Spawn) -> None:
        source = "import asyncio\n\nasync def app(scope, receive, send):\n    await asyncio.Event().wait()\n"
        process = spawn(source, "--timeout-startup", "0.1")
        assert process.wait_exit() == 3
        assert "0.1 s" in process.err[-1]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal_while_the_application_starts(self, spawn: Spawn, number: int) -> None:
        source = """
            import asyncio

            async def app(scope, receive, send):
                print("starting", flush=True)
                await asyncio.Event().wait()
            """
        process = spawn(source)
        process.wait_line("starting")
        process.signal(number)
        assert process.wait_exit() == (-signal.SIGTERM if number == signal.SIGTERM else 0)
        assert "Uvicorn running" not in process.text


class TestStop:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_exit_codes_and_lines(self, spawn: Spawn, number: int, code: int, loop: str) -> None:
        process = spawn(APP, "--no-use-colors", "--loop", loop)
        assert process.port
        process.signal(number)
        assert process.wait_exit() == code
        assert process.err[-4:] == [
            "INFO:     Shutting down\n",
            "INFO:     Waiting for application shutdown.\n",
            "INFO:     Application shutdown complete.\n",
            f"INFO:     Finished server process [{process.pid}]\n",
        ]

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_fifty_requests_under_way(self, spawn: Spawn, loop: str) -> None:
        source = """
            import asyncio

            begun = 0
            go = asyncio.Event()

            async def app(scope, receive, send):
                global begun
                begun += 1
                if begun == 50:
                    print("all begun", flush=True)
                    asyncio.get_running_loop().call_soon(look)
                await go.wait()
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
                await send({"type": "http.response.body", "body": scope["path"].encode()})

            def look():
                # Goes on when the stop has begun: no listener is left.
                import gc
                from headrace import Server
                gc.unfreeze()  # what was there at the start is not listed else
                server = [o for o in gc.get_objects() if isinstance(o, Server)][0]
                if server.started:
                    asyncio.get_running_loop().call_later(0.01, look)
                else:
                    go.set()
            """
        process = spawn(source, "--loop", loop, "--lifespan", "off")
        clients = [ask(process, f"/{number}") for number in range(50)]
        process.wait_line("all begun")
        process.signal()
        for number, client in enumerate(clients):
            response = client.read_response()
            assert response.is_whole
            assert response.get("connection") == "close"
            assert response.body == b"x" * 100_000 + b"/%d" % number
            assert client.is_ended()
        assert process.wait_exit() == -signal.SIGTERM
        assert len([line for line in process.out if "HTTP/1.1" in line]) == 50

    def test_idle_connections_are_closed(self, spawn: Spawn) -> None:
        process = spawn(APP, "--timeout-keep-alive", "600")
        idle = [process.connect() for _ in range(5)]
        for client in idle:
            assert client.request().status == 200
        process.signal()
        assert all(client.is_ended() for client in idle)
        assert process.wait_exit() == -signal.SIGTERM

    def test_event_streams_are_told_and_ended(self, spawn: Spawn) -> None:
        process = spawn(APP, "--timeout-graceful-shutdown", "600")
        client = ask(process, "/events")
        client.send(b"")
        assert b"text/event-stream" in client.read_until(b"data: 1\n\n\r\n")
        process.signal()
        # A whole response, not a cut one.
        assert client.read_until(b"0\r\n\r\n") == b"0\r\n\r\n"
        assert client.is_ended()
        assert process.wait_exit() == -signal.SIGTERM
        assert "told http.disconnect\n" in process.out

    def test_other_streams_are_told_later_and_cancelled_in_the_end(self, spawn: Spawn) -> None:
        process = spawn(APP, "--timeout-graceful-shutdown", "0.4")
        client = ask(process, "/half")
        client.read_until(b"data: 1\n\n\r\n")
        process.signal()
        assert client.is_ended()
        assert process.wait_exit() == -signal.SIGTERM
        assert "told http.disconnect\n" in process.out
        assert "Cancel 1 running task(s), timeout graceful shutdown exceeded" in process.text

    def test_cancelled_at_the_timeout(self, spawn: Spawn) -> None:
        process = spawn(APP, "--timeout-graceful-shutdown", "0.2")
        client = ask(process, "/stuck")
        process.wait_line("stuck begun")
        process.signal()
        response = client.read_response()
        assert (response.status, response.get("retry-after")) == (503, "1")
        assert process.wait_exit() == -signal.SIGTERM
        assert "stuck cancelled: Task cancelled, timeout graceful shutdown exceeded\n" in process.out
        # The application is stopped behind its last request.
        assert process.out[-1] == "lifespan shutdown\n" or "503" in process.out[-1]
        assert process.out.index("lifespan shutdown\n") > process.out.index(
            "stuck cancelled: Task cancelled, timeout graceful shutdown exceeded\n"
        )

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_second_signal_forces(self, spawn: Spawn, number: int) -> None:
        process = spawn(APP, "--timeout-graceful-shutdown", "600", "--drain-delay", "600")
        client = ask(process, "/stuck")
        process.wait_line("stuck begun")
        process.signal(number)
        process.wait_line("Shutting down")
        process.signal(number)
        assert process.wait_exit() == (-signal.SIGTERM if number == signal.SIGTERM else 0)
        assert client.is_ended()
        assert "lifespan shutdown\n" not in process.out

    def test_drain_delay_keeps_accepting(self, spawn: Spawn) -> None:
        process = spawn(APP, "--drain-delay", "600")
        slow = ask(process, "/slow")
        process.wait_line("slow begun")
        process.signal()
        process.wait_line("Shutting down")
        late = process.connect()
        response = late.request("/release")
        assert (response.body, response.get("connection")) == (b"/release", "close")
        assert late.is_ended()
        assert slow.read_response().body == b"/slow"
        process.signal()
        process.wait_exit()

    def test_new_connections_are_refused_behind_it(self, spawn: Spawn) -> None:
        process = spawn(APP)
        slow = ask(process, "/slow")
        process.wait_line("slow begun")
        port = process.port
        process.signal()
        process.wait_line("Waiting for connections to close")

        def is_refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                return True
            return False

        eventually(is_refused)
        process.signal()
        assert slow.is_ended()

    def test_request_in_the_kernels_queue_is_answered(self, spawn: Spawn) -> None:
        # The loop is blocked while a client connects and asks; the signal comes before it is accepted.
        source = """
            import os, signal, socket

            async def app(scope, receive, send):
                if scope["path"] == "/block":
                    late = socket.create_connection(scope["server"])
                    late.sendall(b"GET /late HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n")
                    os.kill(os.getpid(), signal.SIGTERM)
                    app.late = late
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"x"})
            """
        process = spawn(source, "--lifespan", "off")
        assert process.connect().request("/block").status == 200
        assert process.wait_exit() == -signal.SIGTERM
        assert any("/late" in line for line in process.out)

    def test_lifespan_stop_over_its_limit(self, spawn: Spawn) -> None:
        source = """
            import asyncio

            async def app(scope, receive, send):
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await asyncio.Event().wait()
            """
        process = spawn(source, "--timeout-shutdown", "0.1")
        assert process.port
        process.signal()
        assert process.wait_exit() == -signal.SIGTERM
        assert "Application shutdown took longer than 0.1 s." in process.text

    def test_sse_starlette_sees_the_stop(self, spawn: Spawn) -> None:
        source = """
            import asyncio
            from sse_starlette import EventSourceResponse
            from starlette.applications import Starlette
            from starlette.routing import Route

            async def events(request):
                async def forever():
                    try:
                        yield "first"
                        await asyncio.Event().wait()
                    finally:
                        print("stream ended", flush=True)
                return EventSourceResponse(forever())

            app = Starlette(routes=[Route("/", events)])
            """
        process = spawn(source, "--timeout-graceful-shutdown", "600")
        client = ask(process, "/")
        client.read_until(b"first")
        process.signal()
        client.read_until(b"0\r\n\r\n")
        assert process.wait_exit() == -signal.SIGTERM
        assert "stream ended\n" in process.out
        assert "Exception" not in process.text


def notify_socket(folder: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(folder / "notify"))
    sock.settimeout(15)
    return sock


def test_systemd_is_told(spawn: Spawn, tmp_path: Path) -> None:
    with notify_socket(tmp_path) as manager:
        process = spawn(APP, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100) == b"READY=1"
        # Ready means ready: no waiting for the port here.
        assert process.connect().request().status == 200
        process.signal()
        assert manager.recv(100) == b"STOPPING=1"
        process.wait_exit()


def test_sockets_of_systemd(spawn: Spawn, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # As systemd does it: descriptor 3, and the variables name the process that execs the server.
        launcher = tmp_path / "launch.py"
        launcher.write_text(
            "import os, sys\n"
            f"os.dup2({listener.fileno()}, 3, inheritable=True)\n"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'headrace', *sys.argv[1:]])\n"
        )
        (tmp_path / "app.py").write_text(
            "async def app(scope, receive, send):\n"
            "    await send({'type': 'http.response.start', 'status': 200})\n"
            "    await send({'type': 'http.response.body', 'body': b'activated'})\n"
        )
        process: Any = subprocess.Popen(
            [sys.executable, str(launcher), "run", "app:app", "--bind", "systemd"],
            cwd=tmp_path,
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            client = Client(socket.create_connection(("127.0.0.1", port)))
            assert client.request().body == b"activated"
            client.close()
        finally:
            process.terminate()
            process.wait(15)
