"""Modbus: the types, orders and quirks that a plant engineer finds in a manual, each against a real socket or line."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from modbus_peers import Answer, PtyPeer, TcpPeer, answer_to, make_device, mbap, oracle, rtu, values
from pydantic import ValidationError

from edge_agent.contract import ConfigError, DeviceFault, NotConnected
from edge_agent_modbus import ModbusDriver, ModbusTag

ILLEGAL_ADDRESS = 2


def registers(content: dict[int, bytes]) -> Callable[[int, bytes], Answer]:
    """A device that holds these bytes from these addresses on, and nothing else but the oracle's numbers."""
    memory: dict[int, bytes] = {}
    for start, data in content.items():
        for at in range(0, len(data), 2):
            memory[start + at // 2] = data[at : at + 2]

    def reply(transaction: int, request: bytes) -> Answer:
        start, count = int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
        words = [memory.get(at, oracle(request[0], at).to_bytes(2, "big")) for at in range(start, start + count)]
        data = b"".join(words)
        return [(0, mbap(transaction, request[:2] + bytes((len(data),)) + data))]

    return reply


async def read_all(peer: TcpPeer | PtyPeer, addresses: Sequence[Any], **settings: Any) -> dict[str, Any]:
    plc = make_device(peer.url, addresses, **settings)
    driver = ModbusDriver([plc])
    try:
        await driver.connect()
        return values(await driver.read(plc, plc.tags))
    finally:
        await driver.close()


def spans(peer: TcpPeer | PtyPeer) -> list[tuple[int, int]]:
    """The first address and the number of each request so far."""
    return [(int.from_bytes(one[2:4], "big"), int.from_bytes(one[4:6], "big")) for one in peer.requests]


# -------------------------------------------------------------------------------------------------------- types


async def test_bcd_is_its_decimal_digits_and_bad_where_a_nibble_is_none() -> None:
    content = {0: bytes.fromhex("1234"), 1: bytes.fromhex("12345678"), 3: bytes.fromhex("56781234"), 5: b"\x12\x3a"}
    async with TcpPeer(registers(content)) as peer:
        found = await read_all(
            peer,
            [
                {"address": "holding:0", "type": "bcd16"},
                {"address": "holding:1", "type": "bcd32"},
                {"address": "holding:3", "type": "bcd32", "word_order": "CDAB"},
                {"address": "holding:5", "type": "bcd16"},
                {"address": "holding:6"},
            ],
        )
    assert found == {"t0": 1234, "t1": 12345678, "t2": 12345678, "t3": ["not_bcd"], "t4": oracle(1, 6)}


@pytest.mark.parametrize(
    ("order", "same"), [("ABCDEFGH", "ABCD"), ("GHEFCDAB", "CDAB"), ("BADCFEHG", "BADC"), ("HGFEDCBA", "DCBA")]
)
async def test_word_order_of_64_bits_may_be_named_by_its_eight_bytes(order: str, same: str) -> None:
    names = "ABCDEFGH"
    value = struct.pack(">d", 123456.789)
    async with TcpPeer(registers({0: bytes(value[names.index(letter)] for letter in order)})) as peer:
        tags = [{"address": "holding:0", "type": "float64", "word_order": name} for name in (order, same)]
        assert await read_all(peer, tags) == {"t0": 123456.789, "t1": 123456.789}


def test_word_order_of_eight_bytes_for_a_value_of_four_says_what_to_write() -> None:
    with pytest.raises(ValidationError, match="write CDAB"):
        ModbusTag(address="holding:0", type="float32", word_order="GHEFCDAB")


async def test_array_is_all_of_its_values_or_none() -> None:
    wave = struct.pack(">50h", *range(-25, 25))
    floats = b"".join(struct.pack(">f", number)[2:] + struct.pack(">f", number)[:2] for number in (1.5, -2.0, 0.25))
    broken = struct.pack(">2f", 1.0, float("nan"))
    async with TcpPeer(registers({0: wave, 60: floats, 70: broken})) as peer:
        found = await read_all(
            peer,
            [
                {"address": "holding:0", "type": "int16", "count": 50},
                {"address": "holding:60", "type": "float32", "count": 3, "word_order": "CDAB"},
                {"address": "holding:70", "type": "float32", "count": 2},
                {"address": "holding:80", "type": "bcd16", "count": 1},
            ],
        )
    assert found["t0"] == tuple(range(-25, 25))
    assert found["t1"] == (1.5, -2.0, 0.25)
    assert found["t2"] == ["not_a_number"]
    assert found["t3"] == ["not_bcd"] or isinstance(found["t3"], tuple)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"address": "holding:0", "count": 126}, "make it two tags"),
        ({"address": "holding:0", "type": "float64", "count": 32}, "make it two tags"),
        ({"address": "holding:0", "type": "string", "length": 4, "count": 2}, "has no count"),
        ({"address": "coil:0", "count": 2}, "has no count"),
        ({"address": "holding:0", "count": 2, "scale": 0.1}, "leave out scale"),
        ({"address": "holding:0", "count": 0}, "greater than or equal to 1"),
        ({"address": "holding:65535", "count": 2}, "past the last address"),
    ],
)
def test_array_that_cannot_be_is_refused_with_the_cure(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ModbusTag(**settings)


# ---------------------------------------------------------------------------------------------------- addresses


async def test_address_offset_is_added_to_every_address_of_both_notations() -> None:
    async with TcpPeer(registers({})) as peer:
        found = await read_all(peer, ["holding:100", 40101], address_offset=-1)
    assert found == {"t0": oracle(1, 99), "t1": oracle(1, 99)}
    assert spans(peer) == [(99, 1)]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"address_offset": -1}, "plc.t0: with address_offset -1 its address would be holding:-1"),
        ({"address_offset": 65535}, "plc.t1: with address_offset 65535"),
        ({"forbidden": ["holding:5-9"]}, "plc.t1: its address lies in forbidden, holding:5-9"),
        ({"forbidden": ["holding:7"]}, "plc.t1: its address lies in forbidden, holding:7"),
    ],
)
def test_addresses_that_cannot_be_read_are_named_before_anything_is_opened(settings: dict[str, Any], says: str) -> None:
    plc = make_device("tcp://127.0.0.1", ["holding:0", {"address": "holding:6", "type": "uint32"}], **settings)
    with pytest.raises(ConfigError, match=says):
        ModbusDriver([plc])


