"""The relay over a real pipe: batches, the brake, and what an application gets that does not mind it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from headrace.supervisor import relay as relay_module
from headrace.supervisor.control import (
    MAX_CHANNEL_BYTES,
    MAX_DATA_BYTES,
    ControlError,
    Lost,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    encode,
)
from headrace.supervisor.pipe import ControlPipe
from headrace.supervisor.relay import MAX_BATCH_BYTES, MAX_UNSENT_BYTES, Relay
from live import Records
from team import Reader, Team, small_pair, until, with_team


def frame_of(message: Publish | Lost | Ping) -> tuple[int, bytes]:
    return message.kind, encode(message)[5:]


async def open_relay() -> tuple[Relay, Reader]:
    """A relay, and the supervisor's end of its pipe."""
    near, far = small_pair()
    relay = Relay(None)
    pipe = ControlPipe(relay.on_frames, lambda: None)  # type: ignore[arg-type]
    await pipe.open(near)
    relay._pipe = pipe
    return relay, Reader(far)


def close(relay: Relay, supervisor: Reader) -> None:
    assert relay._pipe is not None
    relay._pipe.close()
    supervisor.sock.close()


class FakePipe:
    """Keeps what is written."""

    is_writable = True
    is_open = True
    waiting_bytes = 0

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, frames: bytes) -> None:
        self.written.append(frames)


def fake_relay() -> tuple[Relay, FakePipe]:
    pipe = FakePipe()
    return Relay(pipe), pipe  # type: ignore[arg-type]


class TestSubscriptions:
    @with_team
    async def test_one_for_all_callbacks_of_a_channel(self, team: Team) -> None:
        relay, pipe = fake_relay()
        one: list[bytes] = []
        two: list[bytes] = []
        for callback in (one.append, two.append, two.append):
            relay.subscribe("c", callback)
        relay.unsubscribe("c", two.append)
        relay.flush()
        assert pipe.written == [encode(Subscribe("c"))]
        relay.on_frames([frame_of(Publish("c", b"1")), frame_of(Publish("d", b"2"))])
        assert (one, two) == ([b"1"], [b"1"])
        relay.unsubscribe("c", one.append)
        relay.unsubscribe("c", two.append)
        relay.flush()
        assert pipe.written[1:] == [encode(Unsubscribe("c"))]
        relay.on_frames([frame_of(Publish("c", b"3"))])
        assert (one, two) == ([b"1"], [b"1"])

    @with_team
    async def test_taken_back_that_was_none(self, team: Team) -> None:
        relay, _pipe = fake_relay()
        relay.subscribe("c", print)
        for channel, callback in (("d", print), ("c", repr)):
            with pytest.raises(KeyError, match=channel):
                relay.unsubscribe(channel, callback)  # type: ignore[arg-type]

    @with_team
    async def test_changed_by_a_callback(self, team: Team) -> None:
        relay, _ = fake_relay()
        got: list[bytes] = []

        def once(data: bytes) -> None:
            relay.unsubscribe("c", once)
            relay.subscribe("c", got.append)

        relay.subscribe("c", once)
        relay.subscribe("c", got.append)
        relay.on_frames([frame_of(Publish("c", b"1"))])
        assert got == [b"1"]
        relay.on_frames([frame_of(Publish("c", b"2"))])
        assert got == [b"1", b"2", b"2"]

    @with_team
    async def test_too_many_channels(self, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relay_module, "MAX_CHANNELS", 2)
        relay, _pipe = fake_relay()
        for name in "aab":
            relay.subscribe(name, print)
        with pytest.raises(ValueError, match="2"):
            relay.subscribe("c", print)
        relay.unsubscribe("b", print)
        relay.subscribe("c", print)

    @pytest.mark.parametrize("channel", ["c" * (MAX_CHANNEL_BYTES + 1), "\ud800"], ids=["long", "surrogate"])
    @with_team
    async def test_impossible_names(self, team: Team, channel: str) -> None:
        relay, pipe = fake_relay()
        for call in (
            lambda: relay.subscribe(channel, print),
            lambda: relay.unsubscribe(channel, print),
            lambda: relay.publish(channel, b""),
        ):
            with pytest.raises(ValueError):
                call()
        relay.flush()
        assert pipe.written == []

    @with_team
    async def test_a_callback_that_fails(self, team: Team, error_log: Records) -> None:
        relay, _ = fake_relay()
        got: list[bytes] = []

        def fail(data: bytes) -> None:
            raise LookupError("the reason")

        relay.subscribe("c", fail)
        relay.subscribe("c", got.append)
        relay.on_frames([frame_of(Publish("c", b"1")), frame_of(Publish("c", b"2"))])
        assert got == [b"1", b"2"]
        assert error_log.lines(logging.ERROR) == ["A subscriber of channel 'c' failed"] * 2


class TestReceiving:
    def test_losses_are_counted_and_the_rest_is_handed_on(self) -> None:
        relay = Relay(None)
        assert relay.on_frames([frame_of(Lost(3)), frame_of(Ping(1)), frame_of(Lost(4))]) == [
            (Ping.kind, b"[1]")
        ]
        assert relay.lost == 7

    @pytest.mark.parametrize("frame", [(Publish.kind, b"\x00"), (Lost.kind, b"[]")])
    def test_garbage(self, frame: tuple[int, bytes]) -> None:
        with pytest.raises(ControlError):
            Relay(None).on_frames([frame])


