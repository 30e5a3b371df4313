"""Many sources in, one checked configuration out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.config.options import Config
from headrace.config.rules import check_rules
from headrace.config.sources import (
    CONFIG_VARIABLE,
    Layer,
    read_arguments,
    read_config_file,
    read_env_file,
    read_environment,
    read_fallback_variables,
    read_pyproject,
)
from headrace.config.table import groups, rows


def load(
    arguments: Mapping[str, Any] | None = None,
    *,
    files: bool = True,
    config_file: str | None = None,
    environ: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] = ".",
    defaults: Mapping[str, Any] | None = None,
    defaults_place: str = "",
) -> Config:
    """Resolve every option, the first of these that speaks: arguments, ``HEADRACE_*``, ``UVICORN_*``,
    ``WEB_CONCURRENCY`` and ``FORWARDED_ALLOW_IPS``, ``headrace.toml``, ``[tool.headrace]``,
    ``[tool.fastapi] entrypoint``, the default.

    Args:
        arguments: values by option name, from the command line or from keywords.
        files: take the command line's sources. ``False`` is for ``headrace.run`` called from Python: no
            TOML files and, as with ``uvicorn.run``, no ``UVICORN_*``.
        config_file: a TOML file in place of ``headrace.toml``; ``HEADRACE_CONFIG`` names one too.
        environ: the environment; ``os.environ`` unless given. It is only read: ``load_env_file`` is what
            puts the variables of ``env_file`` into ``os.environ``.
        folder: where the TOML files are looked for.
        defaults: values that stand in place of the table's defaults, by option name.
        defaults_place: what ``sources`` calls their place: the command they belong to.

    Returns:
        The configuration, each value's place in ``sources``.

    Raises:
        ConfigError: one sentence with the place, the value and what is allowed.
    """
    environ = os.environ if environ is None else environ
    layers = [read_arguments(arguments or {}, command_line=files), read_environment(environ, "HEADRACE_")]
    if files:
        layers.append(read_environment(environ, "UVICORN_"))
    below: list[Layer] = []
    if files:
        below.append(read_config_file(Path(folder), config_file or environ.get(CONFIG_VARIABLE) or None))
        below.extend(read_pyproject(Path(folder)))
    below.append({name: (value, defaults_place) for name, value in (defaults or {}).items()})
    # As with uvicorn, WEB_CONCURRENCY may stand in the environment file; the file's own name is known only
    # when all other sources are read.
    env_file = _first([*layers, *below], "env_file", None)
    if env_file is not None:
        environ = {**read_env_file(env_file), **environ}
    return _build([*layers, read_fallback_variables(environ), *below])


def _first(layers: list[Layer], name: str, default: Any) -> Any:
    for layer in layers:
        if name in layer:
            return layer[name][0]
    return default


def _build(layers: list[Layer]) -> Config:
    merged: Layer = {name: (row.default, "default") for name, row in rows().items()}
    for layer in reversed(layers):
        merged.update(layer)
    # One limit for a request's head: uvicorn's name for it speaks where ours does not.
    if (
        merged["limit_request_head"][1] == "default"
        and merged["h11_max_incomplete_event_size"][0] is not None
    ):
        merged["limit_request_head"] = merged["h11_max_incomplete_event_size"]
    by_group: dict[str, Any] = {
        group: options(**{row.name: merged[row.name][0] for row in rows().values() if row.group == group})
        for group, options in groups().items()
    }
    config = Config(**by_group, sources={name: label for name, (_value, label) in merged.items()})
    check_rules(config)
    return config
