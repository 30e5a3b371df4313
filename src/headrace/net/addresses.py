"""Where a listener may be: the words of ``--bind`` and the options beside it."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.config.host_port import parse_host_port
from headrace.config.options import ListenOptions
from headrace.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TCPAddress:
    """A host and a port.

    Attributes:
        host: an address or a name, IPv6 without brackets; empty means all of IPv4 and IPv6.
        port: 0 to 65535; 0 lets the kernel pick.
    """

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A path in the file system."""

    path: str


@dataclass(frozen=True, slots=True)
class DescriptorAddress:
    """A file descriptor this process inherited."""

    fd: int


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """Every socket systemd passed to this process, in its order."""


BindAddress = TCPAddress | UnixAddress | DescriptorAddress | SystemdAddress

_FORMS = "write HOST:PORT, :PORT, [v6]:PORT, unix:PATH, fd://N or systemd"


def parse_bind(text: str) -> BindAddress:
    """Read one value of ``--bind``.

    Args:
        text: HOST:PORT, :PORT, [v6]:PORT, unix:PATH, fd://N or systemd.

    Raises:
        ConfigError: it is none of these.
    """
    if text == "systemd":
        return SystemdAddress()
    if text.startswith("unix:"):
        return _unix(text)
    if text.startswith("fd://"):
        return _descriptor(text)
    return TCPAddress(*parse_host_port(text, _FORMS))


def addresses_of(options: ListenOptions) -> tuple[BindAddress, ...]:
    """Every address the options name: ``bind``, else ``fd``, else ``uds``, else ``host`` and ``port``.

    Raises:
        ConfigError: a value of ``bind`` is no address.
    """
    if options.bind:
        return tuple(parse_bind(text) for text in options.bind)
    if options.fd is not None:
        return (DescriptorAddress(options.fd),)
    if options.uds:
        return (UnixAddress(options.uds),)
    host = options.host
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return (TCPAddress(host, options.port),)


def _unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    if not path or "\0" in path:
        raise ConfigError(f"{text[:80]!r} names no path; write unix:/run/app.sock.")
    return UnixAddress(path)


def _descriptor(text: str) -> DescriptorAddress:
    number = text.removeprefix("fd://")
    # isdecimal alone accepts digits of other scripts.
    if not (number.isascii() and number.isdecimal() and len(number) <= 9):
        raise ConfigError(f"{text[:80]!r} names no file descriptor; write fd://3.")
    return DescriptorAddress(int(number))
