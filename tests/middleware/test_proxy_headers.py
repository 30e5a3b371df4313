import inspect
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.middleware.proxy_headers import ProxyHeaders, warnings

PROXY = ("127.0.0.1", 4321)


async def pass_on(scope: Any, receive: Any, send: Any) -> None:
    return None


async def receive() -> Any:
    raise AssertionError


async def send(message: Any) -> None:
    raise AssertionError


def corrected(*headers: tuple[bytes, bytes], layer: Any = None, **changes: Any) -> dict[str, Any]:
    """The scope as the application inside sees it."""
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": "http",
        "path": "/items",
        "raw_path": b"/items",
        "root_path": "",
        "client": PROXY,
        "server": ("10.1.1.1", 8000),
        "headers": [(b"host", b"inner:8000"), (b"accept", b"*/*"), *headers],
    } | changes
    given_headers = list(scope["headers"])
    shared = scope["headers"]
    coroutine = (layer or ProxyHeaders(pass_on))(scope, receive, send)
    coroutine.close()
    assert shared == given_headers, "the list it was given must stay as it is"
    return scope


def host_of(scope: dict[str, Any]) -> bytes:
    [value] = [value for name, value in scope["headers"] if name == b"host"]
    return value


def xff(*values: bytes, trusted: Any = "127.0.0.1,::1") -> Any:
    headers = [(b"x-forwarded-for", value) for value in values]
    return corrected(*headers, layer=ProxyHeaders(pass_on, trusted))["client"]


def forwarded(*values: bytes, trusted: Any = "127.0.0.1,::1", **changes: Any) -> dict[str, Any]:
    headers = [(b"forwarded", value) for value in values]
    return corrected(*headers, layer=ProxyHeaders(pass_on, trusted), **changes)


def test_call_is_plain_and_returns_what_the_application_returns() -> None:
    awaitable = object()
    layer = ProxyHeaders(lambda scope, receive, send: awaitable)  # type: ignore[arg-type, return-value]
    assert layer({"type": "http", "client": None, "headers": []}, receive, send) is awaitable


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the mark came with 3.12")
def test_servers_that_inspect_call_see_asgi_3() -> None:
    assert inspect.iscoroutinefunction(ProxyHeaders(pass_on).__call__)


def test_other_scope_types_pass_on_untouched() -> None:
    scope: Any = {"type": "lifespan"}
    ProxyHeaders(pass_on)(scope, receive, send).close()  # type: ignore[attr-defined]
    assert scope == {"type": "lifespan"}


class TestTrust:
    HEADER = (b"x-forwarded-for", b"203.0.113.7")

    def client(self, peer: Any, trusted: Any, **changes: Any) -> Any:
        return corrected(self.HEADER, layer=ProxyHeaders(pass_on, trusted), client=peer, **changes)["client"]

    @pytest.mark.parametrize(
        ("peer", "trusted"),
        [
            (("127.0.0.1", 1), "127.0.0.1,::1"),
            (("::1", 1), "127.0.0.1, ::1"),
            (("10.2.3.4", 1), ["192.168.0.0/16", "10.0.0.0/8"]),
            (("::ffff:10.2.3.4", 1), "10.0.0.0/8"),
            (("fd00::7", 1), "fd00::/8"),
            (("0:0:0:0:0:0:0:1", 1), "::1"),
            (("front", 1), "front"),
            (("198.51.100.1", 1), "*"),
            (None, "*"),
        ],
    )
    def test_believed(self, peer: Any, trusted: Any) -> None:
        assert self.client(peer, trusted) == ("203.0.113.7", 0)

    @pytest.mark.parametrize(
        ("peer", "trusted"),
        [
            (("10.2.3.4", 1), "127.0.0.1,::1"),
            (("11.2.3.4", 1), "10.0.0.0/8"),
            (("10.2.3.4", 1), "10.0.0.1/8"),
            (("front", 1), "127.0.0.1"),
            (("127.0.0.1", 1), ""),
            (("10.2.3.4", 1), "10.2.3.5,*"),
            (None, "127.0.0.1"),
        ],
    )
    def test_not_believed(self, peer: Any, trusted: Any) -> None:
        assert self.client(peer, trusted) == peer

    def test_unix_literal(self) -> None:
        assert self.client(None, "unix", server=("/run/app.sock", None)) == ("203.0.113.7", 0)
        assert self.client(None, "unix", server=None) == ("203.0.113.7", 0)
        # A TCP connection whose peer is not known is no Unix socket.
        assert self.client(None, "unix", server=("10.0.0.1", 8000)) is None
        assert self.client(("10.0.0.1", 1), "unix") == ("10.0.0.1", 1)

    def test_verdicts_are_bounded(self) -> None:
        layer = ProxyHeaders(pass_on)
        for number in range(5000):
            corrected(self.HEADER, layer=layer, client=(f"10.0.{number >> 8}.{number & 255}", 1))
        assert len(layer._trusted.verdicts) <= 4096
        corrected(self.HEADER, layer=layer, client=("x" * 300, 1))
        assert "x" * 300 not in layer._trusted.verdicts
        for number in range(5000):
            corrected((b"x-forwarded-for", b"10.0.%d.%d" % (number >> 8, number & 255)), layer=layer)
        assert len(layer._clients) <= 4096
        corrected((b"x-forwarded-for", b"10.0.0.1," * 100), layer=layer)
        for number in range(5000):
            corrected((b"forwarded", b"for=_%d" % number), layer=layer)
        assert len(layer._forwarded) <= 4096
        assert all(len(chain) <= 256 for chain in layer._clients)


