"""``headrace check``: resolve and validate everything, import the application, print it, start nothing."""

from __future__ import annotations

import json
from pathlib import Path

import click

from headrace.asgi.importer import detect_interface, find_application, load_application
from headrace.cli.failure import STARTUP_FAILURE, report_failure
from headrace.cli.options import TableCommand, given_arguments, load_config
from headrace.config import Config, Row, load_env_file
from headrace.config.description import describe_options, shown_rows, shown_value
from headrace.errors import HeadraceError
from headrace.middleware.trusted_proxies import warnings
from headrace.net.addresses import addresses_of
from headrace.net.tls import TLSContexts, is_tls_wanted
from headrace.server.loops import loop_factory
from headrace.server.stack import describe_stack
from headrace.telemetry import read_log_config
from headrace.telemetry.access_lines.named_formats import named_format

_HELP = """Check the configuration and the application, start nothing.

Prints each option with its value and where it came from. The exit code is 3 if `headrace run` with the same
arguments would refuse to start. Only the start itself can tell whether an address is free, the handlers of
--log-config can be made, and the application's lifespan starts.
"""


@click.pass_context
def _check(ctx: click.Context) -> None:
    as_json = bool(ctx.meta.get("headrace.as_json"))
    log_level = given_arguments(ctx).get("log_level")
    try:
        config = load_config(ctx)
        log_level = config.log.log_level
        _validate(config)
        application = _load(config)
    except HeadraceError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "error": str(error)}, indent=2))
            ctx.exit(STARTUP_FAILURE)
        ctx.exit(report_failure(error, log_level))
    click.echo(_describe_json(config, application) if as_json else _describe(config, application))


def _keep_as_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    ctx.meta["headrace.as_json"] = value


def _validate(config: Config) -> None:
    """Read the values whose meaning lies outside the option table; warn of proxies that match nothing or all.

    Raises:
        ConfigError: one of them is wrong.
    """
    addresses_of(config.listen)
    loop_factory(config.process.loop)
    if is_tls_wanted(config.tls):
        TLSContexts(config.tls, config=config)
    named_format(config.log.access_log_format)
    if config.log.log_config is not None:
        read_log_config(Path(config.log.log_config))
    if config.proxy.proxy_headers:
        for sentence in warnings(config.proxy.forwarded_allow_ips):
            click.echo(f"Warning: {sentence}", err=True)


def _load(config: Config) -> dict[str, str]:
    """Import the application and say what it is."""
    options = config.application
    load_env_file(options.env_file)
    found = find_application(options.app, options.app_dir)
    app = load_application(found, options.factory, options.interface)
    kind = type(found.target)
    return {
        "name": found.name,
        "type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
        "interface": detect_interface(app),
    }


def _describe(config: Config, application: dict[str, str]) -> str:
    """Two blocks of lines, name, value and place: what was set, then what was left at its default."""
    given = [row for row in shown_rows() if config.sources[row.name] != "default"]
    others = [row for row in shown_rows() if config.sources[row.name] == "default"]
    lines = [
        f"Application {application['name']} ({application['type']}, {application['interface']})",
        f"Stack       {' > '.join(describe_stack(config))}",
    ]
    if given:
        lines += ["", "Set:", *_lines(config, given)]
    lines += [
        "",
        "Defaults:",
        *_lines(config, others),
        "",
        "The configuration is valid; nothing was started.",
    ]
    return "\n".join(lines)


def _lines(config: Config, shown: list[Row]) -> list[str]:
    values = {row.name: json.dumps(shown_value(config, row), ensure_ascii=False) for row in shown}
    key_width = max(len(row.key) for row in shown)
    value_width = max(len(value) for value in values.values())
    return [
        f"  {row.key:<{key_width}}  {values[row.name]:<{value_width}}  {config.sources[row.name]}"
        for row in shown
    ]


def _describe_json(config: Config, application: dict[str, str]) -> str:
    options = describe_options(config)
    found = {"ok": True, "application": application, "stack": describe_stack(config), "options": options}
    return json.dumps(found, indent=2)


_JSON = click.Option(
    ["--json", "as_json"], is_flag=True, callback=_keep_as_json, help="Print one JSON object."
)

command = TableCommand("check", help=_HELP, callback=_check, further=(_JSON,))
