"""ASGI: protocol events on one side, one call of the application on the other.

In: events of an engine, and the application's messages.
Out: scopes and messages for the application, and calls on the stream that carries its response.
Called by: ``server``; ``importer`` by ``cli`` as well.
Obeys: ASGI 3.0, HTTP 2.3 and lifespan 2.0; RFC 9110 for what a response may be.
Tests: ``tests/asgi``.
"""
