"""Options of HTTP, WebSocket and TLS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from headrace.config.option import option


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
