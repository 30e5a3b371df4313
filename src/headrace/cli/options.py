"""click's options, made from the option table: one for each row, grouped in ``--help`` by concern."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

from headrace.cli.version import version_option
from headrace.config import Config, Row, groups, load, rows
from headrace.config.reference import metavar, show_default, unit_word
from headrace.config.values import allowed, parse_text

EPILOG = (
    "Each option can also stand in the environment (HEADRACE_PORT=80; uvicorn's own as UVICORN_PORT too), in "
    "headrace.toml or under [tool.headrace] of pyproject.toml (port = 80)."
)


class TableCommand(click.Command):
    """A command that takes every option of the table, and ``--config``.

    Args:
        name: the command.
        help: what ``--help`` says of it.
        callback: called with click's context and no parameters; see ``load_config``.
        further: parameters of this command alone.
        defaults: values by option name that stand in place of the table's defaults.
    """

    def __init__(
        self,
        name: str,
        *,
        help: str,
        callback: Callable[[], Any],
        further: tuple[click.Option, ...] = (),
        defaults: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        self.defaults = defaults
        self._own = (*further, _config_option(), version_option())
        table = [
            _make_parameter(replace(row, default=defaults.get(row.name, row.default)))
            for row in rows().values()
            if not row.option.api_only
        ]
        for parameter in (*table, *self._own):
            parameter.expose_value = False
        super().__init__(name, callback=callback, params=[*table, *self._own], help=help, epilog=EPILOG)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group of the table, the command's own options last."""
        by_name = {option.name: option for option in self.get_params(ctx) if isinstance(option, click.Option)}
        for group, options in groups().items():
            members = [
                by_name[row.name] for row in rows().values() if row.group == group and row.name in by_name
            ]
            _write_section(ctx, formatter, (inspect.getdoc(options) or group).rstrip("."), members)
        own = [option for name, option in by_name.items() if name not in rows()]
        _write_section(ctx, formatter, "This command", own)


class _RowType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """Text of the command line, read as the row says."""

    def __init__(self, row: Row) -> None:
        self.name = row.kind
        self._row = row

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The typed value; click makes a usage error (exit code 2) of a refused one."""
        if not isinstance(value, str):
            return value
        try:
            return parse_text(self._row, value)
        except (ValueError, OverflowError):
            shown = "it" if self._row.option.secret else repr(value)[:80]
            return self.fail(f"{shown} must be {allowed(self._row)}.", param, ctx)


def load_config(ctx: click.Context) -> Config:
    """Resolve the configuration of a ``TableCommand`` from its command line and all other sources.

    Raises:
        ConfigError: as ``headrace.config.load``.
    """
    command = ctx.command
    return load(
        given_arguments(ctx),
        config_file=ctx.meta.get("headrace.config_file"),
        defaults=command.defaults if isinstance(command, TableCommand) else {},
        defaults_place=f"headrace {command.name}",
    )


def given_arguments(ctx: click.Context) -> dict[str, Any]:
    """The options of the table that stand on the command line, by name."""
    given: dict[str, Any] = ctx.meta.get("headrace.arguments", {})
    return given


def _config_option() -> click.Option:
    return click.Option(
        ["--config", "config_file"],
        metavar="FILE",
        callback=_keep_config_file,
        help="TOML file read in place of headrace.toml.",
    )


def _keep_config_file(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    ctx.meta["headrace.config_file"] = value


def _make_parameter(row: Row) -> click.Parameter:
    if row.name == "app":
        return click.Argument([row.name], required=False, type=str, callback=_keep_given)
    facts: dict[str, Any] = {"help": _help_text(row), "default": None, "callback": _keep_given}
    if not row.takes_value:
        spelling = f"{row.flag}/--no-{row.flag[2:]}" if row.option.pair else row.flag
        return click.Option([spelling, row.name], is_flag=True, **facts)
    return click.Option(
        [row.flag, row.name], type=_RowType(row), metavar=metavar(row), multiple=row.repeatable, **facts
    )


def _keep_given(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Remember a value only if the command line gave it: every other source is the configuration's."""
    name = parameter.name or ""
    if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        ctx.meta.setdefault("headrace.arguments", {})[name] = value


def _help_text(row: Row) -> str:
    default = show_default(row)
    shown = f"  [default: {default}]" if default and default != "false" else ""
    if row.option.unit and not default:
        shown = f"  [in {unit_word(row)}]"
    return f"{row.option.help.rstrip('.')}.{shown}"


def _write_section(
    ctx: click.Context, formatter: click.HelpFormatter, heading: str, members: list[click.Option]
) -> None:
    records = [record for member in members if (record := member.get_help_record(ctx)) is not None]
    if records:
        with formatter.section(heading):
            formatter.write_dl(records)
