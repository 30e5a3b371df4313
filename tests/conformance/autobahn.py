"""Run Autobahn's fuzzing client against ``headrace run`` with an echo application, and judge its report.

    python tests/conformance/autobahn.py [--cases '1.*' ...] [--exclude '9.*' ...] [--option=--ws-max-queue=1]

Without ``--cases`` the suite runs whole, which takes several minutes. A case passes when its behaviour and
its close behaviour are OK, NON-STRICT or INFORMATIONAL; everything else, UNIMPLEMENTED too, fails, and the
exit code is 1. It is 2 when the suite cannot run here.

The suite is a program for CPython 2.7 in spite of its tags, so it needs one (``pyenv install 2.7.18``): the
variable ``PYTHON27``, pyenv's, or ``python2.7`` on the path. It is installed once, from PyPI, into a folder
of its own, ``build/autobahn`` here or what ``AUTOBAHN_FOLDER`` says; when a case fails, the report with a
page for each is kept there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from processes import HeadraceProcess

SUITE = "autobahntestsuite==25.10.1"

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}

_ROOT = Path(__file__).parents[2]

_START = (
    "import site, sys; site.addsitedir({0!r}); sys.path.insert(0, {0!r}); "
    "from autobahntestsuite.wstest import run; run()"
)


class CannotRun(Exception):
    """Something that the suite needs is not there."""


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send every message back, as it came: the application under test."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        message["type"] = "websocket.send"
        await send(message)


def find_python27() -> str:
    """The path of a CPython 2.7.

    Raises:
        CannotRun: there is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(map(str, pyenv.glob("versions/2.7.*/bin/python2.7")), reverse=True)
    for path in filter(None, (os.environ.get("PYTHON27"), *found, shutil.which("python2.7"))):
        # pyenv's shim is there also when no 2.7 is.
        if subprocess.run([path, "-V"], capture_output=True, check=False).returncode == 0:
            return path
    raise CannotRun("no python2.7, which Autobahn's suite needs (pyenv install 2.7.18, or set PYTHON27)")


def default_folder() -> Path:
    """Where the suite is kept."""
    return Path(os.environ.get("AUTOBAHN_FOLDER") or _ROOT / "build" / "autobahn")


def install(python27: str, folder: Path) -> Path:
    """Install the suite, if that has not been done.

    Returns:
        The folder its packages are in.

    Raises:
        CannotRun: pip failed.
    """
    packages = folder / SUITE
    if packages.exists():
        return packages
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [python27, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        done = subprocess.run(
            [*command, "--target", f"{scratch}/packages", SUITE], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CannotRun(f"the suite cannot be installed: {done.stderr[-2000:]}")
        try:
            # All or nothing, so that an interrupted installation is not taken for a whole one.
            Path(scratch, "packages").rename(packages)
        except OSError:
            if not packages.exists():
                raise
    return packages


def run(cases: Sequence[str], exclude: Sequence[str], options: Sequence[str], folder: Path) -> dict[str, Any]:
    """Serve, run the cases, and read the report.

    Args:
        cases, exclude: patterns as ``1.*``.
        options: more of ``headrace run``.
        folder: for the suite and its report.

    Returns:
        The outcome of each case by its number, as in the report's ``index.json``.

    Raises:
        CannotRun: something needed is not there.
    """
    python27 = find_python27()
    packages = install(python27, folder)
    # Cases of 9 send 16 MiB; the other defaults stay.
    arguments = ["autobahn:echo", "--lifespan", "off", "--ws-max-size", "67108864", "--no-use-colors"]
    with HeadraceProcess(*arguments, *options, folder=Path(__file__).parent) as server:
        report = _fuzz(python27, packages, folder, server.port, cases, exclude)
    faults = [line for line in server.lines if not line.startswith(("INFO:", "WARNING:"))]
    assert not faults, "the server logged:\n" + "\n".join(faults[:40])
    return report


def _fuzz(
    python27: str, packages: Path, folder: Path, port: int, cases: Sequence[str], exclude: Sequence[str]
) -> dict[str, Any]:
    reports = Path(tempfile.mkdtemp(prefix="report-", dir=folder))
    specification = reports / "fuzzingclient.json"
    specification.write_text(
        json.dumps(
            {
                "outdir": str(reports),
                "servers": [{"agent": "headrace", "url": f"ws://127.0.0.1:{port}"}],
                "cases": list(cases),
                "exclude-cases": list(exclude),
                "exclude-agent-cases": {},
            }
        )
    )
    command = [python27, "-c", _START.format(str(packages)), "-m", "fuzzingclient", "-s", str(specification)]
    done = subprocess.run(
        command, cwd=reports, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    index = reports / "index.json"
    assert index.exists(), f"the fuzzing client wrote no report: {done.stdout[-4000:]}"
    report = dict(json.loads(index.read_text())["headrace"])
    if not failures(report):
        shutil.rmtree(reports)
    return report


def failures(report: dict[str, Any]) -> dict[str, str]:
    """The cases that did not pass, with both behaviours."""
    return {
        case: f"{result['behavior']}, close {result['behaviorClose']}"
        for case, result in sorted(report.items())
        if not {result["behavior"], result["behaviorClose"]} <= GOOD
    }


def main() -> int:
    """Run and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["*"])
    parser.add_argument("--exclude", nargs="+", default=[])
    parser.add_argument(
        "--option", action="append", default=[], dest="options", help="an option more for headrace run"
    )
    parser.add_argument("--folder", type=Path, default=default_folder())
    arguments = parser.parse_args()
    try:
        report = run(arguments.cases, arguments.exclude, arguments.options, arguments.folder.absolute())
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 2
    for name in ("behavior", "behaviorClose"):
        counts = Counter(result[name] for result in report.values())
        print(f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    bad = failures(report)
    for case, text in bad.items():
        print(f"{case}: {text}")
    print(f"{SUITE}: {len(report)} cases, {len(bad)} failed")
    return 1 if bad or not report else 0


if __name__ == "__main__":
    raise SystemExit(main())
