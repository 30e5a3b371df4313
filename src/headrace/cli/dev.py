"""``headrace dev``: ``headrace run`` with the defaults of a developer's machine."""

from __future__ import annotations

import click

from headrace.cli.options import TableCommand
from headrace.cli.run import serve_application

_HELP = """Serve an ASGI application while it is being written.

The same as `headrace run --reload --log-format pretty`: each change of the source restarts the application,
and while it cannot be imported or started, every request is answered by its traceback. APP is what `headrace
run` takes. Other sources than the command line may say otherwise, such as reload = false in headrace.toml.
"""

_DEFAULTS = {"reload": True, "log_format": "pretty"}


def _serve_for_development() -> None:
    click.echo(
        "Warning: headrace dev is for development: whoever connects may see tracebacks; "
        "in production use headrace run.",
        err=True,
    )
    serve_application()


command = TableCommand("dev", help=_HELP, callback=_serve_for_development, defaults=_DEFAULTS)
