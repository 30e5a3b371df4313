import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import RemoteProtocolError
from headrace.net.proxy_protocol import ProxyHeader, crc32c, parse

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TCP4 = bytes([203, 0, 113, 7, 10, 0, 0, 1]) + struct.pack("!HH", 4321, 443)
TCP6 = bytes(15) + b"\x07" + bytes(15) + b"\x01" + struct.pack("!HH", 1, 2)
MAPPED = (bytes(10) + b"\xff\xff" + bytes([203, 0, 113, 7])) * 2 + struct.pack("!HH", 1, 2)


def v2(body: bytes = TCP4, *, family: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body)) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def checksummed(correct: bool = True) -> bytes:
    header = v2(TCP4 + tlv(0x02, b"example.org") + tlv(0x03, bytes(4)) + tlv(0x04, b"pad"))
    checksum = crc32c(header) ^ (not correct)
    return header.replace(tlv(0x03, bytes(4)), tlv(0x03, struct.pack("!I", checksum)))


ACCEPTED = {
    b"PROXY TCP4 203.0.113.7 10.0.0.1 4321 443\r\n": (("203.0.113.7", 4321), ("10.0.0.1", 443)),
    b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n": (("0.0.0.0", 0), ("255.255.255.255", 65535)),
    b"PROXY TCP6 2001:DB8::7 ::1 1 2\r\n": (("2001:db8::7", 1), ("::1", 2)),
    b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n": (("203.0.113.7", 1), ("::1", 2)),
    b"PROXY UNKNOWN\r\n": (None, None),
    b"PROXY UNKNOWN ffff::1 any\x00thing \n 1\r\n": (None, None),
    b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n": (None, None),
    v2(): (("203.0.113.7", 4321), ("10.0.0.1", 443)),
    v2(family=0x12): (("203.0.113.7", 4321), ("10.0.0.1", 443)),
    v2(TCP6, family=0x21): (("::7", 1), ("::1", 2)),
    v2(MAPPED, family=0x21): (("203.0.113.7", 1), ("203.0.113.7", 2)),
    v2(bytes(216), family=0x31): (None, None),
    v2(b"", family=0x00): (None, None),
    v2(tlv(0x05, b"id"), family=0x00): (None, None),
    v2(b"", family=0x00, command=0x20): (None, None),
    v2(b"whatever", family=0xFF, command=0x20): (None, None),
    v2(TCP4 + tlv(0x20, bytes(4065))): (("203.0.113.7", 4321), ("10.0.0.1", 443)),
    checksummed(): (("203.0.113.7", 4321), ("10.0.0.1", 443)),
}

REFUSED = [
    # (bytes, how many of them tell already)
    (b"GET / HTTP/1.1\r\n", 1),
    (b"\x16\x03\x01\x02\x00", 1),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 3),
    (b"PROXY\tTCP4", 6),
    (b"PROXY UDP4 ", 8),
    (b"PROXY TCP5 ", 10),
    (b"PROXY TCP4\r\n", 11),
    (b"PROXY TCP4 localhost 10.0.0.1 1 2\r\n", 12),
    (b"PROXY TCP4 1.2.3.4\n", 19),
    (b"PROXY TCP4 1.2.3.4\rx", 20),
    (b"PROXY TCP4 1.2.3.4 10.0.0.1 1 65536\r\n", 37),
    (b"PROXY TCP4 1.2.3.4 10.0.0.1 01 2\r\n", 34),
    (b"PROXY TCP4 1.2.3.04 10.0.0.1 1 2\r\n", 34),
    (b"PROXY TCP4 1.2.3.4  10.0.0.1 1 2\r\n", 34),
    (b"PROXY TCP4 1.2.3.4 10.0.0.1 1\r\n", 31),
    (b"PROXY TCP4 ::1 ::1 1 2\r\n", 24),
    (b"PROXY TCP6 1.2.3.4 10.0.0.1 1 2\r\n", 33),
    (b"PROXY TCP4 1.2.3.4 10.0.0.1 a b\r\n", 33),
    (b"PROXY UNKNOWNX\r\n", 14),
    (b"PROXY UNKNOWN\rx", 15),
    (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", 107),
    (b"PROXY TCP4 " + b"1" * 200, 107),
    (SIGNATURE[:11] + b"x", 12),
    (SIGNATURE + b"\x11", 13),
    (SIGNATURE + b"\x22", 13),
    (SIGNATURE + b"\x21\x10", 14),
    (SIGNATURE + b"\x21\x41", 14),
    (v2(TCP4[:-1]), 16),
    (v2(TCP4, family=0x21), 16),
    (v2(bytes(4081), family=0x00), 16),
    (v2(b"", command=0x20)[:-2] + b"\xff\xff", 16),
    (v2(TCP4 + b"\x01"), 29),
    (v2(TCP4 + b"\x01\x00"), 30),
    (v2(TCP4 + b"\x01\x00\x02x"), 32),
    (v2(TCP4 + tlv(0x03, b"abc")), 34),
    (checksummed(correct=False), len(checksummed())),
]