class TestForwardedFor:
    @pytest.mark.parametrize(
        ("values", "client"),
        [
            ([b"203.0.113.7"], ("203.0.113.7", 0)),
            ([b"203.0.113.7:5050"], ("203.0.113.7", 5050)),
            ([b"2001:db8::7"], ("2001:db8::7", 0)),
            ([b"[2001:db8::7]"], ("2001:db8::7", 0)),
            ([b"[2001:db8::7]:5050"], ("2001:db8::7", 5050)),
            ([b"6.6.6.6, 203.0.113.7"], ("203.0.113.7", 0)),
            ([b"6.6.6.6", b"203.0.113.7"], ("203.0.113.7", 0)),
            ([b"203.0.113.7, 127.0.0.1"], ("203.0.113.7", 0)),
            ([b"203.0.113.7, 127.0.0.1:80, [::1]:80"], ("203.0.113.7", 0)),
            ([b"127.0.0.1, ::1"], ("127.0.0.1", 0)),
            ([b"203.0.113.7, "], ("203.0.113.7", 0)),
            # What the client made up, left of its own address, is not even looked at.
            ([b'<script>, \xff", 203.0.113.7'], ("203.0.113.7", 0)),
            # No address where the client must be: ignored.
            ([b""], PROXY),
            ([b" , ,"], PROXY),
            ([b"unknown"], PROXY),
            ([b"_hidden"], PROXY),
            ([b"203.0.113.7, nonsense"], PROXY),
            ([b"203.0.113.7:port"], PROXY),
            ([b"203.0.113.7:70000"], PROXY),
            ([b"300.0.0.1"], PROXY),
            ([b"[203.0.113.7]"], PROXY),
            ([b"[2001:db8::7"], PROXY),
            ([b"fe80::1%<script>"], PROXY),
            ([b"\xff\xfe"], PROXY),
        ],
    )
    def test_from_the_right(self, values: list[bytes], client: Any) -> None:
        assert xff(*values) == client

    def test_networks_in_the_chain(self) -> None:
        chain = b"6.6.6.6, 203.0.113.7, 10.9.9.9, 10.8.8.8"
        assert xff(chain, trusted="127.0.0.1,10.0.0.0/8") == ("203.0.113.7", 0)
        assert xff(chain, trusted="127.0.0.1") == ("10.8.8.8", 0)

    def test_literal_in_the_chain(self) -> None:
        assert xff(b"203.0.113.7, front", trusted="127.0.0.1,front") == ("203.0.113.7", 0)

    def test_star_takes_the_leftmost(self) -> None:
        assert xff(b"6.6.6.6, 203.0.113.7", trusted="*") == ("6.6.6.6", 0)

    def test_answers_are_not_shared_between_kinds_of_scope(self) -> None:
        layer = ProxyHeaders(pass_on)
        field = (b"forwarded", b"for=203.0.113.7;proto=https")
        assert corrected(field, layer=layer)["scheme"] == "https"
        assert corrected(field, layer=layer, type="websocket", scheme="ws")["scheme"] == "wss"

    def test_remembered_chain_gives_the_same(self) -> None:
        layer = ProxyHeaders(pass_on)
        header = (b"x-forwarded-for", b"6.6.6.6, 203.0.113.7")
        assert corrected(header, layer=layer)["client"] == corrected(header, layer=layer)["client"]


