"""``headrace run``: serve an application until a signal ends it."""

from __future__ import annotations

import importlib

import click

from headrace.cli.failure import report_failure
from headrace.cli.options import TableCommand, given_arguments, load_config
from headrace.config import load_env_file
from headrace.errors import HeadraceError

_HELP = """Serve an ASGI application.

APP is module:attribute, a file or a folder. Without it main.py, app.py, api.py and the same files in app/
are looked for, as `fastapi run` does.
"""


@click.pass_context
def _run(ctx: click.Context) -> None:
    log_level = given_arguments(ctx).get("log_level")
    try:
        config = load_config(ctx)
        log_level = config.log.log_level
        load_env_file(config.application.env_file)
        # Named by text: the server with its event loop and codecs costs `check` and `--help` nothing.
        entry = importlib.import_module("headrace.server.entry")
        entry.serve_until_signal(config)
        code = 0
    except HeadraceError as error:
        code = report_failure(error, log_level)
    ctx.exit(code)


command = TableCommand("run", help=_HELP, callback=_run)
