"""HTTP/2, server side: bytes of one connection to events of its streams, and responses to bytes.

In: bytes of the client, and what an exchange sends on a stream. Out: ``protocol.events`` and bytes.
Called by: ``server/http2_connection``. The frames, HPACK and windows are libnghttp2's, by ``ngh2``; without
that package ``is_available`` says so and nothing here can be used.
Obeys: RFC 9113 (HTTP/2), RFC 7541 (HPACK), RFC 8441 (extended CONNECT), RFC 9218 (priorities).
Tests: ``tests/protocol/http2``, and raw frames over sockets in ``tests/conformance/test_http2.py``.
"""

from headrace.protocol.http2.binding import MISSING, is_available
from headrace.protocol.http2.engine import HTTP2Engine
from headrace.protocol.http2.limits import HTTP2Limits
from headrace.protocol.http2.response import HTTP2Defaults

__all__ = ["MISSING", "HTTP2Defaults", "HTTP2Engine", "HTTP2Limits", "is_available"]
