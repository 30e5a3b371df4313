"""The negotiation of permessage-deflate, against RFC 7692, websockets and wsproto."""

from __future__ import annotations

import itertools

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension
from wsproto.extensions import PerMessageDeflate

from headrace.protocol.websocket import DeflateOptions, negotiate_deflate

BOTH = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TAKEOVER = {"server_context_takeover": True, "client_context_takeover": True}


@pytest.mark.parametrize(
    ("offers", "response"),
    [
        (b"permessage-deflate", BOTH),
        (b"permessage-deflate; client_max_window_bits", BOTH + b"; client_max_window_bits=15"),
        (b"permessage-deflate;client_max_window_bits = 15", BOTH + b"; client_max_window_bits=15"),
        (b"permessage-deflate;client_max_window_bits=10", BOTH + b"; client_max_window_bits=10"),
        (b"permessage-deflate;client_max_window_bits=8", BOTH + b"; client_max_window_bits=8"),
        (b"permessage-deflate;server_max_window_bits=15", BOTH + b"; server_max_window_bits=15"),
        (b"permessage-deflate;server_max_window_bits=9", BOTH + b"; server_max_window_bits=9"),
        (b'permessage-deflate; server_max_window_bits="10"', BOTH + b"; server_max_window_bits=10"),
        (b"\t permessage-deflate \t;\tserver_no_context_takeover ", BOTH),
        (b"x-webkit-deflate-frame, permessage-deflate", BOTH),
        (b'x; a="1, permessage-deflate"; b, permessage-deflate', BOTH),
        (b'x; a="\\", permessage-deflate", permessage-deflate;client_no_context_takeover', BOTH),
        (b",, permessage-deflate,", BOTH),
        # RFC 7692 §5.2: the fallback.
        (
            b"permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=10",
            BOTH + b"; server_max_window_bits=10",
        ),
        (b"permessage-deflate; unknown, permessage-deflate", BOTH),
        (b"permessage-deflate;;, permessage-deflate", BOTH),
    ],
)
def test_accepted(offers: bytes, response: bytes) -> None:
    agreement = negotiate_deflate(offers, DeflateOptions())
    assert agreement is not None
    assert agreement.response == response


@pytest.mark.parametrize(
    "offers",
    [
        b"",
        b",",
        b"x",
        b"permessage-deflates",
        b"xpermessage-deflate",
        b'"permessage-deflate"',
        b"x; y=permessage-deflate",
        b'x; y="a, permessage-deflate',
        b"permessage-deflate; unknown",
        b"permessage-deflate; unknown=1",
        b"permessage-deflate; server_no_context_takeover=1",
        b"permessage-deflate; client_no_context_takeover=true",
        b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        b"permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        b"permessage-deflate; server_max_window_bits",
        b"permessage-deflate; server_max_window_bits=8",
        *(
            b"permessage-deflate; %b_max_window_bits=%b" % (side, bits)
            for side in (b"server", b"client")
            for bits in (b"7", b"16", b"010", b"+10", b"x", b"1 0", b'""', b'" 10"', b"", b"-9", b"1_0")
        ),
        b"permessage-deflate;",
        b"permessage-deflate;;",
        b"permessage-deflate client_no_context_takeover",
        b"permessage-deflate; client no",
        b"permessage-deflate; =1",
        b"permessage-deflate; client_max_window_bits=",
        b'permessage-deflate; client_max_window_bits="10',
    ],
)
def test_declined(offers: bytes) -> None:
    assert negotiate_deflate(offers, DeflateOptions()) is None


def test_context_takeover_is_ours_to_allow_and_the_clients_to_refuse() -> None:
    options = DeflateOptions(server_context_takeover=True, client_context_takeover=True)
    for server, client in itertools.product(
        [b"", b"; server_no_context_takeover"], [b"", b"; client_no_context_takeover"]
    ):
        agreement = negotiate_deflate(b"permessage-deflate" + client + server, options)
        assert agreement is not None
        assert agreement.response == b"permessage-deflate" + server + client


def test_hostile_values_cost_no_more_than_their_size() -> None:
    # Each would take minutes if the expressions could go back over what they have read.
    for offers in (
        b"permessage-deflate" + b" " * 60_000 + b"x",
        b"permessage-deflate" + b";a=b" * 15_000 + b" " * 10_000 + b"=",
        b'permessage-deflate;a="' + b"\\" * 60_001,
        b'"' * 60_001 + b",permessage-deflate;",
        b"permessage-deflate;" + b"a" * 60_000 + b"\xff",
    ):
        assert negotiate_deflate(offers, DeflateOptions()) is None


SETTINGS = list(
    itertools.product(
        [False, True], [False, True], [None, 9, 12, 15], [None, True, 9, 12, 15], [False, True], [9, 15]
    )
)


@pytest.mark.parametrize(
    ("no_server", "no_client", "server_bits", "client_bits", "takeover", "own_bits"), SETTINGS
)
def test_websockets_takes_the_response(
    no_server: bool,
    no_client: bool,
    server_bits: int | None,
    client_bits: int | bool | None,
    takeover: bool,
    own_bits: int,
) -> None:
    factory = ClientPerMessageDeflateFactory(no_server, no_client, server_bits, client_bits)
    offer = build_extension([(factory.name, list(factory.get_request_params()))])
    options = DeflateOptions(
        server_context_takeover=takeover,
        client_context_takeover=takeover,
        server_max_window_bits=own_bits,
        client_max_window_bits=own_bits,
    )
    agreement = negotiate_deflate(offer.encode(), options)
    assert agreement is not None
    ((name, parameters),) = parse_extension(agreement.response.decode())
    assert name == factory.name
    extension = factory.process_response_params(parameters, [])
    assert extension.remote_no_context_takeover == (no_server or not takeover)
    assert extension.local_no_context_takeover == (no_client or not takeover)
    if server_bits is not None:
        assert extension.remote_max_window_bits == min(server_bits, own_bits)
    if client_bits is not None:
        assert extension.local_max_window_bits == min(15 if client_bits is True else client_bits, own_bits)


def test_wsproto_takes_the_response() -> None:
    extension = PerMessageDeflate()
    offer = f"{extension.name}; {extension.offer()}"
    agreement = negotiate_deflate(offer.encode(), DeflateOptions())
    assert agreement is not None
    extension.finalize(agreement.response.decode())
    assert extension.client_no_context_takeover
    assert extension.server_no_context_takeover
    assert extension.client_max_window_bits == 15
    assert extension.server_max_window_bits == 15


def test_a_smaller_window_of_ours_is_asked_for() -> None:
    options = DeflateOptions(server_max_window_bits=12, client_max_window_bits=11)
    agreement = negotiate_deflate(
        b"permessage-deflate;server_max_window_bits=15;client_max_window_bits", options
    )
    assert agreement is not None
    assert agreement.response == BOTH + b"; server_max_window_bits=12; client_max_window_bits=11"
