"""Transports on one side, protocol engines and exchanges on the other: the only user of asyncio's transports.

In: listening sockets and a ``Config``. Out: responses, the log, an exit code.
Called by: ``headrace.run``, ``headrace.serve``, ``cli``.
Obeys: RFC 9112 §9 (connections), and what ``docs/behaviour.md`` promises of limits and of the stop.
Tests: ``tests/server``.
"""
