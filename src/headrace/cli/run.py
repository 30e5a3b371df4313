"""``headrace run``: serve an application until a signal ends it."""

from __future__ import annotations

import importlib
from functools import partial

import click

from headrace.cli.failure import report_failure
from headrace.cli.options import TableCommand, given_arguments, load_config
from headrace.errors import HeadraceError

_HELP = """Serve an ASGI application.

APP is module:attribute, a file or a folder. Without it main.py, app.py, api.py and the same files in app/
are looked for, as `fastapi run` does.
"""


@click.pass_context
def serve_application(ctx: click.Context) -> None:
    """Serve as the options of the current command say, and leave with the exit code."""
    log_level = given_arguments(ctx).get("log_level")
    try:
        config = load_config(ctx)
        log_level = config.log.log_level
        # Named by text: the server with its event loop and codecs costs `check` and `--help` nothing.
        entry = importlib.import_module("headrace.supervisor.entry")
        entry.serve_until_signal(config, partial(load_config, ctx))
        code = 0
    except HeadraceError as error:
        code = report_failure(error, log_level)
    ctx.exit(code)


command = TableCommand("run", help=_HELP, callback=serve_application)
