"""Workers are replaced without loss: reload, limits, scale, and who leads."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

import headrace
from headrace.errors import WorkerError
from live import Client, eventually
from load import Load
from supervised import APP, Supervised, is_alive
from websocket_client import connect

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are read from /proc")

Supervise = Callable[..., Supervised]

NEW = APP.replace('path, body = scope["path"], PID', 'path, body = scope["path"], b"new"')


def body(server: Supervised, path: str = "/") -> bytes:
    """Of one response, on a connection of its own."""
    client = server.connect()
    try:
        return client.request(path, headers=["connection: close"]).body
    finally:
        client.close()


def reload(server: Supervised, word: str = r"Reloaded\.") -> None:
    """Reload, and wait until the log says how it ended."""
    before = len([line for line in server.err if word.replace("\\", "") in line])
    server.signal(signal.SIGHUP)
    eventually(lambda: len([line for line in server.err if word.replace("\\", "") in line]) > before)


class TestReload:
    def test_ten_under_load_lose_nothing(self, supervise: Supervise) -> None:
        server = supervise(workers=2)
        workers = server.wait_ready(2)
        with Load(server.port, 200, pause_s=0.05) as load:
            sockets = [connect(server) for _ in range(20)]
            for _ in range(10):
                eventually(lambda: all(load.answers[str(pid)] for pid in server.workers()))
                reload(server)
                for websocket in sockets:
                    assert websocket.read_close()[0] == 1012
                    websocket.send_close(1012)
                    websocket.close()
                # They can come back at once.
                sockets = [connect(server) for _ in range(20)]
                for websocket in sockets:
                    websocket.send_text("x")
                    assert websocket.read_message()
                assert not set(workers) & set(server.wait_ready(2))
                workers = server.workers()
        assert load.failures == []
        assert load.requests > 200

    def test_request_under_way_is_answered(self, supervise: Supervise) -> None:
        server = supervise(workers=2)
        server.wait_ready(2)
        client = server.connect()
        client.send(b"GET /slow HTTP/1.1\r\nhost: a.test\r\n\r\n")
        reload(server)
        response = client.read_response()
        assert (response.status, response.get("connection")) == (200, "close")

    def test_idle_connection_serves_once_more(self, supervise: Supervise) -> None:
        server = supervise("--worker-lifetime", "3600", workers=1)
        (old,) = server.wait_ready(1)
        client = server.connect()
        assert client.request().get("connection") is None
        reload(server)
        server.wait_line("Shutting down")
        response = client.request()
        assert (response.body, response.get("connection")) == (b"%d" % old, "close")
        assert client.is_ended()

    def test_new_code_comes_in(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise(workers=2)
        server.wait_ready(2)
        (tmp_path / "app.py").write_text(NEW)
        reload(server)
        server.wait_ready(2)
        assert body(server) == b"new"

    def test_start_that_began_before_does_not_count(self, supervise: Supervise, tmp_path: Path) -> None:
        slow = "import time\nprint('importing', flush=True)\ntime.sleep(1.5)\n"
        server = supervise(source=slow + APP, workers=2)
        first, _ = server.wait_ready(2)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: server.text.count("importing") == 3)
        (tmp_path / "app.py").write_text(NEW)
        reload(server)
        server.wait_ready(2)
        assert [body(server) for _ in range(12)] == [b"new"] * 12

    @pytest.mark.parametrize("source", ["1 / 0\n", "syntax error\n", "import os\nos._exit(1)\n"])
    def test_failing_new_version_keeps_the_old_one(
        self, supervise: Supervise, tmp_path: Path, source: str
    ) -> None:
        server = supervise(workers=2)
        workers = server.wait_ready(2)
        (tmp_path / "app.py").write_text(source)
        with Load(server.port, 4) as load:
            reload(server, "The reload came to nothing, what ran before stays")
            assert server.workers() == workers
            served = load.requests
            eventually(lambda: load.requests > served)
        assert load.failures == []
        # The mended version comes in by the next one.
        (tmp_path / "app.py").write_text(NEW)
        reload(server)
        assert not set(server.wait_ready(2)) & set(workers)

    def test_failure_behind_the_first_worker_is_said(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise(workers=2)
        before = server.wait_ready(2)
        # Who makes the file is the only one of the new version that starts.
        (tmp_path / "app.py").write_text("open('taken', 'x').close()\n" + NEW)
        reload(server, "The reload came to an end behind 1 of 2 workers")
        eventually(lambda: len(set(server.workers()) & set(before)) == 1)
        assert len(server.wait_ready(2)) == 2

    def version(self, server: Supervised) -> str | None:
        client = server.connect()
        try:
            return client.request(headers=["connection: close"]).get("x-version")
        finally:
            client.close()

    def test_configuration_is_read_again(self, supervise: Supervise, tmp_path: Path) -> None:
        file = tmp_path / "headrace.toml"
        file.write_text('headers = ["x-version:1"]\n')
        server = supervise(workers=2)
        server.wait_ready(2)
        assert self.version(server) == "1"
        file.write_text('headers = ["x-version:2"]\nbacklog = 5\n')
        reload(server)
        server.wait_line(r"Changed: headers\.")
        server.wait_line(r"only a restart can take it: backlog\.")
        server.wait_ready(2)
        assert self.version(server) == "2"
        file.write_text("nonsense = 1\n")
        reload(server, "The reload came to nothing")
        server.wait_line("unknown key 'nonsense'")
        assert self.version(server) == "2"

    def test_certificate_comes_in(self, supervise: Supervise, tmp_path: Path) -> None:
        authority = trustme.CA()
        context = ssl.create_default_context()
        authority.configure_trust(context)

        def issue() -> int:
            certificate = authority.issue_cert("a.test")
            certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
            der = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())
            return hash(der)

        def shown() -> int:
            sock = context.wrap_socket(server.connect().sock, server_hostname="a.test")
            client = Client(sock)
            assert client.request(headers=["connection: close"]).status == 200
            seen = hash(sock.getpeercert(binary_form=True))
            client.close()
            return seen

        first = issue()
        # No look at the files between reloads.
        server = supervise("--ssl-certfile", "server.pem", "--ssl-reload-interval", "0", workers=2)
        server.wait_ready(2)
        assert shown() == first
        second = issue()
        reload(server)
        server.wait_ready(2)
        assert shown() == second
        (tmp_path / "server.pem").write_text("broken")
        reload(server, "The reload came to nothing")
        assert shown() == second


class TestLimits:
    def test_max_requests_under_load_lose_nothing(self, supervise: Supervise) -> None:
        server = supervise("--limit-max-requests", "500", "--limit-max-requests-jitter", "100", workers=2)
        server.wait_ready(2)
        with Load(server.port, 50, pause_s=0.01) as load:
            websockets = [connect(server) for _ in range(5)]
            eventually(lambda: len(load.answers) >= 6)
        assert load.failures == []
        assert server.text.count("is replaced: it has served") >= 4
        for websocket in websockets:
            websocket.close()

    def test_memory(self, supervise: Supervise) -> None:
        source = APP.replace(
            'path == "/slow"',
            'path == "/grow":\n        HELD.append(bytearray(b"x") * 300_000_000)\n    elif path == "/slow"',
        )
        source = source.replace("PID = ", "HELD = []\nPID = ", 1)
        server = supervise("--limit-worker-memory", "250000000", source=source, workers=1)
        (old,) = server.wait_ready(1)
        assert body(server, "/grow") == b"%d" % old
        server.wait_line(r"is replaced: it holds \d+ MiB, more than 238")
        eventually(lambda: not is_alive(old))
        assert body(server) != b"%d" % old

    def test_memory_limit_below_the_start(self, supervise: Supervise) -> None:
        server = supervise("--limit-worker-memory", "2000000", workers=1)
        server.wait_line("below what it holds when it starts")
        (only,) = server.wait_ready(1)
        assert body(server) == b"%d" % only

    def test_lifetime(self, supervise: Supervise) -> None:
        server = supervise("--worker-lifetime", "1", workers=1)
        (old,) = server.wait_ready(1)
        server.wait_line(r"is replaced: it has lived for 1 s")
        eventually(lambda: not is_alive(old))
        assert body(server)


class TestScale:
    def test_ttin_and_ttou(self, supervise: Supervise) -> None:
        server = supervise(workers=2)
        server.wait_ready(2)
        with Load(server.port, 8, pause_s=0.01) as load:
            server.signal(signal.SIGTTIN)
            server.wait_ready(3)
            for number in (2, 1):
                server.signal(signal.SIGTTOU)
                server.wait_line(rf"{number} workers instead of {number + 1}\.")
            # It never goes below one.
            server.signal(signal.SIGTTOU)
            eventually(lambda: len(server.workers()) == 1)
            (last,) = server.workers()
            eventually(lambda: load.answers[str(last)])
        assert load.failures == []


class TestLeader:
    def leaders(self, server: Supervised) -> set[int]:
        """Process numbers that say they lead, of those asked until each worker has answered."""
        said: dict[int, bool] = {}
        while set(server.workers()) - set(said):
            pid, leads = body(server, "/leader").split()
            said[int(pid)] = leads == b"1"
        return {pid for pid in server.workers() if said[pid]}

    def test_there_is_one_and_it_moves_when_it_dies(self, supervise: Supervise) -> None:
        server = supervise(workers=2)
        server.wait_ready(2)
        (first,) = self.leaders(server)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not is_alive(first))
        server.wait_ready(2)
        # The word reaches the next one when the old one has gone.
        eventually(lambda: len(self.leaders(server)) == 1)
        (second,) = self.leaders(server)
        assert second != first
        reload(server)
        server.wait_ready(2)
        eventually(lambda: len(self.leaders(server)) == 1)
        assert not self.leaders(server) & {first, second}

    def test_lifespan_knows_it(self, supervise: Supervise) -> None:
        source = APP.replace(
            "        while True:",
            "        print('leads', bool(scope['state']['headrace.leader']), flush=True)\n"
            "        while True:",
            1,
        )
        server = supervise(source=source, workers=3)
        server.wait_ready(3)
        assert sorted(line for line in server.out if line.startswith("leads")) == [
            "leads False\n", "leads False\n", "leads True\n",
        ]  # fmt: skip

    def test_function_for_code_without_a_scope(self, supervise: Supervise) -> None:
        source = APP.replace("import asyncio, os, time", "import asyncio, os, time, headrace").replace(
            'bool(scope["state"]["headrace.leader"])', "bool(headrace.leadership())"
        )
        server = supervise(source=source, workers=2)
        server.wait_ready(2)
        assert len(self.leaders(server)) == 1
        with pytest.raises(WorkerError, match="knows no server here"):
            headrace.leadership()

    def test_single_process_leads(self, spawn: Callable[..., Supervised]) -> None:
        assert body(spawn(APP), "/leader").endswith(b" 1")
