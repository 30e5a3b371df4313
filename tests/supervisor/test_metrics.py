"""The figures of several workers on one page: sums, replaced workers, the application's own metrics."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.server.seat import Cause
from headrace.supervisor.metrics import Books, end_cause
from headrace.telemetry.metrics.exposition import Format
from headrace.telemetry.metrics.family import Family, Kind
from headrace.telemetry.metrics.page import PageKind
from headrace.telemetry.metrics.registry import Registry
from live import PATIENCE_S, eventually
from load import Load
from scrape import Figures, figures_of, read_page, scrape, tool, total
from supervised import Supervised

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are read from /proc")

Supervise = Callable[..., Supervised]

APP = """
import os, signal
from prometheus_client import Counter, Gauge, Histogram, Info
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
import headrace.metrics

ORDERS = Counter("orders", "Orders.", ["kind"])
WAIT = Histogram("wait_seconds", "Waited.", buckets=(0.5, 1))
ROOMS = Gauge("rooms", "Rooms.", multiprocess_mode="livesum")
HIGHEST = Gauge("highest", "Highest.", multiprocess_mode="max")
IMPORTED = Counter("imported", "Imports.")
IMPORTED.inc()
ROOMS.set(3)
HIGHEST.set(os.getpid())
Info("release", "Release.").info({"version": "1.2"})
SCANNED = Counter("scanned", "Paths.", ["path"])

async def hello(request):
    ORDERS.labels("a").inc()
    WAIT.observe(0.75)
    return PlainTextResponse(str(os.getpid()))

async def scan(request):
    SCANNED.labels(request.path_params["path"]).inc()
    return PlainTextResponse("")

async def fork(request):
    child = os.fork()
    if child == 0:
        ORDERS.labels("a").inc(1000)
        os._exit(0)
    os.waitpid(child, 0)
    return PlainTextResponse("")

app = Starlette(routes=[
    Route("/", hello), Route("/orders/{number}", hello), Route("/scan/{path}", scan), Route("/fork", fork),
    Mount("/metrics", headrace.metrics.asgi_app()),
])
"""

DURATIONS = "http_request_duration_seconds_count"

KILLS = 20
LOST_AT_MOST = KILLS * 32
"""What headrace had not written yet when a worker was killed is lost: a batch, or a tenth of a second."""


def start(supervise: Supervise, *arguments: str, workers: int = 4) -> Supervised:
    """A supervisor with metrics whose workers have said that they serve."""
    server = supervise(
        "--metrics", "--no-access-log", *arguments, source=APP, workers=workers,
        env={"PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )  # fmt: skip
    if "--preload" in arguments:
        # They are not the supervisor's children, but its children's.
        eventually(lambda: server.text.count("is ready.") == workers)
    else:
        server.wait_ready(workers)
    return server


def ready(server: Supervised) -> list[int]:
    """Workers that serve."""
    return [pid for pid in server.workers() if f"[{pid}] is ready" in server.text]


def ask_each(server: Supervised, workers: int, target: str = "/") -> int:
    """Ask on new connections until each worker has answered; gives how many requests that took."""
    answered: set[bytes] = set()
    count = 0
    while len(answered) < workers:
        answered.add(server.connect().request(target).body)
        count += 1
    return count


def wait_total(server: Supervised, folder: Path, name: str, number: float) -> Figures:
    """Wait until a metric's series add up to a number; give the page that says so."""
    found: list[Figures] = []

    def is_there() -> bool:
        found[:] = [scrape(server, folder)]
        return total(found[0], name) == number

    eventually(is_there, f"{name} = {number}")
    return found[0]


