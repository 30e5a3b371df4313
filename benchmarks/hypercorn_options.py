"""What hypercorn takes from a file only, as ``--config python:benchmarks.hypercorn_options``."""

keep_alive_max_requests = 10**9
