"""The uplink against mosquitto and amqtt: delivery, reason codes, outages, versions, latest values."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Amqtt, Mosquitto, Subscriber, free_port, needs_mosquitto
from paho.mqtt.client import MQTTMessage
from uplink_peers import STATUS, MemoryOutbox, make_uplink, running, until

NS_PER_S = 1_000_000_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as started:
        yield started


def records_of(subscriber: Subscriber) -> list[MQTTMessage]:
    return [message for message in subscriber.taken() if message.topic != STATUS]


def told(message: MQTTMessage, name: str) -> Any:
    """A property of a message, by paho's name; None when it has none."""
    return getattr(message.properties, name, None)


def user_properties(message: MQTTMessage) -> list[tuple[str, str]]:
    return told(message, "UserProperty") or []


@needs_mosquitto
async def test_uplink_delivers_each_record_once_in_order_with_its_properties(broker: Mosquitto) -> None:
    outbox = MemoryOutbox()
    with Subscriber(broker.port) as subscriber:
        async with running(make_uplink(outbox, broker.url)) as uplink:
            await until(lambda: uplink.figures().connected)
            for number in range(1_000):
                outbox.add("edge/v1/press/production/1h", b"%d" % number)
            uplink.wake()
            assert await uplink.drain(10)
        await until(lambda: subscriber.messages.qsize() >= 1_000)
        received = records_of(subscriber)
    assert [message.payload for message in received] == [b"%d" % number for number in range(1_000)]
    assert sorted(outbox.accepted_positions) == list(range(1_000))
    assert outbox.groups < 100
    first = received[0]
    assert (first.qos, first.retain) == (1, False)
    assert told(first, "ContentType") == "application/cloudevents+json"
    assert told(first, "PayloadFormatIndicator") == 1
    assert user_properties(first) == []
    figures = uplink.figures()
    assert (figures.sent, figures.accepted, figures.refused, figures.in_flight) == (1_000, 1_000, 0, 0)


@needs_mosquitto
async def test_uplink_marks_what_was_issued_before_it_connected_as_backlog(broker: Mosquitto) -> None:
    outbox = MemoryOutbox()
    outbox.add("t", b"before")
    with Subscriber(broker.port, "t") as subscriber:
        async with running(make_uplink(outbox, broker.url)) as uplink:
            await uplink.drain(10)
            outbox.add("t", b"live", time.time_ns())
            outbox.add("t", b"late", time.time_ns() - 61 * NS_PER_S)
            assert await uplink.drain(10)
        marks = {message.payload: user_properties(message) for message in (subscriber.next() for _ in range(3))}
    assert marks == {b"before": [("backlog", "true")], b"live": [], b"late": [("backlog", "true")]}


@needs_mosquitto
async def test_uplink_counts_records_that_nobody_subscribed(broker: Mosquitto) -> None:
    outbox = MemoryOutbox()
    outbox.add("t", b"x")
    async with running(make_uplink(outbox, broker.url)) as uplink:
        assert await uplink.drain(10)
        assert uplink.figures().no_subscriber == 1
    assert outbox.accepted_positions == [0]


@needs_mosquitto
async def test_uplink_without_a_broker_at_start_delivers_when_it_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edge_agent.uplink")
    outbox = MemoryOutbox()
    outbox.add("t", b"x")
    broker = Mosquitto(tmp_path)
    async with running(make_uplink(outbox, broker.url)) as uplink:
        await until(lambda: uplink.figures().last_error is not None)
        assert "is the broker running" in str(uplink.figures().last_error)
        assert await uplink.drain(0.3) is False
        with broker:
            await outbox.until(lambda: outbox.accepted_positions == [0])
            assert uplink.figures().connected
            assert uplink.figures().protocol == "5"
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "nothing listens" in line]) == 1
    assert len([line for line in lines if "connected with MQTT 5 after" in line]) == 1


@needs_mosquitto
async def test_uplink_through_broker_restarts_loses_nothing_and_resends_the_same_bytes(tmp_path: Path) -> None:
    outbox = MemoryOutbox()
    keep = ("persistence true", f"persistence_location {tmp_path}/")
    with Mosquitto(tmp_path, *keep) as broker, Subscriber(broker.port, "t/#", persistent=True) as subscriber:
        async with running(make_uplink(outbox, broker.url)) as uplink:
            for number in range(3_000):
                outbox.add(f"t/{number}", b"payload of %d" % number)
            uplink.wake()
            for share in (300, 1_200):
                await outbox.until(lambda share=share: len(outbox.accepted_positions) >= share)  # type: ignore[misc]
                broker.stop()
                await until(lambda: not uplink.figures().connected)
                broker.start()
            assert await uplink.drain(15)
            assert uplink.figures().reconnects >= 2
        received: dict[str, bytes] = {}
        while len(received) < 3_000:
            message = await asyncio.to_thread(subscriber.next)
            assert received.setdefault(message.topic, bytes(message.payload)) == message.payload
    assert {*outbox.accepted_positions} == {*range(3_000)}
    assert received == {f"t/{number}": b"payload of %d" % number for number in range(3_000)}


