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

from headrace.config.option import Option
from headrace.config.protocol_options import HTTPOptions, TLSOptions, WebSocketOptions
from headrace.config.serving_options import (
    AdminOptions,
    ApplicationOptions,
    ListenOptions,
    ProcessOptions,
    ProxyOptions,
)
from headrace.config.telemetry_options import LogOptions, StackOptions

__all__ = [
    "AdminOptions",
    "ApplicationOptions",
    "Config",
    "HTTPOptions",
    "ListenOptions",
    "LogOptions",
    "Option",
    "ProcessOptions",
    "ProxyOptions",
    "StackOptions",
    "TLSOptions",
    "WebSocketOptions",
]


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
    stack: StackOptions = StackOptions()
    log: LogOptions = LogOptions()
    sources: dict[str, str] = field(default_factory=dict)
