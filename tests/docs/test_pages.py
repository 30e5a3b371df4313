"""The documentation holds: links resolve, options exist, what can be run is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click.testing
import pytest

from headrace.cli import main
from headrace.config import rows
from processes import PATIENCE_S, HeadraceProcess, clean_environment

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "benchmarks/*.md")
    for page in ROOT.glob(pattern)
)
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=IDS)

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
VARIABLE = re.compile(r"\b(?:HEADRACE|UVICORN)_[A-Z0-9_]+\b")

COMMAND_OPTIONS = {"--version", "--help", "--config", "--json", "--no-wait"}

TAKE_ALL_OPTIONS = ("run", "dev", "check")


def fences(page: Path, *languages: str) -> Iterator[str]:
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        if match["language"] in languages:
            yield match["text"]


def option_spellings() -> set[str]:
    flags = {row.flag for row in rows().values()}
    return flags | {f"--no-{flag[2:]}" for flag in flags} | COMMAND_OPTIONS


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Every ``headrace ...`` line of the page: variables in front of it, and its words."""
    for text in fences(page, "", "sh", "console"):
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            variables = {}
            while words and re.match(r"[A-Z_]+=", words[0]):
                name, _, variables[name] = words.pop(0).partition("=")
            if words and words[0] == "headrace":
                yield variables, words[1:]


@every_page
def test_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        target, _, anchor = match["target"].partition("#")
        if "://" in target:
            continue
        linked = (page.parent / target) if target else page
        assert linked.exists(), f"{match['target']} leads nowhere"
        if anchor:
            assert anchor in anchors(linked), f"{match['target']} leads to no heading"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "benchmarks"])
def test_options_named_exist(page: Path) -> None:
    known = option_spellings()
    text = page.read_text(encoding="utf-8")
    prose = FENCE.sub("", text)
    inline = " ".join(code for code in re.findall(r"`([^`]+)`", prose) if not code.startswith("python"))
    shown = " ".join(" ".join(words) for _, words in commands(page))
    assert set(OPTION.findall(f"{inline} {shown}")) <= known


@every_page
def test_variables_named_exist(page: Path) -> None:
    known = {"HEADRACE_CONFIG"}
    known |= {row.variable for row in rows().values()} | {row.uvicorn_variable for row in rows().values()}
    named = {name for name in VARIABLE.findall(page.read_text(encoding="utf-8")) if not name.endswith("_")}
    assert named <= known


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages' commands name."""
    folder = tmp_path_factory.mktemp("pages")
    for page in PAGES:
        for text in fences(page, "python"):
            if named := re.match(r"# file: (\S+)\n", text):
                (folder / named[1]).write_text(text, encoding="utf-8")
    (folder / "src").mkdir()
    subprocess.run(shlex.split(openssl_line()), cwd=folder, check=True, capture_output=True)
    return folder


def openssl_line() -> str:
    """The tutorial's command for a certificate."""
    lines = "".join(fences(ROOT / "docs" / "tutorial.md", "")).splitlines()
    return next(line for line in lines if line.startswith("openssl "))


@pytest.fixture
def check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Run ``headrace check`` in that folder; in this process, as most of the time goes into imports."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for variable in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(variable)

    def run(*words: str, **variables: str) -> str:
        result = click.testing.CliRunner().invoke(main, ["check", *words], env=variables)
        assert result.exit_code == 0, result.output
        return result.output

    yield run
    sys.modules.pop("main", None)


COMMANDS = sorted({
    (" ".join(f"{name}={value}" for name, value in variables.items()), tuple(words))
    for page in PAGES
    for variables, words in commands(page)
    if words[:1] and words[0] in TAKE_ALL_OPTIONS
})  # fmt: skip


@pytest.mark.parametrize(("variables", "words"), COMMANDS, ids=[" ".join(words) for _, words in COMMANDS])
def test_commands_shown_are_valid(check: Callable[..., str], variables: str, words: tuple[str, ...]) -> None:
    """``headrace check`` accepts what each ``headrace run`` and ``headrace dev`` of the pages is given."""
    environment = dict(pair.split("=", 1) for pair in variables.split())
    output = check(*words[1:], **environment)
    assert '"ok": true' in output if "--json" in words else "is valid" in output


@every_page
def test_other_commands_shown_are_valid(page: Path) -> None:
    for _, words in commands(page):
        if words and words[0] not in (*TAKE_ALL_OPTIONS, "--version", "--help"):
            with click.Context(main) as context:
                command = main.get_command(context, words[0])
                assert command is not None, words
                command.make_context(words[0], words[1:], parent=context)


@every_page
def test_configuration_files_shown_are_valid(page: Path, check: Callable[..., str], tmp_path: Path) -> None:
    for number, text in enumerate(fences(page, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(text, encoding="utf-8")
        check("--config", str(file))


@every_page
def test_python_shown_runs(page: Path, tmp_path: Path) -> None:
    for text in fences(page, "python"):
        subprocess.run(
            [sys.executable, "-W", "error", "-c", text],
            cwd=tmp_path,
            env={**clean_environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            timeout=PATIENCE_S,
        )


def test_the_scheduler_shown_runs_in_one_worker(folder: Path) -> None:
    with HeadraceProcess("scheduled:app", "--workers", "2", folder=folder) as process:
        process.wait_line(r"Worker 2 .* is ready")
        process.wait_line("sending reminders")
        assert process.stop() == 0
    assert process.output.count("sending reminders") == 1


def test_every_page_of_the_documentation_is_in_its_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name == "index.md" or f"({name})" in index
