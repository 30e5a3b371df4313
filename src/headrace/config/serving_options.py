"""Options of the application, its listeners, its processes and the control surface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from headrace.config.option import option


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationOptions:
    """Which application, and how it is called."""

    app: Any = option(
        None,
        "The application: module:attribute, a file or a directory; without it main.py, app.py, api.py "
        "and app/ are searched",
        uvicorn=True,
        metavar="APP",
    )
    app_dir: str = option("", "Folder put first on the import path", uvicorn=True, metavar="DIR")
    factory: bool = option(
        False, "APP is a callable without arguments that makes the application", uvicorn=True
    )
    interface: Literal["auto", "asgi3", "asgi2", "wsgi"] = option(
        "auto", "Calling convention of the application", uvicorn=True
    )
    lifespan: Literal["auto", "on", "off"] = option("auto", "Lifespan protocol", uvicorn=True)
    timeout_startup: float | None = option(
        None,
        "Limit for the application's lifespan start-up; none by default, nor with 0",
        unit="s",
        minimum=0,
    )
    timeout_shutdown: float | None = option(
        30.0, "Limit for the application's lifespan shutdown; 0 is none", unit="s", minimum=0
    )
    root_path: str = option("", "Prefix under which a proxy serves the application", uvicorn=True)
    root_path_mode: Literal["prefix", "asgi", "auto"] = option(
        "prefix",
        "prefix: path is root path plus request path, as uvicorn does; asgi: path is the request path; "
        "auto: prefix unless the request path begins with it already",
    )
    on_disconnect: Literal["event", "cancel"] = option(
        "event",
        "When the client leaves mid-request: only tell the application by http.disconnect, or cancel its "
        "task as well",
    )
    env_file: str | None = option(
        None, "File of variables loaded for the application (extra dotenv)", uvicorn=True, exists=True
    )
    reset_contextvars: bool = option(
        False, "Accepted for uvicorn; context variables never leak between requests here", uvicorn=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """Where connections come from."""

    host: str = option("127.0.0.1", "Address to listen on; empty means all of IPv4 and IPv6", uvicorn=True)
    port: int = option(8000, "Port to listen on; 0 picks a free one", uvicorn=True, minimum=0, maximum=65535)
    uds: str | None = option(None, "Listen on a Unix socket instead", uvicorn=True, metavar="PATH")
    uds_mode: str = option("0666", "Permissions of Unix sockets, octal")
    fd: int | None = option(None, "Listen on an inherited file descriptor instead", uvicorn=True, minimum=0)
    bind: tuple[str, ...] = option(
        (),
        "Listen here instead of --host and --port: HOST:PORT, [v6]:PORT, unix:PATH, fd://N or systemd; "
        "repeatable",
        metavar="ADDRESS",
    )
    backlog: int = option(
        2048, "Connections the kernel queues before they are accepted", uvicorn=True, minimum=1
    )
    limit_connections: int | None = option(
        None, "Open connections; above it accepting pauses until one closes", minimum=1, unit="connections"
    )
    proxy_protocol: bool = option(
        False, "Each connection begins with a PROXY protocol header (v1 or v2) from a trusted proxy"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """What proxies in front may say of the client."""

    proxy_headers: bool = option(
        True,
        "Take the client's address and scheme, and what --proxy-fields names, from X-Forwarded-* and "
        "Forwarded of trusted proxies",
        uvicorn=True,
        pair=True,
    )
    forwarded_allow_ips: str = option(
        "127.0.0.1,::1",
        "Trusted proxies: addresses, networks, the literal unix for Unix sockets, or * for all",
        uvicorn=True,
        fallback_env="FORWARDED_ALLOW_IPS",
        joined_by=",",
    )
    proxy_fields: str = option(
        "for,proto",
        "What is taken of X-Forwarded-* and Forwarded: for, proto, host, port, prefix, or all; name only "
        "what the proxy sets or removes itself, because clients can send the rest",
        metavar="FIELDS",
        joined_by=",",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions:
    """Processes, event loop and development reload."""

    workers: int | None = option(
        None,
        "Worker processes; auto is one for each CPU that this process may use. Above 1 a supervisor watches "
        "and replaces them",
        uvicorn=True,
        minimum=1,
        maximum=512,
        fallback_env="WEB_CONCURRENCY",
        auto=0,
    )
    loop: str = option(
        "auto",
        "Event loop: auto takes uvloop where it is there; also module:factory",
        uvicorn=True,
        suggestions=("auto", "asyncio", "uvloop", "zuvloop", "none"),
    )
    reload: bool = option(False, "Restart on changes of the source", uvicorn=True)
    reload_dirs: tuple[str, ...] = option(
        (), "Folder to watch; repeatable", flag="--reload-dir", uvicorn=True, exists=True, metavar="DIR"
    )
    reload_includes: tuple[str, ...] = option(
        (), "Pattern of files to watch; repeatable", flag="--reload-include", uvicorn=True, metavar="GLOB"
    )
    reload_excludes: tuple[str, ...] = option(
        (), "Pattern of files not to watch; repeatable", flag="--reload-exclude", uvicorn=True, metavar="GLOB"
    )
    reload_delay: float = option(
        0.25, "Time between two looks at the files", uvicorn=True, unit="s", minimum=0
    )
    reload_graceful: float = option(
        1.0,
        "How long running requests of the old code may take after a change",
        unit="s",
        minimum=0,
    )
    limit_max_requests: int | None = option(
        None,
        "Requests after which a worker ends; with a supervisor it is replaced first",
        uvicorn=True,
        minimum=1,
        unit="requests",
    )
    limit_max_requests_jitter: int = option(
        0, "Random addition to --limit-max-requests, 0 to this", uvicorn=True, minimum=0, unit="requests"
    )
    limit_worker_memory: int | None = option(
        None,
        "Resident memory above which a worker is replaced; the supervisor comes with it",
        unit="bytes",
        minimum=1_048_576,
    )
    worker_lifetime: float | None = option(
        None,
        "Time after which a worker is replaced, plus up to a tenth at random; the supervisor comes with it",
        unit="s",
        minimum=1,
    )
    timeout_worker_startup: float = option(
        60.0, "How long a new worker may take until it is ready; 0 waits for ever", unit="s", minimum=0
    )
    timeout_worker_healthcheck: int = option(
        5,
        "How long a worker's loop may be blocked before the worker is replaced",
        uvicorn=True,
        unit="s",
        minimum=1,
    )
    timeout_graceful_shutdown: float | None = option(
        30.0,
        "How long running requests may take after a stop signal before they are cancelled",
        uvicorn=True,
        unit="s",
        minimum=0,
    )
    drain_delay: float = option(
        0.0,
        "How long new connections are still accepted after a stop signal, so that a load balancer notices",
        unit="s",
        minimum=0,
    )
    accept: Literal["balanced", "shared"] = option(
        "balanced",
        "How workers share new connections: balanced leaves them to the one that has fewest, shared to "
        "whoever comes first",
    )
    preload: bool = option(
        False, "Import the application once and fork the workers from there; the supervisor comes with it"
    )
    once: tuple[str, ...] = option(
        (),
        "Function called in a process of its own before the first worker starts, module:function; repeatable",
        metavar="MODULE:FUNCTION",
    )
    pid: str | None = option(None, "File that holds the process number while the server runs", metavar="FILE")
    user: str | None = option(None, "User to become when the listeners are bound: a name or a number")
    group: str | None = option(None, "Group to become when the listeners are bound: a name or a number")
    umask: str | None = option(None, "File mode creation mask, octal")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminOptions:
    """The control surface, and probes."""

    admin: str = option(
        "auto",
        "Where the control surface listens beside its Unix socket: HOST:PORT; auto: the socket alone; off: "
        "nowhere",
        suggestions=("auto", "off"),
        metavar="HOST:PORT",
    )
    admin_token: str | None = option(
        None, "Bearer token that the control surface asks for over TCP", secret=True
    )
    admin_open: bool = option(
        False, "Let everybody who reaches --admin HOST:PORT in without a token, also from other machines"
    )
    health_path: str | None = option(
        None, "Path that is answered with 200 (503 during a drain) without entering the application",
        metavar="PATH",
    )  # fmt: skip
