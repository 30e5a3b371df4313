"""Every option once: name, type, default, unit, range and words.

Each field of these dataclasses is one option. Its name is the keyword of ``headrace.run`` and, in kebab
case, the TOML key; ``HEADRACE_`` plus its upper-case name is the variable; the flag is the kebab name
unless ``flag`` says otherwise. Flags, variables, TOML keys, the reference page and the JSON Schema are all
derived from here, so a new option is one field.

An option with ``uvicorn=True`` is one of uvicorn 0.54, with its meaning and, unless ``docs/
migrating-from-uvicorn.md`` says why not, its default; ``UVICORN_`` plus its name is read too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Option:
    """What the option table says of one field.

    Attributes:
        help: one or two sentences, no full stop needed at the end.
        flag: spelling on the command line; empty means ``--`` plus the kebab name.
        uvicorn: an option of uvicorn 0.54, so that ``UVICORN_<NAME>`` is read as well.
        minimum, maximum: inclusive range of a number.
        unit: what a number counts: "s", "bytes", "requests", ...
        metavar: the word for the value in ``--help``.
        fallback_env: a further variable, read after the other two (``WEB_CONCURRENCY``).
        exists: the value is a path that must exist.
        takes_boolean: the flag takes ``true`` or ``false`` as its value, as uvicorn's
            ``--ws-per-message-deflate`` does.
        pair: a boolean with a ``--no-`` twin; without it the flag can only switch on.
        choices: the only values allowed; empty means any.
        suggestions: values with a meaning of their own where others are allowed as well.
        secret: never printed.
        api_only: a keyword of the Python interface and nothing else.
        joined_by: a list is accepted as well, and joined by this.
        auto: the number that the word ``auto`` stands for; None where the word means nothing.
    """

    help: str
    flag: str = ""
    uvicorn: bool = False
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    metavar: str = ""
    fallback_env: str = ""
    exists: bool = False
    takes_boolean: bool = False
    pair: bool = False
    choices: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    secret: bool = False
    api_only: bool = False
    joined_by: str = ""
    auto: int | None = None


def option(default: Any, help: str, **facts: Any) -> Any:
    """A dataclass field with its row of the option table in the metadata."""
    return field(default=default, metadata={"option": Option(help, **facts)})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPOptions:
    """Limits, timeouts and default headers of HTTP."""

    http: str = option(
        "auto",
        "Accepted for uvicorn; every choice is served by headrace's own engine",
        uvicorn=True,
        suggestions=("auto", "h11", "httptools", "zttp"),
    )
    http2: bool | None = option(
        None,
        "HTTP/2 beside HTTP/1.1 on the same port, over TLS by ALPN and in clear text with prior knowledge; "
        "on by default where the extra http2 is installed",
        uvicorn=True,
        pair=True,
    )
    http2_max_streams: int = option(
        100, "Concurrent streams of one HTTP/2 connection", unit="streams", minimum=1, maximum=100_000
    )
    timeout_keep_alive: float = option(
        5.0, "How long an idle connection is kept; 0 keeps none", uvicorn=True, unit="s", minimum=0
    )
    timeout_header: float = option(
        10.0, "Limit for a request's whole head, from its first byte or the connection's start; 0 is none",
        unit="s", minimum=0,
    )  # fmt: skip
    timeout_body: float = option(
        60.0, "How long a client may be silent inside a body that the application waits for; 0 is none",
        unit="s", minimum=0,
    )  # fmt: skip
    timeout_write: float = option(
        60.0, "How long a client may take nothing of a response before it is cut; 0 is none",
        unit="s", minimum=0,
    )  # fmt: skip
    limit_concurrency: int | None = option(
        None, "Running requests above which 503 with Retry-After is answered", uvicorn=True, minimum=1,
        unit="requests",
    )  # fmt: skip
    limit_request_line: int = option(
        16_384, "Longest request line, else 414", unit="bytes", minimum=64, maximum=1_048_576
    )
    limit_request_head: int = option(
        65_536, "Longest request head, else 431", unit="bytes", minimum=256, maximum=16_777_216
    )
    limit_request_fields: int = option(
        128, "Most header fields of a request, else 431", unit="fields", minimum=1, maximum=65_536
    )
    limit_request_body: int | None = option(
        None, "Longest request body, else 413; none by default", unit="bytes", minimum=0
    )
    server_header: bool = option(True, "Send a Server header", uvicorn=True, pair=True)
    date_header: bool = option(True, "Send a Date header", uvicorn=True, pair=True)
    headers: tuple[tuple[str, str], ...] = option(
        (),
        "Default response header, Name:Value; repeatable",
        flag="--header",
        uvicorn=True,
        metavar="NAME:VALUE",
    )
    h11_max_incomplete_event_size: int | None = option(
        None, "Accepted for uvicorn; sets --limit-request-head", uvicorn=True, unit="bytes", minimum=256,
        maximum=16_777_216,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketOptions:
    """WebSocket, over HTTP/1.1 and HTTP/2."""

    ws: str = option(
        "auto",
        "none serves no WebSockets: an upgrade is ignored; every other choice is served by headrace's own "
        "engine",
        uvicorn=True,
        suggestions=("auto", "none", "websockets", "websockets-sansio", "wsproto"),
    )
    ws_max_size: int = option(
        16_777_216, "Longest message, decompressed, else 1009", uvicorn=True, unit="bytes", minimum=1
    )
    ws_max_queue: int = option(
        32,
        "Most messages waiting for the application; above it, or above 64 KiB, reading stops",
        uvicorn=True,
        unit="messages",
        minimum=1,
    )
    ws_ping_interval: float | None = option(
        20.0, "Time between pings; 0 or none sends none", uvicorn=True, unit="s", minimum=0
    )
    ws_ping_timeout: float | None = option(
        20.0,
        "How long a client may be silent behind a ping, else 1011; time in which our own loop was late does "
        "not count; 0 or none waits for ever",
        uvicorn=True,
        unit="s",
        minimum=0,
    )
    ws_per_message_deflate: bool = option(
        True, "Take compression (permessage-deflate) where clients offer it", uvicorn=True, takes_boolean=True
    )
    ws_deflate_context_takeover: Literal["none", "server", "client", "both"] = option(
        "none",
        "Who may refer to earlier messages when compressing: better compression, and up to 60 KiB of memory "
        "for each connection and direction",
    )
    ws_deflate_window_bits: int | None = option(
        None,
        "Window of compression, 2 to this power in bytes; without it 15, and 12 for who may refer to earlier "
        "messages",
        minimum=9,
        maximum=15,
    )
    ws_deflate_level: int = option(1, "Effort of compression, from fast to small", minimum=1, maximum=9)
    ws_max_rate: float | None = option(
        None,
        "Messages a second that one connection may send, with a second's worth at once; above it "
        "--ws-rate-action",
        unit="messages/s",
        minimum=0.1,
    )
    ws_rate_action: Literal["delay", "close"] = option(
        "delay", "Above --ws-max-rate: read more slowly, or close with 1008"
    )
    ws_max_connections_per_ip: int | None = option(
        None,
        "Open WebSockets of one client address, as trusted proxies name it; above it 429",
        unit="connections",
        minimum=1,
    )
    ws_send_timeout: float = option(
        60.0,
        "How long a client may take nothing of what is sent before it is closed with 1013; 0 is none",
        unit="s",
        minimum=0,
    )
    ws_idle_timeout: float = option(
        0.0,
        "How long no message may go either way before the connection is closed with 1001; 0 is none",
        unit="s",
        minimum=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSOptions:
    """Certificates and what is asked of clients."""

    ssl_keyfile: str | None = option(None, "Private key, PEM", uvicorn=True, metavar="FILE")
    ssl_certfile: str | None = option(None, "Certificate chain, PEM", uvicorn=True, metavar="FILE")
    ssl_keyfile_password: str | None = option(None, "Password of the private key", uvicorn=True, secret=True)
    ssl_version: int = option(17, "Number of ssl.PROTOCOL_*; 17 is PROTOCOL_TLS_SERVER", uvicorn=True)
    ssl_min_version: Literal["1.2", "1.3"] = option("1.2", "Lowest TLS version")
    ssl_cert_reqs: int = option(
        0, "Client certificates: 0 none, 1 optional, 2 required", uvicorn=True, minimum=0, maximum=2
    )
    ssl_ca_certs: str | None = option(
        None, "Authorities that client certificates are checked against, PEM", uvicorn=True, metavar="FILE"
    )
    ssl_ciphers: str | None = option(
        None, "OpenSSL cipher list for TLS 1.2; none means OpenSSL's own", uvicorn=True
    )
    ssl_sni: tuple[str, ...] = option(
        (),
        "Certificate for one host: HOST=CERT,KEY (HOST may begin with *.); repeatable",
        metavar="HOST=CERT,KEY",
    )
    ssl_reload_interval: float = option(
        10.0,
        "Time between two looks at the certificate files for changes; 0 never looks",
        unit="s",
        minimum=0,
    )
    ssl_context_factory: Any = option(
        None, "callable(config, default_factory) that returns an ssl.SSLContext", uvicorn=True, api_only=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is written, where and how."""

    log_level: str | None = option(
        None, "Level of the log; info without it", uvicorn=True,
        choices=("critical", "error", "warning", "info", "debug", "trace"),
    )  # fmt: skip
    log_config: Any = option(
        None,
        "Logging configuration: .ini, .json or .yaml (extra yaml)",
        uvicorn=True,
        exists=True,
        metavar="FILE",
    )
    log_format: Literal["text", "json", "pretty"] = option(
        "text", "Shape of log lines, the access log's too; pretty is for eyes, and what dev writes"
    )
    access_log: bool = option(True, "Write a line for each request", uvicorn=True, pair=True)
    access_log_format: str = option(
        "uvicorn",
        "uvicorn, combined, json, or a template of gunicorn's %-atoms such as '%(h)s %(r)s %(s)s %(L)s'",
        metavar="FORMAT",
    )
    use_colors: bool | None = option(None, "Colours; by default on a terminal only", uvicorn=True, pair=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The resolved configuration: one group of options for each concern.

    ``sources`` says for each option name where its value came from: "default", "--flag",
    "HEADRACE_NAME", "headrace.toml", ...
    """

    application: ApplicationOptions = ApplicationOptions()
    listen: ListenOptions = ListenOptions()
    proxy: ProxyOptions = ProxyOptions()
    process: ProcessOptions = ProcessOptions()
    admin: AdminOptions = AdminOptions()
    http: HTTPOptions = HTTPOptions()
    websocket: WebSocketOptions = WebSocketOptions()
    tls: TLSOptions = TLSOptions()
    log: LogOptions = LogOptions()
    sources: dict[str, str] = field(default_factory=dict)
