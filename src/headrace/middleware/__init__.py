"""Layers of the stack: an ASGI application in, an ASGI application out, one class a file.

Called by ``server.stack``, or by any ASGI server: options are constructor arguments. A layer passes other
scope types on in its first line. RFC 7239 and the ASGI specification 3.0. Tests: ``tests/middleware``.
"""
