"""The hub over real pipes: who gets what, what a slow or vanished worker costs others, what is bounded."""

from __future__ import annotations

import asyncio

import pytest

from headrace.supervisor import hub as hub_module
from headrace.supervisor.control import (
    MAX_CHANNEL_BYTES,
    MAX_DATA_BYTES,
    ControlError,
    Lost,
    Message,
    Ping,
    Pong,
    Publish,
    Subscribe,
    Unsubscribe,
    encode,
    encode_frame,
)
from headrace.supervisor.hub import MAX_WAITING_BYTES, Hub
from headrace.supervisor.pipe import HIGH_WATER_BYTES
from team import KERNEL_BYTES, READ_BYTES, Member, Team, until, with_team

FLOOD = 3_000
"""Messages of 1 KiB, twice what may wait for a worker."""

END = b"end"


async def flood(member: Member, count: int = FLOOD) -> list[bytes]:
    """Publish that many messages of 1 KiB to ``c``, and the end; gives their data."""
    sent = [b"%08d" % number + bytes(1016) for number in range(count)] + [END]
    for data in sent:
        assert member.relay.publish("c", data)
        await member.relay.wait_writable()
    return sent


class FakePipe:
    """Always writable; keeps what is written."""

    is_writable = True

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, frames: bytes) -> None:
        self.written.append(frames)


