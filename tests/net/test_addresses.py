import pytest

from headrace.config.options import ListenOptions
from headrace.errors import ConfigError
from headrace.net.addresses import (
    DescriptorAddress,
    SystemdAddress,
    TCPAddress,
    UnixAddress,
    addresses_of,
    parse_bind,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", TCPAddress("127.0.0.1", 8000)),
        ("localhost:0", TCPAddress("localhost", 0)),
        (":8000", TCPAddress("", 8000)),
        ("[::1]:65535", TCPAddress("::1", 65535)),
        ("[fe80::1%eth0]:80", TCPAddress("fe80::1%eth0", 80)),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
        ("unix:app.sock", UnixAddress("app.sock")),
        ("fd://0", DescriptorAddress(0)),
        ("fd://17", DescriptorAddress(17)),
        ("systemd", SystemdAddress()),
    ],
)
def test_parse_bind(text: str, address: object) -> None:
    assert parse_bind(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "8000", "localhost", "localhost:", "localhost:http", "localhost:65536", "localhost:-1",
        "a:8000000", "::1:8000", "[::1]", "[::1]8000", "[nonsense]:80", "[]:80", "http://localhost:80",
        "local host:80", "localhost:٨٠", "unix:", "unix:a\0b", "fd://", "fd://x", "fd://-1", "fd://٣",
    ],
)  # fmt: skip
def test_parse_bind_refuses(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_bind(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "addresses"),
    [
        (ListenOptions(), (TCPAddress("127.0.0.1", 8000),)),
        (ListenOptions(host="::1", port=1), (TCPAddress("::1", 1),)),
        (ListenOptions(host="[::1]", port=1), (TCPAddress("::1", 1),)),
        (ListenOptions(host=""), (TCPAddress("", 8000),)),
        (ListenOptions(uds="/a"), (UnixAddress("/a"),)),
        (ListenOptions(fd=0, uds="/a"), (DescriptorAddress(0),)),
        (ListenOptions(bind=(":1", "unix:/b"), fd=3), (TCPAddress("", 1), UnixAddress("/b"))),
    ],
)
def test_addresses_of(options: ListenOptions, addresses: object) -> None:
    assert addresses_of(options) == addresses