class TestSums:
    def test_over_four_workers(self, supervise: Supervise, tmp_path: Path) -> None:
        server = start(supervise)
        count = ask_each(server, 4)
        count += ask_each(server, 4, "/orders/17")
        figures = wait_total(server, tmp_path, DURATIONS, count)
        labels = '{method="GET",endpoint="/orders/{number}",status="200"}'
        assert 4 <= figures[DURATIONS + labels] < count
        assert figures['orders_total{kind="a"}'] == count
        assert figures["imported_total"] == 4
        assert figures['wait_seconds_bucket{le="0.5"}'] == 0
        assert figures['wait_seconds_bucket{le="1.0"}'] == figures["wait_seconds_count"] == count
        assert figures["wait_seconds_sum"] == 0.75 * count
        assert figures["rooms"] == 12
        assert figures["highest"] == max(server.workers())
        assert figures['release_info{version="1.2"}'] == 1
        assert figures['headrace_workers{state="ready"}'] == figures["headrace_workers_target"] == 4
        # The supervisor's own figures stand beside those of the workers.
        for name in ("process_resident_memory_bytes", "process_cpu_seconds_total"):
            assert all(figures[f'{name}{{worker="{worker}"}}'] > 0 for worker in range(5))

    def test_values_from_before_the_fork(self, supervise: Supervise, tmp_path: Path) -> None:
        server = start(supervise, "--preload", workers=3)
        count = ask_each(server, 3)
        figures = wait_total(server, tmp_path, DURATIONS, count)
        # As if each had imported the application itself.
        assert figures["imported_total"] == 3
        assert figures["rooms"] == 9
        assert figures['orders_total{kind="a"}'] == count
        assert figures['release_info{version="1.2"}'] == 1

    def test_process_that_the_application_forks_counts_for_itself(
        self, supervise: Supervise, tmp_path: Path
    ) -> None:
        server = start(supervise, workers=2)
        ask_each(server, 2)
        before = scrape(server, tmp_path)['orders_total{kind="a"}']
        assert server.connect().request("/fork").status == 200
        assert scrape(server, tmp_path)['orders_total{kind="a"}'] == before
        count = ask_each(server, 2)
        assert scrape(server, tmp_path)['orders_total{kind="a"}'] == before + count

    def test_scan_of_paths_keeps_the_limit(self, supervise: Supervise, tmp_path: Path) -> None:
        server = start(supervise, "--metrics-max-series", "40", workers=2)
        client = server.connect()
        for prefix, status in (("/scan/", 200), ("/nowhere/", 404)):
            for number in range(1_000):
                assert client.request(f"{prefix}{number}").status == status
        figures = wait_total(server, tmp_path, DURATIONS, 2_000)
        assert sum(line.startswith("scanned_total") for line in figures) == 40
        assert figures['headrace_series_dropped_total{metric="scanned"}'] == 960
        assert sum(line.startswith(DURATIONS) for line in figures) == 2
        assert figures[DURATIONS + '{method="GET",endpoint="unmatched",status="404"}'] == 1_000


