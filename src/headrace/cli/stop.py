"""``headrace stop``: let a running server drain and end."""

from __future__ import annotations

import click

from headrace.admin.client import AdminClient
from headrace.cli.control_command import make_command

_HELP = """Stop a running server, and wait until it has gone.

Running requests have --timeout-graceful-shutdown to end in.
"""


def _stop(server: AdminClient, no_wait: bool) -> str:
    server.stop(waits=not no_wait)
    return f"Process {server.pid} is stopping." if no_wait else f"Process {server.pid} has stopped."


_NO_WAIT = click.Option(["--no-wait"], is_flag=True, help="Do not wait until it has gone.")

command = make_command("stop", _stop, _HELP, _NO_WAIT)
