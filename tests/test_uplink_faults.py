"""The uplink against unkind peers: refusals, silence, dead threads, takeovers, and the limits of the broker."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from brokers import Mosquitto, needs_mosquitto
from uplink_peers import QUICK, STATUS, MemoryOutbox, StubBroker, make_uplink, running, until

from edge_agent.store import StoreError
from edge_agent.uplink import settle


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as started:
        yield started


async def filled(count: int) -> MemoryOutbox:
    outbox = MemoryOutbox()
    for number in range(count):
        outbox.add("t", b"%d" % number)
    return outbox


def payloads(broker: StubBroker) -> list[bytes]:
    return [payload for topic, payload, _ in broker.publishes if topic != STATUS]


@pytest.mark.parametrize(("receive_maximum", "expected"), [(1, 1), (5, 5), (200, 16)])
async def test_uplink_never_has_more_in_flight_than_the_broker_and_the_window_allow(
    receive_maximum: int, expected: int
) -> None:
    outbox = await filled(60)
    connack = b"\0\0\x03\x21" + receive_maximum.to_bytes(2, "big")
    async with (
        StubBroker(connack=lambda _: connack, delay_s=0.005) as broker,
        running(make_uplink(outbox, broker.url)) as uplink,
    ):
        assert await uplink.drain(10)
    assert broker.most_unanswered == expected
    assert payloads(broker) == [b"%d" % number for number in range(60)]


@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x99])
async def test_uplink_parks_the_record_that_the_broker_refuses_and_goes_on(code: int) -> None:
    outbox = await filled(5)
    async with (
        StubBroker(lambda number: code if number == 3 else 0) as broker,  # 0 is the status
        running(make_uplink(outbox, broker.url)) as uplink,
    ):
        assert await uplink.drain(5)
        assert uplink.figures().refused == 1
    assert sorted(outbox.accepted_positions) == [0, 1, 3, 4]
    assert outbox.refusals[2][0] == code
    assert len(broker.connects) == 1


@pytest.mark.parametrize("code", [0x91, 0x97])
async def test_uplink_slows_down_and_sends_the_same_record_again(code: int, caplog: pytest.LogCaptureFixture) -> None:
    outbox = await filled(3)
    async with (
        StubBroker(lambda number: code if 1 <= number <= 4 else 0) as broker,
        running(make_uplink(outbox, broker.url, limits=replace(QUICK, window=1))) as uplink,
    ):
        assert await uplink.drain(5)
        assert uplink.figures().slowed == 4
    assert payloads(broker) == [b"0"] * 5 + [b"1", b"2"]
    assert outbox.refusals == {}
    assert len([record for record in caplog.records if "slow down" in record.getMessage()]) == 1


async def test_uplink_sends_what_was_in_flight_again_with_the_same_bytes() -> None:
    outbox = await filled(40)
    async with (
        StubBroker(lambda number: None if 10 < number <= 26 else 0) as stub,
        running(make_uplink(outbox, stub.url)) as uplink,
    ):
        await until(lambda: stub.withheld == 16)
        await outbox.until(lambda: len(outbox.accepted_positions) == 10)
        stub.writers[0].transport.abort()
        assert await uplink.drain(5)
    sent = payloads(stub)
    assert sent[10:26] == sent[26:42] == [b"%d" % number for number in range(10, 26)]
    assert sorted(outbox.accepted_positions) == list(range(40))


async def test_uplink_without_acknowledgement_connects_again() -> None:
    outbox = await filled(1)
    async with (
        StubBroker(lambda number: None if number == 1 else 0) as broker,
        running(make_uplink(outbox, broker.url, limits=replace(QUICK, ack_s=0.3))) as uplink,
    ):
        assert await uplink.drain(5)
        assert "no acknowledgement for 0.3 s" in str(uplink.figures().last_error)
    assert len(broker.connects) == 2


@needs_mosquitto
async def test_uplink_notices_a_frozen_broker_and_delivers_when_it_thaws(broker: Mosquitto) -> None:
    outbox = await filled(1)
    limits = replace(QUICK, keepalive_s=2, silence_s=2.6, connack_s=0.3)
    async with running(make_uplink(outbox, broker.url, limits=limits)) as uplink:
        assert await uplink.drain(5)
        await asyncio.sleep(2.8)  # an idle connection is not a silent one: the broker answers pings
        assert uplink.figures().connected
        assert uplink.figures().reconnects == 0
        broker.freeze()
        try:
            await until(lambda: not uplink.figures().connected)
            assert "silent for 2.6 s" in str(uplink.figures().last_error)
        finally:
            broker.thaw()
        outbox.add("t", b"after")
        assert await uplink.drain(10)
        assert uplink.figures().reconnects >= 1


@needs_mosquitto
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_uplink_notices_that_pahos_thread_has_died(broker: Mosquitto) -> None:
    outbox = await filled(1)
    async with running(make_uplink(outbox, broker.url)) as uplink:
        assert await uplink.drain(5)
        (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("paho-mqtt-client-gw1")]
        assert thread.ident is not None
        killed = ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
        )  # what no handler of paho's catches
        assert killed == 1
        outbox.add("t", b"after")
        uplink.wake()
        await until(lambda: "thread has ended" in str(uplink.figures().last_error))
        assert await uplink.drain(5)
    assert outbox.accepted_positions == [0, 1]


async def test_uplink_whose_outbox_fails_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    class FailingOnce(MemoryOutbox):
        failures = 2

        async def accepted(self, positions: object) -> None:
            if self.failures:
                self.failures -= 1
                raise OSError("disk full")
            await super().accepted(positions)  # type: ignore[arg-type]

    outbox = FailingOnce()
    outbox.add("t", b"x")
    async with StubBroker() as broker, running(make_uplink(outbox, broker.url)) as uplink:
        assert await uplink.drain(5)
    assert payloads(broker) == [b"x"]  # the answer was kept, so nothing is sent twice
    assert outbox.accepted_positions == [0]
    assert any("disk full" in record.getMessage() for record in caplog.records)


async def test_uplink_taken_over_waits_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async with StubBroker() as broker, running(make_uplink(MemoryOutbox(), broker.url)) as uplink:
        await until(lambda: len(broker.publishes) == 1)
        broker.writers[0].write(b"\xe0\x01\x8e")
        broker.writers[0].close()
        await until(lambda: len(broker.connects) == 2)
        assert "the same client id" in str(uplink.figures().last_error)
    assert broker.connected_at[1] - broker.connected_at[0] >= QUICK.takeover_s
    assert len([record for record in caplog.records if "agent.name" in record.getMessage()]) == 1


async def test_uplink_backs_off_longer_while_connections_do_not_last() -> None:
    async with StubBroker(connack=lambda _: b"\0\x88\0") as broker:
        limits = replace(QUICK, backoff_min_s=0.02, backoff_max_s=10.0)
        async with running(make_uplink(MemoryOutbox(), broker.url, limits=limits)):
            await until(lambda: len(broker.connects) == 6)
    gaps = [later - before for before, later in zip(broker.connected_at, broker.connected_at[1:], strict=False)]
    assert gaps[4] >= 0.02 * 2**5 / 2
    assert gaps[0] < gaps[4]


async def test_uplink_says_once_what_repeats_and_counts_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edge_agent.uplink")
    async with (
        StubBroker(connack=lambda number: b"\0\x88\0" if number < 5 else b"\0\0\0") as broker,
        running(make_uplink(MemoryOutbox(), broker.url)) as uplink,
    ):
        await until(lambda: uplink.figures().connected)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "unavailable" in lines[0]
    assert "after 5 failed attempts" in lines[1]


@pytest.mark.parametrize("refusal", [b"\0\x84\0", b"\0\x01"], ids=["reason code", "return code of 3.1.1"])
async def test_uplink_auto_goes_to_3_1_1_when_5_is_refused_and_tries_5_again_later(refusal: bytes) -> None:
    outbox = await filled(1)

    def connack(number: int) -> bytes:
        return refusal if number == 0 else (b"\0\0" if number == 1 else b"\0\0\0")

    async with StubBroker(connack=connack) as broker:
        limits = replace(QUICK, retry_5_s=0.5)
        async with running(make_uplink(outbox, broker.url, limits=limits)) as uplink:
            assert await uplink.drain(5)
            assert uplink.figures().protocol == "3.1.1"
            await asyncio.sleep(0.5)
            broker.writers[1].transport.abort()
            await until(lambda: uplink.figures().protocol == "5")
    assert [connect[6] for connect in broker.connects] == [5, 4, 5]
    assert outbox.accepted_positions == [0]


async def test_uplink_with_version_5_refused_stays_and_says_the_cure() -> None:
    async with (
        StubBroker(connack=lambda _: b"\0\x84\0") as broker,
        running(make_uplink(MemoryOutbox(), broker.url, version="5")) as uplink,
    ):
        await until(lambda: len(broker.connects) == 3)
        assert "set mqtt.version to auto or 3.1.1" in str(uplink.figures().last_error)
    assert {connect[6] for connect in broker.connects} == {5}


async def test_uplink_auto_stays_with_5_when_the_broker_only_hangs_up() -> None:
    async with StubBroker(connack=lambda _: None) as broker:
        limits = replace(QUICK, connack_s=0.1)
        async with running(make_uplink(MemoryOutbox(), broker.url, limits=limits)) as uplink:
            await until(lambda: len(broker.connects) >= 6)
            assert not uplink.figures().connected
    assert {connect[6] for connect in broker.connects} == {5}


@needs_mosquitto
async def test_uplink_with_too_many_open_files_says_so(broker: Mosquitto) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2_048, hard), hard))
    spare = os.open("/dev/null", os.O_RDONLY)
    held = [spare]
    try:
        while held[-1] < 1_100:
            held.append(os.dup(spare))
        async with running(make_uplink(MemoryOutbox(), broker.url)) as uplink:
            await until(lambda: uplink.figures().last_error is not None)
            assert "descriptor below 1024" in str(uplink.figures().last_error)
            while held:
                os.close(held.pop())
            await until(lambda: uplink.figures().connected)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_uplink_whose_name_cannot_be_resolved_says_so() -> None:
    async with running(make_uplink(MemoryOutbox(), "mqtt://no-such-broker.invalid")) as uplink:
        await until(lambda: uplink.figures().last_error is not None)
    assert "cannot be resolved" in str(uplink.figures().last_error)


async def test_uplink_stopped_while_the_broker_does_not_answer_leaves_its_will() -> None:
    outbox = await filled(1)
    async with StubBroker(lambda number: None if number == 1 else 0) as broker:
        async with running(make_uplink(outbox, broker.url, limits=replace(QUICK, stop_s=0.2))):
            await until(lambda: broker.withheld == 1)
        await until(lambda: broker.writers[0].is_closing())
    assert broker.farewells == 0
    assert b"offline" in broker.connects[0]
    assert outbox.accepted_positions == []


@needs_mosquitto
async def test_outbox_that_takes_no_answer_does_not_stop_the_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "RETRY_S", 0.1)

    class ReadOnly(MemoryOutbox):
        fails = True

        async def accepted(self, positions: Sequence[int]) -> None:
            if self.fails:
                raise StoreError("disk I/O error")
            await super().accepted(positions)

    outbox = ReadOnly()
    for number in range(3_000):
        outbox.add("t/x", b"%d" % number)
    with Mosquitto(tmp_path) as broker:
        async with running(make_uplink(outbox, broker.url)) as uplink:
            await until(lambda: uplink.figures().accepted == 3_000)
            broker.restart()
            await until(lambda: uplink.figures().reconnects >= 1 and uplink.figures().connected)
            await asyncio.sleep(0.3)
            assert uplink.figures().sent == 3_000, "what was accepted is not sent again"
            outbox.fails = False
            await outbox.until(lambda: len(outbox.accepted_positions) == 3_000)  # without any further answer
