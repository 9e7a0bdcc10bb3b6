"""What must not stop the rest: topics that the broker is busy for, hangs up over or never answers for; slow commits."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from brokers import Mosquitto, needs_mosquitto
from fakes import S
from uplink_peers import QUICK, STATUS, MemoryOutbox, StubBroker, make_uplink, running, until

from edge_agent.store import StoreError
from edge_agent.uplink import words
from edge_agent.uplink.parked import Parked


def by_topic(broker: StubBroker, answers: dict[str, Callable[[], int | None]]) -> Callable[[int], int | None]:
    """An answer by topic; where there is none in the table, accepted."""

    def answer(number: int) -> int | None:
        return answers.get(broker.publishes[number][0], lambda: 0)()

    return answer


def hang_up(broker: StubBroker) -> Callable[[], None]:
    return lambda: broker.writers[-1].transport.abort()


def sent(broker: StubBroker) -> Counter[str]:
    return Counter(topic for topic, *_ in broker.publishes)


def filled(**counts: int) -> MemoryOutbox:
    outbox = MemoryOutbox()
    for topic, count in counts.items():
        for number in range(count):
            outbox.add(topic, b"%d" % number)
    return outbox


# ----------------------------------------------------------------------------------------------------- parked


def test_topic_waits_longer_each_time_and_of_its_messages_only_those_that_are_as_large() -> None:
    parked = Parked()
    parked.park("t", 100, 0, 60, 300)
    assert [parked.holds("t", size, 30 * S) for size in (99, 100, 200)] == [False, True, True]
    assert not parked.holds("u", 100, 30 * S)
    assert not parked.tries("t", 100, 30 * S, 7)
    assert not parked.holds("t", 100, 60 * S)
    assert parked.tries("t", 100, 60 * S, 7)
    assert not parked.holds("t", 100, 61 * S, 7)
    assert parked.holds("t", 100, 61 * S, 8), "one is tried, the others wait for it"
    parked.park("t", 90, 61 * S, 60, 300)
    assert parked.holds("t", 90, (61 + 89) * S)
    for _ in range(9):
        parked.park("t", 90, 0, 60, 300)
    assert not parked.holds("t", 90, 300 * S)
    assert not parked.accepted("t", 89)
    assert parked.accepted("t", 90)
    assert "t" not in parked


def test_broker_that_is_not_busy_any_more_is_not_for_all_topics_that_it_was() -> None:
    parked = Parked()
    for topic, busy in (("a", True), ("b", True), ("c", False)):
        parked.park(topic, 0, 0, 60, 60, busy=busy)
    assert parked.accepted("a", 1)
    assert [topic in parked for topic in "abc"] == [False, False, True]


# ------------------------------------------------------------------------------------------------------- busy


async def test_latest_value_for_which_the_broker_is_busy_is_not_sent_without_a_pause_and_holds_no_record() -> None:
    outbox = filled(t=20)
    async with StubBroker() as broker:
        broker._answer = by_topic(broker, {STATUS: lambda: 0x97, "state": lambda: 0x97})
        async with running(make_uplink(outbox, broker.url)) as uplink:
            uplink.publish_latest("state", b"on", None)
            assert await uplink.drain(5)
            await asyncio.sleep(0.5)
            assert max(sent(broker)[STATUS], sent(broker)["state"]) < 12


async def test_topic_for_which_the_broker_is_busy_does_not_hold_the_others_and_comes_when_it_has_room() -> None:
    outbox, full = filled(full=20, free=50), True
    async with StubBroker() as broker:
        broker._answer = by_topic(broker, {"full": lambda: 0x97 if full else 0})
        async with running(make_uplink(outbox, broker.url)) as uplink:
            await outbox.until(lambda: len(outbox.accepted_positions) == 50, 5)
            assert not {*outbox.accepted_positions} & {*range(20)}
            assert uplink.figures().parked == ("full",)
            full = False
            assert await uplink.drain(5)
            assert uplink.figures().parked == ()
    assert outbox.refusals == {}
    assert len(broker.connects) == 1


async def test_broker_that_hangs_up_while_a_busy_topic_is_tried_costs_no_record() -> None:
    outbox, tries = filled(full=3), 0
    async with StubBroker() as broker:

        def full() -> int | None:
            nonlocal tries
            tries += 1
            return 0x97 if tries < 5 else hang_up(broker)() if tries == 5 else 0

        broker._answer = by_topic(broker, {"full": full})
        async with running(make_uplink(outbox, broker.url)) as uplink:
            assert await uplink.drain(8)
    assert outbox.refusals == {}


# ----------------------------------------------------------------------------------------------------- poison


async def test_topic_over_which_a_broker_hangs_up_stops_no_other_and_comes_when_the_broker_is_put_right() -> None:
    outbox, wrong = filled(good=30), True
    limits = replace(QUICK, poison_min_s=0.5, poison_max_s=0.5)
    async with StubBroker() as broker:
        broker._answer = by_topic(broker, {"bad": lambda: hang_up(broker)() if wrong else 0})
        began = time.monotonic()
        async with running(make_uplink(outbox, broker.url, limits=limits)) as uplink:
            for number in range(60):
                outbox.add("bad", b"%d" % (100 + number))
                outbox.add("good", b"%d" % number)
                uplink.wake()
                await asyncio.sleep(0.02)
            await outbox.until(lambda: len(outbox.accepted_positions) == 90, 5)
            tries = (time.monotonic() - began) / (0.75 * limits.poison_min_s)
            assert 1 <= len(outbox.refusals) <= 1 + tries, "one for each time that it was tried"
            assert len(broker.connects) <= 6 + len(outbox.refusals), "one for each, and the search for the first"
            wrong = False
            assert await uplink.drain(5)
    assert len({*outbox.accepted_positions}) + len(outbox.refusals) == 150


async def test_records_that_a_broker_never_answers_for_are_dead_letters_and_the_others_go_on() -> None:
    outbox = filled(bad=16, good=30)
    async with StubBroker() as broker:
        broker._answer = by_topic(broker, {"bad": lambda: None})
        async with running(make_uplink(outbox, broker.url, limits=replace(QUICK, ack_s=0.1))):
            await outbox.until(lambda: len(outbox.accepted_positions) == 30 and bool(outbox.refusals), 5)
            assert "no acknowledgement" in outbox.refusals[0][1]


async def test_status_over_which_a_broker_hangs_up_is_not_published_and_records_are() -> None:
    outbox = filled(t=20)
    async with StubBroker() as broker:
        broker._answer = by_topic(broker, {STATUS: hang_up(broker)})
        async with running(make_uplink(outbox, broker.url)) as uplink:
            assert await uplink.drain(10)
            await asyncio.sleep(0.1)
    assert sent(broker)[STATUS] <= 4, "at first together with records"


async def test_suspect_that_turns_out_too_large_for_the_broker_does_not_slow_down_the_rest() -> None:
    outbox = MemoryOutbox()
    outbox.add("t", b"x" * 400)
    for number in range(300):
        outbox.add("t", b"%d" % number)
    limits = [b"\0\0\0", b"\0\0\x05\x27\0\0\x01\x2c"]
    async with StubBroker(connack=lambda number: limits[min(number, 1)], delay_s=0.005) as broker:
        broker._answer = lambda number: hang_up(broker)() if len(broker.publishes[number][1]) == 400 else 0
        async with running(make_uplink(outbox, broker.url)) as uplink:
            assert await uplink.drain(5)
    assert outbox.refusals[0][0] == words.TOO_LARGE
    assert broker.most_unanswered > 16, "the one that ended the first connection, and a full window"


async def test_broker_that_falls_silent_is_no_broker_that_hangs_up() -> None:
    outbox = filled(t=1)
    async with StubBroker(lambda number: None if number else 0, connack=lambda _: b"\0\0\x03\x13\0\x01") as broker:
        broker.answers_pings = False
        async with running(make_uplink(outbox, broker.url)) as uplink:
            await until(lambda: len(broker.connects) >= 2)
            assert "silent" in str(uplink.figures().last_error)
            assert uplink._suspects.positions() == []


@pytest.mark.parametrize("code", [0x00, 0x8C, 0x8F, 0x9A, 0x9B, 0xA0])
async def test_connection_that_ends_for_a_reason_of_its_own_costs_no_record(code: int) -> None:
    outbox = filled(t=1)
    async with StubBroker() as broker:

        def answer(number: int) -> int | None:
            if broker.publishes[number][0] == STATUS or len(broker.connects) > 4:
                return 0
            broker.writers[-1].write(bytes([0xE0, 1, code]))
            broker.writers[-1].close()
            return None

        broker._answer = answer
        async with running(make_uplink(outbox, broker.url)) as uplink:
            assert await uplink.drain(5)
    assert outbox.refusals == {}


# ------------------------------------------------------------------------------------------ slow and failing disks


async def test_slow_commit_of_many_answers_does_not_end_the_sending() -> None:
    class Slow(MemoryOutbox):
        async def accepted(self, positions: Sequence[int]) -> None:
            if not self.groups:
                await asyncio.sleep(0.3)
            await super().accepted(positions)

    outbox = Slow()
    for number in range(2_000):
        outbox.add("t", b"%d" % number)
    limits = replace(QUICK, unsettled=100, batch=1_000)
    async with StubBroker() as broker, running(make_uplink(outbox, broker.url, limits=limits)):
        await outbox.until(lambda: len(outbox.accepted_positions) == 2_000, 8)


async def test_replay_doubles_nothing_that_is_new_and_survives_a_disk_that_fails_meanwhile() -> None:
    class Failing(MemoryOutbox):
        fails = False

        async def accepted(self, positions: Sequence[int]) -> None:
            if self.fails:
                raise StoreError("disk I/O error")
            await super().accepted(positions)

    outbox = Failing()
    for number in range(100):
        outbox.add("old", b"%d" % number)
    async with StubBroker(delay_s=0.001) as broker, running(make_uplink(outbox, broker.url)) as uplink:
        assert await uplink.drain(5)
        for number in range(1_500):
            outbox.add("new", b"%d" % number)
        uplink.wake()
        await outbox.until(lambda: len(outbox.accepted_positions) > 200)
        outbox.fails = True
        outbox.accepted_positions = [each for each in outbox.accepted_positions if each not in range(5)]
        await uplink.look_again()
        await asyncio.sleep(0.1)
        outbox.fails = False
        assert await uplink.drain(10)
        counts = Counter((topic, payload) for topic, payload, _ in broker.publishes)
    assert {payload for (topic, payload), count in counts.items() if count == 2 and topic == "old"} == {
        b"%d" % number for number in range(5)
    }
    assert all(count == 1 for (topic, _), count in counts.items() if topic == "new")


# ------------------------------------------------------------------------------------------------- connections


@needs_mosquitto
async def test_two_agents_with_one_name_are_told_so_by_a_broker_that_only_hangs_up(tmp_path: Path) -> None:
    """mosquitto 2.0.11 tells the older of two clients nothing."""
    with Mosquitto(tmp_path) as broker:
        async with (
            running(make_uplink(MemoryOutbox(), broker.url)) as first,
            running(make_uplink(MemoryOutbox(), broker.url)) as second,
        ):
            both = (first, second)
            await until(lambda: any("same client id" in str(each.figures().last_error) for each in both))
            before = sum(each.figures().reconnects for each in both)
            await asyncio.sleep(1.0)
            assert sum(each.figures().reconnects for each in both) - before <= 2 * 1.0 / QUICK.takeover_s + 2


async def test_attempts_that_end_without_a_word_are_not_closer_than_the_back_off() -> None:
    async with StubBroker(connack=lambda _: None) as broker:
        broker.hangs_up_at_once = True
        async with running(make_uplink(MemoryOutbox(), broker.url, limits=replace(QUICK, backoff_min_s=0.1))):
            await until(lambda: len(broker.connects) >= 6)
    at = broker.connected_at
    assert min(later - before for before, later in pairwise(at[1:])) >= 0.045, "one probe is enough"


async def test_packet_of_any_size_is_not_gathered() -> None:
    async with StubBroker() as broker, running(make_uplink(MemoryOutbox(), broker.url)) as uplink:
        await until(lambda: len(broker.publishes) == 1)
        broker.writers[-1].write(b"\x30\xff\xff\xff\x7f" + bytes(1_000))
        await until(lambda: "sends a packet of" in str(uplink.figures().last_error))


async def test_handshake_without_an_end_leaves_no_thread_behind() -> None:
    handshakes: set[asyncio.Task[None] | None] = set()

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handshakes.add(asyncio.current_task())
        with contextlib.suppress(OSError):
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
            while True:
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    server = await asyncio.start_server(dribble, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with running(make_uplink(MemoryOutbox(), url, limits=replace(QUICK, dial_s=0.1, connack_s=5.0))):
        await asyncio.sleep(1.5)
        assert len(handshakes) >= 3
        assert threading.active_count() <= 4
    await until(lambda: threading.active_count() == 1)
    server.close()
    await until(lambda: all(each is None or each.done() for each in handshakes))
    await asyncio.sleep(0.05)  # for the transports


def test_what_a_broker_says_is_one_short_line() -> None:
    told = "first\nERROR forged\x1b[31m" + "x" * 70_000
    for text in (words.reason(0x87, told), str(words.ended(0x87, told))):
        assert text.isprintable()
        assert len(text) < 400
        assert "first?ERROR" in text
