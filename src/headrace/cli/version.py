"""``--version``, of the group and of each command."""

from __future__ import annotations

import platform

import click

import headrace


def version_option() -> click.Option:
    """``--version``, with uvicorn's wording."""
    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the version and exit.",
    )


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    click.echo(
        f"Running headrace {headrace.__version__} with {platform.python_implementation()} "
        f"{platform.python_version()} on {platform.system()}"
    )
    ctx.exit()
