"""What a start-up failure looks like: one sentence on stderr and exit code 3."""

from __future__ import annotations

import traceback

import click

from headrace.errors import ApplicationImportError, HeadraceError

STARTUP_FAILURE = 3
"""uvicorn's exit code for a start that failed; here it is that of every such failure."""


def report_failure(error: HeadraceError, log_level: str | None) -> int:
    """Print why the start failed.

    A fault in the application's own code comes with its traceback, which begins in the application; ours
    only at the levels debug and trace.

    Returns:
        The exit code.
    """
    if log_level in ("debug", "trace"):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    elif isinstance(error, ApplicationImportError) and error.__cause__ is not None:
        click.echo("".join(traceback.format_exception(error.__cause__)), err=True, nl=False)
    click.echo(f"Error: {error}", err=True)
    return STARTUP_FAILURE