@needs_mosquitto
async def test_uplink_publishes_status_on_connect_and_on_a_clean_stop(broker: Mosquitto) -> None:
    with Subscriber(broker.port, STATUS) as subscriber:
        async with running(make_uplink(MemoryOutbox(), broker.url)):
            assert (await asyncio.to_thread(subscriber.next)).payload == b"online"
        assert subscriber.next().payload == b"offline"
    with Subscriber(broker.port, STATUS) as later:
        kept = later.next()
    assert (kept.payload, kept.retain) == (b"offline", True)


_DOOMED = """
import asyncio, sys
from uplink_peers import MemoryOutbox, make_uplink
asyncio.run(make_uplink(MemoryOutbox(), sys.argv[1]).run())
"""


@needs_mosquitto
async def test_uplink_killed_leaves_its_will(broker: Mosquitto) -> None:
    with Subscriber(broker.port, STATUS) as subscriber:
        agent = subprocess.Popen([sys.executable, "-c", _DOOMED, broker.url], cwd=Path(__file__).parent)
        try:
            assert (await asyncio.to_thread(subscriber.next)).payload == b"online"
        finally:
            os.kill(agent.pid, signal.SIGKILL)
            agent.wait(10)
        will = await asyncio.to_thread(subscriber.next)
    assert will.payload == b"offline"
    with Subscriber(broker.port, STATUS) as later:
        kept = await asyncio.to_thread(later.next)
    assert (kept.payload, kept.retain) == (b"offline", True)


@needs_mosquitto
async def test_uplink_refused_by_acl_parks_that_record_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    acl = tmp_path / "acl"
    acl.write_text(f"topic readwrite allowed/#\ntopic readwrite {STATUS}\n")
    outbox = MemoryOutbox()
    outbox.add("allowed/1", b"1")
    outbox.add("denied/1", b"2")
    outbox.add("denied/1", b"3")
    outbox.add("allowed/2", b"4")
    with Mosquitto(tmp_path, f"acl_file {acl}") as broker:
        async with running(make_uplink(outbox, broker.url)) as uplink:
            assert await uplink.drain(10)
            assert uplink.figures().refused == 2
            assert uplink.figures().reconnects == 0
    assert sorted(outbox.accepted_positions) == [0, 3]
    assert {position: code for position, (code, _) in outbox.refusals.items()} == {1: 0x87, 2: 0x87}
    said = [record.getMessage() for record in caplog.records if "denied/1" in record.getMessage()]
    assert len(said) == 1
    assert "access rules" in said[0]


@needs_mosquitto
async def test_uplink_parks_only_what_exceeds_the_brokers_packet_size_by_a_byte(tmp_path: Path) -> None:
    outbox = MemoryOutbox()
    # header and length 3, topic 3, packet id 2, properties 1 + 2 + 31 + 16 (format, content type, backlog)
    fits = 1_000 - 3 - 3 - 2 - 50
    outbox.add("t", b"x" * fits, 0)
    outbox.add("t", b"x" * (fits + 1), 0)
    outbox.add("t", b"small", 0)
    with Mosquitto(tmp_path, "max_packet_size 1000") as broker:
        async with running(make_uplink(outbox, broker.url)) as uplink:
            assert await uplink.drain(10)
            assert uplink.figures().reconnects == 0
    assert sorted(outbox.accepted_positions) == [0, 2]
    assert outbox.refusals[1][0] == 0x95
    assert "at most 1000 bytes" in outbox.refusals[1][1]


@needs_mosquitto
async def test_uplink_parks_what_cannot_be_a_topic(broker: Mosquitto) -> None:
    outbox = MemoryOutbox()
    for topic in ("", "a/+", "a/#", "nul\0", "x" * 65_536, "good"):
        outbox.add(topic, b"x")
    async with running(make_uplink(outbox, broker.url)) as uplink:
        assert await uplink.drain(10)
    assert outbox.accepted_positions == [5]
    assert {position: code for position, (code, _) in outbox.refusals.items()} == dict.fromkeys(range(5), 0x90)


@needs_mosquitto
async def test_uplink_latest_value_is_retained_with_its_expiry_and_sent_again_after_each_connect(
    tmp_path: Path,
) -> None:
    with Mosquitto(tmp_path) as broker:
        async with running(make_uplink(MemoryOutbox(), broker.url)) as uplink:
            uplink.publish_latest("m/state", b"producing", 180)
            await until(lambda: uplink.figures().connected and uplink.figures().in_flight == 0)
            uplink.publish_latest("m/state", b"down", 180)
            uplink.publish_latest("m/gone", b"expired already", 0)
            broker.restart()  # without persistence: it forgets what it retained
            await until(lambda: uplink.figures().reconnects == 1)
            await until(lambda: uplink.figures().in_flight == 0)
            with Subscriber(broker.port, "m/#") as subscriber:
                kept = subscriber.next()
                assert not list(subscriber.taken())
    assert (kept.topic, kept.payload, kept.retain, kept.qos) == ("m/state", b"down", True, 1)
    assert 170 <= told(kept, "MessageExpiryInterval") <= 180


