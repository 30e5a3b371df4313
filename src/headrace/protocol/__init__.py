"""Sans-I/O engines: bytes of one connection in, events out; method calls in, bytes to send out.

Called by ``server.connection`` only. No loop, clock, socket, logger or application in here.
RFC 9110, RFC 9112. Tests: ``tests/protocol``.
"""
