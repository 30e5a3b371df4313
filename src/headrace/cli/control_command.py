"""A command that asks a running server over its control socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from headrace.admin.client import find_server
from headrace.cli.failure import report_failure
from headrace.cli.version import version_option
from headrace.errors import HeadraceError

EPILOG = (
    "PID is the server's process id; without it the only one that runs. Whatever fails ends with exit code 3."
)


def make_command(name: str, act: Callable[..., str], help: str, *options: click.Option) -> click.Command:
    """Make the command.

    Args:
        name: as it is typed.
        act: called with an ``AdminClient`` and the options' values; what it returns is printed.
        help: what ``--help`` says of it.
        options: beside PID and ``--version``.
    """

    @click.pass_context
    def run(ctx: click.Context, /, pid: int | None, **given: Any) -> None:
        try:
            click.echo(act(find_server(pid), **given))
        except HeadraceError as error:
            ctx.exit(report_failure(error, None))

    pid_argument = click.Argument(["pid"], required=False, type=click.IntRange(min=1), metavar="[PID]")
    return click.Command(
        name, callback=run, params=[pid_argument, *options, version_option()], help=help, epilog=EPILOG
    )