@needs_mosquitto
async def test_uplink_over_websockets_delivers(tmp_path: Path) -> None:
    outbox = MemoryOutbox()
    outbox.add("t", b"x" * 70_000)
    ws_port = free_port()
    with Mosquitto(tmp_path, f"listener {ws_port} 127.0.0.1", "protocol websockets") as broker:
        with Subscriber(broker.port, "t") as subscriber:
            async with running(make_uplink(outbox, f"ws://127.0.0.1:{ws_port}/mqtt")) as uplink:
                assert await uplink.drain(10)
            assert subscriber.next().payload == b"x" * 70_000
        assert uplink.figures().broker == f"ws://127.0.0.1:{ws_port}/mqtt"


@needs_mosquitto
async def test_uplink_websockets_to_a_port_without_them_says_so(broker: Mosquitto) -> None:
    async with running(make_uplink(MemoryOutbox(), broker.url.replace("mqtt://", "ws://"))) as uplink:
        await until(lambda: uplink.figures().last_error is not None)
    assert "no MQTT over websockets there" in str(uplink.figures().last_error)
    gc.collect()


async def test_uplink_with_a_broker_that_refuses_5_goes_on_with_3_1_1(caplog: pytest.LogCaptureFixture) -> None:
    outbox = MemoryOutbox()
    for number in range(50):
        outbox.add("t", b"%d" % number)
    with Amqtt() as broker, Subscriber(broker.port, "t", five=False) as subscriber:
        async with running(make_uplink(outbox, broker.url)) as uplink:
            assert await uplink.drain(10)
            assert uplink.figures().protocol == "3.1.1"
        assert [subscriber.next().payload for _ in range(50)] == [b"%d" % number for number in range(50)]
    assert sorted(outbox.accepted_positions) == list(range(50))
    assert len([record for record in caplog.records if "proves less" in record.getMessage()]) == 1


async def test_uplink_with_version_3_1_1_never_asks_for_5(caplog: pytest.LogCaptureFixture) -> None:
    outbox = MemoryOutbox()
    outbox.add("t", b"x")
    with Amqtt() as broker:
        async with running(make_uplink(outbox, broker.url, version="3.1.1")) as uplink:
            assert await uplink.drain(10)
            assert uplink.figures().protocol == "3.1.1"
    assert caplog.records == []


@needs_mosquitto
async def test_uplink_stopped_twice_leaves_no_thread_and_no_socket(broker: Mosquitto) -> None:
    fds = Path("/proc/self/fd")
    before = len(list(fds.iterdir()))
    for _ in range(2):
        outbox = MemoryOutbox()
        outbox.add("t", b"x")
        async with running(make_uplink(outbox, broker.url)) as uplink:
            assert await uplink.drain(10)
        await until(lambda: threading.active_count() == 1)
        assert len(list(fds.iterdir())) == before


@needs_mosquitto
async def test_uplink_stopped_while_it_dials_leaves_no_thread_and_no_socket(broker: Mosquitto) -> None:
    fds = Path("/proc/self/fd")
    before = len(list(fds.iterdir()))
    broker.freeze()
    try:
        async with running(make_uplink(MemoryOutbox(), broker.url)):
            await until(lambda: threading.active_count() > 1)
        await until(lambda: threading.active_count() == 1)
        assert len(list(fds.iterdir())) == before
    finally:
        broker.thaw()


@needs_mosquitto
async def test_uplink_with_a_wrong_password_says_what_to_check(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "gw1", "right"], check=True, stderr=subprocess.DEVNULL)
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    outbox = MemoryOutbox()
    outbox.add("t", b"x")
    with Mosquitto(tmp_path, f"password_file {passwords}", anonymous=False) as broker:
        uplink = make_uplink(outbox, broker.url, username="gw1", password={"file": str(secret)})
        async with running(uplink):
            await until(lambda: uplink.figures().last_error is not None)
            assert "mqtt.password" in str(uplink.figures().last_error)
            assert "wrong" not in str(uplink.figures().last_error)
            secret.write_text("right\n")  # read again at each connect
            assert await uplink.drain(10)


async def test_uplink_with_an_unreadable_secret_says_which(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    uplink = make_uplink(MemoryOutbox(), "mqtt://127.0.0.1:1", username="gw1", password={"file": str(missing)})
    async with running(uplink):
        await until(lambda: uplink.figures().last_error is not None)
    assert uplink.figures().last_error == f"the secret in {missing} cannot be read: No such file or directory"
