"""The PROXY protocol, versions 1 and 2, by HAProxy's specification (proxy-protocol.txt), Sans-I/O.

A proxy sends this header before anything else on a connection, and says in it whom it speaks for. Take it
only from proxies you trust: whoever may send it may be anybody.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass

from headrace.errors import RemoteProtocolError
from headrace.types import Address

_V1_START = b"PROXY "
_V1_MAX_BYTES = 107
_V1_BODY = re.compile(
    rb"(?:(?:TCP4|TCP6) [0-9A-Fa-f:.]+ [0-9A-Fa-f:.]+ [0-9]{1,5} [0-9]{1,5}|UNKNOWN(?: [^\r]*)?)\r\n"
)
_V1_KINDS = (b"TCP4 ", b"TCP6 ", b"UNKNOWN")
_V1_TCP_TAIL = re.compile(rb"[0-9A-Fa-f:. ]*(?:\r\n?)?")
_V1_UNKNOWN_TAIL = re.compile(rb"(?: [^\r]*)?(?:\r\n?)?")

_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED_BYTES = 16
_V2_MAX_BYTES = 4096
"""Addresses need 216 at most; the rest is for TLVs, of which a client certificate is the longest."""
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
_V2_ADDRESS_BYTES = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
"""Family and transport -> length of the addresses; every other pair must be refused, §2.2."""
_TLV_CRC32C = 0x03


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What the proxy said.

    Attributes:
        client: who it speaks for; None means nobody (LOCAL, UNKNOWN) or a Unix socket: keep the connection's
            own addresses, both of them.
        server: what that client connected to; None together with ``client``.
        consumed: length of the header in bytes; what follows is the client's.
    """

    client: Address | None
    server: Address | None
    consumed: int


def parse(data: bytes) -> ProxyHeader | None:
    """Read the header a connection begins with.

    Args:
        data: everything received on the connection so far. At most 4,096 bytes are asked for.

    Returns:
        The header, or None when more bytes are needed.

    Raises:
        RemoteProtocolError: no header begins like this; raised at the first byte that tells. The
            specification forbids to guess: abort the connection.
    """
    if data[:1] == b"P":
        return _parse_v1(data)
    if _begins_alike(data, _V2_SIGNATURE):
        return _parse_v2(data)
    raise _refused("the connection does not begin with a PROXY header", data)


def _refused(reason: str, data: bytes) -> RemoteProtocolError:
    return RemoteProtocolError(f"PROXY protocol: {reason}: {data[:20]!r}")


def _begins_alike(data: bytes, expected: bytes) -> bool:
    return data[: len(expected)] == expected[: len(data)]


def _parse_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_MAX_BYTES)
    line = data[: end + 2] if end >= 0 else data
    if not _is_v1_possible(line):
        raise _refused("malformed version 1 line", data)
    if end < 0:
        if len(data) >= _V1_MAX_BYTES:
            raise _refused("version 1 line longer than 107 bytes", data)
        return None
    body = line[len(_V1_START) :]
    if _V1_BODY.fullmatch(body) is None:
        raise _refused("malformed version 1 line", data)
    if body.startswith(b"UNKNOWN"):
        return ProxyHeader(None, None, len(line))
    kind, *fields = body[:-2].decode("ascii").split(" ")
    try:
        client = _v1_address(kind, fields[0], fields[2])
        server = _v1_address(kind, fields[1], fields[3])
    except ValueError:
        raise _refused("malformed version 1 address", data) from None
    return ProxyHeader(client, server, len(line))


def _is_v1_possible(line: bytes) -> bool:
    """Whether a whole line, or the beginning of one, can still be right."""
    if not _begins_alike(line, _V1_START):
        return False
    body = line[len(_V1_START) :]
    for kind in _V1_KINDS:
        if _begins_alike(body, kind):
            tail = _V1_UNKNOWN_TAIL if kind == b"UNKNOWN" else _V1_TCP_TAIL
            return tail.fullmatch(body, len(kind)) is not None if len(body) > len(kind) else True
    return False


def _v1_address(kind: str, host: str, port: str) -> Address:
    """Check one end; ipaddress refuses leading zeros in IPv4 itself.

    Raises:
        ValueError: it is none.
    """
    family = ipaddress.IPv4Address if kind == "TCP4" else ipaddress.IPv6Address
    # §2.1: no leading zeros, 0 to 65535.
    if int(port) > 65535 or str(int(port)) != port:
        raise ValueError(port)
    return (_unmapped(family(host)), int(port))


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if len(data) > 12 and data[12] not in (_V2_LOCAL, _V2_PROXY):
        raise _refused("unknown version or command", data)
    if len(data) > 13 and data[12] == _V2_PROXY and data[13] not in _V2_ADDRESS_BYTES:
        raise _refused("unknown address family", data)
    if len(data) < _V2_FIXED_BYTES:
        return None
    size = _V2_FIXED_BYTES + int.from_bytes(data[14:16], "big")
    if size > _V2_MAX_BYTES:
        raise _refused(f"version 2 header of {size} bytes is longer than {_V2_MAX_BYTES}", data)
    is_local = data[12] == _V2_LOCAL
    # A LOCAL header (the proxy's own health check) carries nothing that counts, whatever its family says.
    address_bytes = 0 if is_local else _V2_ADDRESS_BYTES[data[13]]
    if size < _V2_FIXED_BYTES + address_bytes:
        raise _refused("version 2 header too short for its addresses", data)
    if len(data) < size:
        return None
    if is_local:
        return ProxyHeader(None, None, size)
    header = data[:size]
    _check_tlvs(header, _V2_FIXED_BYTES + address_bytes)
    client, server = _v2_addresses(header)
    return ProxyHeader(client, server, size)


def _v2_addresses(header: bytes) -> tuple[Address | None, Address | None]:
    family = header[13] >> 4
    if family == 1:
        source, target, source_port, target_port = struct.unpack_from("!4s4sHH", header, _V2_FIXED_BYTES)
    elif family == 2:
        source, target, source_port, target_port = struct.unpack_from("!16s16sHH", header, _V2_FIXED_BYTES)
    else:
        # Unspecified, or a Unix socket, whose client has no address in ASGI either.
        return None, None
    client = _unmapped(ipaddress.ip_address(source))
    server = _unmapped(ipaddress.ip_address(target))
    return (client, source_port), (server, target_port)


def _unmapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address as text; a proxy writes IPv4 as ::ffff:1.2.3.4 when the other end has only IPv6."""
    return str(getattr(address, "ipv4_mapped", None) or address)


def _check_tlvs(header: bytes, position: int) -> None:
    """Walk the type-length-value fields behind the addresses; a checksum among them must be right, §2.2.3."""
    while position < len(header):
        value = position + 3
        end = value + int.from_bytes(header[position + 1 : value], "big")
        if value > len(header) or end > len(header):
            raise _refused("a TLV reaches beyond the header", header)
        if header[position] == _TLV_CRC32C:
            if end - value != 4:
                raise _refused("the checksum has another length than 4", header)
            zeroed = header[:value] + b"\0\0\0\0" + header[end:]
            if crc32c(zeroed) != int.from_bytes(header[value:end], "big"):
                raise _refused("the checksum is wrong", header)
        position = end


def _crc32c_table() -> tuple[int, ...]:
    """One entry for each byte; 0x82F63B78 is the Castagnoli polynomial, bits reversed (RFC 3720 §12.1)."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ 0x82F63B78 if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    """Checksum of RFC 3720 §B.4; zlib has only the other polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF
