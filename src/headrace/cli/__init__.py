"""The command line: arguments in, exit code out, no logic of its own.

In: ``sys.argv`` and the environment.
Out: 0 or the server's code; 2 for a wrong command line; 3 for every start-up failure, with one sentence.
Called by: the script ``headrace`` and ``python -m headrace``.
Obeys: uvicorn 0.54's spellings and exit codes.
Tests: ``tests/cli``.
"""

from __future__ import annotations

import importlib

import click

from headrace.cli.version import version_option

__all__ = ["main"]

_COMMANDS = ("run", "dev", "check", "status", "reload", "stop")


class _Commands(click.Group):
    """One module for each command, imported when the command is asked for: each costs only its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of ``--help``."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or ``None``."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"headrace.cli.{cmd_name}").command
        return command


main = _Commands(
    "headrace", params=[version_option()], help="The server and production stack for ASGI applications."
)
