"""Modbus commissioning: who answers, which addresses there are, and what registers mean."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from modbus_peers import Answer, PtyPeer, TcpPeer, answer_to, mbap, rtu

from edge_agent.contract import ConfigError, Decodes, NotConnected, ScanFinding, ScanRequest, Scans
from edge_agent_modbus import ModbusDevice, ModbusDriver, scan

HOLES = {7: {("holding", 0, 99), ("holding", 150, 200), ("input", 10, 10)}, 9: {("holding", 5, 300)}}
FUNCTIONS = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}


def plant(request: bytes) -> bytes | None:
    """Devices 7 and 9 have some addresses, 11 refuses all, the rest is silent."""
    unit, function = request[0], request[1]
    start, count = int.from_bytes(request[2:4], "big"), int.from_bytes(request[4:6], "big")
    if unit == 11:
        return bytes((unit, function | 0x80, 1))
    if unit not in HOLES:
        return None
    for table, first, last in HOLES[unit]:
        if FUNCTIONS[function] == table and first <= start and start + count - 1 <= last:
            return answer_to(request)
    return bytes((unit, function | 0x80, 2))


def over_tcp(transaction: int, request: bytes) -> Answer:
    answer = plant(request)
    return [] if answer is None else [(0, mbap(transaction, answer))]


def over_rtu(request: bytes) -> Answer:
    answer = plant(request)
    return [] if answer is None else [(0, rtu(answer))]


def settings(url: str, **more: Any) -> ModbusDevice:
    return ModbusDevice.model_validate({"driver": "modbus", "url": url, "timeout": "40 ms", **more})


async def scanned(url: str, request: ScanRequest, **more: Any) -> tuple[list[ScanFinding], int, int]:
    findings: list[ScanFinding] = []
    done = total = 0
    async for step in ModbusDriver.scan(settings(url, **more), request):
        findings += step.findings
        assert step.done >= done
        assert step.total >= step.done
        done, total = step.done, step.total
    return findings, done, total


def found(findings: list[ScanFinding]) -> list[tuple[int, str | None, int, int]]:
    return [one[:4] for one in findings]


def test_driver_has_the_powers_of_commissioning() -> None:
    assert isinstance(ModbusDriver, Scans)
    assert isinstance(ModbusDriver, Decodes)


async def test_scan_finds_who_answers_by_data_or_by_an_exception() -> None:
    async with TcpPeer(over_tcp) as peer:
        findings, done, total = await scanned(peer.url, ScanRequest(tuple(range(6, 13))))
    assert [one.device_id for one in findings] == [7, 9, 11]
    assert findings[2].note == "by illegal_function for holding:0"
    assert done == total <= 14


async def test_scan_finds_the_runs_of_addresses_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "LEAST_PAUSE_S", 0.001)  # what it finds does not depend on its manners
    async with TcpPeer(over_tcp) as peer:
        findings, done, total = await scanned(peer.url, ScanRequest((7, 9), ("holding", "input"), 0, 399))
    assert found(findings) == [
        (7, None, 0, 0), (9, None, 0, 0),
        (7, "holding", 0, 99), (7, "holding", 150, 200), (7, "input", 10, 10), (9, "holding", 5, 300),
    ]  # fmt: skip
    assert done == total
    assert all(one[1] in (3, 4) for one in peer.requests), "it only reads"


async def test_scan_of_a_serial_line_does_the_same() -> None:
    async with PtyPeer(over_rtu) as peer:
        findings, _, _ = await scanned(peer.url, ScanRequest((6, 7, 8), ("input",), 0, 20))
    assert found(findings) == [(7, None, 0, 0), (7, "input", 10, 10)]


async def test_scan_goes_on_where_a_device_closes_the_connection() -> None:
    def reply(transaction: int, request: bytes) -> Answer:
        return [(0, b"\xff" * 9)] if request[0] == 8 else over_tcp(transaction, request)

    async with TcpPeer(reply) as peer:
        findings, _, _ = await scanned(peer.url, ScanRequest((7, 8, 9)))
    assert [(one.device_id, "damaged" in one.note) for one in findings] == [(7, False), (8, True), (9, False)]


async def test_scan_of_a_device_that_falls_silent_says_what_was_not_tried() -> None:
    asked = 0

    def reply(transaction: int, request: bytes) -> Answer:
        nonlocal asked
        asked += 1
        return over_tcp(transaction, request) if asked < 3 else []

    async with TcpPeer(reply) as peer:
        findings, _, _ = await scanned(peer.url, ScanRequest((9,), ("holding",), 0, 1_000))
        assert asked < 30, "a dead device is not asked a thousand times"
    assert findings[-1].note == "not tried: it fell silent"


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ScanRequest((1,), ("holdng",)), "no table holdng"),
        (ScanRequest((300,)), "from 0 to 255"),
        (ScanRequest(()), "from 0 to 255"),
        (ScanRequest((1,), ("holding",), 5, 4), "addresses go from 0"),
    ],
)
async def test_scan_that_cannot_be_meant_says_why(request_: ScanRequest, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        await scanned("tcp://127.0.0.1:1", request_)


async def test_scan_of_nobody_is_not_connected() -> None:
    with pytest.raises(NotConnected, match="refused"):
        await scanned("tcp://127.0.0.1:9", ScanRequest((1,)))


# ------------------------------------------------------------------------------------------------------- decode


def meanings(data: bytes) -> dict[tuple[str, str], Any]:
    return {
        (one.settings["type"], one.settings.get("word_order", "ABCD")): one.value for one in ModbusDriver.decode(data)
    }


@pytest.mark.parametrize("order", ["ABCD", "CDAB", "BADC", "DCBA"])
def test_decode_shows_a_float_in_the_order_in_which_it_came(order: str) -> None:
    value = struct.pack(">f", 123456.0)
    came = bytes(value["ABCD".index(letter)] for letter in order)
    assert meanings(came)["float32", order] == 123456.0


def test_decode_tells_what_cannot_be_and_what_nobody_would_keep() -> None:
    by = {
        (one.settings["type"], one.settings.get("word_order", "ABCD")): one
        for one in ModbusDriver.decode(b"\x7f\xc0\x00\x01")
    }
    assert (by["float32", "ABCD"].value, by["float32", "ABCD"].cause) == (None, "not_a_number")
    assert by["bcd16", "ABCD"].cause == "not_bcd"
    assert not by["float32", "CDAB"].plausible
    assert by["uint16", "ABCD"].plausible


def test_decode_of_letters_shows_the_text() -> None:
    assert meanings(b"A100\0\0")["string", "ABCD"] == "A100"
    assert meanings(b"1A00")["string", "BADC"] == "A100"


def test_decode_of_one_register_has_no_type_of_two() -> None:
    assert {kind for kind, _ in meanings(b"\x12\x34")} == {"int16", "uint16", "bcd16"} | {"string"} - {"string"}


async def test_fetch_reads_registers_as_they_come_and_says_why_not() -> None:
    async with TcpPeer(over_tcp) as peer:
        data = await ModbusDriver.fetch(settings(peer.url, device_id=7), "40011", 2)
        assert data == answer_to(bytes((7, 3, 0, 10, 0, 2)))[3:]
        with pytest.raises(NotConnected, match="illegal_data_address; check the address"):
            await ModbusDriver.fetch(settings(peer.url, device_id=7), "holding:120", 2)
        with pytest.raises(NotConnected, match="check the device_id"):
            await ModbusDriver.fetch(settings(peer.url, device_id=8), "holding:0", 2)
        with pytest.raises(ConfigError, match="registers are decoded"):
            await ModbusDriver.fetch(settings(peer.url), "coil:0", 2)


# -------------------------------------------------------------------------------------------------- as people type


def verb(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def plant_url() -> Any:
    """The plant in a process of its own, since the verb is one, too."""
    code = (
        "import asyncio, sys; sys.path[:0] = ['tests']\n"
        "from modbus_peers import TcpPeer\nfrom test_modbus_scan import over_tcp\n"
        "async def main():\n"
        "    async with TcpPeer(over_tcp) as peer:\n"
        "        print(peer.url, flush=True)\n"
        "        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield process.stdout.readline().strip()
    process.kill()
    process.communicate()


Check = Callable[[str], None]


def test_scan_verb_prints_what_was_found(plant_url: str) -> None:
    run = verb("scan", "modbus", plant_url, "--ids", "6-8", "--tables", "holding", "--addresses", "0-249",
               "--set", "timeout=40 ms", "--json")  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [(one["device_id"], one["table"], one["first"], one["last"]) for one in lines] == [
        (7, None, 0, 0), (7, "holding", 0, 99), (7, "holding", 150, 200),
    ]  # fmt: skip
    nobody = verb("scan", "modbus", plant_url, "--ids", "20-21", "--set", "timeout=40 ms")
    assert nobody.returncode == 1
    assert "none of 2 device ids answered" in nobody.stdout


def test_decode_verb_marks_what_fits(plant_url: str) -> None:
    run = verb("decode", "41AB 3333", "--expect", "21.4")
    assert run.returncode == 0, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if "<- fits" in line]
    assert line.startswith("type: float32")
    assert "as it is" in line
    assert verb("decode", "41AB 3333", "--expect", "77").returncode == 1
    there = verb("decode", plant_url, "holding:10", "--device-id", "7", "--count", "1", "--expect", "28.682")
    assert "scale: 0.001" in there.stdout, there.stdout + there.stderr
