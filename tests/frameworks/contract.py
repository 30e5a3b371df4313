"""What every application of these tests answers, whatever its framework.

| request | answer |
|---|---|
| GET /json | ``GREETING`` |
| POST /json | the same document |
| POST /form | the fields of a URL-encoded form |
| POST /upload | name, size and sha256 of the multipart field ``file``, and the field ``note`` |
| GET /stream | ``STREAM``, line by line |
| GET /events | three server-sent events, 0 to 2 |
| GET /endless | lines until the client goes; then ``books.left`` counts |
| GET /background | 200, and then a background task that counts in ``books.background_runs`` |
| GET /books | the counters |
| GET /file | the file named by ``FILE_VARIABLE`` |
| GET /redirect | to /json, with the prefix if there is one |
| GET /error | raises |
| GET /path/... | ``path`` and ``raw_path`` of the scope |
| POST /body | size and sha256 of the body |
| GET /large | ``LARGE_BYTES`` bytes of "x" |
| WebSocket /socket | each text comes back; the text "bye" closes with ``CLOSE_CODE`` |
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from typing import Any

GREETING = {"hello": "world"}
LINES = [f"line {number}\n" for number in range(50)]
STREAM = "".join(LINES)
LARGE_BYTES = 8 * 1024 * 1024
FILE_VARIABLE = "FRAMEWORK_TEST_FILE"
ENDLESS_PAUSE_S = 0.01
CLOSE_CODE = 4001


@dataclass(slots=True)
class Books:
    """What has happened in the application."""

    startups: int = 0
    background_runs: int = 0
    left: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def file_path() -> str:
    return os.environ[FILE_VARIABLE]


def facts_of(body: bytes) -> dict[str, Any]:
    return {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def paths_of(scope: Any) -> dict[str, str]:
    return {"path": scope["path"], "raw_path": scope["raw_path"].decode("ascii")}
