"""HTTP/1.1, Sans-I/O: ``HTTP1Engine`` takes a connection's bytes and returns events; ``send_*`` encode.

Called by ``server.connection``. RFC 9112 (syntax, framing), RFC 9110 (fields). llhttp, by httptools, is the
judge of each head and undoes chunked coding; bodies of known length never enter it.
Tests: ``tests/protocol/http1``.
"""

from headrace.protocol.http1.engine import HTTP1Engine
from headrace.protocol.http1.limits import HTTP1Limits
from headrace.protocol.http1.parser import HeadParser
from headrace.protocol.http1.response import ResponseDefaults

__all__ = ["HTTP1Engine", "HTTP1Limits", "HeadParser", "ResponseDefaults"]