@pytest.mark.parametrize(("data", "addresses"), ACCEPTED.items())
def test_accepted_at_the_last_byte_and_not_before(data: bytes, addresses: tuple[object, object]) -> None:
    for end in range(len(data)):
        assert parse(data[:end]) is None
    header = ProxyHeader(*addresses, len(data))  # type: ignore[arg-type]
    assert parse(data) == header
    assert parse(data + b"GET / HTTP/1.1\r\n\r\n") == header


@pytest.mark.parametrize(("data", "telling"), REFUSED)
def test_refused_at_the_first_byte_that_tells(data: bytes, telling: int) -> None:
    for end in range(telling):
        assert parse(data[:end]) is None
    for end in range(telling, len(data) + 1):
        with pytest.raises(RemoteProtocolError) as caught:
            parse(data[:end])
        assert str(caught.value).startswith("PROXY protocol: ")


def test_checksum_of_rfc_3720() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283


def outcome(data: bytes) -> ProxyHeader | str | None:
    try:
        return parse(data)
    except RemoteProtocolError:
        return "refused"


def decided(data: bytes) -> ProxyHeader | str | None:
    """What byte by byte gives: the first answer that is not "more"."""
    answers = (outcome(data[:end]) for end in range(len(data) + 1))
    return next((answer for answer in answers if answer is not None), None)


LINES = st.builds(
    lambda kind, fields, end: b" ".join((b"PROXY", kind, *fields)) + end,
    st.sampled_from([b"TCP4", b"TCP6", b"UNKNOWN", b"TCP", b""]),
    st.lists(st.sampled_from([b"1.2.3.4", b"::1", b"0", b"80", b"00", b"70000", b"", b"x"]), max_size=5),
    st.sampled_from([b"\r\n", b"\n", b"\r", b""]),
)
BINARY = st.builds(
    lambda head, size, body: SIGNATURE + head + struct.pack("!H", size) + body,
    st.sampled_from(
        [b"\x21\x11", b"\x21\x21", b"\x21\x31", b"\x20\x00", b"\x21\x00", b"\x21\x13", b"\x31\x11"]
    ),
    st.integers(0, 300),
    st.binary(max_size=300),
)


@given(st.one_of(LINES, BINARY, st.binary(max_size=120)), st.binary(max_size=20))
def test_split_anywhere_gives_what_the_whole_gives(data: bytes, rest: bytes) -> None:
    assert decided(data + rest) == outcome(data + rest)


@given(st.ip_addresses(v=4), st.ip_addresses(v=6), st.integers(0, 65535))
def test_both_versions_agree(four: object, six: object, port: int) -> None:
    line = f"PROXY TCP4 {four} {four} {port} {port}\r\n".encode()
    binary = v2(four.packed * 2 + struct.pack("!HH", port, port))  # type: ignore[attr-defined]
    assert (parse(line).client, parse(line).server) == (parse(binary).client, parse(binary).server)  # type: ignore[union-attr]
    line = f"PROXY TCP6 {six} {six} {port} {port}\r\n".encode()
    binary = v2(six.packed * 2 + struct.pack("!HH", port, port), family=0x21)  # type: ignore[attr-defined]
    assert parse(line).client == parse(binary).client  # type: ignore[union-attr]