async def test_forbidden_addresses_are_never_read_not_even_in_between() -> None:
    async with TcpPeer(registers({})) as peer:
        found = await read_all(
            peer, ["holding:0", "holding:4", "holding:8", "input:1", "input:3"], forbidden=["holding:2-3", "input:9"]
        )
    assert len(found) == 5
    assert spans(peer) == [(0, 1), (4, 5), (1, 3)]


@pytest.mark.parametrize("span", ["holding:9-5", "holdng:5", "holding:70000", "5-9"])
def test_forbidden_span_that_is_none_says_what_to_write(span: str) -> None:
    with pytest.raises(ValidationError, match="holding:"):
        make_device("tcp://127.0.0.1", ["holding:0"], forbidden=[span])


async def test_single_reads_ask_for_each_tag_by_itself() -> None:
    async with TcpPeer(registers({})) as peer:
        await read_all(peer, ["holding:0", "holding:1", {"address": "holding:2", "type": "uint32"}], single_reads=True)
    assert spans(peer) == [(0, 1), (1, 1), (2, 2)]


# ------------------------------------------------------------------------------------------------ the link's habits


async def test_connect_delay_is_waited_before_the_first_request() -> None:
    async with TcpPeer(registers({})) as peer:
        plc = make_device(peer.url, ["holding:0"], connect_delay="150 ms")
        driver = ModbusDriver([plc])
        began = time.monotonic()
        await driver.connect()
        await driver.read(plc, plc.tags)
        assert time.monotonic() - began >= 0.15
        await driver.close()


def test_connect_delay_of_minutes_is_refused() -> None:
    with pytest.raises(ValidationError, match="more than 30 s"):
        make_device("tcp://127.0.0.1", ["holding:0"], connect_delay="5 min")


async def test_close_after_poll_opens_a_connection_for_each_read() -> None:
    async with TcpPeer(registers({})) as peer:
        plc = make_device(peer.url, ["holding:0"], close_after_poll=True)
        driver = ModbusDriver([plc])
        await driver.connect()
        for _ in range(3):
            assert values(await driver.read(plc, plc.tags)) == {"t0": oracle(1, 0)}
        await driver.close()
        assert peer.connections == 3
        with pytest.raises(NotConnected):
            await driver.read(plc, plc.tags)