class TestReplacedWorkers:
    def test_counters_never_fall(self, supervise: Supervise, tmp_path: Path) -> None:
        server = start(supervise)
        before = scrape(server, tmp_path)

        def look() -> Figures:
            nonlocal before
            after = scrape(server, tmp_path)
            fallen = {
                line: (number, after.get(line))
                for line, number in before.items()
                if _is_counter(line) and not after.get(line, -1) >= number
            }
            assert not fallen
            before = after
            return after

        with Load(server.port, 8) as load:
            for count in range(1, KILLS + 1):
                requests = load.requests
                os.kill(eventually(lambda: ready(server))[0], signal.SIGKILL)
                eventually(
                    lambda count=count: look()['headrace_worker_restarts_total{reason="killed"}'] == count
                )
                eventually(lambda requests=requests: load.requests > requests)
            server.wait_ready(4)
            # So many that what may be lost is a part of them.
            eventually(lambda: load.requests > 4 * LOST_AT_MOST)
        figures = eventually(lambda: (found := look())['headrace_workers{state="ready"}'] == 4 and found)
        # Of a request that was killed with its worker the client has no answer, but it has been counted.
        assert figures['orders_total{kind="a"}'] >= load.requests
        assert total(figures, DURATIONS) >= load.requests - LOST_AT_MOST
        assert figures["imported_total"] == 24
        assert figures["rooms"] == 12
        # One store for each worker that lives, and none is left of the others.
        eventually(lambda: _stores_of(server.pid) == 4)

    def test_reasons(self, supervise: Supervise, tmp_path: Path) -> None:
        server = start(supervise, "--limit-max-requests", "30", workers=2)
        server.signal(signal.SIGHUP)
        server.wait_line(r"Reloaded\.")
        figures = scrape(server, tmp_path)
        assert figures['headrace_worker_restarts_total{reason="reload"}'] == 2
        os.kill(server.wait_ready(2)[0], signal.SIGTERM)

        def restarts(reason: str) -> float:
            return scrape(server, tmp_path)[f'headrace_worker_restarts_total{{reason="{reason}"}}']

        eventually(lambda: restarts("signal") == 1)
        server.wait_ready(2)
        client = server.connect()
        while client.request("/").get("connection") != "close":
            pass
        eventually(lambda: restarts("requests") == 1)
        names = [line.partition("{")[0] for line in scrape(server, tmp_path)]
        assert names.count("headrace_worker_restarts_total") == len(Cause)

    def test_worker_that_never_came_up_leaves_nothing(self, supervise: Supervise, tmp_path: Path) -> None:
        server = start(supervise, workers=2)
        (tmp_path / "app.py").write_text("raise OSError('no')")
        server.signal(signal.SIGHUP)
        server.wait_line("The reload came to nothing")
        assert scrape(server, tmp_path)["imported_total"] == 2
        eventually(lambda: _stores_of(server.pid) == 2)

    def test_worker_without_memory_for_its_figures_serves(self, supervise: Supervise, tmp_path: Path) -> None:
        server = start(supervise, workers=2)
        # No file may be as large as a store.
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        for count in (1, 2):
            os.kill(server.wait_ready(2)[0], signal.SIGKILL)
            eventually(lambda count=count: server.text.count("is ready.") == 2 + count)
            ask_each(server, 2)
        assert server.text.count("There is no memory for a worker's metrics") == 1
        assert scrape(server, tmp_path)['headrace_worker_restarts_total{reason="killed"}'] == 2

    def test_scrape_waits_for_no_worker(self, supervise: Supervise, tmp_path: Path) -> None:
        server = start(supervise, "--timeout-worker-healthcheck", "60", workers=2)
        count = ask_each(server, 2)
        wait_total(server, tmp_path, DURATIONS, count)
        workers = server.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        for _ in range(3):
            assert total(scrape(server, tmp_path), DURATIONS) == count
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        assert ask_each(server, 2) >= 2


