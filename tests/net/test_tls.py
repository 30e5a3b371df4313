import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from headrace.config.options import TLSOptions
from headrace.errors import ConfigError
from headrace.net.tls import TLSContexts, is_tls_client_hello, is_tls_wanted, parse_sni, tls_extension
from headrace.net.tls_extension import distinguished_name

AUTHORITY = trustme.CA()
CLIENT_AUTHORITY = trustme.CA()
_ISSUED = {host: AUTHORITY.issue_cert(host) for host in ("a.test", "b.test", "*.c.test", "client.test")}
CLIENT = CLIENT_AUTHORITY.issue_cert("client@example.org", common_name="Ann, the client")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for host, issued in _ISSUED.items():
        name = host.replace("*", "any")
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (tmp_path / f"{name}.pem").write_bytes(chain)
    _ISSUED["a.test"].private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    CLIENT_AUTHORITY.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    return tmp_path


def options(folder: Path, **changes: Any) -> TLSOptions:
    files = {"ssl_certfile": str(folder / "a.test.pem"), "ssl_keyfile": str(folder / "a.test.key")}
    return TLSOptions(**(files | changes))


def client_context(*, client_cert: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    AUTHORITY.configure_trust(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if client_cert:
        CLIENT.configure_cert(context)
    return context


def shake(
    contexts: TLSContexts, host: str | None = None, *, client: ssl.SSLContext | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A whole handshake in memory.

    Returns:
        The server's side, the client's side.
    """
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = (client or client_context()).wrap_bio(to_client, to_server, server_hostname=host)
    other = contexts.context.wrap_bio(to_server, to_client, server_side=True)
    # The client once more: its own side ends before the server has looked at its certificate.
    for side in (one, other, one, other, one, other):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    return other, one


def served(contexts: TLSContexts, host: str | None = None, **more: Any) -> str:
    """The name in the certificate a client is shown."""
    certificate: Any = shake(contexts, host, **more)[1].getpeercert()
    return str(certificate["subjectAltName"][0][1])


def refusal(tls: TLSOptions, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        TLSContexts(tls, **more)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_is_wanted(folder: Path) -> None:
    assert not is_tls_wanted(TLSOptions())
    assert is_tls_wanted(options(folder))
    assert is_tls_wanted(TLSOptions(ssl_context_factory=print))


def test_client_hello() -> None:
    to_server = ssl.MemoryBIO()
    client = client_context().wrap_bio(ssl.MemoryBIO(), to_server, server_hostname="a.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    assert is_tls_client_hello(to_server.read())
    assert not is_tls_client_hello(b"")
    assert not is_tls_client_hello(b"GET / HTTP/1.1\r\n")


class TestServing:
    def test_one_certificate(self, folder: Path) -> None:
        contexts = TLSContexts(options(folder))
        assert served(contexts, "a.test") == served(contexts) == "a.test"
        server, client = shake(contexts, "a.test")
        assert server.selected_alpn_protocol() == client.selected_alpn_protocol() == "http/1.1"

    def test_key_in_the_certificates_file(self, folder: Path) -> None:
        assert served(TLSContexts(TLSOptions(ssl_certfile=str(folder / "both.pem")))) == "a.test"

    def test_other_alpn(self, folder: Path) -> None:
        contexts = TLSContexts(options(folder), alpn=("h2", "http/1.1"))
        assert shake(contexts)[0].selected_alpn_protocol() == "h2"

    @pytest.mark.parametrize(
        ("changes", "version"),
        [({}, "TLSv1.3"), ({"ssl_version": 2}, "TLSv1.3"), ({"ssl_version": 5}, "TLSv1.2")],
    )
    def test_version(self, folder: Path, changes: Any, version: str) -> None:
        assert shake(TLSContexts(options(folder, **changes)))[0].version() == version

    def test_min_version(self, folder: Path) -> None:
        old = client_context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert shake(TLSContexts(options(folder)), client=old)[0].version() == "TLSv1.2"
        with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
            shake(TLSContexts(options(folder, ssl_min_version="1.3")), client=old)

    def test_ciphers(self, folder: Path) -> None:
        name = "ECDHE-ECDSA-AES128-GCM-SHA256"
        contexts = TLSContexts(options(folder, ssl_version=5, ssl_ciphers=name))
        server, _ = shake(contexts)
        assert server.cipher() == (name, "TLSv1.2", 128)
        assert tls_extension(server)["cipher_suite"] == 0xC02B
        assert tls_extension(server)["tls_version"] == 0x0303

    @pytest.mark.parametrize("host", ["a.test", None])
    def test_client_certificate_required(self, folder: Path, host: str | None) -> None:
        contexts = TLSContexts(options(folder, ssl_cert_reqs=2, ssl_ca_certs=str(folder / "clients.pem")))
        shake(contexts, host, client=client_context(client_cert=True))
        with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            shake(contexts, host)
        stranger = client_context()
        _ISSUED["client.test"].configure_cert(stranger)
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(contexts, host, client=stranger)


class TestPassword:
    @pytest.fixture(params=["PKCS8", "TraditionalOpenSSL"])
    def tls(self, folder: Path, request: pytest.FixtureRequest) -> TLSOptions:
        key = serialization.load_pem_private_key(_ISSUED["a.test"].private_key_pem.bytes(), None)
        encrypted = key.private_bytes(
            serialization.Encoding.PEM,
            getattr(serialization.PrivateFormat, request.param),
            serialization.BestAvailableEncryption(b"sesame"),
        )
        (folder / "a.test.key").write_bytes(encrypted)
        return options(folder, ssl_keyfile_password="sesame")

    def test_right(self, tls: TLSOptions) -> None:
        assert served(TLSContexts(tls)) == "a.test"

    @pytest.mark.parametrize("password", ["wrong", ""])
    def test_wrong(self, folder: Path, tls: TLSOptions, password: str) -> None:
        assert "password does not open" in refusal(options(folder, ssl_keyfile_password=password))

    def test_absent_does_not_prompt(self, folder: Path, tls: TLSOptions) -> None:
        assert "is encrypted; give --ssl-keyfile-password" in refusal(options(folder))

    def test_longer_than_openssl_takes(self, folder: Path, tls: TLSOptions) -> None:
        assert "1024" in refusal(options(folder, ssl_keyfile_password="x" * 2000))

    def test_not_needed(self, folder: Path) -> None:
        TLSContexts(options(folder, ssl_keyfile_password="unused"))


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"ssl_certfile": "none.pem"}, "'none.pem' cannot be read (No such file"),
            ({"ssl_keyfile": "none.key"}, "'none.key' cannot be read"),
            ({"ssl_certfile": "a\0b"}, "cannot be read"),
            ({"ssl_certfile": "a.test.key"}, "'a.test.key' holds no PEM certificate"),
            ({"ssl_keyfile": "b.test.pem"}, "'b.test.pem' holds no PEM private key"),
            ({"ssl_keyfile": None}, "'a.test.pem' comes without a private key"),
            ({"ssl_keyfile": "b.test.key"}, "'b.test.key' does not belong to the certificate 'a.test.pem'"),
            ({"ssl_certfile": "broken.pem"}, "OpenSSL cannot read"),
            ({"ssl_certfile": None}, "--ssl-certfile is missing"),
            ({"ssl_certfile": None, "ssl_keyfile": None}, "--ssl-certfile is missing"),
            ({"ssl_ciphers": "NOPE"}, "--ssl-ciphers 'NOPE' selects no cipher"),
            ({"ssl_version": 3}, "--ssl-version 3"),
            ({"ssl_version": 5, "ssl_min_version": "1.3"}, "contradicts"),
            ({"ssl_cert_reqs": 2}, "--ssl-ca-certs"),
            ({"ssl_ca_certs": "none.pem"}, "--ssl-ca-certs: the file 'none.pem' cannot be read"),
            (
                {"ssl_ca_certs": "a.test.key"},
                "--ssl-ca-certs: the file 'a.test.key' holds no PEM certificate",
            ),
            ({"ssl_sni": ("b.test=none.pem,b.test.key",)}, "--ssl-sni b.test: the file 'none.pem'"),
            ({"ssl_sni": ("b.test",)}, "is not HOST=CERT,KEY"),
        ],
    )
    def test_in_one_sentence(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, changes: Any, words: str
    ) -> None:
        monkeypatch.chdir(folder)
        (folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        files = {"ssl_certfile": "a.test.pem", "ssl_keyfile": "a.test.key"}
        assert words in refusal(TLSOptions(**(files | changes)))


class TestSNI:
    @pytest.fixture
    def contexts(self, folder: Path) -> TLSContexts:
        return TLSContexts(
            options(
                folder,
                ssl_sni=(
                    f"b.test={folder}/b.test.pem,{folder}/b.test.key",
                    f"*.c.test={folder}/any.c.test.pem,{folder}/any.c.test.key",
                    f"both.c.test={folder}/both.pem",
                ),
            )
        )

    @pytest.mark.parametrize(
        ("host", "shown"),
        [
            ("a.test", "a.test"),
            ("b.test", "b.test"),
            ("B.Test", "b.test"),
            ("x.c.test", "*.c.test"),
            ("both.c.test", "a.test"),
            ("c.test", "a.test"),
            ("x.y.c.test", "a.test"),
            ("other", "a.test"),
            (None, "a.test"),
        ],
    )
    def test_certificate_by_host(self, contexts: TLSContexts, host: str | None, shown: str) -> None:
        assert served(contexts, host) == shown

    def test_first_is_the_default_without_a_certfile(self, folder: Path) -> None:
        contexts = TLSContexts(TLSOptions(ssl_sni=(f"b.test={folder}/b.test.pem,{folder}/b.test.key",)))
        assert served(contexts, "other") == served(contexts, None) == "b.test"

    def test_alpn_after_the_swap(self, contexts: TLSContexts) -> None:
        assert shake(contexts, "b.test")[0].selected_alpn_protocol() == "http/1.1"

    def test_parse(self) -> None:
        host, certificate = parse_sni("*.Bücher.Test=c.pem,k.pem")
        assert (host, certificate.certfile, certificate.keyfile) == ("*.xn--bcher-kva.test", "c.pem", "k.pem")

    @pytest.mark.parametrize(
        "text", ["", "a.test", "a.test=", "=c,k", "*.=c", "a.*.test=c,k", "*=c,k", "a..b=c"]
    )
    def test_parse_refuses(self, text: str) -> None:
        with pytest.raises(ConfigError):
            parse_sni(text)


def replace(folder: Path, name: str, issued: trustme.LeafCert) -> None:
    """Put new files in place as a renewal does: written beside, then moved over."""
    (folder / "new").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    os.replace(folder / "new", folder / f"{name}.pem")
    issued.private_key_pem.write_to_path(str(folder / "new"))
    os.replace(folder / "new", folder / f"{name}.key")


class TestReload:
    def test_nothing_changed(self, folder: Path) -> None:
        assert TLSContexts(options(folder)).reload_if_changed() == []

    def test_next_handshake_has_the_new_certificate(self, folder: Path) -> None:
        contexts = TLSContexts(options(folder))
        outer = contexts.context
        replace(folder, "a.test", AUTHORITY.issue_cert("new.test"))
        assert served(contexts, "a.test") == "a.test"
        changed = contexts.reload_if_changed()
        assert changed == [str(folder / "a.test.pem"), str(folder / "a.test.key")]
        assert contexts.context is outer
        assert served(contexts, "a.test") == served(contexts, None) == "new.test"
        assert contexts.reload_if_changed() == []

    def test_certificate_of_one_host(self, folder: Path) -> None:
        sni = f"b.test={folder}/b.test.pem,{folder}/b.test.key"
        contexts = TLSContexts(options(folder, ssl_sni=(sni,)))
        replace(folder, "b.test", AUTHORITY.issue_cert("new.test"))
        assert len(contexts.reload_if_changed()) == 2
        assert (served(contexts, "b.test"), served(contexts, "a.test")) == ("new.test", "a.test")

    def test_authorities(self, folder: Path) -> None:
        contexts = TLSContexts(options(folder, ssl_cert_reqs=2, ssl_ca_certs=str(folder / "clients.pem")))
        known = client_context(client_cert=True)
        shake(contexts, client=known)
        AUTHORITY.cert_pem.write_to_path(str(folder / "clients.pem"))
        assert contexts.reload_if_changed() == [str(folder / "clients.pem")]
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(contexts, client=known)

    def test_broken_file_keeps_the_old_and_is_told_once(self, folder: Path) -> None:
        contexts = TLSContexts(options(folder))
        new = AUTHORITY.issue_cert("new.test")
        (folder / "a.test.pem").write_bytes(new.cert_chain_pems[0].bytes())
        with pytest.raises(ConfigError, match="does not belong"):
            contexts.reload_if_changed()
        assert contexts.reload_if_changed() == []
        assert served(contexts) == "a.test"
        new.private_key_pem.write_to_path(str(folder / "a.test.key"))
        assert contexts.reload_if_changed() == [str(folder / "a.test.key")]
        assert served(contexts) == "new.test"

    def test_vanished_file_keeps_the_old(self, folder: Path) -> None:
        contexts = TLSContexts(options(folder))
        (folder / "a.test.key").unlink()
        with pytest.raises(ConfigError, match="cannot be read"):
            contexts.reload_if_changed()
        assert served(contexts) == "a.test"

    def test_moved_symbolic_link(self, folder: Path) -> None:
        (folder / "live.pem").symlink_to("a.test.pem")
        (folder / "live.key").symlink_to("a.test.key")
        live = {"ssl_certfile": str(folder / "live.pem"), "ssl_keyfile": str(folder / "live.key")}
        contexts = TLSContexts(TLSOptions(**live))
        for suffix in ("pem", "key"):
            (folder / "next").symlink_to(f"b.test.{suffix}")
            os.replace(folder / "next", folder / f"live.{suffix}")
        assert len(contexts.reload_if_changed()) == 2
        assert served(contexts) == "b.test"


class TestFactory:
    def test_gets_the_config_and_the_default(self, folder: Path) -> None:
        seen: list[Any] = []

        def factory(config: Any, make_default: Any) -> ssl.SSLContext:
            seen.append(config)
            context: ssl.SSLContext = make_default()
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            return context

        contexts = TLSContexts(options(folder, ssl_context_factory=factory), config="the config")
        assert seen == ["the config"]
        assert contexts.context.minimum_version is ssl.TLSVersion.TLSv1_3
        replace(folder, "a.test", AUTHORITY.issue_cert("new.test"))
        contexts.reload_if_changed()
        assert served(contexts) == "new.test"
        assert len(seen) == 2

    def test_options_stand_in_for_the_config(self, folder: Path) -> None:
        tls = options(folder, ssl_context_factory=lambda config, make_default: make_default())
        contexts = TLSContexts(tls)
        assert served(contexts) == "a.test"

    def test_context_of_its_own(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _ISSUED["b.test"].configure_cert(context)
        contexts = TLSContexts(TLSOptions(ssl_context_factory=lambda *_: context))
        assert contexts.context is context
        assert served(contexts) == "b.test"
        assert tls_extension(shake(contexts)[0])["server_cert"] is None

    def test_own_sni_callback_is_left_alone(self, folder: Path) -> None:
        asked: list[Any] = []

        def factory(_: Any, make_default: Any) -> ssl.SSLContext:
            context: ssl.SSLContext = make_default()
            context.sni_callback = lambda *arguments: asked.append(arguments[1])
            return context

        contexts = TLSContexts(options(folder, ssl_context_factory=factory))
        assert served(contexts, "b.test") == "a.test"
        assert asked == ["b.test"]
        replace(folder, "a.test", AUTHORITY.issue_cert("new.test"))
        assert contexts.reload_if_changed() == []
        sni = f"b.test={folder}/b.test.pem,{folder}/b.test.key"
        assert "no effect" in refusal(options(folder, ssl_context_factory=factory, ssl_sni=(sni,)))

    def test_wrong_type(self) -> None:
        assert "not str" in refusal(TLSOptions(ssl_context_factory=lambda *_: "context"))

    def test_default_without_a_certificate(self) -> None:
        tls = TLSOptions(ssl_context_factory=lambda _, make_default: make_default())
        assert "--ssl-certfile is missing" in refusal(tls)

    def test_failure_on_reload_keeps_the_old(self, folder: Path) -> None:
        calls: list[None] = []

        def factory(_: Any, make_default: Any) -> ssl.SSLContext:
            calls.append(None)
            if len(calls) > 1:
                raise KeyError("gone")
            context: ssl.SSLContext = make_default()
            return context

        contexts = TLSContexts(options(folder, ssl_context_factory=factory))
        replace(folder, "a.test", AUTHORITY.issue_cert("new.test"))
        with pytest.raises(ConfigError, match="ssl_context_factory failed on reload: KeyError"):
            contexts.reload_if_changed()
        assert served(contexts) == "a.test"


class TestExtension:
    def test_without_client_certificate(self, folder: Path) -> None:
        contexts = TLSContexts(options(folder))
        server, client = shake(contexts)
        extension = tls_extension(server)
        shown = client.getpeercert(binary_form=True)
        assert shown is not None
        assert ssl.PEM_cert_to_DER_cert(extension.pop("server_cert")) == shown
        assert extension == {
            "client_cert_chain": [],
            "client_cert_name": None,
            "client_cert_error": None,
            "tls_version": 0x0304,
            "cipher_suite": {"TLS_AES_128_GCM_SHA256": 0x1301, "TLS_AES_256_GCM_SHA384": 0x1302}[
                server.cipher()[0]  # type: ignore[index]
            ],
        }

    def test_server_certificate_is_the_one_shown(self, folder: Path) -> None:
        sni = f"b.test={folder}/b.test.pem,{folder}/b.test.key"
        contexts = TLSContexts(options(folder, ssl_sni=(sni,)))
        server, client = shake(contexts, "b.test")
        shown = client.getpeercert(binary_form=True)
        assert ssl.PEM_cert_to_DER_cert(tls_extension(server)["server_cert"]) == shown

    def test_client_certificate(self, folder: Path) -> None:
        contexts = TLSContexts(options(folder, ssl_cert_reqs=1, ssl_ca_certs=str(folder / "clients.pem")))
        extension = tls_extension(shake(contexts, client=client_context(client_cert=True))[0])
        leaf = x509.load_pem_x509_certificate(extension["client_cert_chain"][0].encode())
        assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "Ann, the client"
        assert extension["client_cert_name"] == leaf.subject.rfc4514_string()
        assert extension["client_cert_error"] is None

    @pytest.mark.parametrize(
        ("subject", "name"),
        [
            ((), ""),
            (((("countryName", "DE"),), (("commonName", "a"),)), "CN=a,C=DE"),
            (((("commonName", "a"), ("userId", "7")),), "CN=a+UID=7"),
            (((("commonName", 'a,b+c"d\\e<f>g;h'),),), 'CN=a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h'),
            (((("commonName", " a "),),), "CN=\\ a\\ "),
            (((("commonName", "#a"),),), "CN=\\#a"),
            (((("commonName", " "),),), "CN=\\ "),
            (((("commonName", "a\0b"),),), "CN=a\\00b"),
            (((("1.2.3.4", "x"),),), "1.2.3.4=x"),
        ],
    )
    def test_distinguished_name(self, subject: Any, name: str) -> None:
        assert distinguished_name(subject) == name


def loops() -> list[Any]:
    uvloop = pytest.importorskip("uvloop")
    return [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("new_loop", loops())
def test_listener_stays_while_the_certificate_changes(folder: Path, new_loop: Any) -> None:
    contexts = TLSContexts(options(folder))
    extensions: list[dict[str, Any]] = []

    class Closing(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            extensions.append(tls_extension(transport.get_extra_info("ssl_object")))
            transport.close()

    async def shown(port: int) -> str:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context(), server_hostname="a.test"
        )
        certificate: Any = writer.get_extra_info("peercert")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        return str(certificate["subjectAltName"][0][1])

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Closing, "127.0.0.1", 0, ssl=contexts.context)
        port = server.sockets[0].getsockname()[1]
        before = await shown(port)
        replace(folder, "a.test", AUTHORITY.issue_cert("new.test"))
        contexts.reload_if_changed()
        after = await shown(port)
        server.close()
        await server.wait_closed()
        return [before, after]

    loop = new_loop()
    try:
        assert loop.run_until_complete(main()) == ["a.test", "new.test"]
    finally:
        loop.close()
    assert extensions[0]["server_cert"] != extensions[1]["server_cert"]
    assert extensions[0]["tls_version"] == 0x0304
