from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from headrace.config import ProcessOptions
from headrace.supervisor.source_tree import SourceTree

FILES = (
    "main.py",
    ".hidden.py",
    ".env",
    "headrace.toml",
    "notes.txt",
    "src/a.py",
    "src/a.html",
    "src/deep/er/b.py",
    "src/deep/er/b.html",
    "src/deep/er/b.html~",
    "src/deep/er/b.pyc",
    "src/deep/er/.b.html.swp",
    "src/__pycache__/a.cpython-311.pyc",
    "src/[id]/c.py",
    "lib/c.py",
    "lib/sub/d.py",
    ".secret/e.py",
    ".git/hooks/f.py",
    "node_modules/g/g.py",
    "env/pyvenv.cfg",
    "env/lib/h.py",
    "../beside/i.py",
    "../beside/i.html",
)
BY_DEFAULT = {"main.py", "src/a.py", "src/deep/er/b.py", "src/[id]/c.py", "lib/c.py", "lib/sub/d.py"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``FILES``."""
    folder = tmp_path / "project"
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(folder)
    return folder


def tree(app_dir: str = "", **options: Any) -> SourceTree:
    return SourceTree(ProcessOptions(**options), app_dir)


def watched(app_dir: str = "", **options: Any) -> set[str]:
    return {os.path.relpath(path) for path in tree(app_dir, **options).look().files}


def test_python_files_of_the_current_folder(folder: Path) -> None:
    assert watched() == BY_DEFAULT


def test_what_is_not_watched_costs_nothing(folder: Path) -> None:
    """Folders that are left out are not even listed."""
    look = tree().look()
    assert {os.path.relpath(path) for path in look.folders} == {
        ".", "src", "src/deep", "src/deep/er", "src/[id]", "lib", "lib/sub",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ({"reload_dirs": ("lib",)}, {"lib/c.py", "lib/sub/d.py"}),
        ({"reload_dirs": ("lib", "src/deep")}, {"lib/c.py", "lib/sub/d.py", "src/deep/er/b.py"}),
        ({"reload_dirs": ("lib", "lib/sub")}, {"lib/c.py", "lib/sub/d.py"}),
        ({"reload_dirs": (".secret",)}, {".secret/e.py"}),
        ({"reload_dirs": ("env",)}, {"env/lib/h.py"}),
        ({"reload_dirs": ("../beside",)}, {"../beside/i.py"}),
        ({"app_dir": "../beside"}, BY_DEFAULT | {"../beside/i.py"}),
        ({"app_dir": "env"}, BY_DEFAULT | {"env/lib/h.py"}),
        ({"app_dir": "../beside", "reload_dirs": ("lib/sub",)}, {"lib/sub/d.py"}),
    ],
)
def test_folders(folder: Path, options: dict[str, Any], files: set[str]) -> None:
    assert watched(**options) == files


@pytest.mark.parametrize(
    ("includes", "more"),
    [
        ((".env",), {".env"}),
        (("headrace.toml", "./notes.txt"), {"headrace.toml", "notes.txt"}),
        (("*.html",), {"src/a.html", "src/deep/er/b.html"}),
        (("src/*.html",), {"src/a.html"}),
        (("src/**/*.html",), {"src/a.html", "src/deep/er/b.html"}),
        (("src/**",), {"src/a.html", "src/deep/er/b.html"}),
        (("er/b.[hj]tml",), {"src/deep/er/b.html"}),
        (("b.[!x]tml", "b.htm?"), {"src/deep/er/b.html"}),
        (("src",), {"src/a.html", "src/deep/er/b.html"}),
        (("src/deep/",), {"src/deep/er/b.html"}),
        (("src/[id]",), set()),
        ((".*",), {".hidden.py", ".env", ".secret/e.py"}),
        ((".secret/*.py",), {".secret/e.py"}),
        (("../beside",), {"../beside/i.py", "../beside/i.html"}),
        (("../beside/*.html",), {"../beside/i.py", "../beside/i.html"}),
        (("src/deep/er/b.pyc",), {"src/deep/er/b.pyc"}),
        (("no/such/*.html", "none.txt"), set()),
    ],
)
def test_includes(folder: Path, includes: tuple[str, ...], more: set[str]) -> None:
    assert watched(reload_includes=includes) == BY_DEFAULT | more


def test_an_absolute_pattern(folder: Path) -> None:
    assert watched(reload_includes=(f"{folder.parent}/beside/*.html",)) == (
        BY_DEFAULT | {"../beside/i.py", "../beside/i.html"}
    )
    assert watched(reload_excludes=(f"{folder}/lib/*.py",)) == BY_DEFAULT - {"lib/c.py"}


@pytest.mark.parametrize(
    ("excludes", "fewer"),
    [
        (("main.py",), {"main.py"}),
        (("lib",), {"lib/c.py", "lib/sub/d.py"}),
        (("./lib/",), {"lib/c.py", "lib/sub/d.py"}),
        (("sub",), {"lib/sub/d.py"}),
        (("lib/*",), {"lib/c.py", "lib/sub/d.py"}),
        (("lib/*.py",), {"lib/c.py"}),
        (("**/er/*",), {"src/deep/er/b.py"}),
        (("src/**",), {"src/a.py", "src/deep/er/b.py", "src/[id]/c.py"}),
        (("d*",), {"lib/sub/d.py", "src/deep/er/b.py"}),
        (("*.py",), BY_DEFAULT),
    ],
)
def test_excludes(folder: Path, excludes: tuple[str, ...], fewer: set[str]) -> None:
    assert watched(reload_excludes=excludes) == BY_DEFAULT - fewer


def test_an_exclude_beats_a_pattern_but_not_a_name(folder: Path) -> None:
    both = {"reload_includes": ("*.html", "a.html"), "reload_excludes": ("*.html", "src/a.*")}
    assert watched(**both) == BY_DEFAULT - {"src/a.py"} | {"src/a.html"}


def test_an_excluded_folder_is_no_folder_to_watch(folder: Path) -> None:
    assert watched(reload_dirs=("lib/sub", "src/deep"), reload_excludes=("lib",)) == {"src/deep/er/b.py"}


def test_a_reload_dir_that_is_no_folder(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "uvicorn.error"):
        assert watched(reload_dirs=("main.py",)) == BY_DEFAULT
    assert "['main.py'] did not contain valid directories, watching current" in caplog.text


def test_links(folder: Path) -> None:
    """A link to a file is looked through; one to a folder is not followed, so that no loop arises."""
    (folder / "lib" / "up").symlink_to(folder)
    (folder / "linked.py").symlink_to(folder / "notes.txt")
    (folder / "broken.py").symlink_to(folder / "nothing")
    (folder / "folder.py").mkdir()
    before = tree().look()
    assert {os.path.relpath(path) for path in before.files} == BY_DEFAULT | {"linked.py"}
    (folder / "notes.txt").write_text("more")
    assert before.difference(tree().look()) == {str(folder / "linked.py")}


def test_roots_are_few(folder: Path) -> None:
    assert tree("src", reload_includes=("lib", "lib/*.html", "node_modules")).roots == (
        str(folder), f"{folder}/node_modules",
    )  # fmt: skip


def test_what_vanishes_is_left_out(folder: Path) -> None:
    gone = tree("../beside", reload_includes=("lib",))
    (folder.parent / "beside").rename(folder.parent / "elsewhere")
    assert {os.path.relpath(path) for path in gone.look().files} == BY_DEFAULT
