"""``headrace reload``: replace the workers of a running server without losing a request."""

from __future__ import annotations

import click

from headrace.admin.client import AdminClient
from headrace.cli.control_command import make_command

_HELP = """Replace every worker of a running server.

The configuration is read anew. Each new worker is ready before its old one drains. If one does not come up,
what ran before stays.
"""


def _reload(server: AdminClient, no_wait: bool) -> str:
    server.post("/api/reload?wait=0" if no_wait else "/api/reload")
    return f"Process {server.pid} is reloading." if no_wait else f"Process {server.pid} has reloaded."


_NO_WAIT = click.Option(
    ["--no-wait"], is_flag=True, help="Do not wait until it is done; the log says how it went."
)

command = make_command("reload", _reload, _HELP, _NO_WAIT)
