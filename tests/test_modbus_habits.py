"""Modbus: the settings for devices, adapters and links that have their own ways."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
from modbus_peers import Answer, PtyPeer, TcpPeer, answer_to, make_device, mbap, oracle, rtu, values
from pydantic import ValidationError

from edge_agent.contract import ConfigError, DeviceFault, NotConnected
from edge_agent_modbus import ModbusDevice, ModbusDriver, ModbusTag

DOCS = Path(__file__).parent.parent / "docs" / "modbus.md"
QUICK = {"timeout": "60 ms"}


def right(number: int, request: bytes) -> Answer:
    return [(0, mbap(number, answer_to(request)))]


# ----------------------------------------------------------------------------- mistakes that are found early


@pytest.mark.parametrize(
    ("tags", "settings", "says"),
    [
        (
            ["holding:250"],
            {"forbidden": ["holding:200-299"]},
            r"plc\.t0: its address lies in forbidden, holding:200-299",
        ),
        (
            [{"address": "holding:199", "type": "uint32"}],
            {"forbidden": ["40201"]},
            r"plc\.t0: its address lies in forbidden, 40201",
        ),
        (["holding:1", "holding:0"], {"address_offset": -1}, r"plc\.t1: with address_offset -1"),
        ([{"address": "holding:0", "count": 20}], {"max_read": 19}, r"plc\.t0: it takes 20 registers"),
        ([{"address": "holding:0", "type": "float64"}], {"max_read": 2}, r"plc\.t0: it takes 4 registers"),
        (
            [{"address": "holding:0", "count": 20}, {"address": "holding:40", "count": 21}],
            {"max_read": 19},
            r"plc\.t0: it takes 20 registers.*; plc\.t1: it takes 21 registers",
        ),
    ],
)
def test_tag_that_its_device_cannot_have_is_refused_by_name(tags: list[Any], settings: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ModbusDriver([make_device("tcp://x", tags, **settings)])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"forbidden": ["holding:9-2"]}, "no range of addresses"),
        ({"forbidden": ["holding:2.1-3"]}, "no range of addresses"),
        ({"forbidden": ["holding"]}, "not a Modbus address"),
        ({"echo": True}, "Modbus TCP has none"),
        ({"url": "rtu:///dev/x", "close_after_poll": True}, "a serial port stays open"),
        ({"connect_delay": "31 s"}, "more than 30 s"),
        ({"budget": "0 s"}, "budget"),
    ],
)
def test_device_setting_that_cannot_be_meant_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ModbusDevice.model_validate({"driver": "modbus", "url": "tcp://x", **settings})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"type": "float32", "word_order": "GHEFCDAB"}, "write CDAB"),
        ({"type": "uint32", "count": 63}, "at most 62"),
        ({"count": 126}, "at most 125"),
        ({"count": 0}, "greater than or equal to 1"),
        ({"type": "string", "length": 4, "count": 2}, "has no count"),
        ({"address": "coil:1", "count": 2}, "has no count"),
        ({"count": 2, "scale": 0.1}, "an array is stored as it is"),
    ],
)
def test_tag_setting_that_cannot_be_meant_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ModbusTag.model_validate({"address": "holding:0", **settings})


def test_devices_on_a_line_must_agree_on_its_echo() -> None:
    one = make_device("rtu:///dev/x", ["holding:1"], "a", echo=True)
    other = make_device("rtu:///dev/x", ["holding:1"], "b", device_id=2)
    with pytest.raises(ConfigError, match="write the same `echo` for all of them"):
        ModbusDriver([one, other])


# ------------------------------------------------------------------------------------------------- addresses


async def test_address_offset_is_added_in_both_notations() -> None:
    async with TcpPeer(right) as peer:
        device = make_device(peer.url, ["holding:11", "40013", "holding:13.0"], address_offset=-1)
        driver = ModbusDriver([device])
        await driver.connect()
        got = values(await driver.read(device, device.tags))
        await driver.close()
    assert got == {"t0": oracle(1, 10), "t1": oracle(1, 11), "t2": bool(oracle(1, 12) & 1)}


# ------------------------------------------------------------------------------------------------ connecting


async def test_connect_delay_is_waited_before_the_first_request() -> None:
    async with TcpPeer(right) as peer:
        device = make_device(peer.url, ["holding:1"], connect_delay="80 ms")
        driver = ModbusDriver([device])
        began = time.monotonic()
        await driver.connect()
        assert values(await driver.read(device, device.tags)) == {"t0": oracle(1, 1)}
        assert time.monotonic() - began >= 0.08
        await driver.close()


async def test_close_after_poll_hangs_up_between_polls_and_only_then() -> None:
    async with TcpPeer(right) as peer:
        device = make_device(peer.url, ["holding:1", "holding:90"], close_after_poll=True)
        driver = ModbusDriver([device])
        await driver.connect()
        for round_ in range(1, 4):
            assert values(await driver.read(device, device.tags)) == {"t0": oracle(1, 1), "t1": oracle(1, 90)}
            assert peer.connections == round_
            await asyncio.wait_for(peer.alone(), 5)
        await driver.close()
        with pytest.raises(NotConnected):
            await driver.read(device, device.tags)
        assert peer.connections == 3


# ------------------------------------------------------------------------------------------------------ echo


async def test_echo_of_the_request_is_taken_off() -> None:
    async with PtyPeer(lambda said: [(0, rtu(said)), (0.001, rtu(answer_to(said)))]) as peer:
        device = make_device(peer.url, ["holding:1", "holding:90"], echo=True, **QUICK)
        driver = ModbusDriver([device])
        await driver.connect()
        for _ in range(3):
            assert values(await driver.read(device, device.tags)) == {"t0": oracle(1, 1), "t1": oracle(1, 90)}
        await driver.close()


@pytest.mark.parametrize("damage", [b"\0", b"\xff\xff\xff\xff\xff\xff\xff\xff", b""])
async def test_echo_that_differs_is_nonsense(damage: bytes) -> None:
    async with PtyPeer(lambda said: [(0, damage + rtu(answer_to(said)))]) as peer:
        device = make_device(peer.url, ["holding:1"], echo=True, **QUICK)
        driver = ModbusDriver([device])
        await driver.connect()
        assert values(await driver.read(device, device.tags)) == {"t0": ["damaged_answer"]}
        await driver.close()


async def test_echo_without_an_answer_is_silence() -> None:
    async with PtyPeer(lambda said: [(0, rtu(said))]) as peer:
        device = make_device(peer.url, ["holding:1"], echo=True, **QUICK)
        driver = ModbusDriver([device])
        await driver.connect()
        with pytest.raises(DeviceFault, match="does not answer"):
            await driver.read(device, device.tags)
        await driver.close()


# ------------------------------------------------------------------------------------------- drain and budget


async def test_drain_keeps_the_line_alone_for_as_long_as_an_answer_may_be_late() -> None:
    late = iter([0.25] + [0.0] * 9)
    async with PtyPeer(lambda said: [(next(late), rtu(answer_to(said)))]) as peer:
        device = make_device(peer.url, ["holding:1", "holding:30"], drain="300 ms", **QUICK)
        driver = ModbusDriver([device])
        await driver.connect()
        with pytest.raises(DeviceFault):
            await driver.read(device, device.tags[:1])
        assert values(await driver.read(device, device.tags[1:])) == {"t1": oracle(1, 30)}
        await driver.close()


async def test_drain_of_nothing_gives_late_answers_away() -> None:
    """What the drain is for: without it the wrong value comes."""
    late = iter([0.1] + [0.05] * 9)
    async with PtyPeer(lambda said: [(next(late), rtu(answer_to(said)))]) as peer:
        device = make_device(peer.url, ["holding:1", "holding:30"], drain="0 s", **QUICK)
        driver = ModbusDriver([device])
        await driver.connect()
        with pytest.raises(DeviceFault):
            await driver.read(device, device.tags[:1])
        assert values(await driver.read(device, device.tags[1:])) == {"t1": oracle(1, 1)}
        await driver.close()


async def test_budget_ends_a_read_on_a_shared_link_and_the_next_begins_with_the_rest() -> None:
    async with TcpPeer(lambda number, said: [(0.03 if said[0] == 1 else 0.0, mbap(number, answer_to(said)))]) as peer:
        slow = make_device(peer.url, [f"holding:{50 * n}" for n in range(6)], budget="75 ms")
        quick = make_device(peer.url, ["holding:7"], "b", device_id=2)
        driver = ModbusDriver([slow, quick])
        await driver.connect()
        seen: list[dict[str, Any]] = []
        for _ in range(4):
            seen.append(values(await driver.read(slow, slow.tags)))
            assert values(await driver.read(quick, quick.tags)) == {"t0": oracle(2, 7)}
        await driver.close()
    assert all(0 < len(got) < 6 for got in seen)
    order = [name for got in seen for name in got]
    assert order == [f"t{n % 6}" for n in range(len(order))]
    assert {name: value for got in seen for name, value in got.items()} == {
        f"t{n}": oracle(1, 50 * n) for n in range(6)
    }


async def test_budget_of_a_device_that_is_alone_does_not_cut_its_reads() -> None:
    async with TcpPeer(lambda number, said: [(0.02, mbap(number, answer_to(said)))]) as peer:
        device = make_device(peer.url, [f"holding:{50 * n}" for n in range(6)], budget="20 ms")
        driver = ModbusDriver([device])
        await driver.connect()
        assert len(await driver.read(device, device.tags)) == 6
        await driver.close()


# ------------------------------------------------------------------------------------------------------ docs


def test_docs_name_every_setting() -> None:
    text = DOCS.read_text(encoding="utf-8")
    keys = [*ModbusDevice.model_fields, *ModbusTag.model_fields]
    assert [key for key in keys if not re.search(rf"`{key}[`:]", text)] == []
