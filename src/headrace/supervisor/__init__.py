"""Many processes, one service: spawn, watch, replace and stop workers.

In: a resolved configuration.
Out: workers that serve it; an exit code.
Called by: ``server/entry``'s callers on the command line, when more than one worker is asked for.
Obeys: DESIGN.md; uvicorn 0.54's signals and exit codes.
Tests: ``tests/supervisor``.
"""
