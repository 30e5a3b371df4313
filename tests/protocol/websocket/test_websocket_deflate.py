"""The codec: against zlib, wsproto and websockets; what is shared, what is kept, what is refused."""

from __future__ import annotations

import gc
import random
import threading
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websocket_vectors import agree, close, frame, frames_of, run
from websockets.extensions.permessage_deflate import PerMessageDeflate as WebsocketsDeflate
from websockets.frames import Frame, Opcode
from wsproto.connection import CLIENT, Connection
from wsproto.events import BytesMessage, Event, Message, TextMessage
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate

from headrace.errors import RemoteProtocolError
from headrace.protocol.websocket import CloseReceived, DeflateAgreement, WebSocketEngine, codec
from headrace.protocol.websocket.deflate import (
    MIN_COMPRESSED_BYTES,
    TAIL,
    _idle_compressors,
    compressed_bound,
)

INSTALLED = [name for name in ("isal", "zlib_ng") if getattr(codec, name) is not None]


@pytest.fixture(scope="module", autouse=True, params=["installed", "zlib_ng alone", "zlib"])
def codecs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything here holds with each of them."""
    missing = {"installed": [], "zlib_ng alone": ["isal"], "zlib": ["isal", "zlib_ng"]}[request.param]
    if request.param != "zlib" and len(INSTALLED) < 2:
        pytest.skip("needs isal and zlib-ng: pip install 'headrace[websocket]'")
    with pytest.MonkeyPatch.context() as patch:
        for name in missing:
            patch.setattr(codec, name, None)
        # Compressors wait there for the next message.
        _idle_compressors.clear()
        yield
        _idle_compressors.clear()


LIMIT = 1_000_000
WORDS = [b"id", b"name", b'{"', b'": "', b'"}', b"value", b" ", b"0.25", b"\xc3\xa4", b"headrace", b"\n"]


def text_of(seed: int, size: int) -> bytes:
    chance = random.Random(seed)
    return b"".join(chance.choice(WORDS) for _ in range(size))[:size].decode("utf-8", "ignore").encode()


def deflated(data: bytes, bits: int = 12, finish: int = zlib.Z_SYNC_FLUSH, level: int = 6) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    result = compressor.compress(data) + compressor.flush(finish)
    return result.removesuffix(TAIL)


def inflated(payload: bytes, bits: int = 15) -> bytes:
    """With a decompressor that has seen nothing before."""
    return zlib.decompressobj(-bits).decompress(payload + TAIL)


# Compression


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize(("level", "memory_level"), [(1, 1), (6, 5), (9, 9)])
def test_each_message_can_be_read_alone_within_the_window(bits: int, level: int, memory_level: int) -> None:
    """A reference to an earlier message is one too far back for a fresh decompressor, which refuses it."""
    agreement = agree(server_max_window_bits=bits, level=level, memory_level=memory_level)
    repeated = text_of(0, 3000)
    for seed in range(40):
        message = repeated if seed % 3 == 0 else text_of(seed, 1 << seed % 17)
        compressed = agreement.compress(message)
        if compressed is not None:
            assert inflated(compressed, bits) == message
            assert len(compressed) < len(message)


def test_a_repeated_message_is_no_shorter_the_second_time() -> None:
    agreement = agree()
    message = random.Random(1).randbytes(100) * 2
    first = agreement.compress(message)
    assert first is not None
    assert len(first) > 100
    agreement.compress(text_of(3, 500))
    assert agreement.compress(message) == first


def test_a_repeated_long_message_is_no_shorter_the_second_time() -> None:
    agreement = agree()
    message = random.Random(1).randbytes(1000) * 2
    first = agreement.compress(message)
    assert first is not None
    assert len(first) > 1000
    agreement.compress(text_of(3, 5000))
    assert agreement.compress(message) == first


@pytest.mark.parametrize("bits", [9, 12, 15])
@pytest.mark.parametrize("level", [1, 2, 6])
def test_no_reference_is_longer_than_the_agreed_window(bits: int, level: int) -> None:
    agreement = agree(server_max_window_bits=bits, level=level)
    repeated = random.Random(1).randbytes(400)
    gaps = [b"\n" * 50 + random.Random(gap).randbytes(gap) for gap in (60, 600, 5000, 30_000)]
    message = repeated.join([b"", *gaps, bytes(9000)])
    compressed = agreement.compress(message)
    assert compressed is not None
    # In small steps: else zlib finds what lies behind the window in its output.
    decompressor = zlib.decompressobj(-bits)
    pieces = [decompressor.decompress(compressed + TAIL, 200)]
    while pieces[-1]:
        pieces.append(decompressor.decompress(decompressor.unconsumed_tail, 200))
    assert b"".join(pieces) == message


@pytest.mark.parametrize("size", [MIN_COMPRESSED_BYTES, 300, 5000, 100_000])
@pytest.mark.parametrize("level", [1, 2, 3, 6])
def test_no_codec_makes_much_more_than_zlib(size: int, level: int) -> None:
    message = text_of(1, size)
    compressed = agree(level=level, server_max_window_bits=12).compress(message)
    assert compressed is not None
    assert len(compressed) <= len(deflated(message, level=level)) * 1.06 + 8


def test_connections_share_a_compressor_and_learn_nothing_of_each_other() -> None:
    _idle_compressors.clear()
    ours, theirs = agree(), agree()
    secret = random.Random(1).randbytes(200)
    fresh = deflated(secret * 2, finish=zlib.Z_FULL_FLUSH)
    for _ in range(3):
        ours.compress(secret * 2)
        compressed = theirs.compress(secret * 2)
        assert compressed is not None
        # As long as if nobody had sent it before.
        assert abs(len(compressed) - len(fresh)) < 20
    assert [len(idle) for idle in _idle_compressors.values()] == [1]
    agree(server_max_window_bits=9).compress(secret * 2)
    assert [len(idle) for idle in _idle_compressors.values()] == [1, 1]


def test_threads_do_not_share_a_compressor_at_the_same_time() -> None:
    wrong: list[bytes] = []

    def send(seed: int) -> None:
        agreement = agree()
        message = text_of(seed, 20_000)
        for _ in range(30):
            compressed = agreement.compress(message)
            if compressed is None or inflated(compressed) != message:
                wrong.append(message)

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_compressor_that_failed_is_not_shared() -> None:
    _idle_compressors.clear()
    with pytest.raises(TypeError):
        agree().compress("text" * 100)  # type: ignore[arg-type]
    assert list(_idle_compressors.values()) == [[]]


def test_with_context_takeover_a_repeated_message_is_a_reference() -> None:
    agreement = agree(server_context_takeover=True)
    decompressor = zlib.decompressobj(-12)
    message = random.Random(1).randbytes(200)
    sizes = []
    for _ in range(3):
        compressed = agreement.compress(message)
        assert compressed is not None
        sizes.append(len(compressed))
        assert decompressor.decompress(compressed + TAIL) == message
    assert sizes[0] > 200
    assert max(sizes[1:]) < 20


def test_an_idle_connection_without_takeover_holds_no_zlib_state() -> None:
    message = text_of(1, 2000)

    def talk() -> DeflateAgreement:
        agreement = agree()
        compressed = agreement.compress(message)
        assert compressed is not None
        assert agreement.decompress(compressed, True, LIMIT) == message
        return agreement

    talk()
    gc.collect()
    tracemalloc.start()
    agreements = [talk() for _ in range(20)]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < len(agreements) * 1500


# Decompression


@given(
    data=st.binary(max_size=300).map(lambda data: data * 3),
    cuts=st.lists(st.integers(0, 900), max_size=5),
    level=st.sampled_from([0, 1, 9]),
)
def test_any_message_in_any_fragments(data: bytes, cuts: list[int], level: int) -> None:
    agreement = agree()
    payload = deflated(data, level=level)
    start = 0
    result = b""
    for end in sorted(cuts):
        result += agreement.decompress(payload[start:end], False, LIMIT - len(result))
        start = max(start, end)
    result += agreement.decompress(payload[start:], True, LIMIT - len(result))
    assert result == data


@given(data=st.binary(max_size=200), takeover=st.booleans())
def test_any_bytes_are_decompressed_or_refused(data: bytes, takeover: bool) -> None:
    agreement = agree(client_context_takeover=takeover)
    failure: RemoteProtocolError | None = None
    for is_last in (False, True):
        try:
            assert len(agreement.decompress(data, is_last, 100)) <= 100
        except RemoteProtocolError as error:
            failure = error
            break
    assert failure is None or failure.close_code in (1007, 1009)


@pytest.mark.parametrize("size", [0, 1, 5, 1000, 32_768, 100_000])
def test_the_limit_is_exact(size: int) -> None:
    for data in (bytes(size), random.Random(size).randbytes(size)):
        payload = deflated(data)
        assert agree().decompress(payload, True, size) == data
        if size:
            with pytest.raises(RemoteProtocolError) as caught:
                agree().decompress(payload, True, size - 1)
            assert caught.value.close_code == 1009


def test_a_bomb_is_not_decompressed() -> None:
    payload = deflated(bytes(50_000_000))
    assert len(payload) < 60_000
    engine = WebSocketEngine(100_000, agree())
    data = frame(2, payload, rsv=4)
    tracemalloc.start()
    seen = run(engine, [data])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [code.close_code for code in seen.told] == [1009]  # type: ignore[union-attr]
    assert peak < 1_000_000


def test_a_bomb_in_fragments_is_not_decompressed() -> None:
    payload = deflated(bytes(50_000_000))
    engine = WebSocketEngine(100_000, agree())
    parts = [frame(2, payload[:40], fin=False, rsv=4)]
    parts += [frame(0, payload[start : start + 40], fin=False) for start in range(40, 4000, 40)]
    parts.append(frame(0, payload[4000:8000]))
    seen = run(engine, parts)
    assert [code.close_code for code in seen.told] == [1009]  # type: ignore[union-attr]


def test_the_largest_compressed_message_passes() -> None:
    """What cannot be compressed is longer when it is; the limit is for what comes out."""
    data = random.Random(1).randbytes(70_000)
    for level, bits in [(0, 9), (1, 9), (6, 12), (9, 15)]:
        payload = deflated(data, bits, level=level)
        assert len(data) < len(payload) <= compressed_bound(len(data))
        engine = WebSocketEngine(len(data), agree())
        assert engine.receive_data(frame(2, payload, rsv=4)) == [data]


@pytest.mark.parametrize("takeover", [False, True])
@pytest.mark.parametrize("behind", [b"", b"\x00"])
def test_final_blocks_start_afresh(takeover: bool, behind: bytes) -> None:
    agreement = agree(client_context_takeover=takeover)
    for seed in range(3):
        message = text_of(seed, 500)
        payload = deflated(message, finish=zlib.Z_FINISH) + behind
        assert agreement.decompress(payload, True, LIMIT) == message
        plain = deflated(message)
        parts = [
            agreement.decompress(plain[:100], False, LIMIT),
            agreement.decompress(plain[100:], True, LIMIT),
        ]
        assert b"".join(parts) == message


@pytest.mark.parametrize(("bits", "is_read"), [(9, False), (12, True)])
def test_the_window_is_no_larger_than_agreed(bits: int, is_read: bool) -> None:
    agreement = agree(b"permessage-deflate; client_max_window_bits=%d" % bits, client_context_takeover=True)
    client = zlib.compressobj(wbits=-15)
    message = random.Random(1).randbytes(1000)
    for expected in (True, is_read):
        payload = (client.compress(message) + client.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
        if expected:
            assert agreement.decompress(payload, True, LIMIT) == message
        else:
            with pytest.raises(RemoteProtocolError, match="corrupt"):
                agreement.decompress(payload, True, LIMIT)


def test_many_final_blocks_are_refused_at_the_second() -> None:
    with pytest.raises(RemoteProtocolError, match="final block") as caught:
        agree().decompress(b"\x03\x00" * 100_000, True, LIMIT)
    assert caught.value.close_code == 1007


# Other people's extensions


def peers(offer: bytes, **options: bool | int) -> tuple[WebSocketEngine, Connection]:
    agreement = agree(offer, **options)
    extension = WsprotoDeflate()
    extension.finalize(agreement.response.decode())
    return WebSocketEngine(LIMIT, agreement), Connection(CLIENT, [extension])


PAIRS = [
    (b"permessage-deflate", {}),
    (b"permessage-deflate; client_max_window_bits; server_max_window_bits=15", {}),
    (b"permessage-deflate", {"server_context_takeover": True, "client_context_takeover": True}),
    (
        b"permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
        {"server_context_takeover": True, "client_context_takeover": True},
    ),
    (b"permessage-deflate; client_max_window_bits=10", {"client_context_takeover": True, "level": 1}),
]
MESSAGES: list[str | bytes] = [
    "", b"", "a", b"\x00", text_of(1, 127).decode(), text_of(2, 128), text_of(3, 1000).decode(),
    text_of(3, 1000), bytes(40_000), random.Random(2).randbytes(5000), text_of(5, 30_000).decode(),
]  # fmt: skip


@pytest.mark.parametrize(("offer", "options"), PAIRS)
def test_wsproto_talks_with_us(offer: bytes, options: dict[str, bool | int]) -> None:
    engine, client = peers(offer, **options)
    for message in MESSAGES * 2:
        event: Event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        assert run(engine, [client.send(event)]).events == [message]
        if isinstance(message, str):
            engine.send_text(message)
        else:
            engine.send_bytes(message)
        client.receive_data(engine.data_to_send())
        received = list(client.events())
        assert all(type(part) is type(event) for part in received)
        whole = [part.data for part in received if isinstance(part, Message)]
        assert ("" if isinstance(message, str) else b"").join(whole) == message  # type: ignore[arg-type]
    assert run(engine, [close(1000)]).events == [CloseReceived(1000, "")]


@pytest.mark.parametrize("no_server", [False, True])
@pytest.mark.parametrize("no_client", [False, True])
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_websockets_talks_with_us(no_server: bool, no_client: bool, bits: int) -> None:
    offer = b"permessage-deflate; server_max_window_bits=%d; client_max_window_bits=%d" % (bits, bits)
    agreement = agree(
        offer,
        server_context_takeover=not no_server,
        client_context_takeover=not no_client,
        server_max_window_bits=15,
        client_max_window_bits=15,
    )
    engine = WebSocketEngine(LIMIT, agreement)
    client = WebsocketsDeflate(no_server, no_client, bits, bits)
    for message in MESSAGES * 2:
        data = message.encode() if isinstance(message, str) else message
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
        middle = len(data) // 2
        first = client.encode(Frame(opcode, data[:middle], fin=False))
        last = client.encode(Frame(Opcode.CONT, data[middle:]))
        parts = [
            frame(opcode, bytes(first.data), fin=False, rsv=first.rsv1 << 2),
            frame(0, bytes(last.data), rsv=last.rsv1 << 2),
        ]
        assert run(engine, parts).events == [message]
        if isinstance(message, str):
            engine.send_text(message)
        else:
            engine.send_bytes(message)
        ((head, payload),) = frames_of(engine.data_to_send())
        decoded = client.decode(Frame(Opcode(head & 15), payload, rsv1=bool(head & 0x40)))
        assert bytes(decoded.data) == data


def test_short_messages_go_as_they_are() -> None:
    assert agree().min_bytes == MIN_COMPRESSED_BYTES
    assert agree(server_context_takeover=True).min_bytes == 1