class GatedPipe(FakePipe):
    """Lets one write through each time it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.is_writable = False
        self._opened = asyncio.Event()

    def open(self) -> None:
        self.is_writable = True
        self._opened.set()

    def write(self, frames: bytes) -> None:
        super().write(frames)
        self.is_writable = False
        self._opened.clear()

    def send(self, message: Message) -> None:
        self.write(encode(message))

    async def wait_writable(self) -> None:
        await self._opened.wait()


def frame_of(message: Publish | Subscribe | Unsubscribe) -> tuple[int, bytes]:
    return message.kind, encode(message)[5:]


class TestRouting:
    @with_team
    async def test_to_all_others_that_subscribe(self, team: Team) -> None:
        publisher, one, two = [await team.join("c") for _ in range(3)]
        stranger = await team.join("d")
        publisher.relay.publish("c", b"hello")
        await until(lambda: one.got and two.got)
        await team.settle(stranger)
        # Its own relay gave it to the publisher, once.
        assert [publisher.got, one.got, two.got, stranger.got] == [[b"hello"], [b"hello"], [b"hello"], []]
        assert (team.hub.messages, team.hub.lost) == (1, 0)

    @with_team
    async def test_any_bytes_under_any_name(self, team: Team) -> None:
        channel = "Kanäle/通道/\0 \U0001f6b0"
        publisher, member = await team.join(), await team.join(channel)
        sent = [bytes(range(256)), b"", encode(Ping(1)), b"\xff" * 70_000]
        for data in sent:
            publisher.relay.publish(channel, data)
        await until(lambda: len(member.got) == len(sent))
        assert member.got == sent

    @with_team
    async def test_order_of_one_publisher(self, team: Team) -> None:
        publisher, member = await team.join(), await team.join("a", "b")
        sent = [b"%d" % number for number in range(5_000)]
        for number, data in enumerate(sent):
            publisher.relay.publish("ab"[number % 3 % 2], data)
        await until(lambda: len(member.got) >= len(sent))
        assert member.got == sent

    @with_team
    async def test_both_ways_at_once(self, team: Team) -> None:
        members = [await team.join("c") for _ in range(3)]
        for number in range(1_000):
            for member in members:
                member.relay.publish("c", b"%d %d" % (member.worker_id, number))
            if not number % 50:
                await asyncio.sleep(0)
        await until(lambda: all(len(member.got) == 3_000 for member in members))
        for member in members:
            for other in range(3):
                assert [data for data in member.got if data.startswith(b"%d " % other)] == [
                    b"%d %d" % (other, number) for number in range(1_000)
                ]

    @with_team
    async def test_unsubscribed(self, team: Team) -> None:
        publisher, member, other = await team.join(), await team.join("c", "d"), await team.join("c")
        member.relay.unsubscribe("c", member.got.append)
        await team.settle(member)
        publisher.relay.publish("c", b"1")
        publisher.relay.publish("d", b"2")
        await until(lambda: member.got and other.got)
        assert (member.got, other.got) == ([b"2"], [b"1"])

    @with_team
    async def test_control_messages_are_handed_on(self, team: Team) -> None:
        publisher, member = await team.join(), await team.join("c")
        publisher.relay.publish("c", b"1")
        publisher.relay.flush()
        publisher.pipe.send(Pong(2, 0, 0, 0, 0, 0.0))
        team.pipes[member.worker_id].send(Ping(3))
        await until(lambda: member.got and member.heard)
        assert member.heard == [Ping(3)]
        assert team.said[publisher.worker_id][-1] == Pong(2, 0, 0, 0, 0, 0.0)

    def test_one_write_for_one_read(self) -> None:
        hub, pipes = Hub(), [FakePipe() for _ in range(3)]
        for number, pipe in enumerate(pipes):
            hub.add(number, pipe)  # type: ignore[arg-type]
        hub.on_frames(1, [frame_of(Subscribe("a")), frame_of(Subscribe("b"))])
        hub.on_frames(2, [frame_of(Subscribe("b"))])
        messages = [Publish("a", b"1"), Publish("b", b"2"), Publish("c", b"3"), Publish("a", b"4")]
        others = hub.on_frames(0, [*map(frame_of, messages), (Pong.kind, b"[]")])
        assert others == [(Pong.kind, b"[]")]
        assert [pipe.written for pipe in pipes] == [
            [],
            [b"".join(encode(message) for message in messages if message.channel != "c")],
            [encode(messages[1])],
        ]


class TestMembership:
    @with_team
    async def test_gone_and_replaced(self, team: Team) -> None:
        publisher, member, other = await team.join(), await team.join("c"), await team.join("c")
        member.pipe.close()
        await until(lambda: team.ended == [member.worker_id])
        successor = await team.join("c")
        publisher.relay.publish("c", b"1")
        await until(lambda: other.got and successor.got)
        assert (member.got, other.got, successor.got) == ([], [b"1"], [b"1"])

    def test_nothing_is_left_of_the_last(self) -> None:
        hub = Hub()
        hub.add(1, FakePipe())  # type: ignore[arg-type]
        hub.on_frames(1, [frame_of(Subscribe("c")), frame_of(Subscribe("c")), frame_of(Subscribe("d"))])
        hub.on_frames(1, [frame_of(Unsubscribe("d")), frame_of(Unsubscribe("e"))])
        assert list(hub._routes) == [b"c"]
        hub.remove(1)
        hub.remove(1)
        assert not hub._routes
        assert not hub._members
        assert hub.waiting_bytes(1) == 0

    def test_a_successor_under_the_same_number(self) -> None:
        hub, old, new = Hub(), FakePipe(), FakePipe()
        hub.add(1, old)  # type: ignore[arg-type]
        hub.on_frames(1, [frame_of(Subscribe("c")), frame_of(Subscribe("d"))])
        hub.add(1, new)  # type: ignore[arg-type]
        hub.on_frames(1, [frame_of(Subscribe("d"))])
        hub.on_frames(2, [frame_of(Publish("c", b"1")), frame_of(Publish("d", b"2"))])
        assert (old.written, new.written) == ([], [encode(Publish("d", b"2"))])

    def test_last_words_of_one_removed(self) -> None:
        hub, pipe = Hub(), FakePipe()
        hub.add(1, pipe)  # type: ignore[arg-type]
        hub.on_frames(1, [frame_of(Subscribe("c"))])
        hub.on_frames(2, [frame_of(Subscribe("c")), frame_of(Publish("c", b"1"))])
        assert pipe.written == [encode(Publish("c", b"1"))]
        assert [len(members) for members in hub._routes.values()] == [1]

    @with_team
    async def test_publisher_vanishes_within_a_frame(self, team: Team) -> None:
        worker_id, publisher = await team.join_reader()
        member = await team.join("c")
        frame = encode(Publish("c", b"1"))
        publisher.sock.sendall(frame + frame[:-1])
        publisher.sock.close()
        await until(lambda: team.ended == [worker_id])
        await until(lambda: member.got)
        assert member.got == [b"1"]

    @with_team
    async def test_subscriber_vanishes_while_much_waits_for_it(self, team: Team) -> None:
        publisher, member = await team.join(), await team.join("c")
        worker_id, gone = await team.join_reader("c")
        flooding = asyncio.ensure_future(flood(publisher))
        await until(lambda: team.hub.waiting_bytes(worker_id) > MAX_WAITING_BYTES / 2)
        gone.sock.close()
        sent = await flooding
        await until(lambda: END in member.got)
        assert member.got == sent
        assert team.ended == [worker_id]
        assert team.hub.waiting_bytes(worker_id) == 0

    @with_team
    async def test_removed_though_its_pipe_stays(self, team: Team) -> None:
        pipe = GatedPipe()
        team.hub.add(9, pipe)  # type: ignore[arg-type]
        team.hub.on_frames(9, [frame_of(Subscribe("c"))])
        team.hub.on_frames(0, [frame_of(Publish("c", b"1"))])
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 2
        team.hub.remove(9)
        await until(lambda: len(asyncio.all_tasks()) == 1)
        assert pipe.written == []


class TestSlowWorker:
    @with_team
    async def test_costs_only_itself(self, team: Team) -> None:
        publisher, member = await team.join(), await team.join("c")
        worker_id, _slow = await team.join_reader("c")
        sent = await flood(publisher)
        await until(lambda: END in member.got)
        assert member.got == sent
        waiting_bytes = team.hub.waiting_bytes(worker_id)
        assert MAX_WAITING_BYTES <= waiting_bytes < MAX_WAITING_BYTES + READ_BYTES
        assert team.pipes[worker_id].waiting_bytes <= HIGH_WATER_BYTES + READ_BYTES
        assert team.hub.lost > 0

    @with_team
    async def test_is_told_what_it_lost_where_it_lost_it(self, team: Team) -> None:
        publisher = await team.join()
        worker_id, slow = await team.join_reader("c")
        sent = await flood(publisher)
        await team.settle(publisher)
        await until(lambda: slow.has(Lost))
        assert team.hub.waiting_bytes(worker_id) == 0
        publisher.relay.publish("c", b"after")
        await until(lambda: slow.read() or slow.data[-1] == b"after")
        # Nothing between the first and the gap is missing, and all that is missing is in the gap.
        assert slow.data == [*sent[: len(slow.data) - 1], b"after"]
        assert len(slow.data) - 1 + slow.lost == len(sent)
        assert slow.lost == team.hub.lost
        assert isinstance(slow.messages[-2], Lost)

    @with_team
    async def test_order_and_gap_whenever_it_takes(self, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
        pipe, sent = GatedPipe(), [Publish("c", b"%d" % number) for number in range(9)]
        monkeypatch.setattr(hub_module, "MAX_WAITING_BYTES", 2 * len(encode(sent[0])))
        team.hub.add(9, pipe)  # type: ignore[arg-type]
        team.hub.on_frames(9, [frame_of(Subscribe("c"))])

        def publish(*numbers: int) -> None:
            team.hub.on_frames(0, [frame_of(sent[number]) for number in numbers])

        async def open_gate() -> None:
            count = len(pipe.written)
            pipe.open()
            await until(lambda: len(pipe.written) > count)

        publish(0)
        pipe.open()
        publish(1)  # The gate is open, but another is before it.
        await until(lambda: len(pipe.written) == 1)
        publish(2)
        publish(3, 4)  # No room is left.
        await open_gate()
        publish(5)  # There is some again, but the gap is not told yet.
        await open_gate()
        publish(6)
        await open_gate()
        pipe.open()
        publish(7)
        assert pipe.written == [encode(message) for message in (*sent[:3], Lost(4), sent[7])]
        assert team.hub.lost == 4

    @with_team
    async def test_loses_nothing_below_the_bound(self, team: Team) -> None:
        publisher = await team.join()
        worker_id, slow = await team.join_reader("c")
        sent = await flood(publisher, MAX_WAITING_BYTES // 2_048)
        await team.settle(publisher)
        assert team.hub.waiting_bytes(worker_id) > 0
        await until(lambda: slow.read() or END in slow.data)
        assert (slow.data, slow.lost) == (sent, 0)

    @with_team
    async def test_control_messages_overtake_what_waits(self, team: Team) -> None:
        publisher = await team.join()
        worker_id, slow = await team.join_reader("c")
        await flood(publisher)
        await team.settle(publisher)
        team.pipes[worker_id].send(Ping(1))
        await until(lambda: slow.has(Lost))
        before = slow.messages[: slow.messages.index(Ping(1))]
        # Twice what was asked for: the kernel counts its own overhead.
        assert len(before) * 1_024 < HIGH_WATER_BYTES + READ_BYTES + 2 * KERNEL_BYTES
        assert len(slow.data) > len(before)

    @with_team
    async def test_one_that_floods_is_heard_meanwhile(self, team: Team) -> None:
        publisher, member = await team.join(), await team.join("c")

        async def flood_for_ever() -> None:
            while True:
                publisher.relay.publish("c", b"")
                await publisher.relay.wait_writable()

        flooding = asyncio.ensure_future(flood_for_ever())
        for number in range(5):
            count = len(member.got)
            team.pipes[publisher.worker_id].send(Ping(number))
            team.pipes[member.worker_id].send(Ping(number))
            await until(lambda: len(publisher.heard) > number and len(member.heard) > number)  # noqa: B023
            publisher.pipe.send(Pong(number, 0, 0, 0, 0, 0.0))
            await until(lambda: team.said[publisher.worker_id][-1].number == number)  # type: ignore[union-attr] # noqa: B023
            await until(lambda: len(member.got) > count)  # noqa: B023
        flooding.cancel()


class TestLimits:
    @with_team
    async def test_largest_message(self, team: Team) -> None:
        channel = "c" * MAX_CHANNEL_BYTES
        publisher, member = await team.join(), await team.join(channel)
        sent = [b"%d" % number + bytes(MAX_DATA_BYTES - 1) for number in range(3)]
        for data in sent:
            assert publisher.relay.publish(channel, data)
            await publisher.relay.wait_writable()
        await until(lambda: len(member.got) == len(sent))
        assert member.got == sent

    @pytest.mark.parametrize(
        "frame",
        [
            encode_frame(Publish.kind, b"\x00\x01c" + bytes(MAX_DATA_BYTES + 1)),
            encode_frame(Publish.kind, b"\x00"),
            encode_frame(Publish.kind, b"\xff\xffc"),
            encode_frame(Subscribe.kind, b"[1]"),
            encode_frame(Unsubscribe.kind, b'["\\ud800"]'),
            encode_frame(Subscribe.kind, b'["' + b"c" * (MAX_CHANNEL_BYTES + 1) + b'"]'),
            b"GET / HTTP/1.1\r\n\r\n",
        ],
        ids=["data", "cut", "no-channel", "number", "surrogate", "channel", "http"],
    )
    @with_team
    async def test_a_worker_that_writes_what_it_must_not(self, team: Team, frame: bytes) -> None:
        publisher, member = await team.join(), await team.join("c")
        worker_id, bad = await team.join_reader("c")
        sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(bad.sock, frame))
        await until(lambda: team.ended == [worker_id])
        await asyncio.wait([sending])
        sending.exception()
        publisher.relay.publish("c", b"1")
        await until(lambda: member.got)
        assert member.got == [b"1"]

    def test_too_many_channels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hub_module, "MAX_CHANNELS", 2)
        hub = Hub()
        hub.add(1, FakePipe())  # type: ignore[arg-type]
        hub.on_frames(1, [frame_of(Subscribe(name)) for name in "aabb"])
        hub.on_frames(1, [frame_of(Unsubscribe("a")), frame_of(Subscribe("c"))])
        with pytest.raises(ControlError, match="2"):
            hub.on_frames(1, [frame_of(Subscribe("d"))])
