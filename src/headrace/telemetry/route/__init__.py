"""The route of a finished request as the application wrote it, ``/users/{id}``: a label of few values.

In: the ASGI scope as the application left it. Out: the template, or None where no route is known.
Called by the consumers of finished exchanges, off the request's path; imports ``types`` only.
Source: what Starlette, FastAPI, Litestar and our hooks for Django and Quart leave in the scope;
``http.route`` of OpenTelemetry's HTTP conventions. Tests: ``tests/telemetry/test_route.py`` and the matrix of
frameworks in ``tests/frameworks/``.
"""

from headrace.telemetry.route.template import learn_routes, route_template

__all__ = ["learn_routes", "route_template"]
