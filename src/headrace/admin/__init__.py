"""The control surface: what operators, probes and the command line ask of a running server.

In: requests over a Unix socket of the server's own user, or over TCP with ``--admin``; a ``Controls``.
Out: JSON, and calls of the ``Controls``; for the command line a client of it.
Called by: ``supervisor``, which serves the application by ``server.plain_server``; ``cli``.
Obeys: RFC 9110; RFC 6750 (bearer tokens); the Fetch standard's ``Origin`` and ``Sec-Fetch-Site``.
Tests: ``tests/admin``, ``tests/cli/test_control_commands.py``.
"""
