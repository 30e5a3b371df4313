"""Keeps pages that a browser shows away from a control surface that asks for no token.

A browser reaches what only this machine reaches, for whatever page it shows. Two ways lead in:

- **DNS rebinding**: the page's own name is made to point to 127.0.0.1; to the browser, the page then asks its
  own server and may read the answers. Such a request names that server in ``Host``. So on a loopback address
  only an IP address and ``localhost`` are taken there. Other addresses are those of ``--admin-open``, where
  machines ask by any name.
- **Requests across origins**: a page may send, though not read. So what changes something is refused when
  ``Origin`` or ``Sec-Fetch-Site`` says that the page is not one of this server's own. What only reads changes
  nothing.

A browser sets these fields by itself, and no page can change them. A token needs no guard: no browser adds
it by itself. A Unix socket needs none: no browser opens it. Probes (``/livez``, ``/readyz``) are let through.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from headrace.config.host_port import is_loopback
from headrace.types import Scope

_OWN_SITES = (b"same-origin", b"none")
"""``none`` is a person at the address bar."""


def find_objection(scope: Scope) -> str | None:
    """Say in one sentence why a request without a token is refused; None when it is not."""
    server = scope.get("server")
    if server is not None and server[1] is None:
        return None
    headers = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    # Without Host it is HTTP/1.0, which no browser speaks.
    is_own_name = not host or _is_own_name(host)
    if not is_own_name and (server is None or is_loopback(server[0])):
        return f"Ask by an IP address or as localhost, not as {host[:80]!r}; or set --admin-token."
    if scope["method"] in ("GET", "HEAD"):
        return None
    origin = headers.get(b"origin")
    is_own_origin = origin is None or (
        is_own_name and origin.decode("latin-1") == f"{scope['scheme']}://{host}"
    )
    if is_own_origin and headers.get(b"sec-fetch-site", b"none") in _OWN_SITES:
        return None
    return "A page of another origin may not control the server; set --admin-token."


def _is_own_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
