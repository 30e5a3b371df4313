"""Which files' changes restart a development server, and how these files look now."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headrace.config import ProcessOptions

DEFAULT_INCLUDES = ("*.py",)
DEFAULT_EXCLUDES = (".*", ".py[cod]", ".sw.*", "~*")
"""uvicorn's. Each goes when an option of the opposite kind names it: ``--reload-include '.*'``."""

# What uvicorn's last three defaults are after but do not match: what Python and editors write by the way.
_BY_PRODUCTS = ("*.py[cod]", "*.sw?", "*~", "#*#")
_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", ".git", ".hg", ".svn"})
_VIRTUAL_ENVIRONMENT = "pyvenv.cfg"

_TOKENS = re.compile(r"\[!?\]?[^]]*\]|.", re.DOTALL)

_logger = logging.getLogger("uvicorn.error")

Signature = tuple[int, int, int]
"""Time of the last change in ns, size in bytes, inode: an editor's save changes at least one of them."""


@dataclass(frozen=True, slots=True)
class Look:
    """How the tree looked at one time.

    Attributes:
        files: every file that counts, by its absolute path.
        folders: every folder that was looked into.
    """

    files: dict[str, Signature]
    folders: set[str]

    def difference(self, other: Look) -> set[str]:
        """The files that are in one look alone, or differ between the two."""
        return {path for path, _ in self.files.items() ^ other.files.items()}


class SourceTree:
    """Folders to watch, and patterns that say what counts in them.

    A pattern that is the name of a folder means that folder: all of it is included or excluded. Any other is
    held against the end of a file's path, ``*`` and ``?`` within one name, ``**`` over any number of folders;
    one that begins with ``/`` or ``..`` against the whole. An exclude that fits a folder leaves out all that
    is in it. A pattern without wildcards includes its file even if an exclude fits.

    Folders that are large and hold no source of the application's own are not entered, unless an option names
    them: hidden ones, ``node_modules``, ``__pycache__``, virtual environments. Nor are links to folders.

    Args:
        options: ``reload_dirs``, ``reload_includes``, ``reload_excludes``; relative to the current folder.
        app_dir: watched beside the current folder where no ``reload_dirs`` are given.

    Attributes:
        roots: the folders to watch, absolute, without links.
    """

    def __init__(self, options: ProcessOptions, app_dir: str) -> None:
        includes = [pattern for pattern in options.reload_includes if pattern not in options.reload_excludes]
        defaults = [pattern for pattern in DEFAULT_INCLUDES if pattern not in options.reload_excludes]
        excludes = [pattern for pattern in DEFAULT_EXCLUDES if pattern not in options.reload_includes]
        whole = [os.path.realpath(name) for name in includes if os.path.isdir(name)]
        self._whole = tuple(f"{folder}{os.sep}" for folder in whole)
        self._excluded = frozenset(
            os.path.realpath(name) for name in options.reload_excludes if os.path.isdir(name)
        )
        patterns = [_absolute(pattern) for pattern in includes if not os.path.isdir(pattern)]
        self._named = _any_of(pattern for pattern in patterns if not _has_wildcard(pattern))
        self._included = _any_of([*defaults, *patterns])
        self._left_out = _any_of(
            [
                *excludes,
                *_BY_PRODUCTS,
                *(_absolute(pattern) for pattern in options.reload_excludes if not os.path.isdir(pattern)),
            ]
        )
        named = {*_folders(options.reload_dirs, app_dir), *whole, *_parents(patterns)}
        folders = {folder for folder in named if not self._is_excluded(folder)}
        self.roots = tuple(sorted(folder for folder in folders if not self._is_reached(folder, folders))) or (
            os.path.realpath("."),
        )

    def is_source(self, path: str) -> bool:
        """Whether a file of that absolute path counts, if its folder does."""
        if self._named.fullmatch(path):
            return True
        is_included = path.startswith(self._whole) or self._included.fullmatch(path) is not None
        return is_included and not self._left_out.fullmatch(path)

    def is_skipped(self, folder: str) -> bool:
        """Whether a folder below a root is not entered."""
        return (
            os.path.basename(folder) in _SKIPPED_FOLDERS
            or folder in self._excluded
            or self._left_out.fullmatch(folder) is not None
            or os.path.exists(os.path.join(folder, _VIRTUAL_ENVIRONMENT))
        )

    def look(self) -> Look:
        """Walk the folders, in any thread; what vanishes meanwhile or may not be read is left out."""
        look = Look({}, set())
        for root in self.roots:
            self._walk(root, look)
        return look

    def _is_excluded(self, folder: str) -> bool:
        return any(above in self._excluded for above in (folder, *_above(folder)))

    def _is_reached(self, folder: str, roots: set[str]) -> bool:
        """Whether the walk from another root comes there."""
        for above in _above(folder):
            if self.is_skipped(folder):
                return False
            if above in roots:
                return True
            folder = above
        return False

    def _walk(self, root: str, look: Look) -> None:
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    found = list(entries)
            except OSError:
                continue
            look.folders.add(folder)
            for entry in found:
                if _is_folder(entry):
                    if not self.is_skipped(entry.path):
                        waiting.append(entry.path)
                elif self.is_source(entry.path):
                    _add(entry, look.files)


