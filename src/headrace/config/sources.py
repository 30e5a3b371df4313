"""Where values come from: each function reads one source and returns what it says, checked.

A source gives a ``Layer``: option name to (value, label), the label being what ``Config.sources`` and
the messages call the place.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from headrace.config.table import Row, rows
from headrace.config.values import allowed, check, parse_variable
from headrace.errors import ConfigError

Layer = dict[str, tuple[Any, str]]

CONFIG_FILE = "headrace.toml"
CONFIG_VARIABLE = "HEADRACE_CONFIG"

# Kubernetes describes a service called "headrace" to every pod by HEADRACE_SERVICE_HOST,
# HEADRACE_PORT=tcp://10.0.0.1:80 and the like. They are none of ours.
_SERVICE_LINK = re.compile(
    r"HEADRACE(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def read_arguments(arguments: Mapping[str, Any], *, command_line: bool) -> Layer:
    """What the command line or the keywords of ``headrace.run`` give.

    Args:
        arguments: values by option name. ``None`` counts as not given where it is the default anyhow or
            no value at all, so that ``workers=None`` still lets ``WEB_CONCURRENCY`` speak.
        command_line: name the place by its flag, not by its keyword.

    Raises:
        ConfigError: an unknown name, or a value that is not allowed.
    """
    layer: Layer = {}
    for name, value in arguments.items():
        row = rows().get(name)
        if row is None:
            raise ConfigError(f"There is no option {name!r}{did_you_mean(name, rows())}")
        if value is None and row.kind != "object" and (row.default is None or not row.nullable):
            continue
        label = row.flag if command_line else f"keyword {name}"
        layer[name] = (_checked(check, row, value, label), label)
    return layer


def read_environment(environ: Mapping[str, str], prefix: str) -> Layer:
    """What the variables with the prefix ``HEADRACE_`` or ``UVICORN_`` give; an empty one is not set.

    Raises:
        ConfigError: an unknown ``HEADRACE_`` variable (unknown ``UVICORN_`` ones are ignored), or a value
            that is not allowed.
    """
    ours = prefix == "HEADRACE_"
    known = {
        (row.variable if ours else row.uvicorn_variable): row
        for row in rows().values()
        if not row.option.api_only
    }
    if ours:
        _refuse_unknown_variables(environ, known)
    return {
        row.name: (_checked(parse_variable, row, environ[variable], variable), variable)
        for variable, row in known.items()
        if environ.get(variable) and not _is_service_address(row, environ[variable])
    }


def read_fallback_variables(environ: Mapping[str, str]) -> Layer:
    """What ``WEB_CONCURRENCY`` and ``FORWARDED_ALLOW_IPS`` give.

    An empty text is a value: ``FORWARDED_ALLOW_IPS=`` trusts nobody. An empty number is not set.

    Raises:
        ConfigError: a value that is not allowed.
    """
    layer: Layer = {}
    for row in rows().values():
        variable = row.option.fallback_env
        text = environ.get(variable) if variable else None
        if text or (text is not None and row.kind == "text"):
            layer[row.name] = (_checked(parse_variable, row, text, variable), variable)
    return layer


def read_config_file(folder: Path, config_file: str | None) -> Layer:
    """What ``headrace.toml`` in the folder gives, or the file named in its place.

    Raises:
        ConfigError: the named file is missing, no TOML, or has an unknown key or a wrong value.
    """
    path = folder / (config_file or CONFIG_FILE)
    if config_file is None and not path.is_file():
        return {}
    return read_table(_read_toml(path, config_file or CONFIG_FILE), config_file or CONFIG_FILE)


def read_pyproject(folder: Path) -> tuple[Layer, Layer]:
    """What ``[tool.headrace]`` gives, and after it the entry point of ``[tool.fastapi]``.

    Raises:
        ConfigError: ``pyproject.toml`` is no TOML, or a table has an unknown key or a wrong value.
    """
    path = folder / "pyproject.toml"
    if not path.is_file():
        return {}, {}
    tools = _read_toml(path, "pyproject.toml").get("tool")
    ours = read_table(_subtable(tools, "headrace"), "[tool.headrace]")
    entrypoint = _subtable(tools, "fastapi").get("entrypoint")
    if entrypoint is None:
        return ours, {}
    label = "[tool.fastapi] entrypoint"
    return ours, {"app": (_checked(_check_literal, rows()["app"], entrypoint, label), label)}


def read_table(table: Mapping[str, Any], label: str) -> Layer:
    """What a flat TOML table gives; ``_`` and ``-`` in keys are the same.

    Raises:
        ConfigError: an unknown or doubled key, a nested table, or a value that is not allowed.
    """
    known = {row.key: row for row in rows().values() if not row.option.api_only}
    layer: Layer = {}
    for written, value in table.items():
        key = written.replace("_", "-")
        row = known.get(key)
        if row is None:
            if isinstance(value, dict):
                raise ConfigError(f"{label} has a table {written!r}, but all keys stand at the top level.")
            raise ConfigError(f"{label} has an unknown key {written!r}{did_you_mean(key, known)}")
        if row.name in layer:
            raise ConfigError(f"{label} has the key {key!r} twice, once with '_' for '-'.")
        layer[row.name] = (_checked(_check_literal, row, value, f"{key} in {label}"), label)
    return layer


def read_env_file(path: str) -> dict[str, str]:
    """The variables of an environment file, which needs the extra ``dotenv``.

    Raises:
        ConfigError: python-dotenv is not installed, or the file cannot be read.
    """
    try:
        from dotenv import dotenv_values
    except ImportError:
        raise ConfigError(
            "--env-file needs python-dotenv; install it with: pip install 'headrace[dotenv]'"
        ) from None
    try:
        values = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The environment file {path} cannot be read: {error}.") from None
    return {name: value for name, value in values.items() if value is not None}


def load_env_file(path: str | None) -> None:
    """Put the variables of an environment file into ``os.environ``; those set already stay.

    Call it before the application is imported. ``None`` does nothing.

    Raises:
        ConfigError: as ``read_env_file``.
    """
    if path is None:
        return
    for name, value in read_env_file(path).items():
        os.environ.setdefault(name, value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence: the nearest known word, or just a full stop."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


def _checked(read: Callable[[Row, Any], Any], row: Row, value: Any, place: str) -> Any:
    try:
        return read(row, value)
    except (ValueError, OverflowError):
        shown = "not shown" if row.option.secret else repr(value)[:80]
        raise ConfigError(f"{place} is {shown}, but it must be {allowed(row)}.") from None


def _check_literal(row: Row, value: Any) -> Any:
    """``check`` for a file, where even an option that takes any object is written as text."""
    if row.kind == "object" and not isinstance(value, str):
        raise ValueError(value)
    return check(row, value)


def _is_service_address(row: Row, text: str) -> bool:
    return row.name == "port" and _SERVICE_ADDRESS.match(text) is not None


def _refuse_unknown_variables(environ: Mapping[str, str], known: Iterable[str]) -> None:
    names = {*known, CONFIG_VARIABLE}
    for variable in environ:
        if not variable.startswith("HEADRACE_") or variable in names or _SERVICE_LINK.fullmatch(variable):
            continue
        raise ConfigError(f"There is no variable {variable}{did_you_mean(variable, names)}")


def _subtable(table: Any, name: str) -> dict[str, Any]:
    """The table of that name; what is no table says nothing, as other tools own ``pyproject.toml`` too."""
    found = table.get(name) if isinstance(table, dict) else None
    return found if isinstance(found, dict) else {}


def _read_toml(path: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}.") from None
