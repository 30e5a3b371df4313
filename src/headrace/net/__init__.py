"""Listeners: addresses in, listening sockets, TLS contexts and peer addresses out.

Called by ``server``, ``supervisor``, ``diagnosis`` and ``cli``; nothing in here reads a request.
The PROXY protocol (versions 1 and 2), systemd's socket passing and notification, TLS by RFC 8446 and
RFC 6066 §3, and the ASGI TLS extension live here. Tests: ``tests/net``.
"""