def _above(folder: str) -> list[str]:
    return list(map(str, Path(folder).parents))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _add(entry: os.DirEntry[str], files: dict[str, Signature]) -> None:
    try:
        found = entry.stat()
    except OSError:
        return
    if stat.S_ISREG(found.st_mode):
        files[entry.path] = (found.st_mtime_ns, found.st_size, found.st_ino)


def _folders(reload_dirs: tuple[str, ...], app_dir: str) -> list[str]:
    folders = [folder for folder in reload_dirs if os.path.isdir(folder)]
    if reload_dirs and not folders:
        _logger.warning(
            "Provided reload directories %s did not contain valid directories, watching current working "
            "directory.",
            list(reload_dirs),
        )
    return [os.path.realpath(folder) for folder in folders or [".", app_dir or "."]]


def _has_wildcard(pattern: str) -> bool:
    return any(character in pattern for character in "*?[")


def _absolute(pattern: str) -> str:
    """A pattern that leads out of the current folder as an absolute one, ``./`` and the like taken away."""
    pattern = os.path.normpath(pattern)
    leads_out = pattern.split(os.sep)[0] == ".." or os.path.isabs(pattern)
    return os.path.realpath(pattern) if leads_out else pattern


def _parents(patterns: Iterable[str]) -> list[str]:
    """The existing folders that patterns begin with: ``../shared`` of ``../shared/*/*.html``."""
    found = []
    for pattern in patterns:
        names = pattern.split(os.sep)[:-1]
        fixed = next((at for at, name in enumerate(names) if _has_wildcard(name)), len(names))
        folder = os.sep.join(names[:fixed])
        if folder and os.path.isdir(folder):
            found.append(os.path.realpath(folder))
    return found


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """What fits an absolute path if one of the patterns does."""
    # Without patterns: what never fits.
    return re.compile("|".join(map(_expression, patterns)) or "(?!)", re.DOTALL)


def _expression(pattern: str) -> str:
    separator = re.escape(os.sep)
    one, names = f"[^{separator}]", pattern.split(os.sep)
    text = "" if os.path.isabs(pattern) else f"(?:.*{separator})?"
    for name in names[:-1]:
        text += f"(?:{one}+{separator})*" if name == "**" else _name_expression(name, one) + separator
    return text + (".+" if names[-1] == "**" else _name_expression(names[-1], one))


def _name_expression(name: str, one: str) -> str:
    text = ""
    for token in _TOKENS.findall(name):
        if token == "*":
            text += f"{one}*"
        elif token == "?":
            text += one
        elif len(token) > 1:
            inner = re.sub(r"([\\[&~|])", r"\\\1", token[1:-1])
            text += f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner.replace('^', chr(92) + '^')}]"
        else:
            text += re.escape(token)
    return text
