"""What a process takes of its machine: memory, CPU time, descriptors, threads, collections of garbage.

Names are those of Prometheus' own clients, so that their dashboards work. Each figure has the label
``worker``, the small number of the worker's place, which the next worker in that place goes on with;
``sum by (instance)`` gives the whole.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

from headrace.telemetry.metrics.family import Family, Kind, Merge
from headrace.telemetry.metrics.registry import Registry

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SUPERVISOR = "0"
"""Stands in the label ``worker`` for the supervisor, whose workers are numbered from 1."""


def _gauge(name: str, text: str) -> Family:
    return Family(name, Kind.GAUGE, text, ("worker",), merge=Merge.LIVESUM)


def _collections(name: str, text: str) -> Family:
    return Family(name, Kind.COUNTER, text, ("worker", "generation"))


CPU = Family("process_cpu_seconds", Kind.COUNTER, "CPU time, user and system, in seconds.", ("worker",))
RESIDENT = _gauge("process_resident_memory_bytes", "Resident memory in bytes.")
VIRTUAL = _gauge("process_virtual_memory_bytes", "Virtual memory in bytes.")
START = _gauge("process_start_time_seconds", "Start of the process, Unix time in seconds.")
OPEN_FDS = _gauge("process_open_fds", "Open file descriptors.")
MAX_FDS = _gauge("process_max_fds", "The most file descriptors that may be open.")
THREADS = _gauge("process_threads", "Threads.")
COLLECTIONS = _collections("python_gc_collections", "Collections of garbage.")
COLLECTED = _collections("python_gc_objects_collected", "Objects that collections of garbage have freed.")
UNCOLLECTABLE = _collections("python_gc_objects_uncollectable", "Garbage that could not be freed.")

FAMILIES = (
    CPU, RESIDENT, VIRTUAL, START, OPEN_FDS, MAX_FDS, THREADS, COLLECTIONS, COLLECTED, UNCOLLECTABLE,
)  # fmt: skip

FD_LOOKS = 10
"""Where descriptors must be counted one by one, which takes milliseconds when there are thousands, only every
so many looks do it."""


class ProcessMetrics:
    """Figures of this process. One thread uses it.

    Args:
        registry: keeps them.
        worker: the label of that name.
    """

    def __init__(self, registry: Registry, worker: str) -> None:
        self._registry = registry
        self._worker = worker
        self._cpu = registry.counter(CPU).labels(worker)
        self._looks = 0
        # The clocks stand still for nobody, but reading two of them takes time: asked once.
        self._started_s = _started_s()

    def sample(self) -> None:
        """Look, and write what is found; 30 microseconds (2026-11-25), and once a second is enough."""
        self._cpu.set_total(time.process_time())
        self._set(START, self._started_s)
        fields = _proc_stat()
        if fields:
            self._set(THREADS, float(fields[17]))
            self._set(VIRTUAL, float(fields[20]))
            self._set(RESIDENT, float(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
        else:
            self._set(THREADS, float(threading.active_count()))
            self._set(RESIDENT, _most_resident_bytes())
        if resource is not None:
            self._set(MAX_FDS, float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
            self._count_descriptors()
        self._count_collections()
        self._looks += 1

    def _set(self, family: Family, value: float) -> None:
        self._registry.gauge(family).labels(self._worker).set(value)

    def _count_descriptors(self) -> None:
        folder = "/proc/self/fd"
        try:
            # Since Linux 6.2 the folder's size is the number.
            count = os.stat(folder).st_size
            if not count:
                if self._looks % FD_LOOKS:
                    return
                count = len(os.listdir(folder)) - 1
        except OSError:
            return
        self._set(OPEN_FDS, float(count))

    def _count_collections(self) -> None:
        for generation, figures in enumerate(gc.get_stats()):
            labels = (self._worker, str(generation))
            self._registry.counter(COLLECTIONS).labels(*labels).set_total(figures["collections"])
            self._registry.counter(COLLECTED).labels(*labels).set_total(figures["collected"])
            self._registry.counter(UNCOLLECTABLE).labels(*labels).set_total(figures["uncollectable"])


def _proc_stat() -> list[bytes]:
    """The fields of ``/proc/self/stat`` behind the process's name; empty where there is no such file."""
    try:
        with open("/proc/self/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _started_s() -> float:
    """When this process started, Unix time; where the system does not say, now."""
    now_s = time.time()
    fields = _proc_stat()
    if not fields or not hasattr(time, "CLOCK_BOOTTIME"):
        return now_s
    return now_s - time.clock_gettime(time.CLOCK_BOOTTIME) + float(fields[19]) / os.sysconf("SC_CLK_TCK")


def _most_resident_bytes() -> float:
    """The most this process has ever held, where the system does not say what it holds now."""
    if resource is None:
        return 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, the others KiB.
    return float(most if sys.platform == "darwin" else most * 1024)
