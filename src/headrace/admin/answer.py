"""The answer to one request, whole."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from headrace.types import Headers


class Answer(NamedTuple):
    """One response.

    Attributes:
        status: 200 to 599.
        body: all of it.
        content_type: of the body.
        fields: further header fields.
    """

    status: int
    body: bytes
    content_type: bytes
    fields: Headers = []


def data(value: Any, status: int = 200) -> Answer:
    """Data as JSON; what is no JSON, such as an application that Python code gave, as its text."""
    return Answer(status, json.dumps(value, default=str).encode(), b"application/json")


def text(status: int, line: str) -> Answer:
    """One line, for probes."""
    return Answer(status, line.encode(), b"text/plain; charset=utf-8")


def error(status: int, sentence: str, fields: Headers | None = None) -> Answer:
    """Why it is not to be had: ``{"error": sentence}``."""
    return data({"error": sentence}, status)._replace(fields=fields or [])
