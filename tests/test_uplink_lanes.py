"""The uplink's two lanes, and the records over which a broker hangs up."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from brokers import Mosquitto, needs_mosquitto
from uplink_peers import QUICK, MemoryOutbox, StubBroker, make_uplink, running, until

from edge_agent.clock import SystemClock
from edge_agent.uplink.lanes import Lanes
from edge_agent.uplink.poison import HANGS_UP, Suspects
from edge_agent.uplink.settle import Settler, Waiting
from edge_agent.uplink.words import Lost

# ------------------------------------------------------------------------------------------------------ poison


def hangs_up_over(broker: StubBroker, poison: Callable[[bytes], bool]) -> Callable[[int], int | None]:
    """An answer for a broker that ends the connection over some payloads, and accepts all others."""

    def answer(number: int) -> int | None:
        if poison(broker.publishes[number][1]):
            broker.writers[-1].transport.abort()
            return None
        return 0

    return answer


async def test_uplink_finds_the_record_over_which_a_broker_hangs_up_and_the_rest_moves_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outbox = MemoryOutbox()
    for number in range(40):
        outbox.add("t", b"poison" if number in (5, 11) else b"%d" % number)
    async with StubBroker() as broker:
        broker._answer = hangs_up_over(broker, lambda payload: payload == b"poison")
        async with running(make_uplink(outbox, broker.url)) as uplink:
            await outbox.until(lambda: len(outbox.accepted_positions) >= 38 and len(outbox.refusals) == 2)
            assert uplink.figures().refused == 2
    assert sorted(set(outbox.accepted_positions)) == [n for n in range(40) if n not in (5, 11)]
    assert {position: code for position, (code, _) in outbox.refusals.items()} == {5: HANGS_UP, 11: HANGS_UP}
    assert caplog.text.count("a record is a dead letter") == 2


async def test_uplink_blames_no_record_for_a_broker_that_hangs_up_now_and_then() -> None:
    outbox = MemoryOutbox()
    for number in range(300):
        outbox.add("t", b"%d" % number)
    chance = random.Random(3)
    async with StubBroker() as broker:
        broker._answer = hangs_up_over(broker, lambda _: chance.random() < 0.05)
        async with running(make_uplink(outbox, broker.url)):
            await outbox.until(lambda: len(set(outbox.accepted_positions)) == 300, 30)
    assert outbox.refusals == {}


async def test_uplink_silences_a_latest_value_over_which_a_broker_hangs_up() -> None:
    outbox = MemoryOutbox()
    async with StubBroker() as broker:
        broker._answer = hangs_up_over(broker, lambda payload: payload == b"bad state")
        async with running(make_uplink(outbox, broker.url)) as uplink:
            await until(lambda: uplink.figures().connected)
            uplink.publish_latest("state", b"bad state", 60)
            await until(lambda: uplink.figures().reconnects >= 3 and uplink.figures().connected)
            outbox.add("t", b"1")
            uplink.wake()
            await outbox.until(lambda: len(outbox.accepted_positions) == 1)
            reconnects = uplink.figures().reconnects
            uplink.publish_latest("state", b"bad state", 60)
            outbox.add("t", b"2")
            uplink.wake()
            await outbox.until(lambda: len(outbox.accepted_positions) == 2)
            assert uplink.figures().reconnects == reconnects


@needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_uplink_moves_on_past_a_record_that_mosquitto_has_a_limit_for(tmp_path: Path, version: str) -> None:
    """MQTT 5 tells; with 3.1.1 this broker acknowledges what it throws away, which the agent cannot see."""
    outbox = MemoryOutbox()
    for number in range(30):
        outbox.add("t", b"x" * 5_000 if number == 7 else b"%d" % number)
    with Mosquitto(tmp_path, "message_size_limit 1000") as broker:
        async with running(make_uplink(outbox, broker.url, version=version)):
            await outbox.until(lambda: len(set(outbox.accepted_positions)) + len(outbox.refusals) == 30, 20)
    assert list(outbox.refusals) == ([7] if version == "5" else [])


# -------------------------------------------------------------------------------------------------- two lanes


async def test_uplink_sends_what_is_new_before_what_waited() -> None:
    outbox = MemoryOutbox()
    for number in range(2_000):
        outbox.add("old", b"%d" % number)
    async with StubBroker(delay_s=0.002) as broker, running(make_uplink(outbox, broker.url)) as uplink:
        await outbox.until(lambda: len(outbox.accepted_positions) > 100)
        behind = len(broker.publishes)
        outbox.add("new", b"0")
        uplink.wake()
        await until(lambda: any(topic == "new" for topic, *_ in broker.publishes))
        place = next(n for n, (topic, *_) in enumerate(broker.publishes) if topic == "new")
        assert place - behind < 3 * 16
        await outbox.until(lambda: len(set(outbox.accepted_positions)) == 2_001, 30)
    assert [int(payload) for topic, payload, _ in broker.publishes if topic == "old"] == list(range(2_000))
    marked = {topic: b"backlog" in whole for topic, _, whole in broker.publishes}
    assert (marked["old"], marked["new"]) == (True, False)


async def test_uplink_sends_a_backlog_no_faster_than_it_may() -> None:
    outbox = MemoryOutbox()
    for number in range(300):
        outbox.add("old", b"%d" % number)
    async with StubBroker() as broker:
        began = time.monotonic()
        async with running(make_uplink(outbox, broker.url, limits=replace(QUICK, backlog_per_s=400.0))) as uplink:
            await until(lambda: uplink.figures().connected)
            for number in range(50):
                outbox.add("new", b"%d" % number)
            uplink.wake()
            await until(lambda: sum(topic == "new" for topic, *_ in broker.publishes) == 50)
            assert sum(topic == "old" for topic, *_ in broker.publishes) < 200
            await outbox.until(lambda: len(set(outbox.accepted_positions)) == 350)
        assert time.monotonic() - began > 0.5


async def test_uplink_that_is_told_to_look_again_sends_what_waits_again_and_doubles_nothing_else() -> None:
    outbox = MemoryOutbox()
    for number in range(600):
        outbox.add("t", b"%d" % number)
    async with StubBroker(delay_s=0.001) as broker, running(make_uplink(outbox, broker.url)) as uplink:
        await outbox.until(lambda: len(outbox.accepted_positions) > 300)
        outbox.accepted_positions = [each for each in outbox.accepted_positions if each not in range(10, 20)]
        await uplink.look_again()
        await outbox.until(lambda: len(set(outbox.accepted_positions)) == 600)
        counts = Counter(int(payload) for topic, payload, _ in broker.publishes if topic == "t")
    assert {number for number, count in counts.items() if count == 2} == set(range(10, 20))
    assert max(counts.values()) == 2


async def test_look_from_the_begin_is_not_undone_by_a_fetch_that_was_under_way() -> None:
    class Slow(MemoryOutbox):
        gate = asyncio.Event()

        async def waiting(self, after: int, limit: int, until: int | None = None) -> Sequence[Waiting]:
            found = await super().waiting(after, limit, until)
            if until is not None:  # the backlog's
                await self.gate.wait()
            return found

    outbox = Slow()
    for number in range(10):
        outbox.add("t", b"%d" % number)
    outbox.accepted_positions = [0, 1, 2]
    lanes = Lanes(outbox, Settler(outbox, 1, 1), Suspects(), SystemClock(), batch=100, backlog_per_s=1e6)
    await lanes.begin()
    fetching = asyncio.create_task(lanes.fetch())
    await asyncio.sleep(0.01)
    outbox.accepted_positions = [1, 2]
    await lanes.look_again([])
    outbox.gate.set()
    await fetching
    await lanes.fetch()
    found = []
    while isinstance(one := lanes.next(), Waiting):
        found.append(one.position)
    assert found == [0, *range(3, 10)]


async def test_suspected_record_that_is_sent_while_the_lanes_begin_is_not_fetched_once_more() -> None:
    outbox = MemoryOutbox()
    for number in range(6):
        outbox.add("t", b"%d" % number)
    suspects = Suspects()
    suspects.lost([0, 1, 2], Lost("the broker hung up", by_broker=True))
    lanes = Lanes(outbox, Settler(outbox, 1, 1), suspects, SystemClock(), batch=100, backlog_per_s=1e6)
    beginning = asyncio.create_task(lanes.begin())
    sent: list[int] = []
    while len(sent) < 2:  # as when the broker answers for the status meanwhile
        await asyncio.sleep(0)
        if isinstance(one := lanes.next(), Waiting):
            sent.append(one.position)
    assert not beginning.done()
    await beginning
    await lanes.fetch()
    while isinstance(one := lanes.next(), Waiting):
        sent.append(one.position)
    assert sent == list(range(6))


async def test_suspected_latest_value_that_is_not_sent_any_more_holds_nothing_back() -> None:
    outbox = MemoryOutbox()
    for number in range(200):
        outbox.add("t", b"%d" % number)
    async with StubBroker(delay_s=0.01) as broker:
        uplink = make_uplink(outbox, broker.url)
        uplink.publish_latest("expired", b"1", 0)
        uplink._suspects.lost(["expired", "gone"], Lost("the broker hung up", by_broker=True))
        async with running(uplink):
            await outbox.until(lambda: len(outbox.accepted_positions) == 200, 5)
    assert not {"expired", "gone"} & {*uplink._suspects._strikes}
    assert broker.most_unanswered > 1