class TestPublishing:
    @with_team
    async def test_one_write_for_one_turn(self, team: Team) -> None:
        relay, pipe = fake_relay()
        relay.subscribe("c", print)
        messages = [Publish("c", b"1"), Publish("d", b"2")]
        for message in messages:
            assert relay.publish(message.channel, message.data)
        assert pipe.written == []
        await asyncio.sleep(0)
        assert pipe.written == [b"".join(map(encode, (Subscribe("c"), *messages)))]
        relay.publish("c", b"3")
        await asyncio.sleep(0)
        assert pipe.written[1:] == [encode(Publish("c", b"3"))]

    @with_team
    async def test_a_turn_that_publishes_much_is_written_in_pieces(self, team: Team) -> None:
        relay, pipe = fake_relay()
        data = bytes(MAX_BATCH_BYTES // 4)
        for _ in range(9):
            relay.publish("c", data)
        assert len(pipe.written) == 2
        await asyncio.sleep(0)
        assert b"".join(pipe.written) == encode(Publish("c", data)) * 9

    @with_team
    async def test_own_subscribers_are_called_at_once(self, team: Team) -> None:
        relay, _pipe = fake_relay()
        got: list[bytes] = []
        relay.subscribe("c", got.append)
        relay.publish("c", b"1")
        assert got == [b"1"]

    @with_team
    async def test_too_large(self, team: Team) -> None:
        relay, _pipe = fake_relay()
        got: list[bytes] = []
        relay.subscribe("c", got.append)
        with pytest.raises(ValueError, match=str(MAX_DATA_BYTES)):
            relay.publish("c", bytes(MAX_DATA_BYTES + 1))
        assert got == []
        assert relay.unsent == 0

    @with_team
    async def test_alone(self, team: Team) -> None:
        relay = Relay(None)
        got: list[bytes] = []
        relay.subscribe("c", got.append)
        for _ in range(100):
            assert relay.publish("c", bytes(MAX_BATCH_BYTES))
            await relay.wait_writable()
        relay.flush()
        relay.unsubscribe("c", got.append)
        assert (len(got), relay.is_writable, relay.unsent) == (100, True, 0)


class TestBrake:
    @with_team
    async def test_goes_on_regardless(self, team: Team) -> None:
        relay, supervisor = await open_relay()
        got: list[bytes] = []
        relay.subscribe("c", got.append)
        sent: list[bytes] = []
        count = 0
        while relay.unsent < 100:
            data = b"%d" % count
            data += bytes(1_024)
            if relay.publish("c", data):
                sent.append(data)
            count += 1
            if not count % 100:
                await asyncio.sleep(0)
        assert relay._pipe is not None
        assert relay._pipe.waiting_bytes <= MAX_UNSENT_BYTES + MAX_BATCH_BYTES
        assert len(got) == count == len(sent) + relay.unsent
        await until(lambda: supervisor.read() or len(supervisor.data) == len(sent))
        assert supervisor.data == sent
        await relay.wait_writable()
        assert relay.publish("c", b"again")
        await until(lambda: supervisor.read() or supervisor.data[-1] == b"again")
        close(relay, supervisor)

    @with_team
    async def test_who_waits_loses_none(self, team: Team) -> None:
        relay, supervisor = await open_relay()

        async def publish() -> None:
            for number in range(3_000):
                assert relay.publish("c", b"%d " % number + bytes(1_024))
                await relay.wait_writable()

        publishing = asyncio.ensure_future(publish())
        assert relay._pipe is not None
        while not publishing.done():
            # It waits although the loop turns, until somebody reads.
            await until(lambda: publishing.done() or not relay._pipe.is_writable)  # type: ignore[union-attr]
            assert relay._pipe.waiting_bytes < MAX_UNSENT_BYTES
            supervisor.read()
        await publishing
        await until(lambda: supervisor.read() or len(supervisor.data) == 3_000)
        assert [int(data.split()[0]) for data in supervisor.data] == list(range(3_000))
        assert relay.unsent == 0
        close(relay, supervisor)

    @with_team
    async def test_waits_until_somebody_reads(self, team: Team) -> None:
        relay, supervisor = await open_relay()
        assert relay._pipe is not None
        while relay._pipe.is_writable:
            relay.publish("c", bytes(10_000))
            await asyncio.sleep(0)
        waiting = asyncio.ensure_future(relay.wait_writable())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert not relay.is_writable
        await until(lambda: supervisor.read() or waiting.done())
        assert relay.is_writable
        close(relay, supervisor)

    @with_team
    async def test_writable_once_a_turn(self, team: Team) -> None:
        relay, _ = fake_relay()
        assert relay.is_writable
        relay.publish("c", bytes(MAX_BATCH_BYTES))
        assert not relay.is_writable
        await asyncio.sleep(0)
        assert relay.is_writable

    @with_team
    async def test_who_waits_gives_way_though_nobody_brakes(self, team: Team) -> None:
        relay, _ = fake_relay()
        turns: list[int] = []

        async def count() -> None:
            while True:
                turns.append(1)
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        for _ in range(10):
            relay.publish("c", bytes(MAX_BATCH_BYTES // 2))
            await relay.wait_writable()
        assert len(turns) >= 1
        counting.cancel()

    @with_team
    async def test_without_supervisor(self, team: Team) -> None:
        relay, supervisor = await open_relay()
        got: list[bytes] = []
        relay.subscribe("c", got.append)
        blocked = asyncio.ensure_future(fill(relay))
        await until(lambda: not relay._pipe.is_writable)  # type: ignore[union-attr]
        supervisor.sock.close()
        await blocked
        unsent = relay.unsent
        assert not relay.publish("c", b"last")
        assert relay.unsent == unsent + 1
        assert got[-1] == b"last"
        await relay.wait_writable()
        close(relay, supervisor)


async def fill(relay: Relay) -> None:
    """Publish until the pipe is gone."""
    while relay.publish("c", bytes(10_000)):
        await relay.wait_writable()