@pytest.mark.parametrize(
    ("url", "settings", "says"),
    [
        ("rtu:///dev/ttyS0", {"close_after_poll": True}, "a serial port stays open"),
        ("tcp://127.0.0.1", {"echo": True}, "Modbus TCP has none"),
    ],
)
def test_quirks_of_another_kind_of_link_are_refused(url: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make_device(url, ["holding:0"], **settings)


def test_devices_on_one_link_must_agree_on_its_habits() -> None:
    one = make_device("rtu:///dev/ttyS0", ["holding:0"], name="one", echo=True)
    other = make_device("rtu:///dev/ttyS0", ["holding:0"], name="other", device_id=2)
    with pytest.raises(ConfigError, match="write the same `echo`"):
        ModbusDriver([one, other])


async def test_echo_of_a_two_wire_adapter_is_dropped_however_it_is_cut() -> None:
    def reply(request: bytes) -> Answer:
        sent, answer = rtu(request), rtu(answer_to(request))
        return [(0, sent[:3]), (0.01, sent[3:] + answer[:4]), (0.01, answer[4:])]

    async with PtyPeer(reply) as peer:
        assert await read_all(peer, ["holding:7", "holding:9"], echo=True) == {"t0": oracle(1, 7), "t1": oracle(1, 9)}


async def test_echo_that_is_another_than_what_was_sent_is_no_answer() -> None:
    async with PtyPeer(lambda request: [(0, rtu(answer_to(request)))]) as peer:
        found = await read_all(peer, ["holding:7"], echo=True, timeout="100 ms")
    assert found == {"t0": ["damaged_answer"]}


# ------------------------------------------------------------------------------------------------ late and slow ones


async def after_a_late_answer(drain: str) -> Any:
    """What the next request gives when the first one's answer comes 40 ms after its time-out of 60 ms."""

    def reply(request: bytes) -> Answer:
        return [(0.1 if request[3] == 7 else 0.05, rtu(answer_to(request)))]

    async with PtyPeer(reply) as peer:
        plc = make_device(peer.url, ["holding:7", "holding:9"], timeout="60 ms", drain=drain)
        driver = ModbusDriver([plc])
        await driver.connect()
        with pytest.raises(DeviceFault):
            await driver.read(plc, plc.tags[:1])
        found = values(await driver.read(plc, plc.tags[1:]))
        await driver.close()
    return found["t1"]


async def test_answer_that_is_late_by_no_more_than_the_drain_is_never_given_to_another_request() -> None:
    assert await after_a_late_answer("60 ms") == oracle(1, 9)


async def test_drain_shorter_than_a_device_is_late_would_give_its_answer_to_another_request() -> None:
    """What the setting is for: an RTU answer bears nothing by which it could be told."""
    assert await after_a_late_answer("1 ms") == oracle(1, 7)


async def test_slow_device_keeps_the_others_on_its_link_waiting_for_its_budget_only() -> None:
    def reply(transaction: int, request: bytes) -> Answer:
        return [(0.08 if request[0] == 1 else 0, mbap(transaction, answer_to(request)))]

    async with TcpPeer(reply) as peer:
        slow = make_device(peer.url, [f"holding:{100 * n}" for n in range(10)], name="slow", budget="200 ms")
        quick = make_device(peer.url, ["holding:5"], name="quick", device_id=2)
        driver = ModbusDriver([slow, quick])
        await driver.connect()
        seen: set[str] = set()
        longest = reads = 0.0
        while len(seen) < 10 and reads < 10:
            began = time.monotonic()
            seen |= {reading.tag.short_name for reading in await driver.read(slow, slow.tags)}
            longest, reads = max(longest, time.monotonic() - began), reads + 1
            assert values(await driver.read(quick, quick.tags)) == {"t0": oracle(2, 5)}
        await driver.close()
    assert len(seen) == 10, "what had no time comes first at the next poll"
    assert 3 <= reads <= 5
    assert longest < 0.5, "the whole would take 0.8 s"


async def test_lone_device_has_no_budget_to_keep() -> None:
    async with TcpPeer(lambda transaction, request: [(0.03, mbap(transaction, answer_to(request)))]) as peer:
        found = await read_all(peer, [f"holding:{100 * n}" for n in range(6)], budget="50 ms")
    assert len(found) == 6


async def test_half_open_connection_is_found_within_three_polls() -> None:
    """The peer vanishes without a word: nothing is refused, nothing answered."""
    silent = asyncio.Event()

    def reply(transaction: int, request: bytes) -> Answer:
        return [] if silent.is_set() else [(0, mbap(transaction, answer_to(request)))]

    async with TcpPeer(reply) as peer:
        plc = make_device(peer.url, ["holding:0"], timeout="50 ms")
        driver = ModbusDriver([plc])
        await driver.connect()
        await driver.read(plc, plc.tags)
        silent.set()
        polls = 0
        with pytest.raises(NotConnected):
            while True:
                polls += 1
                try:
                    await driver.read(plc, plc.tags)
                except DeviceFault:
                    continue
        await driver.close()
    assert polls <= 3