class TestPage:
    def test_mounted_in_the_application(self, supervise: Supervise, tmp_path: Path) -> None:
        server = start(supervise, workers=2)
        count = ask_each(server, 2)
        wait_total(server, tmp_path, DURATIONS, count)
        client = server.connect()
        response = client.request("/metrics", headers=["accept-encoding: gzip"])
        figures = figures_of(zlib.decompress(response.body, 31).decode())
        assert figures['orders_total{kind="a"}'] == count
        assert figures['headrace_workers{state="ready"}'] == 2
        assert client.request("/metrics", headers=["accept: application/openmetrics-text"]).body.endswith(
            b"# EOF\n"
        )

    def test_many_at_once(self, supervise: Supervise, tmp_path: Path) -> None:
        """As large as the pipe is narrow, and everybody gets a whole one."""
        server = start(supervise, workers=2)
        for number in range(1_500):
            server.connect().request(f"/scan/{number:0200}", headers=["connection: close"])
        eventually(lambda: sum("scanned_total" in line for line in scrape(server, tmp_path)) == 1_500)
        clients = [server.connect() for _ in range(20)]
        for client in clients:
            client.send(b"GET /metrics HTTP/1.1\r\nhost: a.test\r\n\r\n")
        for client in clients:
            body = client.read_response().body
            assert len(body) > 200 * 1_500
            assert sum(line.startswith("scanned_total") for line in figures_of(body.decode())) == 1_500

    def test_off(self, supervise: Supervise, tmp_path: Path) -> None:
        server = supervise(source=APP, workers=2)
        for pid in server.wait_ready(2):
            assert "headrace-metrics" not in Path(f"/proc/{pid}/maps").read_text()
        assert read_page(server, tmp_path).status == 404
        assert _stores_of(server.pid) == 0

    def test_switched_on_by_a_reload(self, supervise: Supervise, tmp_path: Path) -> None:
        settings = tmp_path / "headrace.toml"
        settings.write_text("metrics = false\n")
        server = supervise("--config", str(settings), source=APP, workers=2)
        server.wait_ready(2)
        settings.write_text("metrics = true\n")
        server.signal(signal.SIGHUP)
        server.wait_line(r"Reloaded\.")
        server.wait_ready(2)
        count = ask_each(server, 2)
        wait_total(server, tmp_path, DURATIONS, count)
        assert scrape(server, tmp_path)['process_open_fds{worker="0"}'] > 0

    def test_promtool_accepts_it(self, supervise: Supervise, tmp_path: Path) -> None:
        promtool = tool("promtool")
        server = start(supervise, workers=2)
        ask_each(server, 2)
        page = read_page(server, tmp_path).body
        done = subprocess.run(
            [promtool, "check", "metrics"], input=page, capture_output=True, timeout=PATIENCE_S
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    def test_single_process(self, spawn: Callable[..., Supervised], tmp_path: Path) -> None:
        environment = {"XDG_RUNTIME_DIR": str(tmp_path), "PYTHONWARNINGS": "ignore::DeprecationWarning"}
        server = spawn(APP, "--metrics", env=environment)
        client = server.connect()
        for _ in range(5):
            client.request("/")
        eventually(lambda: total(scrape(server, tmp_path), DURATIONS) == 5)
        figures = scrape(server, tmp_path)
        assert figures['orders_total{kind="a"}'] == 5
        assert figures["rooms"] == 3
        assert figures["imported_total"] == 1
        assert total(figures, "headrace_build_info") == 1


@pytest.mark.anyio
async def test_a_limit_beyond_the_usual_holds_over_all_workers() -> None:
    books = Books(_nothing, 15_000)
    registry = Registry(books.open(), max_series=15_000)
    scanned = registry.counter(Family("scanned", Kind.COUNTER, "S.", ("path",)))
    for number in range(15_000):
        scanned.labels(str(number)).inc()
    page = await books.page(PageKind(Format.TEXT, False), [], 1)
    assert page.count(b"\nscanned_total{") == 15_000


async def _nothing() -> None:
    pass


class TestCauses:
    @pytest.mark.parametrize(
        ("code", "cause"),
        [
            (0, Cause.EXITED), (7, Cause.EXITED), (-signal.SIGKILL, Cause.KILLED),
            (-signal.SIGSEGV, Cause.CRASHED), (-signal.SIGABRT, Cause.CRASHED),
            (-signal.SIGTERM, Cause.SIGNAL), (-64, Cause.SIGNAL),
        ],
    )  # fmt: skip
    def test_ends(self, code: int, cause: Cause) -> None:
        assert end_cause(code) is cause


def _is_counter(line: str) -> bool:
    name = line.partition("{")[0]
    return name.endswith(("_total", "_count", "_sum", "_bucket"))


def _stores_of(pid: int) -> int:
    """How many stores of metrics a process has a descriptor of, or memory mapped from."""
    folder = Path(f"/proc/{pid}/fd")
    links = []
    for entry in folder.iterdir():
        try:
            links.append(os.readlink(entry))
        except OSError:
            continue  # closed meanwhile
    mapped = Path(f"/proc/{pid}/maps").read_text().count("headrace-metrics")
    return max(mapped, sum("headrace-metrics" in link for link in links))
