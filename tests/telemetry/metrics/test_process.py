"""What a process and its event loop say of themselves."""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from headrace.server.loops import loop_factory
from headrace.telemetry.metrics import process
from headrace.telemetry.metrics.loop import LAG, LoopMetrics
from headrace.telemetry.metrics.process import ProcessMetrics
from headrace.telemetry.metrics.registry import Registry
from live import MIB, PATIENCE_S
from scrape import Figures, figures_in

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="figures come from /proc")


def sampled(metrics: ProcessMetrics, registry: Registry) -> Figures:
    metrics.sample()
    return figures_in(registry)


@needs_proc
class TestProcess:
    def test_names_that_dashboards_know(self) -> None:
        registry = Registry()
        found = sampled(ProcessMetrics(registry, "3"), registry)
        assert {line for line in found if line.startswith("process_")} == {
            f'process_{name}{{worker="3"}}'
            for name in (
                "cpu_seconds_total", "max_fds", "open_fds", "resident_memory_bytes", "start_time_seconds",
                "threads", "virtual_memory_bytes",
            )
        }  # fmt: skip

    def test_memory(self) -> None:
        registry = Registry()
        metrics = ProcessMetrics(registry, "1")
        line = 'process_resident_memory_bytes{worker="1"}'
        before = sampled(metrics, registry)[line]
        # Not of the heap, which may have as much to spare.
        with mmap.mmap(-1, 64 * MIB) as held:
            held.write(bytes(64 * MIB))
            assert 48 * MIB < sampled(metrics, registry)[line] - before < 160 * MIB

    def test_descriptors(self) -> None:
        registry = Registry()
        metrics = ProcessMetrics(registry, "1")
        line = 'process_open_fds{worker="1"}'
        before = sampled(metrics, registry)[line]
        assert before == len(os.listdir("/proc/self/fd")) - 1
        fds = os.pipe()
        assert sampled(metrics, registry)[line] == before + 2
        for fd in fds:
            os.close(fd)

    def test_descriptors_where_they_must_be_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Kernels before 6.2 give the folder no size."""
        real = os.stat

        def without_size(path: str) -> os.stat_result:
            fields = list(real(path))
            fields[6] = 0
            return os.stat_result(fields)

        monkeypatch.setattr(process.os, "stat", without_size)
        registry = Registry()
        metrics = ProcessMetrics(registry, "1")
        line = 'process_open_fds{worker="1"}'
        before = sampled(metrics, registry)[line]
        fds = os.pipe()
        assert before == len(os.listdir("/proc/self/fd")) - 3
        looks = [sampled(metrics, registry)[line] for _ in range(process.FD_LOOKS)]
        assert looks == [before] * (process.FD_LOOKS - 1) + [before + 2]
        for fd in fds:
            os.close(fd)

    def test_threads(self) -> None:
        registry = Registry()
        metrics = ProcessMetrics(registry, "1")
        line = 'process_threads{worker="1"}'
        before = sampled(metrics, registry)[line]
        go = threading.Event()
        thread = threading.Thread(target=go.wait, args=(PATIENCE_S,))
        thread.start()
        assert sampled(metrics, registry)[line] == before + 1
        go.set()
        thread.join()

    def test_cpu_and_start(self) -> None:
        script = (
            "import time; from headrace.telemetry.metrics.process import *; r = Registry();"
            "m = ProcessMetrics(r, '1'); m.sample();"
            "print(r.counter(CPU).labels('1').get(), r.gauge(START).labels('1').get())"
        )
        before_s = time.time()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        cpu_s, start_s = map(float, done.stdout.split())
        assert 0 < cpu_s < PATIENCE_S
        # A tick of the kernel's is 10 ms.
        assert before_s - 0.02 <= start_s <= time.time()

    def test_collections(self) -> None:
        registry = Registry()
        metrics = ProcessMetrics(registry, "1")
        line = 'python_gc_collections_total{worker="1",generation="2"}'
        before = sampled(metrics, registry)[line]
        gc.collect()
        assert sampled(metrics, registry)[line] == before + 1

    def test_another_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there is no /proc the figures are fewer, and true as far as they go."""
        monkeypatch.setattr(process, "_proc_stat", list)
        registry = Registry()
        found = sampled(ProcessMetrics(registry, "1"), registry)
        assert found['process_resident_memory_bytes{worker="1"}'] > 5 * MIB
        assert found['process_threads{worker="1"}'] == threading.active_count()
        assert abs(found['process_start_time_seconds{worker="1"}'] - time.time()) < PATIENCE_S


def in_loop(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run it in an event loop of that name."""

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await work()

    with asyncio.Runner(loop_factory=loop_factory(name)) as runner:
        runner.run(run())


class TestLoop:
    def test_blocked_loop(self, loop_name: str) -> None:
        registry = Registry()

        async def block() -> None:
            metrics = LoopMetrics(registry)
            metrics.start()
            lag = registry.histogram(LAG).labels()
            time.sleep(0.3)
            while not sum(lag.values[:-1]):
                await asyncio.sleep(0.001)
            metrics.stop()

        in_loop(loop_name, block)
        found = figures_in(registry)
        # It was to be looked at after 0.1 s, and was after 0.3 s at least.
        assert found['headrace_event_loop_lag_seconds_bucket{le="0.1"}'] == 0
        assert found["headrace_event_loop_lag_seconds_sum"] >= 0.19

    def test_samples(self, loop_name: str) -> None:
        looks: list[float] = []

        async def wait() -> None:
            metrics = LoopMetrics(Registry(), lambda: looks.append(asyncio.get_running_loop().time()))
            metrics.start()
            assert len(looks) == 1
            while len(looks) < 2:
                await asyncio.sleep(0.01)
            metrics.stop()
            assert len(looks) == 3
            metrics.stop()
            assert len(looks) == 3

        in_loop(loop_name, wait)

    def test_pauses(self, loop_name: str) -> None:
        registry = Registry()
        callbacks = list(gc.callbacks)

        async def collect() -> None:
            metrics = LoopMetrics(registry)
            metrics.start()
            for generation in (0, 2, 2):
                gc.collect(generation)
            metrics.stop()

        gc.disable()
        try:
            in_loop(loop_name, collect)
        finally:
            gc.enable()
        found = figures_in(registry)
        counts = [found[f'headrace_gc_pause_seconds_count{{generation="{number}"}}'] for number in range(3)]
        assert counts == [1, 0, 2]
        assert found['headrace_gc_pause_seconds_sum{generation="2"}'] > 0
        assert gc.callbacks == callbacks

    def test_collection_while_the_registry_is_locked(self, loop_name: str) -> None:
        """It may begin within any statement of the same thread."""
        registry = Registry()

        async def collect() -> None:
            metrics = LoopMetrics(registry)
            metrics.start()
            with registry._lock, registry._making:
                gc.collect()
            metrics.stop()

        in_loop(loop_name, collect)
        assert figures_in(registry)['headrace_gc_pause_seconds_count{generation="2"}'] >= 1
