"""Modbus: no value is ever credited to another register, unit or device, whatever the peer says."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from modbus_peers import Answer, PtyPeer, TcpPeer, answer_to, make_device, mbap, oracle, rtu, values

from edge_agent.contract import Device, DeviceFault, NotConnected, ProtocolFault, Quality
from edge_agent_modbus import ModbusDriver

TIMEOUT_S = 0.06
QUICK = {"timeout": "60 ms"}

# ------------------------------------------------------------------------------------ what a peer may say


def wrong_unit(body: bytes) -> bytes:
    return bytes((body[0] % 247 + 1,)) + body[1:]


def wrong_function(body: bytes) -> bytes:
    return body[:1] + bytes((7 - body[1],)) + body[2:]


def too_many(body: bytes) -> bytes:
    return body[:2] + bytes((body[2] + 2,)) + b"\x12\x34" + body[3:]


def too_few(body: bytes) -> bytes:
    return body[:2] + bytes((body[2] - 2,)) + body[5:]


def odd(body: bytes) -> bytes:
    return body[:2] + bytes((body[2] - 1,)) + body[4:]


def lying_count(body: bytes) -> bytes:
    return body[:2] + bytes((body[2] + 2,)) + body[3:]


WRONG_BODIES = [wrong_unit, wrong_function, too_many, too_few, odd, lying_count]


def tcp_fault(kind: str, transaction: int, request: bytes, chance: random.Random) -> Answer:
    body = answer_to(request)
    right = mbap(transaction, body)
    foreign = answer_to(request[:2] + bytes((request[2] ^ 2,)) + request[3:])  # the same count, from elsewhere
    cut = chance.randrange(1, len(right))
    said: dict[str, Callable[[], Answer]] = {
        "right": lambda: [(0, right)],
        "late": lambda: [(TIMEOUT_S * chance.uniform(1.1, 1.6), right)],
        "transaction": lambda: [(0, mbap(transaction + chance.choice([-1, 1, 256]) & 0xFFFF, foreign))],
        "transaction 0": lambda: [(0, mbap(0, foreign))],
        "protocol": lambda: [(0, mbap(transaction, foreign, protocol=1))],
        "truncated": lambda: [(0, right[:cut])],
        "trickled": lambda: [(0.0005, bytes((byte,))) for byte in right],
        "halves": lambda: [(0, right[:cut]), (TIMEOUT_S * 1.5, right[cut:])],
        "garbage": lambda: [(0, chance.randbytes(chance.randrange(1, 40)))],
        "foreign first": lambda: [(0, mbap(transaction - 1 & 0xFFFF, foreign) + right)],
        "silent": list,
    }
    if kind in said:
        return said[kind]()
    wrong = {body.__name__: body for body in WRONG_BODIES}[kind]
    return [(0, mbap(transaction, wrong(foreign)))]


TCP_KINDS = [
    "late", "transaction", "transaction 0", "protocol", "truncated", "trickled", "halves", "garbage", "foreign first",
    "silent", *(body.__name__ for body in WRONG_BODIES),
]  # fmt: skip


def rtu_fault(kind: str, request: bytes, chance: random.Random) -> Answer:
    right = rtu(answer_to(request))
    foreign = answer_to(request[:2] + bytes((request[2] ^ 2,)) + request[3:])
    cut = chance.randrange(1, len(right))
    said: dict[str, Callable[[], Answer]] = {
        "right": lambda: [(0, right)],
        "late": lambda: [(TIMEOUT_S * chance.uniform(1.1, 1.6), right)],
        "truncated": lambda: [(0, right[:cut])],
        "halves": lambda: [(0, right[:cut]), (TIMEOUT_S * 1.5, right[cut:])],
        "flipped": lambda: [(0, flip(right, chance, chance.randint(1, 3)))],
        "burst": lambda: [(0, burst(right, chance))],
        "garbage": lambda: [(0, chance.randbytes(chance.randrange(1, 40)))],
        "stray first": lambda: [(0, chance.choice([b"\0", b"\xff", b"\0\xff\0"]) + right)],
        "stray after": lambda: [(0, right + b"\0")],
        "silent": list,
    }
    if kind in said:
        return said[kind]()
    wrong = {body.__name__: body for body in WRONG_BODIES}[kind]
    return [(0, rtu(wrong(foreign)))]


RTU_KINDS = [
    "late", "truncated", "halves", "flipped", "burst", "garbage", "stray first", "stray after", "silent",
    *(body.__name__ for body in WRONG_BODIES),
]  # fmt: skip


def flip(frame: bytes, chance: random.Random, bits: int) -> bytes:
    value = int.from_bytes(frame, "big")
    for bit in chance.sample(range(8 * len(frame)), bits):
        value ^= 1 << bit
    return value.to_bytes(len(frame), "big")


def burst(frame: bytes, chance: random.Random) -> bytes:
    """Up to 16 neighbouring bits, as they follow each other on the line: the least significant of each byte first."""
    shift = chance.randrange(8 * len(frame) - 15)
    return (int.from_bytes(frame, "little") ^ chance.randrange(1, 1 << 16) << shift).to_bytes(len(frame), "little")


# ----------------------------------------------------------------------------------------- the long way round


@asynccontextmanager
async def driving(*devices: Device) -> Any:
    driver = ModbusDriver(devices)
    await driver.connect()
    try:
        yield driver
    finally:
        await driver.close()


async def tally(device: Device, rounds: int) -> Counter[str]:
    """Read three blocks by turns, as the poller would; what came of each tag."""
    driver = ModbusDriver([device])
    groups = [tuple(device.tags[at : at + 4]) for at in range(0, len(device.tags), 4)]
    counts: Counter[str] = Counter()
    try:
        await driver.connect()
        for round_ in range(rounds):
            try:
                readings = await driver.read(device, groups[round_ % len(groups)])
            except DeviceFault:
                counts["fault"] += 1
            except NotConnected:
                counts["lost"] += 1
                await driver.close()
                await driver.connect()
            else:
                for reading in readings:
                    counts[verdict(device, reading)] += 1
    finally:
        await driver.close()
    return counts


def verdict(device: Device, reading: Any) -> str:
    if reading.quality is Quality.BAD:
        return "bad"
    right = oracle(device.settings.device_id, reading.tag.settings.field().start)  # type: ignore[attr-defined]
    return "right" if reading.value == right else "wrong"


def blocks(unit: int = 5) -> list[str]:
    return [f"holding:{unit * 100 + base + n}" for base in (0, 30, 60) for n in range(4)]


@pytest.mark.parametrize("seed", [1, 2])
async def test_values_from_a_hostile_tcp_peer_are_right_or_absent(seed: int) -> None:
    chance = random.Random(seed)
    kinds = _by_turns(TCP_KINDS, chance)
    async with TcpPeer(lambda transaction, request: tcp_fault(next(kinds), transaction, request, chance)) as peer:
        counts = await tally(make_device(peer.url, blocks(), device_id=5, **QUICK), 70)
    assert counts["wrong"] == 0
    assert counts["right"] >= 40, counts
    assert counts["bad"], counts
    assert counts["fault"], counts


@pytest.mark.parametrize("seed", [1, 2])
async def test_values_from_a_hostile_serial_line_are_right_or_absent(seed: int) -> None:
    chance = random.Random(seed)
    kinds = _by_turns(RTU_KINDS, chance)
    async with PtyPeer(lambda request: rtu_fault(next(kinds), request, chance)) as peer:
        counts = await tally(make_device(peer.url, blocks(), device_id=5, **QUICK), 50)
    assert counts["wrong"] == 0
    assert counts["right"] >= 20, counts
    assert counts["bad"] + counts["lost"], counts


def _by_turns(kinds: list[str], chance: random.Random) -> Iterator[str]:
    """A fault, then a right answer, and each fault in turn; now and then two faults in a row."""
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            yield kind
            if chance.random() < 0.9:
                yield "right"


async def test_late_serial_answers_are_never_given_to_the_next_request() -> None:
    late = iter([True, False] * 100)
    async with PtyPeer(lambda request: [(TIMEOUT_S * 1.3 * next(late), rtu(answer_to(request)))]) as peer:
        counts = await tally(make_device(peer.url, blocks(), device_id=5, **QUICK), 20)
    assert counts["wrong"] == 0
    assert counts["right"] >= 12, counts
    assert counts["fault"] >= 5, counts


async def test_unasked_serial_answer_must_die_away_before_the_next_request() -> None:
    async with PtyPeer(lambda request: [(0, rtu(answer_to(request)))]) as peer:
        device = make_device(peer.url, ["holding:1", "holding:30"], timeout="200 ms")
        async with driving(device) as driver:
            await driver.read(device, device.tags)
            peer.say(rtu(answer_to(peer.requests[0])))  # once more, as some gateways do
            await asyncio.sleep(0.02)
            began = time.monotonic()
            assert values(await driver.read(device, device.tags[1:])) == {"t1": oracle(1, 30)}
            assert time.monotonic() - began >= 0.15


@pytest.mark.parametrize("said", [b"\0\1\0\0\0", b"GET / HTTP/1.1\r\n"])
async def test_tcp_stream_without_boundaries_is_dropped_with_its_bytes(said: bytes) -> None:
    async with TcpPeer(lambda _number, _request: [(0, said)]) as peer:
        device = make_device(peer.url, ["holding:1"], **QUICK)
        async with driving(device) as driver:
            with pytest.raises(ProtocolFault, match=said.hex(" ")):
                await driver.read(device, device.tags)
            with pytest.raises(NotConnected, match="lost their boundaries"):
                await driver.read(device, device.tags)
            peer.reply = lambda number, request: [(0, mbap(number, answer_to(request)))]
            await driver.close()
            await driver.connect()
            assert values(await driver.read(device, device.tags)) == {"t0": oracle(1, 1)}


async def test_truncated_tcp_answer_filled_up_by_a_late_one_is_not_taken() -> None:
    held: list[bytes] = []

    def reply(number: int, request: bytes) -> Answer:
        right = mbap(number, answer_to(request))
        if not held:
            held.append(right)
            return []
        return [(0, right[: -len(held[0])]), (0.001, held[0])]

    async with TcpPeer(reply) as peer:
        device = make_device(peer.url, ["holding:1", *(f"holding:{n}" for n in range(30, 50))], **QUICK)
        async with driving(device) as driver:
            with pytest.raises(DeviceFault):
                await driver.read(device, device.tags[:1])
            got = values(await driver.read(device, device.tags[1:]))
            assert got == {f"t{n}": ["damaged_answer"] for n in range(1, 21)}


async def test_late_tcp_answer_that_comes_in_two_halves_is_dropped_whole() -> None:
    held: list[bytes] = []

    def reply(number: int, request: bytes) -> Answer:
        held.append(mbap(number, answer_to(request)))
        if len(held) == 1:
            return [(TIMEOUT_S * 1.3, held[0][:8])]
        return [(0, held[0][8:] + held[1])]

    async with TcpPeer(reply) as peer:
        device = make_device(peer.url, ["holding:1", "holding:30"], pause=f"{int(TIMEOUT_S * 1000)} ms", **QUICK)
        async with driving(device) as driver:
            with pytest.raises(DeviceFault):
                await driver.read(device, device.tags[:1])
            await asyncio.sleep(TIMEOUT_S)
            assert values(await driver.read(device, device.tags[1:])) == {"t1": oracle(1, 30)}


async def test_late_tcp_answer_is_dropped_and_the_connection_goes_on() -> None:
    held: list[bytes] = []

    def reply(number: int, request: bytes) -> Answer:
        held.append(mbap(number, answer_to(request)))
        return [] if len(held) == 1 else [(0, b"".join(held))]

    async with TcpPeer(reply) as peer:
        device = make_device(peer.url, ["holding:1", "holding:30"], **QUICK)
        async with driving(device) as driver:
            with pytest.raises(DeviceFault):
                await driver.read(device, device.tags[:1])
            assert values(await driver.read(device, device.tags[1:])) == {"t1": oracle(1, 30)}
            assert peer.connections == 1


async def test_serial_answer_of_the_lost_connection_is_not_taken_by_the_next_one() -> None:
    async with PtyPeer(lambda request: [(TIMEOUT_S * 1.5, rtu(answer_to(request)))]) as peer:
        device = make_device(peer.url, ["holding:1", "holding:30"], **QUICK)
        async with driving(device) as driver:
            with pytest.raises(DeviceFault):
                await driver.read(device, device.tags[:1])
            await driver.close()
            await driver.connect()
            peer.reply = lambda request: [(0, rtu(answer_to(request)))]
            assert values(await driver.read(device, device.tags[1:])) == {"t1": oracle(1, 30)}


async def test_cancelled_serial_read_leaves_nothing_for_the_next() -> None:
    async with PtyPeer(lambda request: [(0.02, rtu(answer_to(request)))]) as peer:
        device = make_device(peer.url, ["holding:1", "holding:30"], **QUICK)
        async with driving(device) as driver:
            reading = asyncio.ensure_future(driver.read(device, device.tags[:1]))
            await peer.asked()
            reading.cancel()
            await asyncio.wait([reading])
            assert values(await driver.read(device, device.tags[1:])) == {"t1": oracle(1, 30)}


async def test_cancelled_tcp_read_leaves_nothing_for_the_next() -> None:
    async with TcpPeer(lambda number, request: [(0.02, mbap(number, answer_to(request)))]) as peer:
        device = make_device(peer.url, ["holding:1", "holding:30"], **QUICK)
        async with driving(device) as driver:
            reading = asyncio.ensure_future(driver.read(device, device.tags[:1]))
            await peer.asked()
            reading.cancel()
            await asyncio.wait([reading])
            assert values(await driver.read(device, device.tags[1:])) == {"t1": oracle(1, 30)}
            assert peer.connections == 1


@pytest.mark.parametrize("wrong", WRONG_BODIES)
async def test_wrong_tcp_answer_is_bad_once_and_a_protocol_fault_twice(wrong: Callable[[bytes], bytes]) -> None:
    async with TcpPeer(lambda number, request: [(0, mbap(number, wrong(answer_to(request))))]) as peer:
        device = make_device(peer.url, ["holding:1", "holding:2"])
        async with driving(device) as driver:
            assert values(await driver.read(device, device.tags)) == {
                "t0": ["damaged_answer"],
                "t1": ["damaged_answer"],
            }
            shown = wrong(answer_to(b"\1\3\0\1\0\2")).hex(" ")
            with pytest.raises(ProtocolFault, match=shown):
                await driver.read(device, device.tags)


async def test_babbling_tcp_peer_is_cut_off() -> None:
    async with TcpPeer(lambda number, request: [(0, mbap(number, answer_to(request))), (0, b"\x55" * 100_000)]) as peer:
        device = make_device(peer.url, ["holding:1"])
        async with driving(device) as driver:
            with pytest.raises(NotConnected, match="without being asked"):
                for _ in range(5):
                    await driver.read(device, device.tags)
                    await asyncio.sleep(0.01)


async def test_frames_on_a_serial_line_are_apart_by_the_silence_of_the_line() -> None:
    async with PtyPeer(lambda request: [(0, rtu(answer_to(request)))]) as peer:
        device = make_device(peer.url.replace("115200", "1200"), ["holding:1", "holding:30", "holding:60"])
        async with driving(device) as driver:
            began = time.monotonic()
            await driver.read(device, device.tags)
            assert time.monotonic() - began > 2 * 3.5 * 11 / 1200