class TestScheme:
    @pytest.mark.parametrize(
        ("kind", "value", "scheme"),
        [
            ("http", b"https", "https"),
            ("http", b"HTTPS", "https"),
            ("http", b"wss", "https"),
            ("http", b"https, http", "http"),
            ("http", b"http,https", "https"),
            ("http", b"gopher", "http"),
            ("http", b"", "http"),
            ("websocket", b"https", "wss"),
            ("websocket", b"http", "ws"),
            ("websocket", b"wss", "wss"),
            ("websocket", b"gopher", "ws"),
        ],
    )
    def test_proto(self, kind: str, value: bytes, scheme: str) -> None:
        before = "ws" if kind == "websocket" else "http"
        scope = corrected((b"x-forwarded-proto", value), type=kind, scheme=before)
        assert scope["scheme"] == scheme

    def test_last_field_counts(self) -> None:
        scope = corrected((b"x-forwarded-proto", b"http"), (b"x-forwarded-proto", b"https"))
        assert scope["scheme"] == "https"


class TestHostAndPort:
    @pytest.mark.parametrize(
        "value", [b"example.org", b"example.org:8443", b"[2001:db8::1]:80", b"6.6.6.6, example.org", b"a_b"]
    )
    def test_host_replaces_the_header(self, value: bytes) -> None:
        scope = corrected((b"x-forwarded-host", value))
        assert scope["headers"][0] == (b"host", value.rpartition(b", ")[2])
        assert host_of(scope)
        assert scope["server"] == ("10.1.1.1", 8000)

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"a b",
            b"a/b",
            b"a@b",
            b"a:b",
            b"a:99999",
            b"evil.org,",
            b"a\r\nb",
            b"\xff",
            b"[::1",
            b"x" * 300,
        ],
    )
    def test_host_that_is_none_is_ignored(self, value: bytes) -> None:
        assert host_of(corrected((b"x-forwarded-host", value))) == b"inner:8000"

    def test_host_is_added_where_there_is_none(self) -> None:
        scope = corrected(headers=[(b"x-forwarded-host", b"example.org")])
        assert host_of(scope) == b"example.org"

    @pytest.mark.parametrize(
        ("host", "port", "header", "server_port"),
        [
            (None, b"8443", b"inner:8000", 8443),
            (b"example.org", b"8443", b"example.org:8443", 8443),
            (b"example.org:1", b"8443", b"example.org:1", 8443),
            (b"example.org", b"443", b"example.org", 443),
            (b"[::1]", b"81", b"[::1]:81", 81),
            (b"example.org", b"70000", b"example.org", 8000),
            (b"example.org", b"no", b"example.org", 8000),
            (b"example.org", b"80, 8443", b"example.org:8443", 8443),
        ],
    )
    def test_port(self, host: bytes | None, port: bytes, header: bytes, server_port: int) -> None:
        fields = [(b"x-forwarded-port", port)]
        if host is not None:
            fields.append((b"x-forwarded-host", host))
        scope = corrected(*fields)
        assert host_of(scope) == header
        assert scope["server"] == ("10.1.1.1", server_port)

    def test_port_leaves_a_unix_socket(self) -> None:
        layer = ProxyHeaders(pass_on, "unix")
        server = ("/run/app.sock", None)
        scope = corrected((b"x-forwarded-port", b"81"), layer=layer, client=None, server=server)
        assert scope["server"] == server


