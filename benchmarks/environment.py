"""Where the servers are installed, and what the figures depend on: interpreter, releases, machine."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
OWN_VENV = FOLDER / ".peers"
PEERS = FOLDER / "peers.txt"
PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}
"""A program that makes load, to Debian's package of it."""

_INTERPRETER_FACTS = """
import importlib.metadata, json, platform, sys, sysconfig, timeit
arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
if "--enable-optimizations" in arguments:
    optimised = "yes (--enable-optimizations)"
elif "deb_system" in sysconfig.get_scheme_names():
    optimised = "yes (Debian's package, which is built with profile-opt)"
else:
    optimised = "no"
versions = {}
for name in sys.argv[1:]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
loop = "t = 0\\nfor i in range(1000000): t += i % 7"
print(json.dumps({
    "version": f"{platform.python_implementation()} {platform.python_version()}",
    "compiler": platform.python_compiler(),
    "optimised": optimised,
    "lto": "yes" if "--with-lto" in arguments else "no" if optimised == "no" else "not known",
    "gil": "off" if sysconfig.get_config_var("Py_GIL_DISABLED") else "on",
    "loop_ns": min(timeit.repeat(loop, number=1, repeat=5)) * 1e3,
    "versions": versions,
}))
"""


class CannotRun(Exception):
    """The benchmarks cannot run here; the message says what to do, for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that the servers run on.

    Attributes:
        optimised: whether it was built with profile-guided optimisation; one that was not is slower by a
            fifth or more, and not equally so for servers in Python and in Rust.
        loop_ns: one turn of a loop of pure Python, best of five: shows what `optimised` only claims.
        versions: distribution name to release, of what is installed of those asked for.
    """

    version: str
    compiler: str
    optimised: str
    lto: str
    gil: str
    loop_ns: float
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Machine:
    """What the harness runs on; `wrk` and `h2load` are their releases, or that they are missing."""

    cpu: str
    cores: int
    kernel: str
    memory_gib: float
    load_average: float
    wrk: str
    h2load: str


def check_machine(cores: tuple[int, int], load_programs: Iterable[str]) -> None:
    """Raises CannotRun unless this is Linux with the two cores and what makes the load.

    Args:
        cores: of the server, and of the load.
        load_programs: of `PACKAGES`.
    """
    if not sys.platform.startswith("linux"):
        raise CannotRun("The benchmarks pin processes and read /proc, so they need Linux.")
    for program in load_programs:
        if shutil.which(program) is None:
            raise CannotRun(
                f"{program} is not on PATH. Install it with `apt install {PACKAGES[program]}` (Debian, "
                "Ubuntu) or your system's package, or choose other workloads with --only."
            )
    if cores[0] == cores[1]:
        raise CannotRun("Server and load need a core each: choose two with --server-core and --load-core.")
    allowed = os.sched_getaffinity(0)
    if not set(cores) <= allowed:
        raise CannotRun(
            f"Cores {cores[0]} and {cores[1]} are needed, but only {sorted(allowed)} are allowed."
        )


def prepare_programs(venv: str | None, python: str | None) -> Path:
    """The folder of programs of the environment to measure in; makes the own one when none is given.

    Args:
        venv: an environment with the servers installed; None for the harness's own.
        python: the interpreter to make the own one with; None for the one that runs this.

    Raises:
        CannotRun: the environment given has no interpreter, or the own one could not be made.
    """
    if venv is not None:
        programs = Path(venv).absolute() / "bin"
        if not (programs / "python").exists():
            raise CannotRun(f"{venv} is not a virtual environment: it has no bin/python.")
        return programs
    interpreter = shutil.which(python or sys.executable)
    if interpreter is None:
        raise CannotRun(f"There is no interpreter {python}.")
    return _prepare_own(interpreter)


def _prepare_own(interpreter: str) -> Path:
    """Makes the own environment, or makes it anew when interpreter, peers or dependencies changed."""
    stamp = OWN_VENV / "made-from"
    programs = OWN_VENV / "bin"
    made_from = "\n".join((interpreter, PEERS.read_text(), (FOLDER.parent / "pyproject.toml").read_text()))
    if stamp.exists() and stamp.read_text() == made_from:
        return programs
    print(f"Making {OWN_VENV} with {interpreter}: every peer at its newest.", file=sys.stderr)
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    try:
        subprocess.run([interpreter, "-m", "venv", "--clear", str(OWN_VENV)], check=True)
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        subprocess.run([*pip, "--requirement", str(PEERS), "--editable", f"{FOLDER.parent}[all]"], check=True)
    except subprocess.CalledProcessError as error:
        raise CannotRun(f"{OWN_VENV} could not be made: status {error.returncode} of {error.cmd}.") from None
    stamp.write_text(made_from)
    return programs


def describe_interpreter(programs: Path, distributions: list[str]) -> Interpreter:
    """Asks the environment's interpreter how it was built and what is installed in it."""
    command = [str(programs / "python"), "-I", "-c", _INTERPRETER_FACTS, *distributions]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return Interpreter(**json.loads(done.stdout))


def describe_machine() -> Machine:
    """Reads what is worth knowing about this machine."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return Machine(
        cpu=model[1] if model else platform.machine(),
        cores=os.cpu_count() or 0,
        kernel=f"{platform.system()} {platform.release()}",
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        load_average=round(os.getloadavg()[0], 2),
        wrk=_ask_version("wrk"),
        h2load=_ask_version("h2load"),
    )


def _ask_version(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10)
    except FileNotFoundError:
        return f"no {program}"
    return (done.stdout or done.stderr).split(" [")[0].strip()


def as_json(facts: Interpreter | Machine) -> dict[str, object]:
    """The facts as the results file keeps them."""
    return asdict(facts)
