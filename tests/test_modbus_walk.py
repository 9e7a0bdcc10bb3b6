"""Modbus: what a scan finds, how politely, and what registers may mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modbus_peers import Answer, PtyPeer, TcpPeer, answer_to, mbap, rtu

from edge_agent.contract import ConfigError, Decodes, NotConnected, ScanFinding, ScanRequest, Scans, ScanStep
from edge_agent_modbus import ModbusDevice, ModbusDriver
from edge_agent_modbus.scan import Run, Walk

UNIT = 3


def device(url: str, **given: object) -> ModbusDevice:
    return ModbusDevice.model_validate({"driver": "modbus", "url": url, "timeout": "100 ms", **given})


async def steps_of(settings: ModbusDevice, request: ScanRequest) -> list[ScanStep]:
    assert isinstance(ModbusDriver, Scans)
    async with aclosing(ModbusDriver.scan(settings, request)) as steps:
        return [step async for step in steps]


def findings(steps: list[ScanStep]) -> list[ScanFinding]:
    return [finding for step in steps for finding in step.findings]


def body_of(request: bytes, have: Callable[[int], bool], longest: int = 125) -> bytes | None:
    """What unit 3 says, which has holding registers where `have` says so; unit 9 is behind a gateway."""
    start, count = int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
    if request[0] == 9:
        return bytes((9, request[1] | 0x80, 11))
    if request[0] != UNIT:
        return None
    if request[1] != 3:
        return bytes((UNIT, request[1] | 0x80, 1))
    if count > longest:
        return bytes((UNIT, 0x83, 3))
    if not all(have(address) for address in range(start, start + count)):
        return bytes((UNIT, 0x83, 2))
    return answer_to(request)


def tcp(have: Callable[[int], bool], longest: int = 125) -> Callable[[int, bytes], Answer]:
    def reply(number: int, request: bytes) -> Answer:
        body = body_of(request, have, longest)
        return [] if body is None else [(0, mbap(number, body))]

    return reply


async def test_scan_of_a_tcp_link_finds_the_device_and_its_runs_of_addresses() -> None:
    async with TcpPeer(tcp(lambda n: 10 <= n < 190 or n == 200)) as peer:
        request = ScanRequest((2, UNIT, 9), ("holding", "input"), 0, 220)
        steps = await steps_of(device(peer.url), request)
        assert findings(steps) == [
            ScanFinding(UNIT, note="by illegal_data_address for holding:0"),
            ScanFinding(UNIT, "holding", 10, 189),
            ScanFinding(UNIT, "holding", 200, 200),
        ]
        assert [step.done for step in steps] == list(range(1, len(steps) + 1))
        assert all(step.done <= step.total for step in steps)
        assert steps[-1].done == steps[-1].total == len(peer.requests)
        assert len(peer.requests) < 100
        assert {body[1] for body in peer.requests} <= {1, 2, 3, 4}, "it only reads"


async def test_scan_without_tables_asks_only_who_is_there() -> None:
    async with TcpPeer(tcp(lambda n: True)) as peer:
        steps = await steps_of(device(peer.url), ScanRequest((UNIT,)))
        assert findings(steps) == [ScanFinding(UNIT)]
        assert len(peer.requests) == 1


async def test_scan_of_a_serial_line_finds_its_devices() -> None:
    async with PtyPeer(lambda said: [(0, rtu(body))] if (body := body_of(said, lambda n: n < 3)) else []) as peer:
        steps = await steps_of(device(peer.url), ScanRequest((1, UNIT), ("holding",), 0, 9))
        assert findings(steps) == [ScanFinding(UNIT), ScanFinding(UNIT, "holding", 0, 2)]


async def test_scan_leaves_at_least_20_ms_between_requests() -> None:
    moments: list[float] = []

    def reply(number: int, request: bytes) -> Answer:
        moments.append(time.monotonic())
        return tcp(lambda n: n % 2 == 0)(number, request)

    async with TcpPeer(reply) as peer:
        await steps_of(device(peer.url), ScanRequest((UNIT,), ("holding",), 0, 9))
    assert len(moments) > 10
    assert min(later - earlier for earlier, later in pairwise(moments)) >= 0.019


async def test_scan_of_a_device_that_refuses_long_requests_says_what_to_set() -> None:
    async with TcpPeer(tcp(lambda n: n < 300, longest=20)) as peer:
        steps = await steps_of(device(peer.url), ScanRequest((UNIT,), ("holding",), 0, 320))
    (found,) = findings(steps)[1:]
    assert (found.first, found.last) == (0, 299)
    assert "max_read: 16" in found.note


async def test_scan_of_a_device_that_falls_silent_gives_up_on_the_table() -> None:
    def reply(number: int, request: bytes) -> Answer:
        body = body_of(request, lambda n: n < 4)
        return [] if body is None or body[1] & 0x80 else [(0, mbap(number, body))]

    async with TcpPeer(reply) as peer:
        steps = await steps_of(device(peer.url, timeout="10 ms"), ScanRequest((UNIT,), ("holding",), 0, 65535))
        assert findings(steps)[1][:4] == (UNIT, "holding", 0, 3)
        assert findings(steps)[2] == (UNIT, "holding", 4, 65535, "not tried: it fell silent")
        assert len(peer.requests) < 60


async def test_scan_that_is_closed_early_closes_its_link() -> None:
    async with TcpPeer(tcp(lambda n: True)) as peer:
        steps = ModbusDriver.scan(device(peer.url), ScanRequest((UNIT,), ("holding",), 0, 9999))
        await anext(steps)
        await steps.aclose()
        assert len(peer.requests) == 1
        steps = ModbusDriver.scan(device(peer.url), ScanRequest((UNIT,), ("holding",), 0, 9999))
        await anext(steps)
        await anext(steps)
        await steps.aclose()
        assert len(peer.requests) == 3


async def test_scan_goes_on_where_a_peer_hangs_up_on_a_foreign_id() -> None:
    def ok(number: int, said: bytes) -> Answer:
        return tcp(lambda n: n < 5)(number, said)

    async with TcpPeer(lambda number, said: [(0, b"\1\2\3\4\5\6\7\10")] if said[0] == 1 else ok(number, said)) as peer:
        steps = await steps_of(device(peer.url), ScanRequest((1, UNIT), ("holding",), 0, 9))
    first, second, run = findings(steps)
    assert first.device_id == 1
    assert "damaged" in first.note
    assert (second, run[:4]) == (ScanFinding(UNIT), (UNIT, "holding", 0, 4))


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ScanRequest(()), "from 0 to 255"),
        (ScanRequest((256,)), "from 0 to 255"),
        (ScanRequest((1,), ("registers",)), "no table registers; there are: coil, discrete, input, holding"),
        (ScanRequest((1,), ("holding",), 5, 70000), "addresses go from 0 to 65535"),
    ],
)
async def test_scan_request_that_cannot_be_meant_is_refused(request_: ScanRequest, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        await steps_of(device("tcp://127.0.0.1:1"), request_)


async def test_scan_keeps_the_settings_of_the_device() -> None:
    async with TcpPeer(tcp(lambda n: 5 <= n < 90)) as peer:
        settings = device(peer.url, forbidden=["holding:20-29", "holding:0-9"], address_offset=-2, max_read=16)
        steps = await steps_of(settings, ScanRequest((UNIT,), ("holding",), 2, 101))
        assert findings(steps) == [
            ScanFinding(UNIT),
            ScanFinding(UNIT, "holding", 10, 19),
            ScanFinding(UNIT, "holding", 30, 91),
        ]
        asked = [(int.from_bytes(said[2:4], "big"), int.from_bytes(said[4:6], "big")) for said in peer.requests]
        assert all(count <= 16 for _, count in asked)
        touched = {n for start, count in asked for n in range(start, start + count)}
        assert not touched & (set(range(8)) | set(range(18, 28)))
        with pytest.raises(ConfigError, match="reach into the device's `forbidden`"):
            await ModbusDriver.fetch(settings, "holding:18", 4)


async def test_scan_of_a_link_that_is_not_there_says_so() -> None:
    with pytest.raises(NotConnected, match="refused"):
        await steps_of(device("tcp://127.0.0.1:1"), ScanRequest((1,)))


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 150)), st.integers(1, 125), st.integers(1, 125))
def test_walk_finds_exactly_the_addresses_that_are_there(have: set[int], most: int, limit: int) -> None:
    walk = Walk([Run(0, 150)], most)
    steps = walk.steps()
    asked = 0
    try:
        start, count = next(steps)
        while True:
            asked += 1
            given = count <= limit and have.issuperset(range(start, start + count))
            start, count = steps.send(given)
    except StopIteration:
        pass
    assert {n for first, last in walk.runs for n in range(first, last + 1)} == have
    assert all(b.first > a.last + 1 for a, b in pairwise(walk.runs))
    assert asked <= 2 * 151 + 10


# ---------------------------------------------------------------------------------------------- decoding


def test_decode_shows_each_type_in_each_order_as_the_driver_reads_it() -> None:
    assert isinstance(ModbusDriver, Decodes)
    decodings = ModbusDriver.decode(bytes.fromhex("200047F1"))
    by_way = {(one.settings["type"], one.settings.get("word_order", "ABCD")): one for one in decodings}
    assert by_way["float32", "CDAB"].value == 123456.0
    assert by_way["float32", "CDAB"].plausible
    assert by_way["uint16", "ABCD"].value == 0x2000
    assert by_way["uint16", "BADC"].value == 0x0020
    assert by_way["uint32", "DCBA"].value == 0xF1470020
    assert not any(one.settings["type"].endswith("64") for one in decodings)
    assert not by_way["float32", "ABCD"].plausible  # 1.1e-19


def test_decode_says_why_bytes_mean_nothing() -> None:
    decodings = ModbusDriver.decode(bytes.fromhex("7FC00000FFFFFFFF"))
    nan = next(one for one in decodings if one.settings == {"type": "float32"})
    assert (nan.value, nan.cause, nan.plausible) == (None, "not_a_number", False)
    assert not [one for one in decodings if one.settings["type"] == "string"]
    assert ModbusDriver.decode(b"\0") == []


async def test_fetch_gives_the_registers_as_they_came() -> None:
    async with TcpPeer(tcp(lambda n: n < 20)) as peer:
        data = await ModbusDriver.fetch(device(peer.url, device_id=UNIT), "40011", 2)
        assert data == answer_to(bytes((UNIT, 3, 0, 10, 0, 2)))[3:]
        with pytest.raises(NotConnected, match="refuses holding:19: illegal_data_address"):
            await ModbusDriver.fetch(device(peer.url, device_id=UNIT), "holding:19", 2)
        with pytest.raises(ConfigError, match="is a bit"):
            await ModbusDriver.fetch(device(peer.url, device_id=UNIT), "coil:19", 1)
        with pytest.raises(NotConnected, match="does not answer"):
            await ModbusDriver.fetch(device(peer.url, device_id=4), "holding:1", 1)