class TestPrefix:
    def test_goes_in_front_of_all_paths(self) -> None:
        scope = corrected((b"x-forwarded-prefix", b"/api/v1/"))
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == (
            "/api/v1",
            "/api/v1/items",
            b"/api/v1/items",
        )

    def test_with_root_path(self) -> None:
        scope = corrected((b"x-forwarded-prefix", b"/api"), root_path="/app", path="/app/items")
        assert (scope["root_path"], scope["path"]) == ("/api/app", "/api/app/items")

    def test_where_paths_do_not_carry_the_root_path(self) -> None:
        scope = corrected((b"x-forwarded-prefix", b"/api"), root_path="/app")
        assert (scope["root_path"], scope["path"]) == ("/api/app", "/items")

    def test_without_raw_path(self) -> None:
        scope = corrected((b"x-forwarded-prefix", b"/api"), raw_path=None)
        assert (scope["path"], scope["raw_path"]) == ("/api/items", None)

    @pytest.mark.parametrize(
        "value",
        [b"", b"/", b"api", b"//evil.org", b"/a//b", b"/..", b"/a/../b", b"/./a", b"/a b", b"/a,/b", b"/a?b",
         b"/a%2f", b"/a\\b", b"/\xc3\xbc", b"http://evil.org", b"/a" * 40, b"/" + b"a" * 300],
    )  # fmt: skip
    def test_that_is_not_sane_is_ignored(self, value: bytes) -> None:
        scope = corrected((b"x-forwarded-prefix", value))
        assert (scope["root_path"], scope["path"]) == ("", "/items")

    def test_dots_inside_a_segment_are_sane(self) -> None:
        assert corrected((b"x-forwarded-prefix", b"/v1.2/..x"))["root_path"] == "/v1.2/..x"


class TestForwarded:
    @pytest.mark.parametrize(
        ("values", "client"),
        [
            ([b"for=203.0.113.7"], ("203.0.113.7", 0)),
            ([b"For=203.0.113.7;Proto=https"], ("203.0.113.7", 0)),
            ([b'for="203.0.113.7:5050"'], ("203.0.113.7", 5050)),
            ([b'for="203.0.113.7:_port"'], ("203.0.113.7", 0)),
            ([b'for="[2001:db8::7]:5050"'], ("2001:db8::7", 5050)),
            ([b"for=[2001:db8::7]"], ("2001:db8::7", 0)),
            ([b"for=6.6.6.6, for=203.0.113.7"], ("203.0.113.7", 0)),
            ([b"for=6.6.6.6", b"for=203.0.113.7"], ("203.0.113.7", 0)),
            ([b"for=203.0.113.7, for=127.0.0.1"], ("203.0.113.7", 0)),
            ([b", for=203.0.113.7 ; by=10.0.0.1 ,, "], ("203.0.113.7", 0)),
            ([rb'for="203.0.113.\7"'], ("203.0.113.7", 0)),
            ([b'for=6.6.6.6;by="a,b;for=6.6.6.6", for=203.0.113.7'], ("203.0.113.7", 0)),
            ([b"for=127.0.0.1, for=\"[::1]\""], ("127.0.0.1", 0)),
            ([b"for=unknown"], PROXY),
            ([b"for=_hidden"], PROXY),
            ([b"for=203.0.113.7, for=_hidden"], PROXY),
            ([b"proto=https"], PROXY),
            ([b""], PROXY),
            # Malformed: the whole field is ignored.
            ([b'for="203.0.113.7'], PROXY),
            ([b'for="6.6.6.6', b"for=203.0.113.7"], PROXY),
            ([b"for=203.0.113.7;for=6.6.6.6"], PROXY),
            ([b"for=203.0.113.7 for=6.6.6.6"], PROXY),
            ([b"for = 203.0.113.7"], PROXY),
            ([b"203.0.113.7"], PROXY),
            ([b"for=\xff"], PROXY),
        ],
    )  # fmt: skip
    def test_client(self, values: list[bytes], client: Any) -> None:
        assert forwarded(*values)["client"] == client

    def test_star_takes_the_leftmost(self) -> None:
        assert forwarded(b"for=6.6.6.6, for=203.0.113.7", trusted="*")["client"] == ("6.6.6.6", 0)

    def test_proto_and_host_of_the_clients_element(self) -> None:
        chain = (
            b"for=6.6.6.6;host=evil.org, for=203.0.113.7;proto=https;host=example.org, for=127.0.0.1;host=x"
        )
        scope = forwarded(chain)
        assert (scope["scheme"], host_of(scope)) == ("https", b"example.org")

    def test_hidden_client_still_tells_the_scheme(self) -> None:
        assert forwarded(b"for=_hidden;proto=https")["scheme"] == "https"

    def test_host_in_quotes(self) -> None:
        assert host_of(forwarded(b'for=1.1.1.1;host="example.org:81"')) == b"example.org:81"

    @pytest.mark.parametrize("value", [b'host="a b"', b'proto=gopher;host="a/b"'])
    def test_bad_parameters_are_ignored(self, value: bytes) -> None:
        scope = forwarded(value)
        assert (scope["scheme"], host_of(scope)) == ("http", b"inner:8000")

    def test_websocket(self) -> None:
        assert forwarded(b"proto=https", type="websocket", scheme="ws")["scheme"] == "wss"


class TestFamilies:
    BOTH = (
        (b"x-forwarded-for", b"203.0.113.7"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-prefix", b"/api"),
        (b"forwarded", b"for=6.6.6.6;proto=http;host=other.org"),
    )

    def test_x_forwarded_counts_when_both_are_there(self) -> None:
        scope = corrected(*self.BOTH)
        assert (scope["client"], scope["scheme"], host_of(scope)) == (
            ("203.0.113.7", 0),
            "https",
            b"inner:8000",
        )

    def test_x_forwarded_proto_alone_is_enough(self) -> None:
        scope = corrected((b"x-forwarded-proto", b"http"), (b"forwarded", b"for=6.6.6.6;proto=https"))
        assert (scope["client"], scope["scheme"]) == (PROXY, "http")

    def test_preferring_forwarded(self) -> None:
        scope = corrected(*self.BOTH, layer=ProxyHeaders(pass_on, prefer="forwarded"))
        assert (scope["client"], scope["scheme"], host_of(scope)) == (("6.6.6.6", 0), "http", b"other.org")
        assert scope["root_path"] == "/api"

    def test_preferring_forwarded_does_not_fall_back_when_it_is_malformed(self) -> None:
        layer = ProxyHeaders(pass_on, prefer="forwarded")
        scope = corrected((b"forwarded", b"?"), (b"x-forwarded-for", b"6.6.6.6"), layer=layer)
        assert scope["client"] == PROXY

    def test_preferring_forwarded_takes_the_other_where_it_is_absent(self) -> None:
        layer = ProxyHeaders(pass_on, prefer="forwarded")
        assert corrected((b"x-forwarded-for", b"203.0.113.7"), layer=layer)["client"] == ("203.0.113.7", 0)

    def test_fields_left_out_are_not_taken(self) -> None:
        layer = ProxyHeaders(pass_on, fields=["host"])
        scope = corrected(*self.BOTH, (b"x-forwarded-host", b"example.org"), layer=layer)
        assert (scope["client"], scope["scheme"], scope["root_path"]) == (PROXY, "http", "")
        assert host_of(scope) == b"example.org"
        scope = corrected((b"forwarded", b"for=6.6.6.6;proto=https;host=other.org"), layer=layer)
        assert (scope["client"], scope["scheme"], host_of(scope)) == (PROXY, "http", b"other.org")
        layer = ProxyHeaders(pass_on, fields=["for"])
        assert host_of(corrected((b"forwarded", b"host=other.org"), layer=layer)) == b"inner:8000"


NAMES = [f"x-forwarded-{name}".encode() for name in ("for", "proto", "host", "port", "prefix")] + [
    b"forwarded"
]
VALUES = st.one_of(
    st.binary(max_size=40),
    st.text(alphabet='for=;,"\\[]:._/ 127.0.0.1-https', max_size=40).map(str.encode),
)


@given(st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6), st.sampled_from(["127.0.0.1", "*"]))
def test_nothing_raises_and_the_scope_stays_well_formed(headers: Any, trusted: str) -> None:
    scope = corrected(*headers, layer=ProxyHeaders(pass_on, trusted))
    assert isinstance(scope["client"][0], str)
    assert 0 <= scope["client"][1] <= 65535
    assert scope["scheme"] in ("http", "https")
    assert scope["path"].startswith("/")
    assert not scope["path"].startswith("//")
    assert host_of(scope).isascii()


def test_warnings() -> None:
    assert warnings("127.0.0.1,::1,10.0.0.0/8,unix") == []
    [star] = warnings("*")
    assert "forge" in star
    [slip, lonely] = warnings(["10.0.0.1/8", "*", "unix"])[::-1]
    assert "'10.0.0.1/8'" in slip
    assert "'*'" in lonely
